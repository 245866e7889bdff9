//! Sizes as people write them: powers of 1024.

use std::fmt;

/// Units and their powers of 1024.
const UNITS: [(char, u32); 4] = [('K', 1), ('M', 2), ('G', 3), ('T', 4)];

/// Something that is no size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SizeError {
    value: String,
}

impl fmt::Display for SizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not a size, expected bytes or a number with K, M, G or T (such as `512M`)", self.value)
    }
}

impl std::error::Error for SizeError {}

/// A size in bytes: a number, or a number with `K`, `M`, `G` or `T` (also `KiB`, `MB`, in any case).
///
/// # Errors
/// Anything else, and what does not fit into 64 bits.
pub fn parse_size(text: &str) -> Result<u64, SizeError> {
    let error = || SizeError { value: text.to_owned() };
    let upper = text.trim().to_ascii_uppercase();
    let bare = upper.strip_suffix("IB").or_else(|| upper.strip_suffix('B')).unwrap_or(&upper);
    let unit = UNITS.iter().find(|(unit, _)| bare.ends_with(*unit));
    let (number, power) = match unit {
        Some((unit, power)) => (bare.trim_end_matches(*unit).trim_end(), *power),
        None => (bare, 0),
    };
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Err(error());
    }
    let factor = 1024_u64.pow(power);
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor).ok_or_else(error);
    }
    let fraction: f64 = number.parse().map_err(|_| error())?;
    #[expect(clippy::cast_precision_loss, reason = "the factor is a power of two, hence exact")]
    let bytes = fraction * factor as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to fit")]
    if bytes < 9e18 { Ok(bytes as u64) } else { Err(error()) }
}

/// A size for people: `512M`, `1.5G`, `12 bytes`.
pub fn format_size(bytes: u64) -> String {
    for (unit, power) in UNITS.into_iter().rev() {
        let factor = 1024_u64.pow(power);
        if bytes >= factor {
            #[expect(clippy::cast_precision_loss, reason = "one digit after the point is shown")]
            let number = bytes as f64 / factor as f64;
            let text = format!("{number:.1}");
            return format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'));
        }
    }
    format!("{bytes} bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_people_write() {
        let cases = [
            ("512M", 512 << 20),
            ("20G", 20 << 30),
            ("1024", 1024),
            ("4KiB", 4096),
            ("1.5g", 3 << 29),
            ("1T", 1 << 40),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "M", "-1M", "12X", "1e9", "99999999999T", "1.2.3M"] {
            assert!(parse_size(text).unwrap_err().to_string().contains(&format!("`{text}`")), "{text}");
        }
        assert_eq!(
            (format_size(512 << 20), format_size(12), format_size(3 << 29)),
            ("512M".into(), "12 bytes".into(), "1.5G".into())
        );
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in ".*") {
            let _ = parse_size(&text);
        }
    }
}
