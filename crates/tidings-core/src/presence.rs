//! Presence: who has subscribed to what, as the hub tells it: an event when a subscription begins and one when it ends, in the two views
//! of the two dialects of Mercure (M-97 to M-101, M-212, M-405).
//!
//! It knows topics, documents and bytes. Which subscriptions there are, and who may see them, is known elsewhere.

use crate::{Draft, Event, Matchers, Record, Topic, TopicMatcher, Topics, View, matcher::Kind};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use std::{
    fmt,
    sync::{Arc, LazyLock},
};

/// Below it lies everything about subscriptions (M-98, M-102).
pub const PATH: &str = "/.well-known/mercure/subscriptions";
/// The type of an event about a subscription; nobody but the hub publishes it (M-46, M-101).
const EVENT_TYPE: &str = "mercure";
/// All but the unreserved characters of a URI (M-98).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// How a subscription matches, as the newer dialect names it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum MatchType {
    /// One topic, byte for byte; or `*`.
    Exact,
    /// A WHATWG URL pattern.
    UrlPattern,
    /// A URI template: what the parameter `topic` of the older dialect takes beside plain topics.
    UriTemplate,
}

impl MatchType {
    /// Every type.
    pub const ALL: [MatchType; 3] = [MatchType::Exact, MatchType::UrlPattern, MatchType::UriTemplate];

    /// Its name in documents and paths.
    pub fn as_str(self) -> &'static str {
        match self {
            MatchType::Exact => "exact",
            MatchType::UrlPattern => "urlpattern",
            MatchType::UriTemplate => "uritemplate",
        }
    }

    /// By its name.
    pub fn parse(name: &str) -> Option<MatchType> {
        MatchType::ALL.into_iter().find(|of| of.as_str() == name)
    }
}

/// One connection: the UUID under which its subscriptions are told (M-99).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Subscriber(u128);

impl Subscriber {
    /// The first in order.
    pub const MIN: Subscriber = Subscriber(0);
    /// The last.
    pub const MAX: Subscriber = Subscriber(u128::MAX);

    /// A version 4 UUID of random bits.
    pub fn from_random(bits: u128) -> Subscriber {
        const VERSION: u128 = 0xf << 76;
        const VARIANT: u128 = 0b11 << 62;
        Subscriber(bits & !VERSION & !VARIANT | 4 << 76 | 0b10 << 62)
    }

    /// As it was written.
    pub fn parse(text: &str) -> Option<Subscriber> {
        let uuid = text.strip_prefix("urn:uuid:")?;
        let groups = [8, 13, 18, 23];
        let is_uuid = |(at, b): (usize, u8)| if groups.contains(&at) { b == b'-' } else { matches!(b, b'0'..=b'9' | b'a'..=b'f') };
        if uuid.len() != 36 || !uuid.bytes().enumerate().all(is_uuid) {
            return None;
        }
        u128::from_str_radix(&uuid.replace('-', ""), 16).ok().map(Subscriber)
    }
}

impl fmt::Display for Subscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{:032x}", self.0);
        write!(f, "urn:uuid:{}-{}-{}-{}-{}", &digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..])
    }
}

/// One matcher of one connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ActiveSubscription {
    /// How it matches.
    pub match_type: MatchType,
    /// The matcher as its subscriber wrote it.
    pub matcher: Arc<str>,
    /// Whose it is.
    pub subscriber: Subscriber,
    /// What the subscriber's token says beside it: JSON (M-84, M-210).
    pub payload: Option<Arc<str>>,
}

impl ActiveSubscription {
    /// The topic of its events, which is also the path of its document (M-98, M-212).
    pub fn path(&self, view: View) -> String {
        self.written().path(view)
    }

    /// The members of its document, without the braces and without the context that an older document begins with (M-100, M-212).
    pub fn members(&self, view: View, active: bool) -> String {
        let written = self.written();
        written.members(view, &written.path(view), active)
    }

    /// The event that says that it began or ended.
    pub fn draft(&self, active: bool) -> Draft {
        let written = self.written();
        let paths = [View::First, View::Second].map(|view| written.path(view));
        let topics = Topics::stored(paths.iter().map(|path| Topic::stored(path))).expect("two");
        let event = |event_type, data| Event::of_hub(topics.clone(), event_type, data);
        let first = event(Some(EVENT_TYPE), format!("{{{}}}", written.members(View::First, &paths[0], active)));
        let second = event(None, format!("{{{CONTEXT},{}}}", written.members(View::Second, &paths[1], active)));
        Draft::in_two_views(first, &second)
    }

    fn written(&self) -> Written<'_> {
        let subscriber = self.subscriber.to_string();
        Written { of: self, matcher: encoded(&self.matcher), encoded: encoded(&subscriber), subscriber }
    }

    /// What an event says, and whether the subscription is active; `None` if it is not about a subscription.
    pub fn read(record: &Record) -> Option<(ActiveSubscription, bool)> {
        if !record.has_two_views() {
            return None;
        }
        let (match_type, matcher, subscriber) = read_path(record.topics_in(View::First).first()?.as_str())?;
        let data = record.data();
        // Quotes inside of a text stand behind a backslash, so the first place that looks like this member is this member.
        let (_, rest) = data.split_once(r#","active":"#)?;
        let active = rest.starts_with("true");
        let payload = rest.split_once(r#","payload":"#).and_then(|(_, payload)| payload.strip_suffix('}'));
        Some((ActiveSubscription { match_type, matcher: matcher.into(), subscriber, payload: payload.map(Into::into) }, active))
    }
}

/// Texts that both views need, each made once: a storm of reconnects makes tens of thousands of events.
struct Written<'a> {
    of: &'a ActiveSubscription,
    /// Encoded, as part of a path.
    matcher: String,
    subscriber: String,
    /// The subscriber as part of a path.
    encoded: String,
}

impl Written<'_> {
    fn path(&self, view: View) -> String {
        let (matcher, subscriber) = (&*self.matcher, &*self.encoded);
        match view {
            View::First => [PATH, "/", self.of.match_type.as_str(), "/", matcher, "/", subscriber].concat(),
            View::Second => [PATH, "/", matcher, "/", subscriber].concat(),
        }
    }

    /// A path has no character that JSON would escape.
    fn members(&self, view: View, path: &str, active: bool) -> String {
        let (subscriber, matcher) = (&self.subscriber, serde_json::Value::from(&*self.of.matcher));
        let what = match view {
            View::First => format!(r#""type":"subscription","match_type":"{}","match":{matcher}"#, self.of.match_type.as_str()),
            View::Second => format!(r#""type":"Subscription","topic":{matcher}"#),
        };
        let mut members = format!(r#""id":"{path}",{what},"subscriber":"{subscriber}","active":{active}"#);
        if let Some(payload) = &self.of.payload {
            members.extend([r#","payload":"#, payload]);
        }
        members
    }
}

/// What an older document begins with (M-212).
pub const CONTEXT: &str = r#""@context":"https://mercure.rocks/""#;

/// A part of a path, encoded once, as a whole (M-98).
pub fn encoded(part: &str) -> String {
    utf8_percent_encode(part, ENCODED).to_string()
}

/// What the topic of the first view names.
pub fn read_path(path: &str) -> Option<(MatchType, String, Subscriber)> {
    let mut parts = path.strip_prefix(PATH)?.strip_prefix('/')?.split('/').map(|part| percent_decode_str(part).decode_utf8());
    let match_type = MatchType::parse(&parts.next()?.ok()?)?;
    let (matcher, subscriber) = (parts.next()?.ok()?.into_owned(), Subscriber::parse(&parts.next()?.ok()?)?);
    parts.next().is_none().then_some((match_type, matcher, subscriber))
}

/// Of some matchers those that may match the topic of an event about a subscription; conservative.
pub(crate) fn among(matchers: &Matchers) -> Matchers {
    Matchers::new(matchers.as_slice().iter().filter(|matcher| may_match(matcher)).cloned())
}

/// Whether one of them may; conservative.
pub(crate) fn any_of(matchers: &Matchers) -> bool {
    matchers.as_slice().iter().any(may_match)
}

fn may_match(matcher: &TopicMatcher) -> bool {
    match &matcher.0 {
        Kind::Exact(name) => name.starts_with(PATH),
        Kind::Prefix(name) => PATH[1..].starts_with(&**name) || name.starts_with(&PATH[1..]),
        Kind::Template(template) => PATH.starts_with(template.head()) || template.head().starts_with(PATH),
        // The same path can be written in more than one way.
        Kind::All | Kind::Pattern(_) => true,
    }
}

/// What stands for all events about subscriptions where it is remembered who may have missed something.
pub(crate) fn audience() -> &'static Topics {
    static AUDIENCE: LazyLock<Topics> = LazyLock::new(|| Topics::stored([Topic::stored(PATH)].into_iter()).expect("one"));
    &AUDIENCE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Epoch, FeedKey, Filter, Framing, Grant, Position, TopicError};
    use proptest::prelude::*;

    fn subscription(match_type: MatchType, matcher: &str, payload: Option<&str>) -> ActiveSubscription {
        let subscriber = Subscriber::from_random(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        ActiveSubscription { match_type, matcher: matcher.into(), subscriber, payload: payload.map(Into::into) }
    }

    fn record(subscription: &ActiveSubscription, active: bool) -> Record {
        subscription.draft(active).seal(Position { epoch: Epoch(1), sequence: 2 }, 0)
    }

    fn text(record: &Record, view: View) -> &str {
        std::str::from_utf8(record.wire_in(view, Framing::Plain)).unwrap()
    }

    /// M-98, M-100, M-101, M-212, M-405: the literal bytes of both views.
    #[test]
    fn bytes_of_both_views() {
        let begins = record(&subscription(MatchType::Exact, "https://example.com/a b?x=%20", Some(r#"{"user":1}"#)), true);
        assert_eq!(
            text(&begins, View::First),
            "event: mercure\n\
             data: {\"id\":\"/.well-known/mercure/subscriptions/exact/https%3A%2F%2Fexample.com%2Fa%20b%3Fx%3D%2520/\
             urn%3Auuid%3A01234567-89ab-4def-8123-456789abcdef\",\"type\":\"subscription\",\"match_type\":\"exact\",\
             \"match\":\"https://example.com/a b?x=%20\",\"subscriber\":\"urn:uuid:01234567-89ab-4def-8123-456789abcdef\",\
             \"active\":true,\"payload\":{\"user\":1}}\n\
             id: #00000001-0000000000000002\n\n"
        );
        assert_eq!(
            text(&begins, View::Second),
            "data: {\"@context\":\"https://mercure.rocks/\",\
             \"id\":\"/.well-known/mercure/subscriptions/https%3A%2F%2Fexample.com%2Fa%20b%3Fx%3D%2520/\
             urn%3Auuid%3A01234567-89ab-4def-8123-456789abcdef\",\"type\":\"Subscription\",\
             \"topic\":\"https://example.com/a b?x=%20\",\"subscriber\":\"urn:uuid:01234567-89ab-4def-8123-456789abcdef\",\
             \"active\":true,\"payload\":{\"user\":1}}\n\
             id: #00000001-0000000000000002\n\n"
        );
        assert!(begins.is_private());
        let ends = record(&subscription(MatchType::UriTemplate, "/books/{id}", None), false);
        let [first, second] = [View::First, View::Second].map(|view| ends.topics_in(view)[0].as_str());
        assert_eq!(
            first,
            "/.well-known/mercure/subscriptions/uritemplate/%2Fbooks%2F%7Bid%7D/urn%3Auuid%3A01234567-89ab-4def-8123-456789abcdef"
        );
        assert_eq!(second, "/.well-known/mercure/subscriptions/%2Fbooks%2F%7Bid%7D/urn%3Auuid%3A01234567-89ab-4def-8123-456789abcdef");
        assert!(text(&ends, View::First).contains(r#""active":false}"#));
    }

    /// M-40, M-46: only through this door, for the constructor of events refuses the topics and the type.
    #[test]
    fn nobody_else_publishes_these() {
        for topic in record(&subscription(MatchType::Exact, "a", None), true).topics() {
            assert_eq!(Topic::parse(topic.as_str()), Err(TopicError::Reserved));
        }
        assert!(Event::new("a", "").unwrap().with_type(EVENT_TYPE).is_err());
    }

    fn filter(first: &[&str], second: &[&str], granted: &[&str]) -> Filter {
        let matchers = |names: &[&str]| Matchers::new(names.iter().map(|name| TopicMatcher::exact(name).unwrap()));
        let mut grant = Grant::none();
        grant.read_private = matchers(granted);
        Filter::in_views(matchers(first), matchers(second), &grant)
    }

    /// M-405: the view of the parameter that asked, if the topic of that view is granted; the newer one where both ask.
    #[test]
    fn who_gets_which_view() {
        let record = record(&subscription(MatchType::Exact, "a", None), true);
        let [newer, older] = [View::First, View::Second].map(|view| record.topics_in(view)[0].as_str());
        type Row<'a> = (&'a [&'a str], &'a [&'a str], &'a [&'a str], Option<View>, &'a str);
        let (first, second, nothing) = (Some(View::First), Some(View::Second), None);
        let table: &[Row<'_>] = &[
            (&["*"], &[], &["*"], first, "asked in the newer dialect"),
            (&[], &["*"], &["*"], second, "asked in the older dialect"),
            (&["*"], &["*"], &["*"], first, "both: the newer, once"),
            (&["a"], &["*"], &["*"], second, "the newer asks for something else"),
            (&["*"], &["a"], &["*"], first, "the older asks for something else"),
            (&[newer], &[], &[newer], first, "by its topic"),
            (&[], &[older], &[older], second, "by its topic, older"),
            (&[older], &[], &["*"], nothing, "the topic of the other view"),
            (&[], &[newer], &["*"], nothing, "the topic of the other view, older"),
            (&["*"], &[], &[older], nothing, "granted in the other view"),
            (&[], &["*"], &[newer], nothing, "granted in the other view, older"),
            (&["*"], &["*"], &[older], second, "both ask, and only the older is granted"),
            (&["*"], &["*"], &[], nothing, "not granted"),
        ];
        for (asked, asked_older, granted, expected, why) in table {
            let filter = filter(asked, asked_older, granted);
            assert_eq!(filter.view_of(&record), *expected, "{why}");
            let key = FeedKey { filter: Arc::new(filter), framing: Framing::Plain, topics_field: true };
            if let Some(view) = expected {
                let topic = record.topics_in(*view)[0].as_str();
                assert_eq!(key.bytes(&record), format!("topics: {topic}\n{}", text(&record, *view)), "{why}");
            }
        }
    }

    /// Readers of ordinary topics are one feed, whichever dialect they ask in.
    #[test]
    fn only_those_who_can_see_a_view_have_one() {
        assert_eq!(filter(&["a"], &["b"], &["*"]), filter(&["b"], &["a"], &["*"]));
        assert_ne!(filter(&["*"], &[], &["*"]), filter(&[], &["*"], &["*"]));
    }

    /// N-14: whoever may have missed one that is gone is told, nobody else; and they do not push out what is remembered of others.
    #[test]
    fn evicted() {
        let mut evicted = crate::Evicted::new(0, 3, usize::MAX);
        let draft = |at: u64| subscription(MatchType::Exact, &at.to_string(), None).draft(true);
        for sequence in 1..100 {
            evicted.push(&draft(sequence).seal(Position { epoch: Epoch(1), sequence }, 0));
        }
        let beyond = format!("{PATH}/exact/x/y");
        assert_eq!(evicted.forgotten(), [0, 0]);
        assert!(evicted.may_miss(98, &filter(&["*"], &[], &["*"])) && evicted.may_miss(98, &filter(&[], &[&beyond], &[&beyond])));
        assert!(!evicted.may_miss(0, &filter(&["a"], &[], &["*"])) && !evicted.may_miss(0, &filter(&["*"], &[], &["a"])));
        assert!(!evicted.may_miss(99, &filter(&["*"], &[], &["*"])));
    }

    proptest! {
        /// What is published reads back, whatever matcher and payload look like; and what is stored is the same again.
        #[test]
        fn round_trip(matcher in "\\PC{0,40}", tricky: bool, number: u128, active: bool, of in 0usize..3, cut: prop::sample::Index) {
            let payload = tricky.then(|| serde_json::json!({ ",\"active\":": [matcher], "payload": ",\"payload\":{}" }).to_string().into());
            let subscriber = Subscriber::from_random(number);
            prop_assert_eq!(Subscriber::parse(&subscriber.to_string()), Some(subscriber));
            let given = ActiveSubscription { match_type: MatchType::ALL[of], matcher: matcher.into(), subscriber, payload };
            let record = record(&given, active);
            prop_assert_eq!(ActiveSubscription::read(&record), Some((given, active)));
            for view in [View::First, View::Second] {
                let data = text(&record, view).lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
                let document: serde_json::Value = serde_json::from_str(data).unwrap();
                prop_assert_eq!(document["id"].as_str(), Some(record.topics_in(view)[0].as_str()));
            }
            let mut bytes = Vec::new();
            record.put_stored(&mut bytes);
            prop_assert_eq!(record.stored_len(), bytes.len());
            let stored = Record::from_stored(record.position(), 0, &bytes.clone().into(), record.topics()).unwrap();
            prop_assert_eq!(format!("{stored:?}"), format!("{record:?}"));
            let cut = cut.index(bytes.len());
            let _ = Record::from_stored(record.position(), 0, &bytes[..cut].to_vec().into(), &[]);
        }
    }

    #[test]
    fn no_subscriber() {
        for text in ["", "urn:uuid:", "urn:uuid:01234567-89AB-4def-8123-456789abcdef", "urn:uuid:0123456789ab-4def-8123-456789abcdef-00"] {
            assert_eq!(Subscriber::parse(text), None, "{text}");
        }
    }
}
