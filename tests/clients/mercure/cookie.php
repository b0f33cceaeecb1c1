<?php
// Debian `php-symfony-mercure`: the cookie that its `Authorization` makes for a page. Arguments: hub URL, page URL, token. Prints the field's value.

require 'Symfony/Component/Mercure/autoload.php';
require 'Symfony/Component/HttpClient/autoload.php';
require 'Symfony/Component/HttpFoundation/autoload.php';

use Symfony\Component\HttpFoundation\Request;
use Symfony\Component\Mercure\Authorization;
use Symfony\Component\Mercure\Hub;
use Symfony\Component\Mercure\HubRegistry;
use Symfony\Component\Mercure\Jwt\StaticTokenProvider;
use Symfony\Component\Mercure\Jwt\TokenFactoryInterface;

[, $url, $page, $token] = $argv;
// The token comes from outside: what is tested is the cookie, not the library that signs.
$factory = new class($token) implements TokenFactoryInterface {
    public function __construct(private string $token)
    {
    }

    public function create(?array $subscribe = [], ?array $publish = [], array $additionalClaims = []): string
    {
        return $this->token;
    }
};
$hub = new Hub($url, new StaticTokenProvider($token), $factory);
$cookie = (new Authorization(new HubRegistry($hub)))->createCookie(Request::create($page));
echo json_encode(['cookie' => (string) $cookie]), "\n";
