<?php
// Debian `php-symfony-mercure`: the publisher of Symfony's component. Arguments: hub URL, token, topic. Prints the ids that were answered.

require 'Symfony/Component/Mercure/autoload.php';
require 'Symfony/Component/HttpClient/autoload.php';

use Symfony\Component\Mercure\Hub;
use Symfony\Component\Mercure\Jwt\StaticTokenProvider;
use Symfony\Component\Mercure\Update;

[, $url, $token, $topic] = $argv;
$hub = new Hub($url, new StaticTokenProvider($token));
$publish = function (Update $update) use ($hub) {
    echo json_encode(['id' => $hub->publish($update)]), "\n";
};

$publish(new Update($topic, "1\nline: two — é 🦀"));
$publish(new Update([$topic, $topic.'/other'], '2', false, 'urn:given:'.$topic, 'kind', 1234));
$publish(new Update($topic, 'private', true));
