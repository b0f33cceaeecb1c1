//! The reference page of the settings, `docs/guide/settings.md`, made from the table so that it cannot be out of date (N-40).

use super::SETTINGS;
use std::fmt::Write as _;

const HEAD: &str = "\
# Settings of `tidings serve`

<!-- Made by `tidings settings`; a test compares. Change the table in crates/tidings-server/src/settings/table.rs, then run
     `cargo run -q -- settings > docs/guide/settings.md`. -->

`tidings serve` needs no settings. Each one has one name in three forms:

| where | form |
|---|---|
| flag | `--cors-origins https://example.com` |
| environment | `TIDINGS_CORS_ORIGINS=https://example.com` |
| TOML file, given by `--config FILE` or `TIDINGS_CONFIG` | `cors_origins = [\"https://example.com\"]` |

A flag beats the environment, the environment beats the file, the file beats the default. A list that is given in one place replaces the same
list of a weaker place as a whole. Flags of lists may be repeated; in one flag and in the environment, items are separated by commas.
A variable that is set but empty counts as not set. An unknown name in any of the three is an error that suggests the nearest name,
and nothing is started.

Times are written `500ms`, `15s`, `30m`, `2h`, `1d`; sizes `512B`, `64KiB`, `16MiB`, `1GiB`. What can be turned off takes `off` (or `none`).
";

const TAIL: &str = "
## Exceptions for some topics

In the file only: tables `[[prefix]]`, each for the topics at and below one prefix. The longest prefix that applies wins; what a table leaves out
is as everywhere else.

```toml
[[prefix]]
prefix = \"chat\"        # chat and chat/..., not chatter
prime = false          # as the setting `prime`
end = \"abort\"          # as the setting `end`
lag_policy = \"gap\"     # as the setting `lag-policy`
heartbeat_form = \"event\"  # as the setting `heartbeat-form`

[[prefix]]
prefix = \"sysenv\"
retention_bytes = \"64MiB\"  # as the setting `retention-bytes`, counted for these topics by themselves
retention_age = \"1h\"       # as the setting `retention-age`
retention_events = 100000  # as the setting `retention-events`
keep = \"latest\"            # the newest event of each topic and type outlives retention, and comes first on connect
```

What each of these does is told in [events that survive](durability.md). Presence events (topics below `/.well-known/mercure/subscriptions`) are kept
for 10 minutes and within 64 MiB unless a table for that prefix says otherwise.
";

/// The page as Markdown.
pub(crate) fn markdown() -> String {
    let mut page = HEAD.to_owned();
    let mut group = "";
    for setting in SETTINGS {
        if setting.group != group {
            group = setting.group;
            let _ = write!(page, "\n## {group}\n\n| name | value | default | allowed | what it does | rule |\n|---|---|---|---|---|---|\n");
        }
        let default = if setting.default.is_empty() { String::new() } else { format!("`{}`", setting.default) };
        let form = setting.form().replace('|', "\\|");
        let help = setting.help.replace('|', "\\|").replace('*', "\\*");
        let _ = writeln!(page, "| `{}` | {form} | {default} | {} | {help} | {} |", setting.name, setting.bounds(), setting.rule);
    }
    page.push_str(TAIL);
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The page in the tree is the one this table makes.
    #[test]
    fn page_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/guide/settings.md");
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(written == markdown(), "docs/guide/settings.md is out of date: cargo run -q -- settings > docs/guide/settings.md");
    }
}
