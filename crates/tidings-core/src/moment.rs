//! Moments as clients write them: RFC 3339, or milliseconds since 1970. It knows the calendar, not what time it is.

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// The moment of a text, in milliseconds since 1970: a time of RFC 3339 (`2026-11-25T12:00:00Z`, `2026-11-25T13:00:00.5+01:00`), or the
/// number itself in digits. `None` if it is neither, and for years before 1970.
///
/// Where the `+` of an offset should stand a space counts as one: it is what a `+` in a query means.
///
/// ```
/// assert_eq!(tidings_core::moment::parse("2026-11-25T13:00:00.25+01:00"), Some(1_795_608_000_250));
/// assert_eq!(tidings_core::moment::parse("1795608000250"), Some(1_795_608_000_250));
/// assert_eq!(tidings_core::moment::parse("yesterday"), None);
/// ```
pub fn parse(text: &str) -> Option<u64> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok();
    }
    let bytes = text.as_bytes();
    let number = |from: usize, to: usize| -> Option<u64> {
        let digits = bytes.get(from..to)?;
        digits.iter().try_fold(0, |number, byte| byte.is_ascii_digit().then(|| number * 10 + u64::from(byte - b'0')))
    };
    let is = |at: usize, one_of: &[u8]| bytes.get(at).is_some_and(|byte| one_of.contains(byte));
    if !(is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":")) {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    // Leap seconds have no place of their own on this scale: they are the second after.
    if !(1..=12).contains(&month) || !(1..=days_in(year, month)).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut at = 19;
    let mut fraction = 0;
    if is(at, b".") {
        let digits = bytes[at + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        // Finer than milliseconds is cut off.
        for n in 0..3 {
            fraction = fraction * 10 + if n < digits { number(at + 1 + n, at + 2 + n)? } else { 0 };
        }
        if digits == 0 {
            return None;
        }
        at += 1 + digits;
    }
    let local = days_before(year, month, day)? * DAY + hour * HOUR + minute * MINUTE + second * SECOND + fraction;
    if is(at, b"Zz") {
        return (bytes.len() == at + 1).then_some(local);
    }
    let (hours, minutes) = (number(at + 1, at + 3)?, number(at + 4, at + 6)?);
    if bytes.len() != at + 6 || !is(at + 3, b":") || hours > 23 || minutes > 59 {
        return None;
    }
    let offset = hours * HOUR + minutes * MINUTE;
    match bytes[at] {
        b'+' | b' ' => local.checked_sub(offset),
        b'-' => Some(local + offset),
        _ => None,
    }
}

/// A moment as RFC 3339 in UTC, with milliseconds; the number itself beyond the year 9999.
pub fn show(ms: u64) -> String {
    let (mut days, time) = (ms / DAY, ms % DAY);
    if ms / DAY > 2_932_896 {
        return ms.to_string();
    }
    let mut year = 1970;
    while days >= days_of(year) {
        days -= days_of(year);
        year += 1;
    }
    let mut month = 1;
    while days >= days_in(year, month) {
        days -= days_in(year, month);
        month += 1;
    }
    let (hour, minute, second) = (time / HOUR, time / MINUTE % 60, time / SECOND % 60);
    format!("{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", days + 1, time % SECOND)
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_of(year: u64) -> u64 {
    if is_leap(year) { 366 } else { 365 }
}

fn days_in(year: u64, month: u64) -> u64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap(year) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days from 1970 to a date.
fn days_before(year: u64, month: u64, day: u64) -> Option<u64> {
    let years: u64 = (1970..year).map(days_of).sum();
    let months: u64 = (1..month).map(|month| days_in(year, month)).sum();
    (year >= 1970).then_some(years + months + day - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_moments() {
        let table: &[(&str, Option<u64>)] = &[
            ("0", Some(0)),
            ("1795608000000", Some(1_795_608_000_000)),
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2026-11-25T12:00:00Z", Some(1_795_608_000_000)),
            ("2026-11-25t12:00:00z", Some(1_795_608_000_000)),
            ("2026-11-25 12:00:00Z", Some(1_795_608_000_000)),
            ("2026-11-25T12:00:00.123456789Z", Some(1_795_608_000_123)),
            ("2026-11-25T12:00:00.5Z", Some(1_795_608_000_500)),
            ("2026-11-25T13:30:00+01:30", Some(1_795_608_000_000)),
            // What a form makes of the plus.
            ("2026-11-25T13:30:00 01:30", Some(1_795_608_000_000)),
            ("2026-11-25T07:00:00-05:00", Some(1_795_608_000_000)),
            ("2000-02-29T00:00:00Z", Some(951_782_400_000)),
            ("2016-12-31T23:59:60Z", Some(1_483_228_800_000)),
            ("9999-12-31T23:59:59.999Z", Some(253_402_300_799_999)),
            ("1970-01-01T00:30:00+01:00", None),
            ("1969-12-31T23:59:59Z", None),
            ("2100-02-29T00:00:00Z", None),
            ("2026-13-01T00:00:00Z", None),
            ("2026-11-31T00:00:00Z", None),
            ("2026-11-25T24:00:00Z", None),
            ("2026-11-25T12:00:00", None),
            ("2026-11-25T12:00:00.Z", None),
            ("2026-11-25T12:00:00Zx", None),
            ("2026-11-25T12:00:00+0100", None),
            ("2026-11-25", None),
            ("-1", None),
            ("1h", None),
            ("", None),
            ("99999999999999999999", None),
            ("２０26-11-25T12:00:00Z", None),
        ];
        for (text, expected) in table {
            assert_eq!(parse(text), *expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_parsed(ms in 0..253_402_300_800_000u64) {
            prop_assert_eq!(parse(&show(ms)), Some(ms));
        }

        #[test]
        fn any_text_is_an_answer(text in "[0-9TtZz:+. -]{0,40}|\\PC{0,40}") {
            let _ = parse(&text);
        }
    }
}
