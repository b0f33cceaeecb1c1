//! Which characters may stand in topics, ids and types (M-1, S-7). It knows Unicode categories, not what a topic is.

/// The general category Cf (format characters: soft hyphen, zero-width, bidi controls, tags) of Unicode 17, as inclusive ranges.
const FORMAT: [(u32, u32); 21] = [
    (0x00AD, 0x00AD),
    (0x0600, 0x0605),
    (0x061C, 0x061C),
    (0x06DD, 0x06DD),
    (0x070F, 0x070F),
    (0x0890, 0x0891),
    (0x08E2, 0x08E2),
    (0x180E, 0x180E),
    (0x200B, 0x200F),
    (0x202A, 0x202E),
    (0x2060, 0x2064),
    (0x2066, 0x206F),
    (0xFEFF, 0xFEFF),
    (0xFFF9, 0xFFFB),
    (0x110BD, 0x110BD),
    (0x110CD, 0x110CD),
    (0x13430, 0x1343F),
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    (0xE0001, 0xE0001),
    (0xE0020, 0xE007F),
];

/// Whether a character is a control (C0, DEL, C1) or a format character: invisible, and able to forge lines or to disguise a name.
fn is_hidden(c: char) -> bool {
    c.is_control() || (c as u32 >= 0xAD && FORMAT.iter().any(|&(from, to)| (from..=to).contains(&(c as u32))))
}

/// The first control or format character of a text, if there is one.
pub(crate) fn first_hidden(text: &str) -> Option<char> {
    // Nearly every name is printable ASCII, where a look at the bytes decides.
    if text.bytes().all(|b| (0x20..0x7F).contains(&b)) {
        return None;
    }
    text.chars().find(|&c| is_hidden(c))
}

#[cfg(test)]
mod tests {
    use super::*;
    use unicode_general_category::{GeneralCategory, get_general_category};

    /// M-1: nothing that an independent table calls a control or format character passes, and nothing else is refused but later Cf.
    #[test]
    fn agrees_with_an_independent_table() {
        for c in '\0'..=char::MAX {
            let category = get_general_category(c);
            let theirs = matches!(category, GeneralCategory::Control | GeneralCategory::Format);
            if theirs {
                assert!(is_hidden(c), "U+{:04X} must be refused", c as u32);
            } else if is_hidden(c) {
                assert_eq!(category, GeneralCategory::Unassigned, "U+{:04X} must be allowed", c as u32);
            }
        }
    }

    #[test]
    fn finds_the_first() {
        assert_eq!(first_hidden("plain/topic"), None);
        assert_eq!(first_hidden("ünïcödé 日本"), None);
        assert_eq!(first_hidden("a\nb"), Some('\n'));
        assert_eq!(first_hidden("a\u{202E}b"), Some('\u{202E}'));
        assert_eq!(first_hidden("a\u{85}b"), Some('\u{85}'));
        assert_eq!(first_hidden("\u{7F}"), Some('\u{7F}'));
    }
}
