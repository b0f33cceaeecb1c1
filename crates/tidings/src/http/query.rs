//! Names and values in URLs and forms, strictly UTF-8. It knows the encoding, not which names mean something.

use super::problem::Problem;
use percent_encoding::percent_decode_str;
use std::borrow::Cow;

/// A pair as it was sent, decoded.
pub(crate) type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

/// The pairs of a query; `None` if a value is not UTF-8, which `form_urlencoded` alone would replace silently.
pub(crate) fn pairs(encoded: &[u8]) -> Option<impl Iterator<Item = Pair<'_>>> {
    // Pairs are separated by ASCII, so the whole is UTF-8 exactly if every part is.
    percent_encoding::percent_decode(encoded).decode_utf8().ok()?;
    Some(form_urlencoded::parse(encoded))
}

/// The pairs of a URL's query, without a token that stands there (M-205): it was read when rights were asked for, and is nobody else's.
pub(crate) fn url_pairs(query: &str) -> Result<impl Iterator<Item = Pair<'_>>, Problem> {
    let pairs = pairs(query.as_bytes()).ok_or(Problem::QueryNotUtf8)?;
    Ok(pairs.filter(|(name, _)| name != "authorization"))
}

/// The rest of a path, decoded; `+` is a plus there.
pub(crate) fn decode_path(rest: &str) -> Result<Cow<'_, str>, Problem> {
    percent_decode_str(rest).decode_utf8().map_err(|_| Problem::PathNotUtf8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(query: &str, expected: Option<&[(&str, &str)]>) {
        let got: Option<Vec<(String, String)>> =
            pairs(query.as_bytes()).map(|pairs| pairs.map(|(name, value)| (name.into(), value.into())).collect());
        let expected = expected.map(|pairs| pairs.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect());
        assert_eq!(got, expected, "{query}");
    }

    #[test]
    fn decodes() {
        check("", Some(&[]));
        check("a=1&b=2&a=3", Some(&[("a", "1"), ("b", "2"), ("a", "3")]));
        check("private", Some(&[("private", "")]));
        check("a=b+c%20d%2B", Some(&[("a", "b c d+")]));
        check("topic=%E6%97%A5", Some(&[("topic", "日")]));
        check("a=%EF%BF%BD", Some(&[("a", "\u{FFFD}")]));
        check("a=%zz%", Some(&[("a", "%zz%")]));
        check("a=%FF", None);
        check("a=%E6&b=%97%A5", None);
        check("%FF=a", None);
        check("a=%ED%A0%80", None);
    }

    #[test]
    fn paths() {
        for (raw, decoded) in [("a/b", "a/b"), ("a%2Fb", "a/b"), ("a+b", "a+b"), ("%2Fa", "/a"), ("%E6%97%A5", "日")] {
            assert_eq!(decode_path(raw).unwrap(), decoded);
        }
        for raw in ["%FF", "a%C3", "%ED%A0%80"] {
            assert!(matches!(decode_path(raw), Err(Problem::PathNotUtf8)), "{raw}");
        }
    }
}
