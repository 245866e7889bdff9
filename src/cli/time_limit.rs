//! Time limits on the command line: a duration, or 0 for none.

use std::str::FromStr;
use std::time::Duration;

/// A limit, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLimit(pub Option<Duration>);

impl FromStr for TimeLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let limit = parse_duration(text).ok_or_else(|| {
            "expected seconds or a number with `ms`, `s`, `m` or `h`, such as `90` or `5m`".to_owned()
        })?;
        Ok(Self(Some(limit).filter(|limit| !limit.is_zero())))
    }
}

/// Seconds, or a number with a unit, as the Lua API takes it; none for anything else.
fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    let scale = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * scale).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits() {
        let limit = |text: &str| text.parse::<TimeLimit>().unwrap().0;
        assert_eq!(limit("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(limit("5m"), Some(Duration::from_secs(300)));
        assert_eq!(limit("1.5h"), Some(Duration::from_secs(5400)));
        assert_eq!(limit("2"), Some(Duration::from_secs(2)));
        assert_eq!([limit("0"), limit("0s")], [None; 2]);
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "s", "5d", "-5", "1.2.3", "5 m", "nan", "1e400h", "5\u{df}"] {
            assert!(text.parse::<TimeLimit>().is_err(), "{text}");
        }
    }
}
