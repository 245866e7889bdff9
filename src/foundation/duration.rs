//! Times as people write them.

use std::fmt;
use std::time::Duration;

/// The longest time that makes sense here, in seconds: a hundred years.
const LONGEST: f64 = 100.0 * 365.25 * 86400.0;
/// Units, longest names first where one ends in another.
const UNITS: [(&str, f64); 4] = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];

/// Something that is no time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DurationError {
    value: String,
}

impl fmt::Display for DurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not a time, expected seconds or a number with ms, s, m or h (such as `500ms`)", self.value)
    }
}

impl std::error::Error for DurationError {}

/// A time: a number of seconds, or a number with the unit `ms`, `s`, `m` or `h`; fractions are allowed.
///
/// # Errors
/// Anything else, a negative time, one beyond a hundred years.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let error = || DurationError { value: text.to_owned() };
    let trimmed = text.trim();
    let (number, factor) =
        UNITS.iter().find_map(|(unit, factor)| Some((trimmed.strip_suffix(unit)?, *factor))).unwrap_or((trimmed, 1.0));
    if !number.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
        return Err(error());
    }
    let number: f64 = number.trim_end().parse().map_err(|_| error())?;
    from_seconds(number * factor).map_err(|_| error())
}

/// A number of seconds as a time.
///
/// # Errors
/// A negative number, NaN, an infinity, more than a hundred years.
pub fn from_seconds(seconds: f64) -> Result<Duration, DurationError> {
    if !(0.0..=LONGEST).contains(&seconds) {
        return Err(DurationError { value: seconds.to_string() });
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// A time for people: `45ms`, `1.23s`, `2m 5s`, `1h 2m`.
pub fn format_duration(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 0.9995 {
        return format!("{}ms", time.as_millis() + u128::from(time.subsec_nanos() % 1_000_000 >= 500_000));
    }
    if seconds < 59.995 {
        let text = format!("{seconds:.2}");
        return format!("{}s", text.trim_end_matches('0').trim_end_matches('.'));
    }
    let whole = time.as_secs() + u64::from(time.subsec_millis() >= 500);
    let (hours, minutes, rest) = (whole / 3600, whole / 60 % 60, whole % 60);
    match (hours, minutes, rest) {
        (0, minutes, 0) => format!("{minutes}m"),
        (0, minutes, rest) => format!("{minutes}m {rest}s"),
        (hours, 0, _) => format!("{hours}h"),
        (hours, minutes, _) => format!("{hours}h {minutes}m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_people_write() {
        let cases = [("500ms", 500), ("5s", 5000), ("2m", 120_000), ("1h", 3_600_000), ("1.5", 1500), ("0.25s", 250)];
        for (text, milliseconds) in cases {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "s", "-1s", "5 parsecs", "1e400", "nan", "inf", "ms", "1d"] {
            let error = parse_duration(text).unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")), "{error}");
        }
        assert!(from_seconds(f64::NAN).is_err() && from_seconds(f64::INFINITY).is_err() && from_seconds(-0.1).is_err());
    }

    #[test]
    fn what_people_read() {
        let cases = [
            (45, "45ms"),
            (300, "300ms"),
            (1000, "1s"),
            (1234, "1.23s"),
            (59_999, "1m"),
            (125_000, "2m 5s"),
            (3_600_000, "1h"),
            (3_720_000, "1h 2m"),
        ];
        for (milliseconds, text) in cases {
            assert_eq!(format_duration(Duration::from_millis(milliseconds)), text);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in ".*") {
            let _ = parse_duration(&text);
        }
    }
}
