//! Time limits on the command line: a duration, or 0 for none.

use std::str::FromStr;
use std::time::Duration;

use crate::foundation::duration::{DurationError, parse_duration};

/// A limit, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLimit(pub Option<Duration>);

impl FromStr for TimeLimit {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_duration(text).map(|limit| Self(Some(limit).filter(|limit| !limit.is_zero())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_none() {
        let limit = |text: &str| text.parse::<TimeLimit>().unwrap().0;
        assert_eq!(limit("5m"), Some(Duration::from_secs(300)));
        assert_eq!([limit("0"), limit("0s")], [None; 2]);
        assert!("5d".parse::<TimeLimit>().is_err());
    }
}
