//! URI Templates as the dialect of today's Mercure clients uses them (M-203, M-218, M-342): parsed once into a few steps, and matched by an
//! automaton over positions of the name. No regular expression is made.
//!
//! It knows one template and one name, neither who asks nor how many templates there are.

mod index;
mod run;

use crate::limits;
pub(crate) use index::Templates;
use std::{cmp, hash};

/// A template and the steps that match it. Two are equal if their texts are.
#[derive(Debug)]
pub(crate) struct Template {
    text: Box<str>,
    /// Bytes of `text` before the first expression: whatever matches begins with them.
    head: u16,
    /// Bytes of `text` after the last expression.
    tail: u16,
    /// What lies between head and tail.
    steps: Box<[Step]>,
}

/// One part of a template; bytes are places in its text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// These bytes, and nothing else.
    Literal {
        from: u16,
        to: u16,
    },
    Expression(Expression),
}

/// What stands between braces, without the names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Expression {
    /// Any number of characters of a class. An expression whose separator is in its class is no more than that.
    Run(Class),
    /// Nothing, or this character and then any number of characters of a class.
    Begun { first: u8, class: Class },
    /// The same, and up to so many times a separator and such characters again.
    List { first: u8, class: Class, separator: u8, more: u16 },
}

/// What a variable may stand for: characters, and percent-encoded octets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Class {
    /// Of reserved characters too; then `equals` says nothing.
    reserved: bool,
    equals: bool,
    /// This separator too, because it may come any number of times.
    and: Option<u8>,
}

impl Class {
    fn has(self, byte: u8) -> bool {
        byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'.' | b'_' | b'~' | b',')
            || (self.equals && byte == b'=')
            || (self.reserved && b":/?#[]@!$&'()*+;=".contains(&byte))
            || self.and == Some(byte)
    }
}

impl Template {
    /// A template, or nothing if the text is not a valid one, has no expression, or is too long: such a selector is a plain string.
    pub(crate) fn parse(text: &str) -> Option<Template> {
        if text.len() > limits::PATTERN {
            return None;
        }
        let head = text.find('{')?;
        let (mut steps, mut rest) = (Vec::new(), text);
        while let Some(start) = rest.find('{') {
            let at = text.len() - rest.len();
            let (literal, expression) = (&rest[..start], &rest[start + 1..]);
            check_literal(literal)?;
            if !literal.is_empty() && at > 0 {
                steps.push(Step::Literal { from: at as u16, to: (at + start) as u16 });
            }
            let end = expression.find('}')?;
            let of = parse_expression(&expression[..end])?;
            let step = Step::Expression(of);
            // Any number, and again any number: one step does for both.
            if !(matches!(of, Expression::Run(_)) && steps.last() == Some(&step)) {
                steps.push(step);
            }
            rest = &expression[end + 1..];
        }
        check_literal(rest)?;
        Some(Template { text: text.into(), head: head as u16, tail: rest.len() as u16, steps: steps.into() })
    }

    /// Bytes that it takes.
    pub(crate) fn memory(&self) -> usize {
        size_of::<Template>() + self.text.len() + size_of_val(&*self.steps)
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// What every name that matches begins with.
    pub(crate) fn head(&self) -> &str {
        &self.text[..self.head.into()]
    }

    fn tail(&self) -> &str {
        &self.text[self.text.len() - usize::from(self.tail)..]
    }

    /// All of it: the bytes in front, and each expression with the bytes that follow it.
    fn parts(&self) -> Vec<(Option<Expression>, &[u8])> {
        let mut parts = vec![(None, self.head().as_bytes())];
        for step in &self.steps {
            match *step {
                Step::Expression(expression) => parts.push((Some(expression), &[])),
                // Two literals never follow each other, and none comes first.
                Step::Literal { from, to } => {
                    let literal = &self.text.as_bytes()[from.into()..to.into()];
                    parts.last_mut().into_iter().for_each(|part| part.1 = literal);
                }
            }
        }
        parts.last_mut().into_iter().for_each(|part| part.1 = self.tail().as_bytes());
        parts
    }

    /// Whether a name is the template's own text, or one of its expansions as M-218 has it. The time is bounded by the product of both lengths
    /// divided by the bits of a machine word, whatever they are.
    pub(crate) fn matches(&self, name: &str) -> bool {
        let Some(rest) = name.strip_prefix(self.head()) else { return false };
        let Some(middle) = rest.strip_suffix(self.tail()) else { return false };
        *name == *self.text || run::matches(&self.steps, self.text.as_bytes(), middle.as_bytes())
    }
}

impl PartialEq for Template {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Template {}

impl hash::Hash for Template {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl Ord for Template {
    fn cmp(&self, other: &Self) -> cmp::Ordering {
        self.text.cmp(&other.text)
    }
}

impl PartialOrd for Template {
    fn partial_cmp(&self, other: &Self) -> Option<cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Whether text between expressions is what RFC 6570 (section 2.1) allows there.
fn check_literal(literal: &str) -> Option<()> {
    let mut rest = literal;
    while let Some(at) = rest.find(|c| !is_literal(c)) {
        rest = rest[at..].strip_prefix('%')?;
        rest.as_bytes().get(..2)?.iter().all(u8::is_ascii_hexdigit).then_some(())?;
        rest = &rest[2..];
    }
    Some(())
}

fn is_literal(c: char) -> bool {
    let low = c as u32 & 0xFFFF;
    match c {
        '!' | '#' | '$' | '&' | '('..=';' | '=' | '?'..='[' | ']' | '_' | 'a'..='z' | '~' => true,
        // The characters that IRIs allow: noncharacters, specials and tags are not among them.
        '\u{FDD0}'..='\u{FDEF}' | '\u{FFF0}'..='\u{FFFF}' | '\u{E0000}'..='\u{E0FFF}' => false,
        '\u{A0}'.. => low < 0xFFFE,
        _ => false,
    }
}

fn parse_expression(text: &str) -> Option<Expression> {
    let (operator, variables) = match text.as_bytes().first()? {
        operator @ (b'+' | b'#' | b'.' | b'/' | b';' | b'?' | b'&') => (*operator, &text[1..]),
        _ => (0, text),
    };
    let (mut count, mut exploded) = (0, false);
    for variable in variables.split(',') {
        exploded |= check_variable(variable)?;
        count += 1;
    }
    let reserved = matches!(operator, b'+' | b'#');
    let class = Class { reserved, equals: !reserved && (exploded || matches!(operator, b';' | b'?' | b'&')), and: None };
    let separator = match operator {
        b'.' | b'/' | b';' => operator,
        b'?' | b'&' => b'&',
        _ => b',',
    };
    Some(match operator {
        0 | b'+' => Expression::Run(class),
        first if count == 1 && !exploded || class.has(separator) => Expression::Begun { first, class },
        first if exploded => Expression::Begun { first, class: Class { and: Some(separator), ..class } },
        first => Expression::List { first, class, separator, more: count - 1 },
    })
}

/// A name and its modifier; whether it is exploded.
fn check_variable(text: &str) -> Option<bool> {
    let (name, exploded) = match (text.strip_suffix('*'), text.split_once(':')) {
        (Some(name), _) => (name, true),
        (None, Some((name, most))) => {
            let digits = (1..=4).contains(&most.len()) && most.bytes().all(|b| b.is_ascii_digit());
            (digits && !most.starts_with('0')).then_some((name, false))?
        }
        (None, None) => (text, false),
    };
    let part = |part: &str| {
        let mut rest = part;
        while let Some(at) = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')) {
            rest = rest[at..].strip_prefix('%')?;
            rest.as_bytes().get(..2)?.iter().all(u8::is_ascii_hexdigit).then_some(())?;
            rest = &rest[2..];
        }
        (!part.is_empty()).then_some(())
    };
    name.split('.').try_for_each(part)?;
    Some(exploded)
}
