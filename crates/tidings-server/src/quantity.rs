//! Quantities as people write them: times such as `15s` and sizes such as `64MiB`, read and shown.
//!
//! A bare number is refused: whether `--max-age 30` means seconds or minutes must not be found out in production.
//! It does not know which setting a quantity belongs to.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const TIMES: &[(&str, u64)] = &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
const SIZES: &[(&str, u64)] = &[("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Reads a time such as `500ms`, `15s`, `30m`, `2h` or `1d`.
pub(crate) fn parse_time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a time; write a whole number and a unit (ms, s, m, h, d), for example 15s");
    parse(text, TIMES).map(Duration::from_millis).ok_or_else(wrong)
}

/// Reads a size such as `512B`, `64KiB`, `16MiB` or `1GiB`.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a size; write a whole number and a unit (B, KiB, MiB, GiB), for example 16MiB");
    parse(text, SIZES).ok_or_else(wrong)
}

/// Reads a moment, as milliseconds since 1970: a time such as `10m`, which is so long ago, or what the hub takes.
pub(crate) fn parse_moment(text: &str) -> Result<u64, String> {
    if let Some(ago) = parse(text, TIMES) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        return Ok((now.as_millis() as u64).saturating_sub(ago));
    }
    let wrong = || {
        format!(
            "`{text}` is not a moment; write how long ago (10m, 2h, 1d), a time as RFC 3339 has it (2026-11-25T12:00:00Z), or milliseconds since 1970"
        )
    };
    tidings::moment::parse(text).ok_or_else(wrong)
}

/// Shows a time as it would be written, in the largest unit that is exact.
pub(crate) fn show_time(time: Duration) -> String {
    show(time.as_millis() as u64, TIMES, "0s")
}

/// Shows a size as it would be written, in the largest unit that is exact.
pub(crate) fn show_size(bytes: u64) -> String {
    show(bytes, SIZES, "0B")
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = (&text[..digits], text[digits..].trim_start());
    let (_, size) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*size)
}

fn show(amount: u64, units: &[(&str, u64)], zero: &str) -> String {
    let exact = units.iter().find(|(_, size)| amount != 0 && amount.is_multiple_of(*size));
    exact.map_or_else(|| zero.to_owned(), |(name, size)| format!("{}{name}", amount / size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        assert_eq!(parse_moment("2026-11-25T12:00:00Z"), Ok(1_795_608_000_000));
        assert_eq!(parse_moment("1795608000000"), Ok(1_795_608_000_000));
        let (now, ago) = (parse_moment("0s").unwrap(), parse_moment("1h").unwrap());
        assert!((3_590_000..=3_600_000).contains(&(now - ago)), "{now} {ago}");
        assert_eq!(parse_moment("999999d"), Ok(0));
        for text in ["", "yesterday", "-1h", "12:00", "2026-11-25"] {
            assert!(parse_moment(text).is_err_and(|why| why.contains("how long ago")), "{text}");
        }
    }

    /// N-41: units are written out.
    #[test]
    fn times() {
        for (text, ms) in
            [("500ms", 500), ("15s", 15_000), ("30m", 1_800_000), ("2h", 7_200_000), ("1d", 86_400_000), ("15 s", 15_000), ("0s", 0)]
        {
            assert_eq!(parse_time(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "15", "s", "-1s", "1.5s", "15S", "15 seconds", "99999999999999999999s", "18446744073709551615d", "１s", "15s "] {
            assert!(parse_time(text).unwrap_err().contains("15s"), "{text}");
        }
        for text in ["500ms", "15s", "90s", "30m", "2h", "1d", "0s"] {
            assert_eq!(show_time(parse_time(text).unwrap()), text);
        }
    }

    /// N-41: units are written out.
    #[test]
    fn sizes() {
        for (text, bytes) in [("512B", 512), ("64KiB", 65_536), ("16MiB", 16 << 20), ("1GiB", 1 << 30), ("0B", 0)] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
            assert_eq!(show_size(bytes), text);
        }
        for text in ["", "16", "MiB", "16M", "16MB", "16mib", "-1B", "99999999999GiB"] {
            assert!(parse_size(text).unwrap_err().contains("16MiB"), "{text}");
        }
        assert_eq!(show_size(1_500), "1500B");
    }
}
