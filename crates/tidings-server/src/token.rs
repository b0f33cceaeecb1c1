//! `tidings token`: make tokens of both Mercure dialects, look into one, and ask why a hub accepts it or does not.
//!
//! It knows what is asked for and how it is shown; signing and judging are the library's. No secret is ever printed.

use crate::{
    Failure, quantity,
    settings::{self, Given, Settings},
};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use serde_json::{Map, Value, json};
use std::{
    io::Read as _,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tidings::{
    Algorithm,
    token::{self, Question, SigningKey},
};

const EXAMPLES: &str = "\
Examples:
  openssl rand -base64 48 > key
  tidings token mint --key-file key --iss https://app.example --aud https://hub.example/.well-known/mercure --subscribe 'chat/42'
  tidings token mint --key-file key --dialect 7 --publish '*'
  tidings token mint --key-file private.pem --alg ES256 --iss https://app.example --aud https://hub.example/.well-known/mercure --publish-urlpattern '/orders/:id'
  tidings token inspect eyJ...
  tidings token explain --config tidings.toml --publish orders/1 - < token

A key is read from a file, so that it is not seen among the processes. A token given as - is read from standard input.";

/// The type of the details that are for hubs (M-75).
const DETAILS_TYPE: &str = "https://mercure.rocks/authorization-detail";

pub(crate) fn command() -> Command {
    let many = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help).action(ArgAction::Append)
    };
    let one = |name: &'static str, value: &'static str, help: &'static str| Arg::new(name).long(name).value_name(value).help(help);
    let token = || Arg::new("TOKEN").required(true).help("The token, or - to read it from standard input");
    let config = || {
        one("config", "FILE", "The hub's settings, as for serve")
            .value_parser(value_parser!(PathBuf))
            .env("TIDINGS_CONFIG")
            .hide_env_values(true)
    };
    let mint = Command::new("mint")
        .about("Make a token")
        .arg(
            one("key-file", "FILE", "The key to sign with: a secret, or a private key as PEM")
                .required(true)
                .value_parser(value_parser!(PathBuf)),
        )
        .arg(
            one("alg", "ALG", "How to sign: HS256, RS256, ES256, EdDSA and their kind")
                .default_value("HS256")
                .value_parser(parse_algorithm),
        )
        .arg(one("dialect", "8|7", "8 for Mercure 1.0 and this hub, 7 for Mercure 0.x").default_value("8").value_parser(["8", "7"]))
        .arg(many("publish", "TOPIC", "A topic it may publish to, * for all; a URI Template in dialect 7"))
        .arg(many("subscribe", "TOPIC", "A topic whose private events it may receive, * for all; a URI Template in dialect 7"))
        .arg(many("publish-urlpattern", "PATTERN", "A URL pattern of topics it may publish to"))
        .arg(many("subscribe-urlpattern", "PATTERN", "A URL pattern of topics whose private events it may receive"))
        .arg(one("payload", "JSON", "What presence shows of the subscriber").value_parser(parse_json))
        .arg(one("ttl", "TIME", "How long it is valid; off makes one without an end, in dialect 7").default_value("1h"))
        .arg(one("iss", "ID", "Who makes it, as the hub's settings name the issuer"))
        .arg(many("aud", "URL", "The hub it is for: its public URL with /.well-known/mercure"))
        .arg(one("sub", "ID", "Whom it speaks for").default_value("tidings"))
        .arg(one("client-id", "ID", "The program it is made for").default_value("tidings"))
        .arg(one("kid", "NAME", "The name of the key"));
    let inspect = Command::new("inspect").about("Show what a token says, believing nothing of it").arg(token());
    let explain = Command::new("explain")
        .about("Say why a hub with these settings accepts a token, or by which rule it does not")
        .arg(token())
        .arg(config())
        .arg(
            many("publish", "TOPIC", "It shall publish an event to this topic, and to those of further --publish")
                .conflicts_with("subscribe"),
        )
        .arg(many("subscribe", "TOPIC", "It shall receive a private event of this topic, or of one of further --subscribe"));
    let all = [mint, inspect, explain];
    Command::new("token")
        .about("Make, show and explain tokens")
        .after_help(EXAMPLES)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(all)
}

/// What is to be printed, and the exit code that comes after it.
pub(crate) fn run(mut matches: ArgMatches) -> Result<(String, Option<Failure>), Failure> {
    let said = |text: Result<String, String>| text.map(|text| (text, None)).map_err(Failure::Usage);
    match matches.remove_subcommand() {
        Some((name, matches)) => match name.as_str() {
            "mint" => said(mint(matches)),
            "inspect" => said(inspect(matches)),
            _ => explain(matches),
        },
        None => Err(Failure::Usage("no command given; see tidings token --help".into())),
    }
}

fn parse_algorithm(name: &str) -> Result<Algorithm, String> {
    name.parse()
}

fn parse_json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("it is not JSON: {error}; put texts into quotes of their own, as in '\"Ada\"'"))
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs())
}

fn given_token(matches: &mut ArgMatches) -> Result<String, String> {
    let token = matches.remove_one::<String>("TOKEN").unwrap_or_default();
    if token != "-" {
        return Ok(token);
    }
    let mut text = String::new();
    // A token fits into a request head; whatever is longer is none.
    std::io::stdin().take(1 << 20).read_to_string(&mut text).map_err(|error| format!("cannot read standard input: {error}"))?;
    Ok(text.trim().to_owned())
}

fn mint(mut matches: ArgMatches) -> Result<String, String> {
    let path = matches.remove_one::<PathBuf>("key-file").ok_or("--key-file is missing")?;
    let algorithm = matches.remove_one::<Algorithm>("alg").unwrap_or(Algorithm::Hs256);
    let key = SigningKey::new(&settings::read_key(&path)?, algorithm).map_err(|why| format!("the key in {}: {why}", path.display()))?;
    let mut one = |name: &str| matches.remove_one::<String>(name);
    let (eight, ttl, kid) = (one("dialect").as_deref() == Some("8"), one("ttl").unwrap_or_default(), one("kid"));
    let (iss, sub, client_id) = (one("iss"), one("sub"), one("client-id"));
    let mut many = |name: &str| -> Vec<String> { matches.remove_many(name).into_iter().flatten().collect() };
    let (publish, subscribe, aud) = (many("publish"), many("subscribe"), many("aud"));
    let (publish_patterns, subscribe_patterns) = (many("publish-urlpattern"), many("subscribe-urlpattern"));
    let payload = matches.remove_one::<Value>("payload");
    let ttl = if ttl == "off" { None } else { Some(quantity::parse_time(&ttl).map_err(|why| format!("--ttl: {why}"))?) };

    let mut claims = Map::new();
    claims.extend(iss.map(|iss| ("iss".to_owned(), iss.into())));
    match &aud[..] {
        [] => {}
        [one] => drop(claims.insert("aud".into(), one.as_str().into())),
        several => drop(claims.insert("aud".into(), json!(several))),
    }
    claims.insert("iat".into(), now().into());
    claims.extend(ttl.map(|ttl: Duration| ("exp".to_owned(), now().saturating_add(ttl.as_secs()).into())));
    let mut header = Map::new();
    header.extend(kid.map(|kid| ("kid".to_owned(), kid.into())));
    if eight {
        for (name, flag) in [("iss", "--iss"), ("aud", "--aud"), ("exp", "--ttl")] {
            if !claims.contains_key(name) {
                return Err(format!("a token of dialect 8 needs `{name}`; give {flag}, or make one of dialect 7 with --dialect 7"));
            }
        }
        header.insert("typ".into(), "at+jwt".into());
        claims.insert("sub".into(), sub.unwrap_or_default().into());
        claims.insert("client_id".into(), client_id.unwrap_or_default().into());
        claims.insert("jti".into(), token_id()?.into());
        let detail = |action: &str, topics: &[String], patterns: &[String], payload: Option<&Value>| {
            let exact = topics.iter().map(|topic| json!({ "match": topic }));
            let patterns = patterns.iter().map(|pattern| json!({ "match": pattern, "match_type": "urlpattern" }));
            let topics: Vec<Value> = exact.chain(patterns).collect();
            let mut detail = json!({ "type": DETAILS_TYPE, "actions": [action], "topics": topics });
            if let Some(payload) = payload {
                detail["payload"] = payload.clone();
            }
            (!topics.is_empty()).then_some(detail)
        };
        if payload.is_some() && subscribe.is_empty() && subscribe_patterns.is_empty() {
            return Err("a payload is shown for what is subscribed to; give --subscribe too, '*' for all".into());
        }
        let details =
            [detail("publish", &publish, &publish_patterns, None), detail("subscribe", &subscribe, &subscribe_patterns, payload.as_ref())];
        claims.insert("authorization_details".into(), details.into_iter().flatten().collect());
    } else {
        if !publish_patterns.is_empty() || !subscribe_patterns.is_empty() {
            return Err("URL patterns are dialect 8's; dialect 7 has URI Templates, as in --publish 'https://example.com/{id}'".into());
        }
        header.insert("typ".into(), "JWT".into());
        claims.extend(sub.filter(|sub| sub != "tidings").map(|sub| ("sub".to_owned(), sub.into())));
        let mut claim = json!({ "publish": publish, "subscribe": subscribe });
        if let Some(payload) = payload {
            claim["payload"] = payload;
        }
        claims.insert("mercure".into(), claim);
    }
    Ok(key.sign(header, &claims)? + "\n")
}

/// A random name of a token, for whoever wants to list them.
fn token_id() -> Result<String, String> {
    let random = || getrandom::u64().map_err(|error| format!("the system gives no random bytes: {error}"));
    Ok(format!("{:016x}{:016x}", random()?, random()?))
}

fn inspect(mut matches: ArgMatches) -> Result<String, String> {
    let (header, claims) = token::decode(&given_token(&mut matches)?)?;
    let shown = |value: &Value| serde_json::to_string_pretty(value).map_err(|error| error.to_string());
    let mut text = format!("header {}\nclaims {}\n", shown(&header)?, shown(&claims)?);
    for (claim, past, future) in [("exp", "it ended", "it ends"), ("nbf", "it became valid", "it becomes valid")] {
        if let Some(at) = claims.get(claim).and_then(Value::as_f64) {
            let left = at - now() as f64;
            let line = if left < 0.0 { format!("{past} {} s ago\n", -left as u64) } else { format!("{future} in {} s\n", left as u64) };
            text.push_str(&line);
        }
    }
    text.push_str("nothing of this is verified; ask with tidings token explain\n");
    Ok(text)
}

fn explain(mut matches: ArgMatches) -> Result<(String, Option<Failure>), Failure> {
    let token = given_token(&mut matches).map_err(Failure::Usage)?;
    let env = std::env::vars_os().map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()));
    let file = matches.remove_one::<PathBuf>("config");
    let settings = settings::resolve(Given::default(), env, file.as_deref()).map_err(Failure::Usage)?;
    let Settings { hub: mut config, listen, .. } = settings;
    config.listen = Some(listen);
    let mut topics = |name: &str| -> Vec<String> { matches.remove_many(name).into_iter().flatten().collect() };
    let (publish, subscribe) = (topics("publish"), topics("subscribe"));
    let publishes = !publish.is_empty();
    let question = Question::new(publishes, if publishes { publish } else { subscribe }, now() * 1_000);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Running(format!("cannot start: {error}")))?;
    let explanation = runtime.block_on(token::explain(&config, &token, &question)).map_err(Failure::Usage)?;
    let failure = (!explanation.allowed()).then(|| Failure::Running("the token does not allow this here".into()));
    Ok((format!("{explanation}\n"), failure))
}
