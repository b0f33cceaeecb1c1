//! Where a request carries its token, and which of several counts (M-57, M-205, M-406).
//!
//! It knows the values of fields and names, not requests; whether a token holds is decided afterwards.

use super::error::Reason;
use crate::Config;
use std::borrow::Cow;

/// The interface a request came to; they differ in what they make of other people's `Authorization` schemes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Door {
    /// `/publish`, `/subscribe`, `/topics`: another scheme is a proxy's password, say, and passes unread.
    Native,
    /// The Mercure path: another scheme is refused (M-331), and so is a field that cannot hold a token (M-315).
    Mercure,
}

/// Where a token stood.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Source {
    Header,
    /// The answer must be `Cache-Control: private` (M-206).
    Query,
    /// Publishing with it needs an `Origin` or `Referer` that may publish (M-59).
    Cookie,
}

/// What a request presents, undecoded but for the query's percent-encoding.
#[derive(Clone, Debug)]
pub(crate) struct Presented<'a> {
    pub(crate) door: Door,
    /// The values of all `Authorization` fields.
    pub(crate) authorization: Vec<&'a [u8]>,
    /// The values of all `Cookie` fields.
    pub(crate) cookies: Vec<&'a [u8]>,
    /// The values of all query names `authorization`.
    pub(crate) query: Vec<Cow<'a, str>>,
}

impl Presented<'_> {
    /// No token at all.
    pub(crate) fn nothing(door: Door) -> Self {
        Presented { door, authorization: Vec::new(), cookies: Vec::new(), query: Vec::new() }
    }
}

/// The settings about it.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// In order of precedence.
    cookie_names: Vec<Box<str>>,
    query: bool,
}

/// Cookies that are looked for when no name is configured: dialect 8's before dialect 7's.
const COOKIE_NAMES: [&str; 2] = ["__Secure-mercure_access_token", "mercureAuthorization"];
/// Bytes of an `Authorization` field under which it cannot hold a token (M-315, M-338).
const FIELD_MIN: usize = 48;

impl Places {
    pub(crate) fn new(config: &Config) -> Self {
        let cookie_names = match &config.cookie_name {
            Some(name) => vec![name.as_str().into()],
            None => COOKIE_NAMES.map(Into::into).to_vec(),
        };
        Places { cookie_names, query: config.query_token }
    }

    /// The one token that counts: the field before the query before the cookie; what is outranked is not looked at (M-57).
    pub(crate) fn choose<'a>(&self, presented: &'a Presented<'_>) -> Result<Option<(Source, &'a [u8])>, Reason> {
        // Off is said and not ignored: whoever puts a token there believes to have its rights.
        if !presented.query.is_empty() && !self.query {
            return Err(Reason::QueryOff);
        }
        if let Some(token) = in_field(presented)? {
            return Ok(Some((Source::Header, token)));
        }
        match &presented.query[..] {
            [] => {}
            [token] => return Ok(Some((Source::Query, token.as_bytes()))),
            _ => return Err(Reason::ManyInQuery),
        }
        let cookie = self.cookie_names.iter().find_map(|name| cookie(&presented.cookies, name));
        Ok(cookie.map(|token| (Source::Cookie, token)))
    }
}

/// The token of the `Authorization` field, if there is one.
pub(crate) fn in_field<'a>(presented: &Presented<'a>) -> Result<Option<&'a [u8]>, Reason> {
    let field = match presented.authorization[..] {
        [] => return Ok(None),
        [field] => field,
        _ => return Err(Reason::ManyFields),
    };
    let scheme_end = field.iter().position(|&b| b == b' ').unwrap_or(field.len());
    let (scheme, rest) = field.split_at(scheme_end);
    let bearer = scheme.eq_ignore_ascii_case(b"bearer");
    match presented.door {
        Door::Native if !bearer => Ok(None),
        Door::Native => {
            let token = rest.trim_ascii();
            if token.is_empty() || token.contains(&b' ') { Err(Reason::NotBearer) } else { Ok(Some(token)) }
        }
        Door::Mercure if !bearer || rest.is_empty() => Err(Reason::NotBearer),
        // A second space would be a part of the token, which then is none.
        Door::Mercure => Ok(Some(&rest[1..])),
    }
}

/// Whether a field on the Mercure path is too short to hold a token; a publish key may be.
pub(crate) fn too_short(presented: &Presented<'_>) -> bool {
    presented.door == Door::Mercure && presented.authorization.first().is_some_and(|field| field.len() < FIELD_MIN)
}

/// The first cookie of a name; browsers send the one with the most specific path first (RFC 6265).
fn cookie<'a>(fields: &[&'a [u8]], name: &str) -> Option<&'a [u8]> {
    let mut pairs = fields.iter().flat_map(|field| field.split(|&b| b == b';'));
    pairs.find_map(|pair| {
        let at = pair.iter().position(|&b| b == b'=')?;
        let (given, value) = (pair[..at].trim_ascii(), pair[at + 1..].trim_ascii());
        let value = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
        (given == name.as_bytes()).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    type Expected<'a> = Result<Option<(Source, &'a str)>, Reason>;

    fn check(config: &Config, door: Door, fields: &[&str], query: &[&str], cookies: &[&str], expected: &Expected<'_>) {
        let presented = Presented {
            door,
            authorization: fields.iter().map(|f| f.as_bytes()).collect(),
            cookies: cookies.iter().map(|c| c.as_bytes()).collect(),
            query: query.iter().map(|&q| q.into()).collect(),
        };
        let got =
            Places::new(config).choose(&presented).map(|found| found.map(|(source, token)| (source, std::str::from_utf8(token).unwrap())));
        assert_eq!(&got, expected, "{door:?} {fields:?} {query:?} {cookies:?}");
    }

    /// M-57, M-205, M-331, M-338, M-406: every source, their order, and what is no presentation at all.
    #[test]
    fn sources_and_precedence() {
        use Source::{Cookie, Header, Query};
        let config = Config { query_token: true, ..Config::default() };
        let check = |door, fields: &[&str], query: &[&str], cookies: &[&str], expected: Expected<'_>| {
            check(&config, door, fields, query, cookies, &expected);
        };
        for door in [Door::Native, Door::Mercure] {
            check(door, &[], &[], &[], Ok(None));
            check(door, &["Bearer a.b.c"], &["q"], &["mercureAuthorization=c"], Ok(Some((Header, "a.b.c"))));
            check(door, &["bEARER a"], &[], &[], Ok(Some((Header, "a"))));
            check(door, &[], &["q"], &["mercureAuthorization=c"], Ok(Some((Query, "q"))));
            check(door, &[], &[""], &[], Ok(Some((Query, ""))));
            check(door, &[], &["q", "q"], &[], Err(Reason::ManyInQuery));
            check(door, &["Bearer a", "Bearer a"], &[], &[], Err(Reason::ManyFields));
            check(door, &["Bearer"], &[], &[], Err(Reason::NotBearer));
            check(door, &[], &[], &["a=1; mercureAuthorization=c; b=2"], Ok(Some((Cookie, "c"))));
            check(door, &[], &[], &["a=1", "mercureAuthorization=\"c\""], Ok(Some((Cookie, "c"))));
            check(door, &[], &[], &["mercureAuthorization=7; __Secure-mercure_access_token=8"], Ok(Some((Cookie, "8"))));
            check(door, &[], &[], &["mercureAuthorization=1; mercureAuthorization=2"], Ok(Some((Cookie, "1"))));
            check(door, &[], &[], &["mercureauthorization=1; xmercureAuthorization=2; mercureAuthorization"], Ok(None));
        }
        check(Door::Native, &["Basic eDp5"], &[], &["mercureAuthorization=c"], Ok(Some((Cookie, "c"))));
        check(Door::Mercure, &["Basic eDp5"], &[], &["mercureAuthorization=c"], Err(Reason::NotBearer));
        check(Door::Native, &["Bearer  a "], &[], &[], Ok(Some((Header, "a"))));
        check(Door::Mercure, &["Bearer  a"], &[], &[], Ok(Some((Header, " a"))));
        check(Door::Native, &["Bearer a b"], &[], &[], Err(Reason::NotBearer));
    }

    /// M-406: a configured name is the only one, and a token in the query while that is off is said, whatever else is there.
    #[test]
    fn settings() {
        let mut config = Config::default();
        check(&config, Door::Mercure, &["Bearer a"], &["q"], &[], &Err(Reason::QueryOff));
        check(&config, Door::Native, &[], &[""], &[], &Err(Reason::QueryOff));
        config.cookie_name = Some("session".into());
        check(&config, Door::Mercure, &[], &[], &["mercureAuthorization=7; session=8"], &Ok(Some((Source::Cookie, "8"))));
        check(&config, Door::Mercure, &[], &[], &["mercureAuthorization=7"], &Ok(None));
    }
}
