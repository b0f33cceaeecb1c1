//! Events as JSON objects (N-2): strict about members, because a misspelt one would be lost silently, and faithful to the data, because
//! numbers and the order of members belong to the publisher.
//!
//! It knows one object and one array; where they come from and what becomes of the events is decided in `http/publish.rs`.

use super::{
    plain::{Plain, plain, plain_alone},
    problem::Problem,
};
use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny, SeqAccess},
};
use serde_json::value::RawValue;
use std::{borrow::Cow, fmt};
use tidings_core::{Event, KnownTopics, Topics, limits};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `topic` or `topics`, and `data`")]
struct Object<'a> {
    #[serde(borrow)]
    topic: Option<Text<'a>>,
    #[serde(borrow)]
    topics: Option<Vec<Text<'a>>>,
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(borrow, rename = "type")]
    event_type: Option<Text<'a>>,
    #[serde(borrow)]
    id: Option<Text<'a>>,
    // Read by hand: a number and a string of digits mean the same (N-1a).
    #[serde(borrow)]
    retry: Option<&'a RawValue>,
    private: Option<bool>,
}

/// A string, copied only if it has escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(text.into()))
            }
            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(text.to_owned().into()))
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

/// The topics of the event before: the next one often has the same, and then they are neither looked for nor checked.
#[derive(Debug)]
pub(crate) struct Recent<'k>(Option<Topics>, &'k KnownTopics);

impl<'k> Recent<'k> {
    pub(crate) fn new(known: &'k KnownTopics) -> Recent<'k> {
        Recent(None, known)
    }

    fn topics(&mut self, names: &[&str], limit: usize) -> Result<Topics, Problem> {
        if let Some(recent) = &self.0
            && recent.len() == names.len()
            && recent.iter().zip(names).all(|(topic, name)| topic.as_str() == *name)
        {
            return Ok(recent.clone());
        }
        Ok(self.0.insert(topics(self.1, names, limit)?).clone())
    }
}

/// Names as the topics of an event, as many as this door allows.
pub(crate) fn topics(known: &KnownTopics, names: &[impl AsRef<str>], limit: usize) -> Result<Topics, Problem> {
    if names.is_empty() {
        return Err(Problem::NoTopic);
    }
    if names.len() > limit {
        return Err(Problem::TooManyTopics { limit });
    }
    Ok(known.topics(names)?)
}

/// An event whose data lies in the text it was read from, unless that has escapes.
pub(crate) type Borrowed<'a> = Event<Cow<'a, str>>;

impl<'a> Plain<'a> {
    fn is_whole(&self) -> bool {
        self.topic.is_some() && self.data.is_some()
    }

    fn into_event(self, topics_limit: usize, recent: &mut Recent<'_>) -> Result<Borrowed<'a>, Problem> {
        let topics = recent.topics(self.topic.as_slice(), topics_limit)?;
        let mut event = Event::with_data(topics, Cow::Borrowed(self.data.unwrap_or_default()))?;
        if let Some(event_type) = self.event_type {
            event = event.with_type(event_type)?;
        }
        if let Some(id) = self.id {
            event = event.with_id(id)?;
        }
        Ok(event)
    }
}

/// The event object of the first of several lines, and the length of that line without its end; `None` leaves it to [`event`].
#[inline]
pub(crate) fn first_line<'a>(
    lines: &'a str,
    topics_limit: usize,
    recent: &mut Recent<'_>,
) -> Option<(Result<Borrowed<'a>, Problem>, usize)> {
    let (plain, end) = plain(lines)?;
    let len = match lines.as_bytes()[end..] {
        [b'\n', ..] => end,
        [b'\r', b'\n', ..] => end + 1,
        _ => return None,
    };
    plain.is_whole().then(|| (plain.into_event(topics_limit, recent), len))
}

/// One event object. `topics_limit` is the number of topics this door allows.
pub(crate) fn event<'a>(text: &'a str, topics_limit: usize, recent: &mut Recent<'_>) -> Result<Borrowed<'a>, Problem> {
    if let Some(plain) = plain_alone(text).filter(Plain::is_whole) {
        return plain.into_event(topics_limit, recent);
    }
    if !text.trim_ascii_start().starts_with('{') {
        // Said here because the derived reader would take an array for the members in their order.
        return Err(Problem::Json("expected an object, `{...}`".to_owned()));
    }
    let object: Object<'_> = serde_json::from_str(text).map_err(in_words)?;
    if object.topic.is_some() && object.topics.is_some() {
        return Err(Problem::TwoTopics);
    }
    let text = |text: Option<Text<'a>>| text.map(|Text(text)| text).unwrap_or_default();
    let data = data(object.data.get())?;
    let retry = match object.retry.map(RawValue::get) {
        Some(raw) if raw.starts_with('"') => serde_json::from_str(raw).map_err(in_words)?,
        Some(raw) => raw.into(),
        None => Cow::default(),
    };
    let topics = match &object.topic {
        Some(topic) => recent.topics(&[&topic.0], topics_limit)?,
        None => {
            let names: Vec<&str> = object.topics.iter().flatten().map(|topic| &*topic.0).collect();
            recent.topics(&names, topics_limit)?
        }
    };
    let private = object.private.unwrap_or(false);
    Draft { data, event_type: text(object.event_type), id: text(object.id), retry, private }.into_event(topics)
}

/// An array of event objects, or one of them. The flag says which.
pub(crate) fn one_or_many<'a>(text: &'a str, topics_limit: usize, known: &KnownTopics) -> Result<(Vec<Borrowed<'a>>, bool), Problem> {
    if !text.trim_ascii_start().starts_with('[') {
        return Ok((vec![event(text, topics_limit, &mut Recent::new(known))?], false));
    }
    let Elements(elements) = serde_json::from_str(text).map_err(in_words)?;
    if elements.len() > limits::BATCH_EVENTS {
        return Err(Problem::TooManyEvents { limit: limits::BATCH_EVENTS });
    }
    let mut recent = Recent::new(known);
    let number = |(index, element): (usize, &'a RawValue)| {
        event(element.get(), topics_limit, &mut recent).map_err(|problem| Problem::Element { index: index + 1, problem: Box::new(problem) })
    };
    Ok((elements.into_iter().enumerate().map(number).collect::<Result<_, _>>()?, true))
}

/// The elements of an array, kept up to one more than may be used: a body of `0,0,0,...` must not become ten times its size in memory.
struct Elements<'a>(Vec<&'a RawValue>);

impl<'de> Deserialize<'de> for Elements<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Elements<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of event objects")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Elements<'de>, A::Error> {
                let mut elements = Vec::new();
                while elements.len() <= limits::BATCH_EVENTS {
                    let Some(element) = array.next_element()? else { return Ok(Elements(elements)) };
                    elements.push(element);
                }
                while array.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Elements(elements))
            }
        }
        deserializer.deserialize_seq(Visitor)
    }
}

/// An event before its rules are checked, with absent and empty being the same (N-1a).
#[derive(Debug, Default)]
pub(crate) struct Draft<'a> {
    pub(crate) data: Cow<'a, str>,
    pub(crate) event_type: Cow<'a, str>,
    pub(crate) id: Cow<'a, str>,
    pub(crate) retry: Cow<'a, str>,
    pub(crate) private: bool,
}

impl<'a> Draft<'a> {
    pub(crate) fn into_event(self, topics: Topics) -> Result<Borrowed<'a>, Problem> {
        let mut event = Event::with_data(topics, self.data)?;
        if !self.event_type.is_empty() {
            event = event.with_type(&self.event_type)?;
        }
        if !self.id.is_empty() {
            event = event.with_id(&self.id)?;
        }
        if !self.retry.is_empty() {
            event = event.with_retry_text(&self.retry)?;
        }
        Ok(if self.private { event.private() } else { event })
    }
}

/// A string is sent as it is, any other value as compact JSON.
fn data(raw: &str) -> Result<Cow<'_, str>, Problem> {
    match raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        // It is valid JSON already, so what has no escape stands for itself.
        Some(text) if memchr::memchr(b'\\', text.as_bytes()).is_none() => Ok(text.into()),
        Some(_) => serde_json::from_str(raw).map(Cow::Owned).map_err(in_words),
        None => Ok(in_lines(compact(raw)?, limits::EVENT_DATA_LARGE).into()),
    }
}

/// Puts a line end after a comma wherever a line would otherwise be longer than consumers with line buffers read (S-45). Between tokens
/// white space means nothing, so readers get the same value.
fn in_lines(json: String, limit: usize) -> String {
    if json.len() <= limit {
        return json;
    }
    let bytes = json.as_bytes();
    let mut lines = String::with_capacity(json.len() + json.len() / limit + 1);
    let (mut begin, mut comma, mut at) = (0, None, 0);
    while at < bytes.len() {
        let len = if bytes[at] == b'"' { string_len(&json[at..]) } else { 1 };
        if let Some(end) = comma.filter(|_| at + len - begin > limit) {
            lines.push_str(&json[begin..end]);
            lines.push('\n');
            (begin, comma) = (end, None);
        }
        if bytes[at] == b',' {
            comma = Some(at + 1);
        }
        at += len;
    }
    lines.push_str(&json[begin..]);
    lines
}

/// How deep arrays and objects may lie in each other: what common parsers read without running out of stack.
const DEPTH: usize = 128;

/// The same JSON without the white space between its tokens. `raw` is valid JSON already, except that the escapes in its strings have not
/// been looked at: half of a surrogate pair would be text that no reader can represent.
fn compact(raw: &str) -> Result<String, Problem> {
    let mut text = String::with_capacity(raw.len());
    let mut depth = 0usize;
    let mut rest = raw;
    while let Some(first) = rest.bytes().next() {
        let len = match first {
            b'"' => string_len(rest),
            b' ' | b'\t' | b'\n' | b'\r' => 0,
            // Everything else up to the next string or space: numbers, names, punctuation.
            _ => rest.bytes().position(|b| matches!(b, b'"' | b' ' | b'\t' | b'\n' | b'\r')).unwrap_or(rest.len()),
        };
        let (token, after) = if len == 0 { ("", &rest[1..]) } else { rest.split_at(len) };
        if first == b'"' {
            if token.contains("\\u") {
                serde_json::from_str::<String>(token).map_err(in_words)?;
            }
        } else {
            for b in token.bytes() {
                match b {
                    b'[' | b'{' => depth += 1,
                    b']' | b'}' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                if depth > DEPTH {
                    return Err(Problem::Json(format!("`data` is nested more than {DEPTH} levels deep")));
                }
            }
        }
        text.push_str(token);
        rest = after;
    }
    Ok(text)
}

/// The length of the string token at the start, quotes included.
fn string_len(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn in_words(error: serde_json::Error) -> Problem {
    Problem::Json(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// S-45: long values get line ends between tokens, never inside one, and stay the same value.
    #[test]
    fn long_json_gets_lines() {
        assert_eq!(in_lines("[1,22,333,4]".into(), 6), "[1,22,\n333,4]");
        assert_eq!(in_lines("[1,22,333,4]".into(), 12), "[1,22,333,4]");
        assert_eq!(in_lines(r#"{"a":"1,2,3,4","b":0}"#.into(), 15), "{\"a\":\"1,2,3,4\",\n\"b\":0}");
        assert_eq!(in_lines(r#"["no comma outside, of this \",\" string"]"#.into(), 4), r#"["no comma outside, of this \",\" string"]"#);
        let long: Vec<String> = (0..40_000).map(|n| format!("é{n}")).collect();
        let json = serde_json::to_string(&long).unwrap();
        let lines = in_lines(json.clone(), limits::EVENT_DATA_LARGE);
        assert!(
            lines.lines().all(|line| line.len() <= limits::EVENT_DATA_LARGE)
                && lines.lines().count() == json.len() / limits::EVENT_DATA_LARGE + 1
        );
        assert_eq!(serde_json::from_str::<Vec<String>>(&lines).unwrap(), long);
    }

    fn parse(text: &str) -> Result<Borrowed<'_>, Problem> {
        event(text, limits::TOPICS_PER_EVENT, &mut Recent::new(&KnownTopics::default()))
    }

    fn data_of(text: &str) -> String {
        parse(&format!(r#"{{"topic":"t","data":{text}}}"#)).unwrap().data().to_owned()
    }

    /// N-2: a string as it is; anything else as compact JSON with its numbers, escapes and order untouched.
    #[test]
    fn data_values() {
        for (json, data) in [
            (r#""hello""#, "hello"),
            (r#""a\nb\u0000\ud83d\ude00""#, "a\nb\0😀"),
            (r#""""#, ""),
            ("null", "null"),
            ("true", "true"),
            ("1.0", "1.0"),
            ("12345678901234567890123456789.10", "12345678901234567890123456789.10"),
            ("1E+400", "1E+400"),
            (" { \"b\" : 1 ,\n\t\"a\" : [ 1 , 2 ] , \"b\" : \" x \\\" y \" } ", r#"{"b":1,"a":[1,2],"b":" x \" y "}"#),
            (r#"["\\", "\u00e9", "é"]"#, r#"["\\","\u00e9","é"]"#),
            ("[]", "[]"),
            ("{ }", "{}"),
        ] {
            assert_eq!(data_of(json), data, "{json}");
        }
    }

    proptest! {
        /// Whatever the short way takes, the real parser takes too, and for the same.
        #[test]
        fn the_short_way_is_no_other_way(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..14)) {
            let text = pieces.concat();
            for text in [format!("{{\"topic\":\"t\",{text}"), format!("{{{text}}}"), text] {
                if let Some(plain) = plain_alone(&text) {
                    let object: Object<'_> = match serde_json::from_str(&text) {
                        Ok(object) => object,
                        Err(error) => {
                            prop_assert!(plain.data.is_none(), "{}: {}", text, error);
                            continue;
                        }
                    };
                    let of = |text: Option<Text<'_>>| text.map(|text| text.0.into_owned());
                    prop_assert_eq!(of(object.topic), plain.topic.map(str::to_owned));
                    prop_assert_eq!(data(object.data.get()).ok(), plain.data.map(Cow::Borrowed));
                    prop_assert_eq!(of(object.event_type), plain.event_type.map(str::to_owned));
                    prop_assert_eq!(of(object.id), plain.id.map(str::to_owned));
                    prop_assert!(object.topics.is_none() && object.retry.is_none() && object.private.is_none());
                }
            }
        }
    }

    /// N-3: a line is read the short way only where its end is the line's.
    #[test]
    fn first_lines() {
        fn read(lines: &str) -> Option<(bool, usize)> {
            first_line(lines, limits::TOPICS_PER_EVENT, &mut Recent::new(&KnownTopics::default())).map(|(event, len)| (event.is_ok(), len))
        }
        let one = r#"{"topic":"a","data":"d"}"#;
        for (end, expected) in [
            ("\n{", Some((true, one.len()))),
            ("\r\n", Some((true, one.len() + 1))),
            ("", None),
            ("\r", None),
            (" \n", None),
            ("x\n", None),
            (",\n", None),
        ] {
            assert_eq!(read(&(one.to_owned() + end)), expected, "{end:?}");
        }
        assert_eq!(read("{\"topic\":\"a\",\n\"data\":\"d\"}\n"), None, "the end of a line within an object");
        assert_eq!(read("{\"topic\":\"a\"}\n"), None);
        assert_eq!(read("{\"topic\":\"*\",\"data\":\"d\"}\n"), Some((false, 24)));
    }

    /// What the short way is tried with.
    const PIECES: &[&str] = &[
        "{",
        "}",
        ",",
        ":",
        "\"",
        "\\",
        " ",
        "\t",
        "\n",
        "\r",
        "\u{B}",
        "\u{C}",
        "\0",
        "\u{1F}",
        "\u{7F}",
        "é",
        "\u{2028}",
        "x",
        "null",
        "1",
        "\"topic\":",
        "\"data\":",
        "\"type\":",
        "\"id\" :",
        "\"retry\":",
        "\"topics\":",
        "\"a\"",
        "\"\"",
        "\"a\",",
        "\"b\" , ",
        "\"é\"}",
        "\"data\":\"d\"",
        "\"data\":\"d\"}",
        "\"id\":\"i\",",
        "\"type\":\"\",",
    ];

    #[test]
    fn members() {
        let full = parse(r#"{"topics":["a","b"],"data":"d","type":"x","id":"i","retry":10,"private":true}"#).unwrap();
        let plain = Event::with_data(Topics::new("a").unwrap(), Cow::Borrowed("d")).unwrap();
        let expected = plain.clone().with_topic("b").unwrap().with_type("x").unwrap().with_id("i").unwrap();
        assert_eq!(full, expected.with_retry(10).unwrap().private());
        // N-1a: empty is absent, and so is null.
        for text in [
            r#"{"topic":"a","data":"d"}"#,
            r#"{"topic":"a","data":"d","type":"","id":"","retry":"","private":false}"#,
            r#"{"topic":"a","data":"d","type":null,"id":null,"retry":null,"private":null,"topics":null}"#,
            r#"{"data":"d","topic":"a"}"#,
            " {\"topic\":\"\\u0061\",\"data\":\"d\"}\r\n",
        ] {
            assert_eq!(parse(text).unwrap(), plain, "{text}");
        }
        assert_eq!(parse(r#"{"topic":"a","data":"d","retry":"007"}"#).unwrap().retry(), Some(7));
    }

    /// Every refusal says what is wrong; a typo is named.
    #[test]
    fn refusals() {
        let deep = format!(r#"{{"topic":"a","data":{}1{}}}"#, "[".repeat(200_000), "]".repeat(200_000));
        let table: &[(&str, u16, &str)] = &[
            (r#"{"topic":"a","data":"d","tpye":"x"}"#, 400, "unknown field `tpye`"),
            (r#"{"topic":"a","topic":"b","data":"d"}"#, 400, "duplicate field `topic`"),
            (r#"{"topic":"a","data":"d","type":"x","type":"x"}"#, 400, "duplicate field `type`"),
            (r#"{"topic":"a"}"#, 400, "missing field `data`"),
            (r#"{"data":"d"}"#, 400, "an event needs a topic"),
            (r#"{"topics":[],"data":"d"}"#, 400, "an event needs a topic"),
            (r#"{"topic":"a","topics":["b"],"data":"d"}"#, 400, "either `topic` or `topics`"),
            (r#"{"topic":1,"data":"d"}"#, 400, "invalid type: integer `1`, expected a string"),
            (r#"{"topic":"a","data":"d","private":"yes"}"#, 400, "expected a boolean"),
            (r#"{"topic":"a","data":"d","retry":1.5}"#, 400, "`retry` must be a whole number"),
            (r#"{"topic":"a","data":"d","retry":-1}"#, 400, "`retry` must be a whole number"),
            (r#"{"topic":"a","data":"d","retry":2147483648}"#, 400, "`retry` must be a whole number"),
            (r#"{"topic":"a","data":"d","type":"tidings.gap"}"#, 400, "belong to the hub"),
            (r##"{"topic":"a","data":"d","id":"#x"}"##, 400, "an id must not begin with `#`"),
            (r#"{"topic":"a","data":"d","id":"x\nid: y"}"#, 400, "U+000A"),
            (r#"{"topic":"*","data":"d"}"#, 400, "`*` is not a topic"),
            (r#"{"topic":"a","data":"\ud800"}"#, 400, "unexpected end of hex escape"),
            (r#"{"topic":"a","data":"\ud800\u0041"}"#, 400, "lone leading surrogate"),
            (r#"{"topic":"\udc00","data":""}"#, 400, "lone leading surrogate"),
            (r#"{"topic":"a","data":{"deep":["\ud800"]}}"#, 400, "unexpected end of hex escape"),
            (r#"{"topic":"a","data":"d""#, 400, "EOF while parsing"),
            (r#"{"topic":"a","data":"d"} x"#, 400, "trailing characters"),
            (r#"["a",null,"d",null,null,null,null]"#, 400, "expected an object"),
            ("\u{FEFF}{\"topic\":\"a\",\"data\":\"d\"}", 400, "expected an object"),
            ("", 400, "expected an object"),
            (&deep, 400, "nested more than 128 levels"),
        ];
        for (text, status, detail) in table {
            let problem = parse(text).expect_err(text);
            assert_eq!(problem.status(), *status, "{problem}");
            assert!(problem.to_string().contains(detail), "{text:.60}: {problem}");
        }
        let many = format!(r#"{{"topics":[{}],"data":""}}"#, vec!["\"t\""; limits::TOPICS_PER_EVENT + 1].join(","));
        assert_eq!(parse(&many).unwrap_err().status(), 413);
    }

    #[test]
    fn arrays() {
        fn many(text: &str) -> Result<(Vec<Borrowed<'_>>, bool), Problem> {
            one_or_many(text, limits::TOPICS_PER_EVENT, &KnownTopics::default())
        }
        let one = r#"{"topic":"a","data":1}"#;
        assert!(matches!(many(one), Ok((events, false)) if events.len() == 1));
        assert!(matches!(many(" []"), Ok((events, true)) if events.is_empty()));
        assert!(matches!(many(&format!("[{one},\n{one}]")), Ok((events, true)) if events.len() == 2));
        for (text, detail) in [
            (format!("[{one},{{\"topic\":\"a\"}}]"), "event 2 of the array is not one: the JSON is not an event: missing field `data`"),
            (format!("[[{one}]]"), "event 1 of the array"),
            (format!("[{one}"), "EOF"),
            (format!("[{one},]"), "trailing comma"),
            ("[".repeat(200_000), "EOF"),
        ] {
            let problem = many(&text).unwrap_err();
            assert!(problem.to_string().contains(detail), "{problem}");
            assert_eq!(problem.status(), 400);
        }
        let full = format!("[{}]", vec![one; limits::BATCH_EVENTS].join(","));
        assert!(matches!(many(&full), Ok((events, true)) if events.len() == limits::BATCH_EVENTS));
        let over = format!("[{}]", vec!["0"; limits::BATCH_EVENTS + 2].join(","));
        assert_eq!(many(&over).unwrap_err().status(), 413);
    }
}
