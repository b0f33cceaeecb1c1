//! Objects of strings without escapes, which is what most publishers send: read several times faster than the whole of JSON could be.
//!
//! It knows four names. What is not surely such an object is left to `json`, which knows what an event is, and what is wrong with one.

/// An object of strings without escapes, each name at most once: what most publishers send.
#[derive(Debug, Default)]
pub(crate) struct Plain<'a> {
    pub(crate) topic: Option<&'a str>,
    pub(crate) data: Option<&'a str>,
    pub(crate) event_type: Option<&'a str>,
    pub(crate) id: Option<&'a str>,
}

/// Reads what is surely such an object at the beginning of a text, several times faster than the whole language could be, and says where it
/// ends. `None` leaves it to the real parser, which knows what is wrong if anything is. That has line ends between its tokens to itself: what
/// is read here stands in one line.
pub(crate) fn plain(text: &str) -> Option<(Plain<'_>, usize)> {
    let (mut plain, bytes) = (Plain::default(), text.as_bytes());
    let mut at = after(b'{', bytes, 0)?;
    loop {
        at = space(bytes, at);
        let (place, name) = match &bytes[at..] {
            [b'"', b't', b'o', b'p', b'i', b'c', b'"', ..] => (&mut plain.topic, "\"topic\""),
            [b'"', b'd', b'a', b't', b'a', b'"', ..] => (&mut plain.data, "\"data\""),
            [b'"', b't', b'y', b'p', b'e', b'"', ..] => (&mut plain.event_type, "\"type\""),
            [b'"', b'i', b'd', b'"', ..] => (&mut plain.id, "\"id\""),
            _ => return None,
        };
        let begin = after(b'"', bytes, after(b':', bytes, at + name.len())?)?;
        let end = begin + plain_len(&bytes[begin..]);
        if bytes.get(end) != Some(&b'"') || place.replace(&text[begin..end]).is_some() {
            return None;
        }
        at = end + 1;
        if !matches!(bytes.get(at), Some(b',' | b'}')) {
            at = space(bytes, at);
        }
        match bytes.get(at)? {
            b',' => at += 1,
            b'}' => return Some((plain, at + 1)),
            _ => return None,
        }
    }
}

/// Skips what JSON takes for white space within a line.
fn space(bytes: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\t' | b'\r') = bytes.get(at) {
        at += 1;
    }
    at
}

/// Behind a byte that comes next, perhaps after white space.
fn after(byte: u8, bytes: &[u8], mut at: usize) -> Option<usize> {
    if *bytes.get(at)? == byte {
        return Some(at + 1);
    }
    at = space(bytes, at);
    (*bytes.get(at)? == byte).then_some(at + 1)
}

/// The same where nothing else may stand in the text.
pub(crate) fn plain_alone(text: &str) -> Option<Plain<'_>> {
    let text = text.trim_matches([' ', '\t', '\n', '\r']);
    plain(text).filter(|(_, end)| *end == text.len()).map(|(plain, _)| plain)
}

/// How many bytes come before the first that ends a string, begins an escape, or must not stand in a string.
fn plain_len(bytes: &[u8]) -> usize {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let stops = |byte: u8| byte < 0x20 || byte == b'"' || byte == b'\\';
    let mut at = 0;
    // Of long strings many bytes at once, each looked at alike so that the compiler has vectors do it.
    for piece in bytes.as_chunks::<32>().0 {
        if piece.iter().fold(false, |any, &byte| any | stops(byte)) {
            break;
        }
        at += piece.len();
    }
    for word in bytes[at..].as_chunks::<8>().0 {
        let word = u64::from_le_bytes(*word);
        // With one bit turned over, `"` lies just above the control characters and nothing between them. What is below a number has borrowed
        // from its highest bit; that marks the next byte too, perhaps, but none before.
        let controls_and_quote = (word ^ (EACH * 0x02)).wrapping_sub(EACH * 0x21);
        let backslash = (word ^ (EACH * u64::from(b'\\'))).wrapping_sub(EACH);
        let marks = (controls_and_quote | backslash) & !word & (EACH << 7);
        if marks != 0 {
            return at + marks.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    at + bytes[at..].iter().take_while(|&&byte| !stops(byte)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each byte at each place of a word, and behind the last one.
    #[test]
    fn lengths_of_strings() {
        for byte in 0..=u8::MAX {
            for at in 0..52 {
                let mut text = [0xc3; 52];
                text[at] = byte;
                let stops = byte < 0x20 || b"\"\\".contains(&byte);
                assert_eq!(plain_len(&text), if stops { at } else { 52 }, "{byte:#x} at {at}");
                let mut text = [b'#'; 52];
                text[at] = byte;
                assert_eq!(plain_len(&text), if stops { at } else { 52 }, "{byte:#x} at {at}");
            }
        }
    }
}
