//! Text from elsewhere, made harmless for a terminal.
//!
//! Whoever publishes chooses the data, and whoever runs a server chooses its error texts: control sequences in them could rewrite the
//! reader's screen or type commands into some terminals.

use std::{borrow::Cow, fmt::Write as _};

/// `text` with every control character but line feed and tab written out as `\u{1b}`.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    let hidden = |c: char| c.is_control() && c != '\n' && c != '\t';
    if !text.contains(hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if hidden(c) { write!(shown, "\\u{{{:x}}}", u32::from(c)).unwrap_or_default() } else { shown.push(c) }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_written_out() {
        for (text, shown) in [
            ("plain é\n\ttext", "plain é\n\ttext"),
            ("\u{1b}[2Jgone", "\\u{1b}[2Jgone"),
            ("a\rb\u{7}\u{9b}31m\0", "a\\u{d}b\\u{7}\\u{9b}31m\\u{0}"),
        ] {
            assert_eq!(printable(text), shown);
        }
    }
}
