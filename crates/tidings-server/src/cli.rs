//! The command line: what can be typed, its help, and which command it leads to.
//!
//! The flags of `serve` are made from the table of settings; what they mean is decided there.

use crate::{
    Failure, bench,
    client::Endpoint,
    log,
    printer::Style,
    publish, quantity, serve,
    settings::{self, Given, Kind, SETTINGS, Setting, Settings},
    subscribe::{self, Begin, Selection},
    token,
};
use clap::{Arg, ArgAction, ArgMatches, Command, builder::NonEmptyStringValueParser, value_parser};
use clap_complete::Shell;
use std::{fmt::Write as _, io, path::PathBuf, time::Duration};

const ABOUT: &str = "A hub for Server-Sent Events: publish with one request, and every reader gets it, reconnects included";

const EXAMPLES: &str = "\
Try it, in three terminals:
  tidings serve
  tidings subscribe news
  tidings publish news 'hello'

Or with curl, and in a browser with new EventSource('http://127.0.0.1:4680/subscribe/news'):
  curl -N localhost:4680/subscribe/news
  curl -d 'hello' localhost:4680/publish/news

Exit codes: 0 clean, 1 failed while running or refused, 2 wrong usage or settings.";

const SERVE_ABOUT: &str = "Run a hub";
const SERVE_EXAMPLES: &str = "\
Examples:
  tidings serve                               on this machine only, open to everybody on it
  tidings serve --listen 127.0.0.1:0          on a free port; the line printed says which
  TIDINGS_PUBLISH_KEY=... tidings serve --listen 0.0.0.0:4680
  tidings serve --data /srv/tidings           events in this directory, not in the usual one of the user
  tidings serve --store memory                events in memory only: gone after a restart
  tidings serve --config tidings.toml

Every setting is a flag (--max-age 1h), a variable (TIDINGS_MAX_AGE=1h) and a key of the file (max_age = \"1h\"); in this order of strength.
-h shows the most important ones, --help all of them.
SIGTERM or Ctrl-C lets readers go gently, a second one stops at once. SIGUSR1 switches debug logs on and off.";

const PUBLISH_EXAMPLES: &str = "\
Examples:
  tidings publish news 'hello'
  tidings publish orders/42 --type shipped '{\"parcel\":7}'
  date | tidings publish clock
  tail -f app.log | tidings publish --lines logs/app

Prints the id of each event once the hub has it.";

const SUBSCRIBE_EXAMPLES: &str = "\
Examples:
  tidings subscribe news                      exactly this topic
  tidings subscribe orders/1 orders/2         these two
  tidings subscribe --prefix orders           orders and everything below it
  tidings subscribe --json                    everything, one JSON object a line
  tidings subscribe news --since-id earliest --count 10
  tidings subscribe news --since 10m          what came in the last ten minutes, and then what is new
  tidings subscribe news --last 5             the newest five first

Comes back by itself after any cut and goes on where it was. If events are missing all the same, it says so on standard error.";

const LOG_EXAMPLES: &str = "\
Examples:
  tidings log inspect ~/.local/share/tidings
  tidings log verify /var/lib/tidings && echo whole
  tidings log export /var/lib/tidings --topic orders --since 1h | jq .data
  tidings log export DIR --publishable | curl -T - -X POST -H 'content-type: application/x-ndjson' localhost:4680/publish
  tidings log compact /var/lib/tidings --retention-age 1h

The first three only read, and work beside a running hub; compact and new-epoch need a stopped one.";

/// Where `tidings serve` listens without settings.
const DEFAULT_URL: &str = "http://127.0.0.1:4680";

/// Settings a newcomer meets first: `-h` shows only these.
const FIRST: &[&str] = &[
    "listen",
    "publish-key",
    "insecure-open",
    "public-url",
    "cors-origins",
    "heartbeat",
    "max-age",
    "store",
    "data",
    "log-format",
    "log-level",
];

/// Reads the command line and does what it says.
pub(crate) fn run() -> Result<(), Failure> {
    match command().get_matches().remove_subcommand() {
        Some((name, matches)) => match name.as_str() {
            "serve" => serve(matches),
            "publish" => publish(matches),
            "subscribe" => subscribe(matches),
            "bench" => bench::run(matches),
            "log" => log_command(matches),
            "token" => {
                let (text, failure) = token::run(matches)?;
                print(text.as_bytes())?;
                failure.map_or(Ok(()), Err)
            }
            "settings" => print(settings::markdown().as_bytes()),
            _ => completions(&matches),
        },
        None => Err(Failure::Usage("no command given; see tidings --help".into())),
    }
}

fn command() -> Command {
    Command::new("tidings")
        .about(ABOUT)
        .version(env!("CARGO_PKG_VERSION"))
        .after_help(EXAMPLES)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(serve_command())
        .subcommand(publish_command())
        .subcommand(subscribe_command())
        .subcommand(token::command())
        .subcommand(bench::command())
        .subcommand(log_commands())
        .subcommand(Command::new("settings").about("Print the reference page of the settings as Markdown").hide(true))
        .subcommand(
            Command::new("completions")
                .about("Print completions for a shell")
                .after_help("Example:\n  tidings completions bash > /etc/bash_completion.d/tidings")
                .arg(Arg::new("shell").value_name("SHELL").value_parser(value_parser!(Shell)).required(true)),
        )
}

fn serve_command() -> Command {
    let config = Arg::new("config").long("config").value_name("FILE").value_parser(value_parser!(PathBuf)).env("TIDINGS_CONFIG");
    let config = config.help("A TOML file with settings").hide_env_values(true);
    let command = Command::new("serve").about(SERVE_ABOUT).after_help(SERVE_EXAMPLES).arg(config);
    SETTINGS.iter().fold(command, |command, setting| command.arg(setting_arg(setting).hide_short_help(!FIRST.contains(&setting.name))))
}

fn setting_arg(setting: &Setting) -> Arg {
    let mut help = format!("{}.", setting.help);
    for (what, text) in [("default: ", setting.default), ("allowed: ", &setting.bounds()), ("env: ", &setting.env_name())] {
        if !text.is_empty() {
            let _ = write!(help, " [{what}{text}]");
        }
    }
    let arg = Arg::new(setting.name).long(setting.name).value_name(setting.form()).help(help).help_heading(setting.group);
    match setting.kind {
        Kind::Switch { .. } => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
        Kind::List { .. } => arg.action(ArgAction::Append),
        _ => arg,
    }
}

/// What retention is told.
fn retention() -> impl Iterator<Item = &'static Setting> {
    SETTINGS.iter().filter(|setting| setting.name.starts_with("retention"))
}

fn log_commands() -> Command {
    let directory = || Arg::new("DIR").required(true).value_parser(value_parser!(PathBuf)).help("The directory of the log");
    let flag = |name: &'static str, help: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue).help(help);
    let config = Arg::new("config").long("config").value_name("FILE").value_parser(value_parser!(PathBuf)).env("TIDINGS_CONFIG");
    let config = config.help("The hub's TOML file, if it has rules for prefixes: they say what outlives retention").hide_env_values(true);
    let command = |name: &'static str, about: &'static str| Command::new(name).about(about).arg(directory()).arg(config.clone());
    let topic = Arg::new("topic").long("topic").value_name("TOPIC").action(ArgAction::Append);
    let since = Arg::new("since").long("since").value_name("TIME").value_parser(quantity::parse_moment);
    let compact =
        command("compact", "Remove what retention would remove, as the settings say; on a stopped log").args(retention().map(setting_arg));
    Command::new("log")
        .about("Look after a log on disk: inspect, verify, export, compact, begin anew")
        .after_help(LOG_EXAMPLES)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            command("inspect", "Print what is in it: epoch, ranges, times, bytes, segments, gaps").arg(flag("json", "As one JSON object")),
        )
        .subcommand(command("verify", "Check every checksum; says where damage is, and ends with exit code 1 if there is any"))
        .subcommand(
            command("export", "Print its events as JSON, one a line, private ones included")
                .arg(topic.help("Only events with this topic; may be repeated"))
                .arg(since.help("Only what was accepted since then: 10m (so long ago), 2026-11-25T12:00:00Z, or milliseconds since 1970"))
                .arg(flag("publishable", "As POST /publish takes them: without the ids and times that the hub gave")),
        )
        .subcommand(compact)
        .subcommand(
            command("new-epoch", "Begin a new log with its events, after a restore; readers are told. On a stopped log")
                .arg(flag("without-damaged", "Leave out what cannot be read: the new log does not tell of it")),
        )
}

fn hub_args(command: Command) -> Command {
    let url = Arg::new("url").long("url").value_name("URL").env("TIDINGS_URL").hide_env_values(true);
    let key = Arg::new("key").long("key").value_name("KEY").env("TIDINGS_KEY").hide_env_values(true);
    command
        .arg(url.help(format!("Where the hub is [default: {DEFAULT_URL}]")).help_heading("Hub"))
        .arg(key.help("A bearer key or token to send; prefer the environment, flags can be seen by others").help_heading("Hub"))
}

fn publish_command() -> Command {
    let text = |name: &'static str, value: &'static str, help: &'static str| Arg::new(name).long(name).value_name(value).help(help);
    let command = Command::new("publish")
        .about("Publish events to a hub")
        .after_help(PUBLISH_EXAMPLES)
        .arg(Arg::new("TOPIC").required(true).help("The topic to publish to"))
        .arg(Arg::new("DATA").help("The data of the event; `-` or nothing reads standard input to its end, less one line end"))
        .arg(
            Arg::new("lines").long("lines").action(ArgAction::SetTrue).help("Publish each line of standard input as an event, as it comes"),
        )
        .arg(text("type", "TYPE", "The type of the event, `message` if none is given"))
        .arg(text("id", "ID", "An id of your own; the hub gives one otherwise").conflicts_with("lines"))
        .arg(text("retry", "TIME", "Tell readers to wait this long before they reconnect").value_parser(quantity::parse_time))
        .arg(Arg::new("private").long("private").action(ArgAction::SetTrue).help("Only for readers with a matching grant"))
        .arg(text("topic", "TOPIC", "A further topic of the same event; may be repeated").action(ArgAction::Append));
    hub_args(command)
}

fn subscribe_command() -> Command {
    let flag = |name: &'static str, help: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue).help(help);
    let value = |name: &'static str, value: &'static str, help: &'static str| Arg::new(name).long(name).value_name(value).help(help);
    let command = Command::new("subscribe")
        .about("Print the events of a hub as they come")
        .after_help(SUBSCRIBE_EXAMPLES)
        .arg(Arg::new("TOPIC").action(ArgAction::Append).help("Exactly these topics; none means everything"))
        .arg(value("prefix", "TOPIC", "This topic and everything below it").conflicts_with("TOPIC"))
        .arg(flag("json", "One JSON object a line: topic, topics, id, type, data"))
        .arg(flag("verbose", "A line with topic, type and id before each event").short('v').conflicts_with("json"))
        .arg(
            value("since-id", "ID|earliest", "Begin after the event with this id, or with the oldest that is kept")
                .value_parser(NonEmptyStringValueParser::new()),
        )
        .arg(
            value("since", "TIME", "Begin with what came since then: 10m (so long ago), 2026-11-25T12:00:00Z, or milliseconds since 1970")
                .value_parser(quantity::parse_moment)
                .conflicts_with_all(["since-id", "last"]),
        )
        .arg(
            value("last", "N", "Begin with the newest N events, at most 10000")
                .value_parser(value_parser!(u64).range(..=tidings::limits::LAST_EVENTS as u64))
                .conflicts_with("since-id"),
        )
        .arg(value("count", "N", "Stop after this many events").value_parser(value_parser!(u64).range(1..)))
        .arg(flag("no-reconnect", "Stop when the stream ends, with exit code 1 if it was cut"))
        .arg(value("max-event", "SIZE", "Largest event to take").default_value("16MiB").value_parser(quantity::parse_size));
    hub_args(command)
}

fn serve(mut matches: ArgMatches) -> Result<(), Failure> {
    serve::run(resolve(&mut matches, SETTINGS.iter())?)
}

/// The settings, where these can be given as flags.
fn resolve(matches: &mut ArgMatches, of: impl Iterator<Item = &'static Setting>) -> Result<Settings, Failure> {
    let mut flags = Given::default();
    for setting in of {
        if let Some(values) = matches.remove_many::<String>(setting.name) {
            flags.flag(setting, values);
        }
    }
    // Names or values that are not text cannot be settings of ours, which are all ASCII names; lossy text will say so where they are.
    let env = std::env::vars_os().map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()));
    let file = matches.remove_one::<PathBuf>("config");
    settings::resolve(flags, env, file.as_deref()).map_err(Failure::Usage)
}

fn log_command(mut matches: ArgMatches) -> Result<(), Failure> {
    let Some((name, mut matches)) = matches.remove_subcommand() else {
        return Err(Failure::Usage("no command given; see tidings log --help".into()));
    };
    let path = matches.remove_one::<PathBuf>("DIR").unwrap_or_default();
    let settings = match &*name {
        "compact" => Some(resolve(&mut matches, retention())?),
        // A look needs no other settings, and must not fail for them.
        _ if matches.get_one::<PathBuf>("config").is_some() => Some(resolve(&mut matches, [].iter())?),
        _ => None,
    };
    let directory = log::Place { path, prefixes: settings.as_ref().map(|settings| settings.hub.prefixes.clone()).unwrap_or_default() };
    match &*name {
        "inspect" => log::inspect(&directory, matches.get_flag("json")),
        "verify" => log::verify(&directory),
        "export" => {
            let topics = matches.remove_many("topic").into_iter().flatten().collect();
            let (since, publishable) = (matches.remove_one("since"), matches.get_flag("publishable"));
            log::export(&directory, &log::Export { topics, since, publishable })
        }
        "compact" => {
            let mut settings = settings.unwrap_or_default();
            (settings.disk, settings.data) = (true, Some(directory.path.clone()));
            let options = settings.disk().map_err(Failure::Usage)?;
            options.map_or(Ok(()), |(_, options)| log::compact(&directory, options))
        }
        _ => {
            let without_damaged = matches.get_flag("without-damaged");
            let hub = settings.map(|mut settings| {
                (settings.disk, settings.data) = (true, Some(directory.path.clone()));
                settings.disk().map_err(Failure::Usage)
            });
            log::new_epoch(&directory, hub.transpose()?.flatten().map(|(_, options)| options), without_damaged)
        }
    }
}

fn endpoint(matches: &mut ArgMatches) -> Result<Endpoint, Failure> {
    // A variable that is set but empty counts as not set.
    let url = matches.remove_one::<String>("url").filter(|url| !url.is_empty()).unwrap_or_else(|| DEFAULT_URL.into());
    let key = matches.remove_one::<String>("key").filter(|key| !key.is_empty());
    Endpoint::new(&url, key.as_deref()).map_err(Failure::Usage)
}

fn publish(mut matches: ArgMatches) -> Result<(), Failure> {
    let endpoint = endpoint(&mut matches)?;
    let mut text = |name: &str| matches.remove_one::<String>(name);
    let (topic, data, event_type, id) = (text("TOPIC"), text("DATA"), text("type"), text("id"));
    let topics: Vec<String> = topic.into_iter().chain(matches.remove_many::<String>("topic").into_iter().flatten()).collect();
    let retry = matches.remove_one::<Duration>("retry");
    let members = publish::members(&topics, event_type.as_deref(), id.as_deref(), retry, matches.get_flag("private"));
    let input = match (data.filter(|data| data != "-"), matches.get_flag("lines")) {
        (Some(_), true) => return Err(Failure::Usage("--lines reads standard input; leave DATA out".into())),
        (Some(data), false) => publish::Input::Data(data),
        (None, true) => publish::Input::Lines,
        (None, false) => publish::Input::Whole,
    };
    publish::run(endpoint, input, members)
}

fn subscribe(mut matches: ArgMatches) -> Result<(), Failure> {
    let endpoint = endpoint(&mut matches)?;
    let topics: Vec<String> = matches.remove_many("TOPIC").into_iter().flatten().collect();
    let selection = match matches.remove_one::<String>("prefix") {
        Some(prefix) => Selection::Prefix(prefix),
        None if topics.is_empty() => Selection::Everything,
        None => Selection::Topics(topics),
    };
    let (id, since, last) = (matches.remove_one("since-id"), matches.remove_one("since"), matches.remove_one::<u64>("last"));
    let begin = id.map(Begin::Id).or(since.map(Begin::Since)).or(last.map(|count| Begin::Last(count as usize))).unwrap_or(Begin::Now);
    subscribe::run(subscribe::Options {
        endpoint,
        selection,
        begin,
        count: matches.remove_one("count"),
        reconnect: !matches.get_flag("no-reconnect"),
        max_event: matches.remove_one::<u64>("max-event").map_or(tidings::limits::EVENT_DATA_MAX, |size| size as usize),
        style: match (matches.get_flag("json"), matches.get_flag("verbose")) {
            (true, _) => Style::Json,
            (false, true) => Style::Heading,
            (false, false) => Style::Data,
        },
    })
}

fn completions(matches: &ArgMatches) -> Result<(), Failure> {
    let mut script = Vec::new();
    if let Some(&shell) = matches.get_one::<Shell>("shell") {
        clap_complete::generate(shell, &mut command(), "tidings", &mut script);
    }
    print(&script)
}

/// To standard output; whoever closed it has seen enough.
fn print(bytes: &[u8]) -> Result<(), Failure> {
    match io::Write::write_all(&mut io::stdout(), bytes) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::Running(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_is_well_formed() {
        command().debug_assert();
        assert!(FIRST.iter().all(|name| SETTINGS.iter().any(|setting| setting.name == *name)));
    }

    /// The binary's client and the hub agree where they meet.
    #[test]
    fn default_url_is_the_default_address() {
        assert_eq!(DEFAULT_URL, format!("http://{}", settings::Settings::default().listen));
    }
}
