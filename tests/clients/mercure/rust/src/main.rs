//! Crate `mercure`: its publisher, which makes its own token. Arguments: secret, hub URL, a token that it has no use for, topic. Prints the
//! ids that were answered.

use mercure::{Client, HubUrl, PublisherJwt, Topic, TopicSelector, client::PublishUpdatePrivacy};
use serde_json::json;
use std::{env, error::Error};
use url::Url;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [secret, hub, _, topic] = &arguments[..] else { return Err("usage: PROGRAM SECRET HUB TOKEN TOPIC".into()) };
    let jwt = PublisherJwt::new(&secret.clone().into_bytes().into(), vec![TopicSelector::Wildcard])?;
    let client = Client::new(reqwest::Client::new(), HubUrl::try_from(hub.parse::<Url>()?)?, jwt);
    let updates = [
        ("1\nline: two — é 🦀", PublishUpdatePrivacy::Public),
        ("2", PublishUpdatePrivacy::Public),
        ("private", PublishUpdatePrivacy::Private),
    ];
    for (data, privacy) in updates {
        let topic = Topic::new(topic.parse()?, vec![format!("{topic}/other").parse()?]);
        println!("{}", json!({"id": client.publish_update(topic, Some(data), privacy).await?.to_string()}));
    }
    Ok(())
}
