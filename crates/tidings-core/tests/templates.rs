//! URI Templates as topic selectors, from outside: tables, expanding and matching again, and the same rules written as regular expressions.

use proptest::prelude::*;
use std::fmt::Write;
use tidings_core::{TopicError, TopicMatcher, limits};

fn matches(selector: &str, name: &str) -> bool {
    TopicMatcher::template(selector).unwrap().matches_name(name)
}

/// M-203, M-218, M-342: what each selector matches and does not.
#[test]
fn what_selectors_match() {
    let table: &[(&str, &[&str], &[&str])] = &[
        // Without an expression, or invalid: a plain string.
        ("a", &["a"], &["", "b", "aa"]),
        ("*", &["a", "a/b", ""], &[]),
        ("", &[""], &["a"]),
        ("a}", &["a}"], &["a"]),
        ("a{", &["a{"], &["a"]),
        ("{a", &["{a"], &["a"]),
        ("{}", &["{}"], &["", "a"]),
        ("{a}}", &["{a}}"], &["a}", "}"]),
        ("{{a}}", &["{{a}}"], &["a"]),
        ("{a b}", &["{a b}"], &["a"]),
        ("x y{a}", &["x y{a}"], &["x ya"]),
        ("{=a}", &["{=a}"], &["a"]),
        ("{|a}", &["{|a}"], &["a"]),
        ("{a,}", &["{a,}"], &["a"]),
        ("{a..b}", &["{a..b}"], &["a"]),
        ("{a:0}", &["{a:0}"], &["a"]),
        ("{a:01}", &["{a:01}"], &["a"]),
        ("{a:10000}", &["{a:10000}"], &["a"]),
        ("{a:}", &["{a:}"], &["a"]),
        ("{a:3*}", &["{a:3*}"], &["a"]),
        ("{%4}", &["{%4}"], &["a"]),
        ("%4{a}", &["%4{a}"], &["%4"]),
        ("<{a}>", &["<{a}>"], &["<a>"]),
        // Its own text (M-203), as well as what it expands to.
        (
            "a/{b}",
            &["a/", "a/b", "a/{b}", "a/%7B", "a/b,c", "a/b.c~_-"],
            &["a", "a/b/c", "a/{c}", "a/b=c", "a/%7", "a/%", "a/%7G", "a/é", "b/a/b"],
        ),
        ("{a:3}", &["", "abcdef", "%C3%A9"], &["a/b"]),
        ("{a:9999}", &["abc"], &["a/b"]),
        ("{a.b.c}", &["x"], &["x/y"]),
        ("{%41b}", &["x"], &["x/y"]),
        ("日本/{a}", &["日本/x"], &["日本/日"]),
        ("a%20b{c}", &["a%20bc"], &["a bc", "a%20b c"]),
        // More than one expression, with and without something between.
        ("{a}{b}", &["", "ab"], &["a/b"]),
        ("{a}/{b}", &["/", "a/b", "a/"], &["", "a", "a/b/c"]),
        ("{a}x{b}x{c}", &["xx", "axbxc", "xxxx"], &["x", "a", "ax"]),
        ("{a}%41{b}", &["%41", "x%41y", "%41%41"], &["41", "A"]),
        ("{a}41{b}", &["41", "%4141"], &["%41"]),
        // Reserved characters.
        ("{+a}", &["", "a/b?c#d[e]@!$&'()*+,;=:", "%41"], &["a b", "%4", "a%"]),
        ("{#a}", &["", "#", "#a/b", "#a=b"], &["a", "a#"]),
        ("x{#a,b}", &["x", "x#a,b"], &["xa"]),
        // Prefixed ones: all or nothing.
        ("{.a}", &["", ".", ".a", ".a.b"], &["a", ".a/b", ".a=b"]),
        ("{/a}", &["", "/", "/a"], &["a", "/a/b", "/a=b"]),
        ("{/a,b}", &["", "/", "/a", "/a/b", "/a/", "//"], &["a/b", "/a/b/c", "///"]),
        ("{/a*}", &["", "/a/b/c/d", "/a=b/c"], &["a", "/a;b"]),
        ("{/a,b*}", &["/a/b/c/d/e"], &["a"]),
        // Names are not enforced, and `=` is allowed.
        ("{;a}", &["", ";", ";a=1", ";b=1", ";1"], &["a=1", ";a=1;b=2"]),
        ("{;a,b}", &[";a=1;b=2", ";1;2"], &[";a;b;c"]),
        ("{?a}", &["", "?", "?a=1", "?b"], &["a=1", "?a=1&b=2", "?a/b"]),
        ("{?a,b}", &["?a=1&b=2", "?x&y"], &["?a&b&c"]),
        ("{?a*}", &["?a=1&b=2&c=3"], &["&a=1"]),
        ("{&a,b}", &["", "&a=1&b=2"], &["a=1", "?a=1"]),
        ("{a*}", &["a=1,b=2", "a,b"], &["a/b"]),
        (
            "https://example.com/books/{id}{?page}",
            &["https://example.com/books/1", "https://example.com/books/1?page=2"],
            &["https://example.com/books/1/2"],
        ),
    ];
    for (selector, yes, no) in table {
        for name in *yes {
            assert!(matches(selector, name), "{selector:?} matches {name:?}");
        }
        for name in *no {
            assert!(!matches(selector, name), "{selector:?} does not match {name:?}");
        }
    }
}

/// M-21, M-312: what is refused, and with which error.
#[test]
fn what_is_refused() {
    let longest = format!("{{{}}}", "a".repeat(limits::PATTERN - 2));
    assert!(matches(&longest, "x"));
    let plain = "a".repeat(limits::PATTERN);
    assert!(matches(&plain, &plain), "longer than a topic, but it may be a selector of somebody else's (M-84)");
    let table: &[(&str, TopicError)] = &[
        ("a\u{202E}{b}", TopicError::Hidden('\u{202E}')),
        ("{a}\n", TopicError::Hidden('\n')),
        (&format!("{plain}b"), TopicError::SelectorTooLong(limits::PATTERN + 1)),
        (&format!("{}\0", "a".repeat(limits::TOPIC)), TopicError::Hidden('\0')),
    ];
    for (selector, error) in table {
        assert_eq!(TopicMatcher::template(selector), Err(error.clone()));
    }
}

/// The longest templates that branch most, against names that keep all branches open: this ends, at once for a person.
#[test]
fn hostile_templates() {
    let fill = |piece: &str| piece.repeat(limits::PATTERN / piece.len());
    for piece in ["{a}-", "{a}a", "{+a}/", "{a}{+b}", "{.a}{/b}", "{/a,b}-", "{?a}{&b}=", "{a}aaaaaaaa", "{;a,b,c,d,e,f,g,h}a", "{#a}{#b}"]
    {
        for character in ["-", "a", "/", ".", "=", "&", "%41", "#"] {
            let name = character.repeat(limits::TOPIC / character.len());
            let selector = fill(piece);
            let template = TopicMatcher::template(&selector).unwrap();
            assert!(template.matches_name(&selector) && !template.matches_name(&format!("{name} ")), "{piece} and {character}");
        }
    }
    let list = format!("{{/{}}}", vec!["a"; limits::PATTERN / 2 - 2].join(","));
    assert!(matches(&list, &"/".repeat(limits::TOPIC / 2)) && !matches(&list, &"/".repeat(limits::TOPIC + 1)));
}

/// One expression: operator and variables with their modifiers.
#[derive(Clone, Debug)]
struct Expression {
    operator: &'static str,
    variables: Vec<(String, &'static str)>,
}

#[derive(Clone, Debug)]
enum Part {
    Literal(String),
    Expression(Expression),
}

fn text(parts: &[Part]) -> String {
    parts.iter().fold(String::new(), |mut text, part| {
        match part {
            Part::Literal(literal) => text += literal,
            Part::Expression(Expression { operator, variables }) => {
                let variables: Vec<_> = variables.iter().map(|(name, modifier)| format!("{name}{modifier}")).collect();
                write!(text, "{{{operator}{}}}", variables.join(",")).unwrap();
            }
        }
        text
    })
}

fn parts() -> impl Strategy<Value = Vec<Part>> {
    let variable = ("[a-c]{1,2}", prop::sample::select(vec!["", "", "*", ":2"]));
    let operator = prop::sample::select(vec!["", "", "+", "#", ".", "/", ";", "?", "&"]);
    let expression = (operator, prop::collection::vec(variable, 1..4));
    prop::collection::vec(
        prop_oneof![
            "[a-c/.=&,-]{1,3}|%41".prop_map(Part::Literal),
            expression.prop_map(|(operator, variables)| Part::Expression(Expression { operator, variables })),
        ],
        0..5,
    )
}

/// The value of a variable.
#[derive(Clone, Debug)]
enum Value {
    Undefined,
    Text(String),
    List(Vec<String>),
    Pairs(Vec<(String, String)>),
}

fn value() -> impl Strategy<Value = Value> {
    let word = || "[a-c/%? é=&,.;-]{0,4}";
    prop_oneof![
        Just(Value::Undefined),
        word().prop_map(Value::Text),
        prop::collection::vec(word(), 0..3).prop_map(Value::List),
        prop::collection::vec((word(), word()), 0..3).prop_map(Value::Pairs),
    ]
}

/// RFC 6570, section 3.2.1 and the table of appendix A. A prefix modifier is left out, because it is ignored when matching: whatever a
/// hub of this kind accepts for `{a:2}` it accepts for `{a}`.
fn expand(expression: &Expression, values: &[Value]) -> String {
    let (first, separator, named, if_empty, reserved) = match expression.operator {
        "" => ("", ",", false, "", false),
        "+" => ("", ",", false, "", true),
        "#" => ("#", ",", false, "", true),
        "." => (".", ".", false, "", false),
        "/" => ("/", "/", false, "", false),
        ";" => (";", ";", true, "", false),
        "?" => ("?", "&", true, "=", false),
        _ => ("&", "&", true, "=", false),
    };
    let encode = |text: &str| {
        let mut encoded = String::new();
        for byte in text.bytes() {
            let plain = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || (reserved && b":/?#[]@!$&'()*+,;=".contains(&byte));
            if plain { encoded.push(byte as char) } else { write!(encoded, "%{byte:02X}").unwrap() }
        }
        encoded
    };
    let of_name = |name: &str, value: &str| match (named, value) {
        (false, _) => value.to_owned(),
        (true, "") => format!("{name}{if_empty}"),
        (true, _) => format!("{name}={value}"),
    };
    let mut expanded: Vec<String> = Vec::new();
    for ((name, modifier), value) in expression.variables.iter().zip(values) {
        let explode = *modifier == "*";
        match value {
            Value::Text(text) => expanded.push(of_name(name, &encode(text))),
            Value::List(list) if explode => expanded.extend(list.iter().map(|text| of_name(name, &encode(text)))),
            Value::List(list) if !list.is_empty() => {
                expanded.push(of_name(name, &list.iter().map(|text| encode(text)).collect::<Vec<_>>().join(",")));
            }
            Value::Pairs(pairs) if explode => {
                let pair = |(key, value): &(String, String)| match (named, value.as_str()) {
                    (true, "") => format!("{}{if_empty}", encode(key)),
                    _ => format!("{}={}", encode(key), encode(value)),
                };
                expanded.extend(pairs.iter().map(pair));
            }
            Value::Pairs(pairs) if !pairs.is_empty() => {
                let flat: Vec<_> = pairs.iter().map(|(key, value)| format!("{},{}", encode(key), encode(value))).collect();
                expanded.push(of_name(name, &flat.join(",")));
            }
            _ => {}
        }
    }
    if expanded.is_empty() { String::new() } else { format!("{first}{}", expanded.join(separator)) }
}

/// M-218 in the words of a regular expression.
fn as_regex(parts: &[Part]) -> regex::Regex {
    let mut text = String::from("^(?:");
    for part in parts {
        match part {
            Part::Literal(literal) => text += &regex::escape(literal),
            Part::Expression(Expression { operator, variables }) => {
                let explode = variables.iter().any(|(_, modifier)| *modifier == "*");
                let (first, separator) = match *operator {
                    "" | "+" => ("", ","),
                    "#" => ("#", ","),
                    "?" => (r"\?", "&"),
                    "&" => ("&", "&"),
                    "." => (r"\.", r"\."),
                    other => (other, other),
                };
                let class = match *operator {
                    "+" | "#" => r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]",
                    ";" | "?" | "&" => "[A-Za-z0-9._~,=-]",
                    _ if explode => "[A-Za-z0-9._~,=-]",
                    _ => "[A-Za-z0-9._~,-]",
                };
                let value = format!("(?:{class}|%[0-9A-Fa-f]{{2}})*");
                let more = if explode { "*".to_owned() } else { format!("{{0,{}}}", variables.len() - 1) };
                write!(text, "(?:{first}{value}(?:{separator}{value}){more})?").unwrap();
            }
        }
    }
    regex::Regex::new(&(text + ")$")).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_096))]

    /// M-203, M-218: what a template expands to it matches.
    #[test]
    fn expand_then_match(parts in parts(), values in prop::collection::vec(value(), 15)) {
        let mut values = values.as_slice();
        let mut expanded = String::new();
        for part in &parts {
            match part {
                Part::Literal(literal) => expanded += literal,
                Part::Expression(expression) => {
                    // A list where another operator than `/` and its like separates by commas cannot be told from a text.
                    let (of, others) = values.split_at(expression.variables.len());
                    expanded += &expand(expression, of);
                    values = others;
                }
            }
        }
        let selector = text(&parts);
        prop_assert!(matches(&selector, &expanded), "{selector:?} expands to {expanded:?}");
    }
}

proptest! {
    // To make the regular expressions takes most of the time.
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// M-218: exactly what the regular expression matches, and its own text.
    #[test]
    fn like_a_regular_expression(parts in parts(), name in "([a-c/.=&,;?#-]|%41|%4){0,12}", padding in 0usize..3) {
        let selector = text(&parts);
        // Names of each size that the automaton knows.
        let name = name + &"a".repeat(100 * padding * padding);
        let expected = selector == name || (selector.contains('{') && as_regex(&parts).is_match(&name));
        prop_assert_eq!(matches(&selector, &name), expected, "{:?} and {:?}", selector, name);
    }

    /// Random text is a template or a plain string, and always matches itself (M-203).
    #[test]
    fn any_text(selector in "[a{}+#./;?&,:*%0-9é ]{0,12}", name in "[a./;?&,%0-9=]{0,8}") {
        let matcher = TopicMatcher::template(&selector).unwrap();
        prop_assert!(matcher.matches_name(&selector));
        matcher.matches_name(&name);
    }
}
