//! Signals by number or by name.

use mlua::Value;

use super::args::Args;
use super::error::ApiError;
use super::render::short;
use crate::foundation::suggest;

/// Linux's names, the same on x86_64 and aarch64; number 1 first.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];
/// The first real-time signal that libraries leave to programs, and the last.
const REAL_TIME: (i32, i32) = (34, 64);

/// The next argument as a signal; `otherwise` where there is none.
///
/// # Errors
/// When it is no signal.
pub fn signal(args: &mut Args, otherwise: Option<i32>) -> Result<i32, ApiError> {
    let value = args.next();
    if let (Value::Nil, Some(signal)) = (&value, otherwise) {
        return Ok(signal);
    }
    number(&value).map_err(|why| args.bad("sig", &why))
}

fn number(value: &Value) -> Result<i32, String> {
    let text = match value {
        Value::Integer(number) => {
            return i32::try_from(*number)
                .ok()
                .filter(|number| (1..=REAL_TIME.1).contains(number))
                .ok_or_else(|| format!("expected a signal from 1 to {}, found {number}", REAL_TIME.1));
        }
        Value::String(text) => text.to_string_lossy(),
        other => return Err(format!("expected the number or name of a signal, found {}", short(other))),
    };
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    named(name)
        .ok_or_else(|| format!("expected a signal, found {}\nhint: {}", short(value), suggest::hint(name, &NAMES)))
}

fn named(name: &str) -> Option<i32> {
    if let Some(at) = NAMES.iter().position(|known| *known == name) {
        return i32::try_from(at + 1).ok();
    }
    let (from, rest) = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) => (REAL_TIME.0, rest),
        (_, Some(rest)) => (REAL_TIME.1, rest),
        _ => {
            return match name {
                "IOT" => Some(6),
                "CLD" => Some(17),
                "POLL" => Some(29),
                _ => None,
            };
        }
    };
    let offset = if rest.is_empty() { 0 } else { rest.parse::<i32>().ok()? };
    from.checked_add(offset).filter(|number| (REAL_TIME.0..=REAL_TIME.1).contains(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        let named = |text: &str| {
            let lua = mlua::Lua::new();
            number(&Value::String(lua.create_string(text).unwrap()))
        };
        for (text, expected) in [
            ("TERM", 15),
            ("SIGTERM", 15),
            ("sigkill", 9),
            ("Usr1", 10),
            ("SYS", 31),
            ("POLL", 29),
            ("RTMIN", 34),
            ("SIGRTMIN+2", 36),
            ("RTMAX", 64),
            ("RTMAX-1", 63),
        ] {
            assert_eq!(named(text), Ok(expected), "{text}");
        }
        assert!(named("TREM").unwrap_err().ends_with("did you mean `TERM`?"));
        assert!(named("zebra").unwrap_err().contains("`HUP`"));
        for text in ["", "SIG", "RTMIN-1", "RTMAX+1", "RTMINx", "RTMIN+2147483647"] {
            assert!(named(text).is_err(), "{text}");
        }
        assert_eq!(number(&Value::Integer(64)), Ok(64));
        for bad in [0, -9, 65, i64::MAX] {
            assert!(number(&Value::Integer(bad)).is_err(), "{bad}");
        }
    }
}
