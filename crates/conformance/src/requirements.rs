//! Every requirement of the specification page, by number: its level, its subject in a few words, and which cannot be seen from outside.
//!
//! It knows numbers and words; what shows a requirement is in `checks`. Each number is either cited by a check or listed in [`OUTSIDE`].

/// How firmly something is demanded, and so what its absence is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Its absence is a failure.
    Must,
    /// Its absence is a warning.
    Should,
    /// Permitted, or observed of the reference lines: its absence is a note.
    Observed,
    /// Promised by Tidings alone, and only asked of it.
    Ours,
}

impl Level {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Level::Must => "MUST",
            Level::Should => "SHOULD",
            Level::Observed => "obs",
            Level::Ours => "ours",
        }
    }
}

/// A numbered requirement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Requirement {
    pub(crate) number: u16,
    pub(crate) level: Level,
    pub(crate) title: &'static str,
}

const fn must(number: u16, title: &'static str) -> Requirement {
    Requirement { number, level: Level::Must, title }
}

const fn should(number: u16, title: &'static str) -> Requirement {
    Requirement { number, level: Level::Should, title }
}

const fn note(number: u16, title: &'static str) -> Requirement {
    Requirement { number, level: Level::Observed, title }
}

const fn ours(number: u16, title: &'static str) -> Requirement {
    Requirement { number, level: Level::Ours, title }
}

/// All of them. Where a row of the page has two levels, the firmer one stands here.
pub(crate) const REQUIREMENTS: &[Requirement] = &[
    must(1, "topics are valid text without control and format characters"),
    note(2, "the first topic is canonical, further ones are alternates, any of them selects"),
    must(3, "private updates reach only those who are allowed"),
    note(4, "one connection may hold several subscriptions"),
    should(5, "the hub lives at /.well-known/mercure"),
    must(6, "everything reserved hangs below the hub's own path"),
    should(7, "publishers advertise the hub with Link"),
    note(8, "attributes of such links"),
    note(9, "the canonical topic is told by rel=self"),
    should(10, "credentials go to trusted hubs only"),
    should(11, "protected-resource metadata are served"),
    must(12, "the metadata name the resource"),
    note(13, "no version number: metadata are the hint"),
    must(14, "GET answers an event stream"),
    note(15, "QUERY carries the parameters in its body"),
    must(16, "parameters are the union of URL and body"),
    should(17, "HTTP/2 or later"),
    must(18, "match, match_exact, match_urlpattern, repeatable and mixable"),
    must(19, "the query is parsed as WHATWG form data"),
    must(20, "the prefix match is reserved in every case: typos are 400"),
    must(21, "matcher values obey the rules of topics and of their type"),
    must(22, "one hit of one matcher on one topic delivers"),
    must(23, "limits on matchers and patterns are 400"),
    should(24, "limits on connections"),
    must(25, "matchers grant nothing"),
    must(26, "every field of the event stream"),
    should(27, "a comment keeps idle streams alive"),
    must(28, "CORS by allowlist, with credentials"),
    note(29, "rules of the hub's own"),
    must(30, "* matches every topic"),
    must(31, "exact is byte for byte"),
    must(32, "URL patterns, with the hub URL as their base"),
    must(33, "a topic that is no URL matches no pattern"),
    must(34, "patterns cost linear time"),
    must(35, "an unsupported matcher type is refused"),
    should(36, "further matcher types are advertised"),
    must(37, "publications are form posts"),
    must(38, "at least one topic"),
    must(39, "* is no topic"),
    must(40, "the reserved namespace cannot be published to"),
    must(41, "data is split into lines and nothing else"),
    must(42, "private counts by presence"),
    must(43, "ids have a form"),
    must(44, "the hub makes an id when none is given"),
    should(45, "publishers' ids are unique"),
    must(46, "types have a form, mercure is reserved"),
    must(47, "retry is digits"),
    must(48, "unknown fields are ignored"),
    must(49, "success is 200 with the id as plain text"),
    must(50, "every topic has to be granted to the publisher"),
    must(51, "limits on publications are 413"),
    note(52, "re-dispatch through other protocols"),
    must(53, "publishing needs a token"),
    must(54, "private updates need a token"),
    must(55, "access tokens have the shape of RFC 9068"),
    must(56, "stable issuers"),
    must(57, "tokens come by header or cookie, the header first"),
    should(58, "the cookie's name"),
    must(59, "publishing by cookie is guarded against other sites"),
    must(60, "no token: 401 with a bare challenge"),
    must(61, "a bad token: 401 invalid_token"),
    must(62, "not granted: 403 insufficient_scope"),
    must(63, "a malformed presentation: 400 invalid_request"),
    must(64, "a malformed request: 400"),
    must(65, "too large: 413"),
    note(66, "too many connections: 429"),
    note(67, "problem documents"),
    must(68, "typ is at+jwt"),
    must(69, "algorithms come from the configuration"),
    must(70, "keys come from the configuration, one role and family each"),
    must(71, "keys are bound to their issuer"),
    must(72, "exp and nbf are enforced without leeway"),
    must(73, "the audience is the hub, never what Host says"),
    must(74, "the issuer is trusted, exactly"),
    must(75, "only entries of the hub's type concern it"),
    must(76, "entries have actions and topics"),
    must(77, "topics are objects with match and match_type"),
    must(78, "one error in an entry refuses the token"),
    must(79, "limits on details"),
    must(80, "publish grants cover every topic"),
    must(81, "one granted topic is enough to receive"),
    must(82, "a stream ends at the token's exp"),
    should(83, "streams have a longest life"),
    must(84, "the payload is of the first entry that accepts the matcher"),
    must(85, "every event has an id"),
    must(86, "the cursor: header, then query"),
    should(87, "everything after the cursor is sent"),
    must(88, "replayed events are authorised one by one"),
    note(89, "earliest"),
    must(90, "a repeated id means its earliest occurrence"),
    must(91, "the start of the stream is told whenever a cursor was sent"),
    must(92, "what that field says"),
    note(93, "an unknown cursor"),
    note(94, "events may be discarded"),
    should(95, "opaque ids"),
    should(96, "subscribers compare cursors"),
    must(97, "presence: an update whenever a subscription starts or ends"),
    must(98, "presence: its topic"),
    must(99, "presence: the subscriber's name"),
    must(100, "presence: its document"),
    must(101, "presence: private, with event mercure"),
    should(102, "presence: the API"),
    must(103, "presence API: authorised on the path"),
    must(104, "presence API: JSON"),
    must(105, "presence API: one subscription"),
    must(106, "presence API: collections"),
    must(107, "presence API: Link with the last event's id"),
    note(108, "presence API: ETag and conditional requests"),
    should(109, "presence is advertised"),
    should(110, "encrypted data passes unchanged"),
    should(111, "publishers encode what has to be exact"),
    must(112, "CR, LF and NUL break nothing"),
    must(113, "reserved topics and types are enforced"),
    should(114, "key sets are fetched with care"),
    should(115, "limits everywhere"),
    note(116, "sender-constrained tokens"),
    should(117, "no secrets in topics"),
    note(130, "disclosed topics as topics: lines"),
    note(131, "multipart streams"),
    note(132, "Incremental and Accept-Query"),
    must(201, "the hub's path is /.well-known/mercure"),
    must(202, "topic selects, repeatable"),
    must(203, "*, equality, templates"),
    must(204, "fields of a publication"),
    must(205, "tokens by header, query, cookie"),
    should(206, "an answer to a token in the URL is private"),
    must(207, "the claim mercure.publish"),
    must(208, "the claim mercure.subscribe"),
    must(209, "exp, when there, is enforced"),
    note(210, "the claim mercure.payload"),
    must(211, "cursors: Last-Event-ID, lastEventID"),
    must(212, "presence: JSON-LD events"),
    must(213, "presence API: JSON-LD documents"),
    must(214, "publishing by cookie is guarded against other sites"),
    note(215, "the claim under its URL"),
    note(216, "the query parameter Last-Event-ID"),
    note(217, "clients that send several cursor parameters"),
    note(218, "what templates match"),
    note(301, "the first bytes come with the head"),
    note(302, "headers of streams"),
    note(303, "data is always there, one space after colons"),
    note(304, "generated ids and subscribers are unique"),
    note(305, "heartbeats are comments"),
    note(306, "the longest life of a stream"),
    note(307, "slow readers"),
    note(308, "no matcher is 400"),
    note(309, "authorisation is checked before matchers"),
    note(310, "statuses of refused publications"),
    note(311, "other methods are 405"),
    note(312, "the sizes of limits"),
    note(313, "nosniff"),
    note(314, "what CORS allows and exposes"),
    note(315, "the Authorization header"),
    note(316, "publishing by cookie from an allowed origin"),
    note(317, "presence documents may span lines"),
    note(318, "presence: inactive comes after the removal"),
    note(319, "presence: spaces in paths"),
    note(320, "presence API: conditional requests"),
    note(321, "presence API: id of collections"),
    note(322, "presence API without keys"),
    note(323, "repeated fields, empty retry, other content types"),
    note(324, "an empty cursor opens a stream"),
    note(325, "algorithms of static keys"),
    note(326, "presence is not counted in mercure_updates_total"),
    note(327, "routing and grant are independent"),
    note(328, "a valid token without grants opens a stream"),
    note(329, "a bad token is refused, never anonymous"),
    note(330, "presence API: a token is needed"),
    note(331, "other Authorization schemes are refused"),
    note(332, "the stricter input rules hold for all"),
    note(333, "a cursor that cannot be honoured"),
    note(334, "bad escapes and semicolons in queries"),
    note(335, "crit and exp as text"),
    note(336, "details that hubs read differently"),
    note(337, "an empty matcher"),
    note(338, "a second space after Bearer"),
    note(339, "CORS: case of origins, unlisted headers"),
    note(340, "presence API: path only, HEAD"),
    note(341, "any token without subscriber keys"),
    note(342, "prefixes in templates"),
    note(343, "long replays"),
    ours(401, "both dialects at once, or one switched off"),
    ours(402, "dialect by token, never a fall-back"),
    ours(403, "order of cursor names, empty cursors"),
    ours(404, "both start fields, exposed"),
    ours(405, "presence in two views"),
    ours(406, "cookie names, the query token"),
    ours(407, "cursors that cannot be honoured"),
    ours(408, "style of errors by token and parameters"),
    ours(409, "publishing is one request in both dialects"),
    ours(410, "presence ids are cursors"),
    ours(411, "key sets"),
    ours(412, "accepted tokens are not trusted past their end"),
];

/// What a client on the network cannot see, with the reason.
pub(crate) const OUTSIDE: &[(u16, &str)] = &[
    (7, "a duty of the publishers' own sites"),
    (8, "attributes of the publishers' own sites"),
    (9, "a header of the publishers' own sites"),
    (10, "a choice of subscribers"),
    (24, "reaching the limit would shut out the other users of the hub"),
    (29, "a permission without a visible form"),
    (45, "a duty of publishers"),
    (52, "a permission; what is sent on goes elsewhere"),
    (56, "a duty of issuers"),
    (66, "a permission, and reaching the limit would shut out others"),
    (94, "a permission"),
    (95, "whether ids are guessable cannot be told from some of them"),
    (96, "a choice of subscribers"),
    (111, "a choice of publishers"),
    (114, "what the hub fetches is not seen by its clients"),
    (116, "a permission without a standard form"),
    (117, "a duty of publishers"),
    (131, "in motion upstream; not built on purpose"),
    (307, "would need more load than a hub in use should bear"),
    (322, "needs a hub without subscriber keys"),
    (341, "needs a hub without subscriber keys"),
    (411, "what the hub fetches, and when, is not seen by its clients"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::all;

    /// The page numbers its requirements in these ranges, without holes.
    #[test]
    fn every_number_of_the_page_is_here() {
        let numbers: Vec<u16> = REQUIREMENTS.iter().map(|requirement| requirement.number).collect();
        let page: Vec<u16> = (1..=117).chain(130..=132).chain(201..=218).chain(301..=343).chain(401..=412).collect();
        assert_eq!(numbers, page);
    }

    #[test]
    fn every_number_is_either_checked_or_cannot_be_seen() {
        for requirement in REQUIREMENTS {
            let checked = all().any(|check| check.rules.contains(&requirement.number));
            let outside = OUTSIDE.iter().any(|(number, _)| *number == requirement.number);
            let said = if checked { "checked and also called invisible" } else { "neither checked nor called invisible" };
            assert!(checked != outside, "M-{} ({}) is {said}", requirement.number, requirement.title);
        }
    }

    #[test]
    fn checks_cite_only_what_exists() {
        for check in all() {
            assert!(!check.rules.is_empty(), "{} shows nothing", check.name);
            for rule in check.rules {
                assert!(REQUIREMENTS.iter().any(|requirement| requirement.number == *rule), "{} cites M-{rule}", check.name);
            }
        }
        let mut names: Vec<&str> = all().map(|check| check.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "two checks have one name");
    }
}
