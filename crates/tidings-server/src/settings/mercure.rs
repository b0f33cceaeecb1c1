//! The settings of the Mercure path and of tokens, part of the table of settings.
//!
//! A line says what may be written and which field it changes; how values are read is the parent module's.

use super::{
    Kind, Setting, Settings,
    issuers::{Roles, Source},
    table,
};
use tidings::{AfterGap, Dialects, limits};

const TOKENS: &str = "Tokens";
const MERCURE: &str = "The Mercure protocol";

pub(super) const SETTINGS: &[Setting] = &[
    Setting {
        name: "token-issuer",
        group: TOKENS,
        kind: Kind::Text {
            form: "ID",
            set: |s, text| {
                s.issuer.id = Some(text.into());
                Ok(())
            },
        },
        default: "",
        rule: "M-71, M-74",
        help: "The issuer whose tokens are believed (iss). For several, write [[issuer]] tables into the file",
    },
    Setting {
        name: "token-key",
        group: TOKENS,
        kind: Kind::Text { form: "KEY", set: |s, text| token_key(s, Roles::Both, Source::Here(text.into())) },
        default: "",
        rule: "M-70",
        help: "Its key for tokens of publishers and of subscribers: a secret of at least 32 bytes, or a public key as PEM. Prefer the file",
    },
    Setting {
        name: "token-key-file",
        group: TOKENS,
        kind: Kind::Text { form: "FILE", set: |s, text| token_key(s, Roles::Both, Source::File(text.into())) },
        default: "",
        rule: "M-70",
        help: "A file with such a key, for both kinds of tokens",
    },
    Setting {
        name: "publisher-token-key",
        group: TOKENS,
        kind: Kind::Text { form: "KEY", set: |s, text| token_key(s, Roles::Publishers, Source::Here(text.into())) },
        default: "",
        rule: "M-70",
        help: "Its key for tokens of publishers only",
    },
    Setting {
        name: "subscriber-token-key",
        group: TOKENS,
        kind: Kind::Text { form: "KEY", set: |s, text| token_key(s, Roles::Subscribers, Source::Here(text.into())) },
        default: "",
        rule: "M-70",
        help: "Its key for tokens of subscribers only",
    },
    Setting {
        name: "token-jwks-url",
        group: TOKENS,
        kind: Kind::Text { form: "URL", set: |s, text| token_key(s, Roles::Both, Source::Set(text.into())) },
        default: "",
        rule: "M-411",
        help: "Where it publishes its keys as a JWK Set; https, or any URL on this machine",
    },
    Setting {
        name: "token-jwks-file",
        group: TOKENS,
        kind: Kind::Text { form: "FILE", set: |s, text| token_key(s, Roles::Both, Source::SetFile(text.into())) },
        default: "",
        rule: "M-325",
        help: "A file with its keys as a JWK Set, read once at the start",
    },
    Setting {
        name: "token-algorithms",
        group: TOKENS,
        kind: Kind::List {
            form: "ALG",
            add: |s, text| {
                s.issuer.algorithms.push(text.parse()?);
                Ok(())
            },
        },
        default: "",
        rule: "M-69",
        help: "Algorithms of these keys, of one family for a single key: HS256, RS256, ES256, EdDSA and their kind. A secret is for HS256 if none is named",
    },
    Setting {
        name: "legacy-tokens",
        group: TOKENS,
        kind: Kind::Switch { set: |s, on| s.issuer.legacy = on },
        default: "false",
        rule: "M-402",
        help: "Whether these keys also verify tokens of Mercure 0.x, which have the claim mercure and need no issuer, audience or end",
    },
    Setting {
        name: "resource",
        group: TOKENS,
        kind: Kind::Text {
            form: "ID",
            set: |s, text| {
                s.hub.resource = Some(text.into());
                Ok(())
            },
        },
        default: "",
        rule: "M-73",
        help: "What tokens must be meant for (aud); without it the public URL with /.well-known/mercure",
    },
    Setting {
        name: "cookie-name",
        group: TOKENS,
        kind: Kind::Text { form: "NAME", set: |s, text| cookie_name(text).map(|name| s.hub.cookie_name = Some(name)) },
        default: "",
        rule: "M-406",
        help: "The only cookie that a token is taken from; without it __Secure-mercure_access_token, then mercureAuthorization",
    },
    Setting {
        name: "query-token",
        group: TOKENS,
        kind: Kind::Switch { set: |s, on| s.hub.query_token = on },
        default: "false",
        rule: "M-406",
        help: "Whether a token may stand in the query, as authorization=; URLs end up in logs, so prefer a header or cookie",
    },
    Setting {
        name: "token-cache",
        group: TOKENS,
        kind: Kind::Count { least: 0, most: 1 << 24, set: |s, count| s.hub.token_cache = count as usize },
        default: "16384",
        rule: "M-412",
        help: "Verified tokens that are remembered, so that a client who comes back costs no signature check; 0 remembers none",
    },
    Setting {
        name: "compat",
        group: MERCURE,
        kind: Kind::Choice {
            of: &["off", "mercure"],
            set: |s, text| {
                s.compat = text == "mercure";
                Ok(())
            },
        },
        default: "off",
        rule: "M-406",
        help: "Start with the defaults of the reference hub, and read the environment variables of its image (MERCURE_*, SERVER_NAME)",
    },
    Setting {
        name: "mercure-dialects",
        group: MERCURE,
        kind: Kind::Choice {
            of: &["both", "7", "8", "off"],
            set: |s, text| {
                s.hub.mercure_dialects = match text {
                    "7" => Dialects::Seven,
                    "8" => Dialects::Eight,
                    "off" => Dialects::Off,
                    _ => Dialects::Both,
                };
                Ok(())
            },
        },
        default: "both",
        rule: "M-401",
        help: "Dialects spoken at /.well-known/mercure: 7 has `topic` parameters (versions 0.x), 8 has `match` parameters (1.0)",
    },
    Setting {
        name: "subscriptions",
        group: MERCURE,
        kind: Kind::Switch { set: |s, on| s.hub.subscriptions = on },
        default: "false",
        rule: "M-97, M-102",
        help: "Tell who subscribes there, by events and by an interface to ask, to those whose token grants it",
    },
    Setting {
        name: "mercure-body",
        group: MERCURE,
        kind: Kind::Size { least: 1 << 10, most: 1 << 30, set: |s, bytes| s.hub.mercure_body = bytes as usize },
        default: "1MiB",
        rule: "N-40, M-51",
        help: "Largest body of a request there; the percent-encoding of the form counts",
    },
    Setting {
        name: "mercure-topics",
        group: MERCURE,
        kind: Kind::Count { least: 1, most: limits::TOPICS_PER_EVENT_MAX as u64, set: |s, count| s.hub.mercure_topics = count as usize },
        default: "1000",
        rule: "N-40, M-312",
        help: "Most topics of one event published there",
    },
    Setting {
        name: "mercure-selectors",
        group: MERCURE,
        kind: Kind::Count { least: 1, most: limits::MATCHERS_MAX as u64, set: |s, count| s.hub.mercure_selectors = count as usize },
        default: "1000",
        rule: "N-40, M-312",
        help: "Most `topic` parameters of one subscription there; the setting `matchers` bounds its `match` parameters",
    },
    Setting {
        name: "mercure-after-gap",
        group: MERCURE,
        kind: Kind::Choice {
            of: &["replay", "live"],
            set: |s, text| {
                s.hub.mercure_after_gap = if text == "replay" { AfterGap::Replay } else { AfterGap::Live };
                Ok(())
            },
        },
        default: "live",
        rule: "M-407",
        help: "What a reader there gets whose place in the log is gone, which the response header tells: everything that is kept, or only what is new",
    },
    Setting {
        name: "mercure-gap-event",
        group: MERCURE,
        kind: Kind::Switch { set: |s, on| s.hub.mercure_gap_event = on },
        default: "false",
        rule: "M-407",
        help: "Tell such a reader by a tidings.gap event too",
    },
    Setting {
        name: "mercure-topics-field",
        group: MERCURE,
        kind: Kind::Switch { set: |s, on| s.hub.mercure_topics_field = on },
        default: "false",
        rule: "M-130",
        help: "Name the topics of each event in `topics` lines, for subscriptions by `match`",
    },
    Setting {
        name: "more-public-urls",
        group: MERCURE,
        kind: Kind::List { form: "URL", add: |s, text| table::url(text).map(|url| s.hub.more_public_urls.push(url)) },
        default: "",
        rule: "M-73",
        help: "Further URLs of this hub beside public-url; requests for the hosts of all others are refused",
    },
    Setting {
        name: "mercure-debug",
        group: MERCURE,
        kind: Kind::Switch { set: |s, on| s.hub.mercure_debug = on },
        default: "false",
        rule: "M-313",
        help: "Serve a page at /.well-known/mercure/debug/ to subscribe and publish by hand",
    },
    Setting {
        name: "opaque-ids",
        group: MERCURE,
        kind: Kind::Text {
            form: "SECRET",
            set: |s, text| {
                s.hub.opaque_ids = Some(text.into());
                Ok(())
            },
        },
        default: "",
        rule: "M-95",
        help: "Hides under this secret, of 32 bytes or more, how events are numbered in their ids, on every route. It must stay as long as the log does; prefer the environment",
    },
];

/// RFC 6265: a token of HTTP.
fn cookie_name(text: &str) -> Result<String, String> {
    table::field(text).map_err(|_| format!("`{text}` is not the name of a cookie")).and(Ok(text.to_owned()))
}

/// One key more of the issuer that flat settings describe.
#[expect(clippy::unnecessary_wraps, reason = "it is what a setting may do")]
fn token_key(settings: &mut Settings, roles: Roles, source: Source) -> Result<(), String> {
    settings.issuer.keys.push((roles, source));
    Ok(())
}
