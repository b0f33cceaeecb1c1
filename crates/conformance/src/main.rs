//! The suite as a program: a hub by its URL and keys, a table or JSON, an exit code.
//!
//! It knows the command line and nothing of the protocol.

use clap::{Arg, ArgAction, ArgMatches, Command, builder::PossibleValuesParser, value_parser};
use sse_hub_conformance::{Dialect, Identity, Key, Role, Settings, list, run};
use std::{process::ExitCode, time::Duration};

fn command() -> Command {
    let option = |name: &'static str, value: &'static str, help: &'static str| Arg::new(name).long(name).value_name(value).help(help);
    let switch = |name: &'static str, help: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue).help(help);
    let on_off = |name: &'static str, default: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("ON|OFF").default_value(default).value_parser(["on", "off"]).help(help)
    };
    let seconds = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("SECONDS").value_parser(value_parser!(u64).range(1..=120)).help(help)
    };
    Command::new("sse-hub-conformance")
        .about("Checks any hub against the Mercure protocol, from outside, in both dialects")
        .after_help("Exit codes: 0 conforming, 1 not, 2 wrong usage. Topics are the suite's own, so it can run on a hub in use.")
        .arg(Arg::new("words").num_args(0..).value_name("WORD").help("Only checks that mention every word: a name, M-38, or a dialect"))
        .arg(option("url", "URL", "The hub URL, http only").required_unless_present("list"))
        .arg(option("public-url", "URL", "The hub URL that the hub believes to have, when it is another one"))
        .arg(option("audience", "ID", "The audience of tokens; the public URL if not given"))
        .arg(option("issuer", "ID", "The issuer of tokens").default_value("https://localhost"))
        .arg(
            option("publisher-key", "KEY", "Signs publishers' tokens: the secret, or @FILE with a private key (PKCS #8, PEM)")
                .required_unless_present("list"),
        )
        .arg(option("publisher-alg", "ALG", "Its algorithm").default_value("HS256"))
        .arg(option("subscriber-key", "KEY", "Signs subscribers' tokens; the publisher's if not given"))
        .arg(option("subscriber-alg", "ALG", "Its algorithm").default_value("HS256"))
        .arg(
            option("other-key", "ROLE ALG ISSUER KEY", "One more key that the hub trusts, in one argument; ROLE is publish or subscribe")
                .action(ArgAction::Append),
        )
        .arg(
            option("dialect", "7|8|both", "The dialects that are switched on")
                .default_value("both")
                .value_parser(PossibleValuesParser::new(["7", "8", "both"])),
        )
        .arg(on_off("presence", "on", "Presence events and their API"))
        .arg(on_off("anonymous", "off", "Subscribing without a token"))
        .arg(on_off("query-token", "off", "The query parameter `authorization` of dialect 7"))
        .arg(option("cookie-name", "NAME", "The configured cookie name"))
        .arg(option("cors-origin", "ORIGIN", "An origin that may read"))
        .arg(option("publish-origin", "ORIGIN", "An origin that may publish by cookie"))
        .arg(option("metrics-url", "URL", "Where metrics are"))
        .arg(option("health-url", "URL", "Where health is told"))
        .arg(seconds("heartbeat", "The hub's heartbeat, if short enough to wait for"))
        .arg(seconds("lifetime", "The longest life of a stream, if short enough to wait for"))
        .arg(
            option("body-limit", "BYTES", "The largest body of a publication; 0 is none")
                .default_value("1048576")
                .value_parser(value_parser!(usize)),
        )
        .arg(seconds("patience", "How long an answer or an event may take").default_value("10"))
        .arg(option("jobs", "N", "Checks at once").default_value("24").value_parser(value_parser!(u16).range(1..=200)))
        .arg(option("allow-host", "HOST", "Allows a host that is not this machine").action(ArgAction::Append))
        .arg(switch("strict", "Checks what only Tidings promises too; warnings and notes are failures"))
        .arg(switch("json", "Prints the report as JSON"))
        .arg(switch("list", "Prints every requirement with its checks, or why it cannot be seen from outside"))
}

fn key(algorithm: &str, text: &str) -> Result<Key, String> {
    match text.strip_prefix('@') {
        Some(path) => Key::parse(algorithm, &std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?),
        None => Key::parse(algorithm, text),
    }
}

fn identity(text: &str) -> Result<Identity, String> {
    let parts: Vec<&str> = text.splitn(4, ' ').collect();
    let [role, algorithm, issuer, text] = parts[..] else { return Err(format!("--other-key {text:?}: expected ROLE ALG ISSUER KEY")) };
    let role = match role {
        "publish" => Role::Publish,
        "subscribe" => Role::Subscribe,
        other => return Err(format!("--other-key: {other} is neither publish nor subscribe")),
    };
    Ok(Identity { role, issuer: issuer.into(), key: key(algorithm, text)? })
}

fn settings(given: &ArgMatches) -> Result<Settings, String> {
    let text = |name: &str| given.get_one::<String>(name).cloned();
    let all = |name: &str| given.get_many::<String>(name).unwrap_or_default().cloned().collect::<Vec<_>>();
    let is_on = |name: &str| text(name).as_deref() == Some("on");
    let seconds = |name: &str| given.get_one::<u64>(name).map(|seconds| Duration::from_secs(*seconds));
    let publisher = key(&text("publisher-alg").unwrap_or_default(), &text("publisher-key").unwrap_or_default())?;
    let subscriber = match text("subscriber-key") {
        Some(secret) => key(&text("subscriber-alg").unwrap_or_default(), &secret)?,
        None => publisher.clone(),
    };
    let mut settings = Settings::new(&text("url").unwrap_or_default(), &text("issuer").unwrap_or_default(), publisher, subscriber);
    settings.public_url = text("public-url");
    settings.audience = text("audience");
    settings.others = all("other-key").iter().map(|text| identity(text)).collect::<Result<_, _>>()?;
    settings.dialects = match text("dialect").as_deref() {
        Some("7") => vec![Dialect::Seven],
        Some("8") => vec![Dialect::Eight],
        _ => vec![Dialect::Seven, Dialect::Eight],
    };
    settings.presence = is_on("presence");
    settings.anonymous = is_on("anonymous");
    settings.query_token = is_on("query-token");
    settings.cookie_name = text("cookie-name");
    settings.cors_origin = text("cors-origin");
    settings.publish_origin = text("publish-origin");
    settings.metrics_url = text("metrics-url");
    settings.health_url = text("health-url");
    settings.heartbeat = seconds("heartbeat");
    settings.lifetime = seconds("lifetime");
    settings.body_limit = given.get_one("body-limit").copied().unwrap_or_default();
    settings.patience = seconds("patience").unwrap_or(settings.patience);
    settings.jobs = given.get_one::<u16>("jobs").map_or(settings.jobs, |jobs| usize::from(*jobs));
    settings.allowed_hosts = all("allow-host");
    settings.strict = given.get_flag("strict");
    Ok(settings)
}

fn main() -> ExitCode {
    let given = command().get_matches();
    if given.get_flag("list") {
        print!("{}", list());
        return ExitCode::SUCCESS;
    }
    let words: Vec<String> = given.get_many::<String>("words").unwrap_or_default().cloned().collect();
    match settings(&given).and_then(|settings| run(settings, &words)) {
        Ok(report) => {
            if given.get_flag("json") {
                println!("{:#}", report.json());
            } else {
                print!("{}", report.table());
            }
            if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("sse-hub-conformance: {error}");
            ExitCode::from(2)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
        let given = command().get_matches_from([
            "x",
            "--url",
            "http://127.0.0.1:1/x",
            "--publisher-key",
            "secret",
            "--other-key",
            "subscribe HS256 https://i a b",
            "--dialect",
            "8",
            "M-38",
        ]);
        let settings = settings(&given).unwrap();
        assert_eq!((settings.dialects, settings.others[0].issuer.as_str()), (vec![Dialect::Eight], "https://i"));
    }
}
