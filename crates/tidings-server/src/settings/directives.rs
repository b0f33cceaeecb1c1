//! Directives as they are written in the blocks of the reference hub's configuration: words, quotes, comments, lines and braces.
//!
//! It knows how directives are written, not what any of them means.

use std::{iter::Peekable, mem};

/// One line: its name, its words, and the lines in the braces after them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Directive {
    pub(super) name: String,
    pub(super) words: Vec<String>,
    pub(super) block: Vec<Directive>,
}

impl Directive {
    /// The one word of a directive that takes one.
    pub(super) fn word(&self) -> Result<&str, String> {
        match &self.words[..] {
            [word] if self.block.is_empty() => Ok(word),
            _ => Err(format!("`{}` takes one value, and no braces", self.name)),
        }
    }

    /// The words of a directive that takes some.
    pub(super) fn some(&self) -> Result<&[String], String> {
        let some = !self.words.is_empty() && self.block.is_empty();
        if some { Ok(&self.words) } else { Err(format!("`{}` takes one value or several, and no braces", self.name)) }
    }

    /// For a directive that takes nothing.
    pub(super) fn nothing(&self) -> Result<(), String> {
        let nothing = self.words.is_empty() && self.block.is_empty();
        if nothing { Ok(()) } else { Err(format!("`{}` takes no value", self.name)) }
    }
}

#[derive(PartialEq, Eq, Debug)]
enum Token {
    Word(String),
    Open,
    Close,
    LineEnd,
}

/// Reads directives.
pub(super) fn parse(text: &str) -> Result<Vec<Directive>, String> {
    let mut tokens = tokens(text)?.into_iter().peekable();
    let directives = lines(&mut tokens)?;
    if tokens.peek().is_some() { Err("there is a `}` too many".into()) } else { Ok(directives) }
}

fn lines(tokens: &mut Peekable<impl Iterator<Item = Token>>) -> Result<Vec<Directive>, String> {
    let mut directives = Vec::new();
    let mut line = Directive::default();
    loop {
        match tokens.peek() {
            Some(Token::Word(_)) => {
                let Some(Token::Word(word)) = tokens.next() else { break };
                if line.name.is_empty() {
                    line.name = word;
                } else {
                    line.words.push(word);
                }
                continue;
            }
            Some(Token::Open) => {
                tokens.next();
                if line.name.is_empty() {
                    return Err("there is a `{` without a name before it".into());
                }
                line.block = lines(tokens)?;
                if tokens.next() != Some(Token::Close) {
                    return Err(format!("the `{{` after `{}` is not closed", line.name));
                }
            }
            Some(Token::LineEnd) => {
                tokens.next();
            }
            Some(Token::Close) | None => {
                if !line.name.is_empty() {
                    directives.push(line);
                }
                return Ok(directives);
            }
        }
        if !line.name.is_empty() {
            directives.push(mem::take(&mut line));
        }
    }
    Ok(directives)
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\n' => tokens.push(Token::LineEnd),
            '#' => while rest.next_if(|c| *c != '\n').is_some() {},
            '"' | '`' => {
                let mut word = String::new();
                loop {
                    match rest.next() {
                        None => return Err(format!("a quote {c} is not closed")),
                        Some(end) if end == c => break,
                        Some('\\') if c == '"' && rest.peek() == Some(&'"') => word.extend(rest.next()),
                        Some(c) => word.push(c),
                    }
                }
                tokens.push(Token::Word(word));
            }
            c if c.is_whitespace() => {}
            c => {
                let mut word = String::from(c);
                while let Some(c) = rest.next_if(|c| !c.is_whitespace()) {
                    word.push(c);
                }
                tokens.push(match word.as_str() {
                    "{" => Token::Open,
                    "}" => Token::Close,
                    _ if word.starts_with('{') && word.ends_with('}') => {
                        return Err(format!("`{word}` would have to be replaced by a value, which is not done here; write the value"));
                    }
                    _ => Token::Word(word),
                });
            }
        }
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(directives: &[Directive]) -> String {
        let show = |directive: &Directive| {
            let block = if directive.block.is_empty() { String::new() } else { format!(" {{{}}}", shown(&directive.block)) };
            format!("{}{:?}{block}", directive.name, directive.words)
        };
        directives.iter().map(show).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn what_can_be_written() {
        for (text, expected) in [
            ("", "[]"),
            ("anonymous", "anonymous[]"),
            ("\n\n  anonymous\r\n\theartbeat 10s # often\n# nothing\nsubscriptions", r#"anonymous[]; heartbeat["10s"]; subscriptions[]"#),
            ("cors_origins a b\nname \"two words\" `a \"b\"`", r#"cors_origins["a", "b"]; name["two words", "a \"b\""]"#),
            ("name \"a \\\" b \\n\"", r#"name["a \" b \\n"]"#),
            ("publisher_jwt !Change#This! HS256", r##"publisher_jwt["!Change#This!", "HS256"]"##),
            ("key \"line 1\nline 2\"", r#"key["line 1\nline 2"]"#),
            (
                "issuer https://a {\n publisher {\n  jwt k\n }\n}\ntransport bolt {\n size 10\n}",
                r#"issuer["https://a"] {publisher[] {jwt["k"]}}; transport["bolt"] {size["10"]}"#,
            ),
        ] {
            let expected = if expected == "[]" { "" } else { expected };
            assert_eq!(shown(&parse(text).unwrap()), expected, "{text:?}");
        }
    }

    #[test]
    fn what_cannot() {
        for (text, complaint) in [
            ("name \"open", "a quote \" is not closed"),
            ("transport bolt {\nsize 10", "the `{` after `transport` is not closed"),
            ("}", "a `}` too many"),
            ("{\n}", "without a name before it"),
            ("publisher_jwt {env.KEY}", "`{env.KEY}` would have to be replaced"),
            ("publisher_jwt {$KEY:default}", "would have to be replaced"),
        ] {
            assert!(parse(text).is_err_and(|why| why.contains(complaint)), "{text:?}");
        }
    }
}
