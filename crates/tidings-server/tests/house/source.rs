//! The tree as the house test reads it: every Rust file, manifest and Markdown page, and what of a Rust file is code.
//!
//! It knows files and the shape of Rust text, not which rules hold.

use std::{fs, path::Path};

/// One file.
pub(crate) struct Source {
    /// From the root of the project, with `/`.
    pub(crate) path: String,
    /// What it contains.
    pub(crate) text: String,
    /// The same with comments and the contents of literals blanked, so that only code is left; places stay the same.
    pub(crate) code: String,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Source {
        let code = if is(path, "rs") { code_of(text) } else { text.to_owned() };
        Source { path: path.to_owned(), text: text.to_owned(), code }
    }

    pub(crate) fn is(&self, extension: &str) -> bool {
        is(&self.path, extension)
    }

    /// The line of a place in the text, counted from 1.
    pub(crate) fn line(&self, at: usize) -> usize {
        1 + self.text[..at].matches('\n').count()
    }

    /// Every place where `word` stands in the code as a word: not inside a longer name.
    pub(crate) fn places<'a>(&'a self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        words(&self.code, word)
    }
}

/// Whether a path ends in this extension.
pub(crate) fn is(path: &str, extension: &str) -> bool {
    Path::new(path).extension().is_some_and(|e| e == extension)
}

/// Every place where `word` stands in `text` without a letter, digit or `_` touching those of its own ends that are such.
pub(crate) fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let part = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
    let (first, last) = (part(word.as_bytes().first()), part(word.as_bytes().last()));
    text.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let before = at.checked_sub(1).and_then(|i| text.as_bytes().get(i));
        let after = text.as_bytes().get(at + word.len());
        !(first && part(before) || last && part(after))
    })
}

/// Reads the tree below `root`.
pub(crate) fn read_tree(root: &Path) -> Vec<Source> {
    let mut tree = Vec::new();
    read_folder(root, root, &mut tree);
    tree.sort_by(|a, b| a.path.cmp(&b.path));
    tree
}

fn read_folder(root: &Path, folder: &Path, tree: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let path = entry.expect("a folder entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            // Not ours: build results, what package managers fetched, what fuzzers found.
            if !name.starts_with('.') && !["target", "node_modules", "corpus", "artifacts", "coverage"].contains(&&*name) {
                read_folder(root, &path, tree);
            }
        } else if ["rs", "toml", "md"].iter().any(|e| is(&name, e)) {
            let relative = path.strip_prefix(root).expect("below the root").to_string_lossy().replace('\\', "/");
            let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{relative}: {e}"));
            tree.push(Source::new(&relative, &text));
        }
    }
}

/// Blanks comments and the contents of string and character literals, keeping line ends and places.
fn code_of(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let starts_word = at == 0 || !(bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
        let (keep, end) = if rest.starts_with(b"//") {
            (0, rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len()))
        } else if rest.starts_with(b"/*") {
            (0, block_comment(rest))
        } else if let Some(end) = raw_string(rest).filter(|_| starts_word) {
            (0, end)
        } else if rest[0] == b'"' {
            (1, quoted(rest, b'"'))
        } else if rest[0] == b'\'' && is_char(rest) {
            (1, quoted(rest, b'\''))
        } else {
            at += 1;
            continue;
        };
        let inner = at + keep..at + end - keep.min(end);
        for byte in &mut code[inner] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at += end;
    }
    String::from_utf8(code).expect("whole characters were blanked")
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += 1;
        }
    }
    at
}

/// The length of a raw string that begins here, if one does.
fn raw_string(rest: &[u8]) -> Option<usize> {
    let after_r = [&b"br"[..], b"cr", b"r"].iter().find_map(|r| rest.strip_prefix(*r))?;
    let hashes = after_r.iter().take_while(|&&b| b == b'#').count();
    if after_r.get(hashes) != Some(&b'"') {
        return None;
    }
    let body = rest.len() - after_r.len() + hashes + 1;
    let close = [b"\"".to_vec(), vec![b'#'; hashes]].concat();
    let end = rest[body..].windows(close.len()).position(|w| w == close).map_or(rest.len(), |i| body + i + close.len());
    Some(end)
}

/// The length of a literal in `quote`s, escapes respected.
fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// Whether a `'` begins a character and not a lifetime: an escape, or a quote after one character.
fn is_char(rest: &[u8]) -> bool {
    match rest.get(1) {
        None => false,
        Some(b'\\') => true,
        Some(first) => {
            let len = match first {
                0..0x80 => 1,
                0x80..0xE0 => 2,
                0xE0..0xF0 => 3,
                _ => 4,
            };
            rest.get(1 + len) == Some(&b'\'')
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_is_left() {
        let table = [
            ("a // b", "a     "),
            ("a /* b /* c */ d */ e", "a                   e"),
            (r#"f("x // y", 'z')"#, r#"f("      ", ' ')"#),
            (r#"f("a\"b") g"#, r#"f("    ") g"#),
            (r##"f(r#"a"b"#) g"##, "f(        ) g"),
            ("fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)"),
            ("'\\'' x", "'  ' x"),
            ("'é' x", "'  ' x"),
            ("\"a\nb\"", "\" \n \""),
            ("for x in y", "for x in y"),
        ];
        for (text, code) in table {
            assert_eq!(code_of(text), code, "{text}");
        }
    }

    #[test]
    fn words_are_whole() {
        assert_eq!(words("sleep(1) asleep(2) sleepy sleep(3)", "sleep(").collect::<Vec<_>>(), [0, 26]);
        assert_eq!(words("crate::http::x http::y xhttp::z", "http::").collect::<Vec<_>>(), [7, 15]);
    }
}
