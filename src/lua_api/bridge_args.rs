//! Arguments of bridges' methods: members, ordered pairs, percentages, rates, times.

use std::sync::Arc;
use std::time::Duration;

use mlua::{Table, Value};

use super::args::{Args, Options};
use super::bridge::BridgeHandle;
use super::error::ApiError;
use super::render::short;
use super::vm::VmHandle;
use crate::foundation::duration;
use crate::testbed::network::{Bridge, Nic};
use crate::testbed::{Pair, Port, Vm};

/// Ports of members: those of one group each.
pub type Groups = Vec<Vec<Port>>;

/// The bridge that a method was called on.
///
/// # Errors
/// It is something else, or closed.
pub fn this(args: &mut Args) -> Result<Arc<Bridge>, ApiError> {
    let function = args.function();
    let bridge = Arc::clone(&args.this::<BridgeHandle>()?.0);
    if bridge.is_closed() {
        return Err(ApiError::new(format!("{function}: the bridge `{}` is closed", bridge.name())));
    }
    Ok(bridge)
}

/// The VM that a value is.
///
/// # Errors
/// It is something else.
pub fn vm_of(args: &Args, name: &str, value: &Value) -> Result<Arc<Vm>, ApiError> {
    match value.as_userdata().and_then(|object| object.borrow::<VmHandle>().ok()) {
        Some(vm) => Ok(Arc::clone(&vm.0)),
        None => Err(args.wrong(name, "a VM", value)),
    }
}

/// The card of a member: a VM, or its name.
///
/// # Errors
/// It is something else, or no member.
pub fn member(args: &Args, bridge: &Bridge, name: &str, value: &Value) -> Result<Arc<Nic>, ApiError> {
    let (vm, found) = match value {
        Value::String(text) => {
            let text = text.to_string_lossy();
            let found = bridge.nics().into_iter().find(|nic| nic.vm_name() == text);
            (text, found)
        }
        other => {
            let vm = vm_of(args, name, other)?;
            (vm.name().to_owned(), bridge.nic_of(&vm))
        }
    };
    found.ok_or_else(|| {
        let names: Vec<String> = bridge.nics().iter().map(|nic| format!("`{}`", nic.vm_name())).collect();
        let members = match names.is_empty() {
            true => "it has no members".to_owned(),
            false => format!("its members are {}", names.join(", ")),
        };
        let why =
            format!("vm `{vm}` is no member of the bridge `{}`: {members}\nhint: `:attach()` it first", bridge.name());
        args.bad(name, &why)
    })
}

/// The ordered pair of `from` and `to` in a table; none where neither is there.
///
/// # Errors
/// Only one of them, no members, or twice the same.
pub fn pair_in(args: &Args, bridge: &Bridge, options: &Options) -> Result<Option<Pair>, ApiError> {
    match (options.value("from")?, options.value("to")?) {
        (Value::Nil, Value::Nil) => Ok(None),
        (Value::Nil, _) => Err(args.bad("from", "expected a member, found nil: `from` and `to` go together")),
        (_, Value::Nil) => Err(args.bad("to", "expected a member, found nil: `from` and `to` go together")),
        (from, to) => {
            pair(args, member(args, bridge, "from", &from)?.port(), member(args, bridge, "to", &to)?.port()).map(Some)
        }
    }
}

/// Two different ports.
///
/// # Errors
/// They are the same.
pub fn pair(args: &Args, from: Port, to: Port) -> Result<Pair, ApiError> {
    if from == to {
        return Err(args.bad("to", "expected another member than the first one"));
    }
    Ok((from, to))
}

/// The array of groups in `{{a, b}, {c}}`.
///
/// # Errors
/// Something else; a member twice; fewer than two groups.
pub fn groups(args: &Args, bridge: &Bridge, table: &Table) -> Result<Groups, ApiError> {
    let expected = "{from=, to=} or groups such as {{a, b}, {c}}";
    let mut groups = Groups::new();
    for group in table.sequence_values::<Value>() {
        let group = match group? {
            Value::Table(group) => group,
            other => return Err(args.wrong("groups", expected, &other)),
        };
        let mut ports = Vec::new();
        for value in group.sequence_values::<Value>() {
            let nic = member(args, bridge, "groups", &value?)?;
            if groups.iter().flatten().chain(&ports).any(|port| *port == nic.port()) {
                return Err(args.bad("groups", &format!("vm `{}` is named twice", nic.vm_name())));
            }
            ports.push(nic.port());
        }
        groups.push(ports);
    }
    match groups.len() {
        0 => Err(args.wrong("groups", expected, &Value::Table(table.clone()))),
        1 => Err(args.bad("groups", "expected two groups at least, found one")),
        _ => Ok(groups),
    }
}

/// A percentage: a number from 0 to 100, or text such as `30%`.
///
/// # Errors
/// Something else.
pub fn percent(value: &Value) -> Result<f64, String> {
    let found = match value {
        #[expect(clippy::cast_precision_loss, reason = "what is large enough to lose bits is out of range")]
        Value::Integer(number) => Some(*number as f64),
        Value::Number(number) => Some(*number),
        Value::String(text) => text.to_string_lossy().trim().trim_end_matches('%').trim().parse().ok(),
        _ => None,
    };
    found
        .filter(|percent| (0.0..=100.0).contains(percent))
        .ok_or_else(|| format!("expected percent, a number from 0 to 100, found {}", short(value)))
}

/// A rate in bits per second: a whole number, or text such as `8mbit`. 0 is no limit.
///
/// # Errors
/// Something else.
pub fn rate(value: &Value) -> Result<u64, String> {
    let bad = || format!("expected bits per second, or text such as `8mbit`, found {}", short(value));
    let whole = |number: f64| {
        // Exact below 2^53; nothing near that is a rate.
        ((0.0..9e15).contains(&number)).then(|| number.round() as u64).ok_or_else(bad)
    };
    match value {
        Value::Integer(number) => u64::try_from(*number).map_err(|_| bad()),
        Value::Number(number) => whole(*number),
        Value::String(text) => {
            let text = text.to_string_lossy().trim().to_lowercase();
            let digits = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
            let (number, unit) = text.split_at(digits);
            let number: f64 = number.parse().map_err(|_| bad())?;
            let unit = unit.trim().trim_end_matches("/s");
            let factor = match unit.strip_suffix("bit").or_else(|| unit.strip_suffix("bps")).unwrap_or(unit) {
                "" => 1.0,
                "k" => 1e3,
                "m" => 1e6,
                "g" => 1e9,
                "t" => 1e12,
                _ => return Err(bad()),
            };
            whole(number * factor)
        }
        _ => Err(bad()),
    }
}

/// A time in milliseconds, or text with a unit.
///
/// # Errors
/// Something else, or a negative time.
pub fn milliseconds(value: &Value) -> Result<Duration, String> {
    let bad = || format!("expected milliseconds, or text such as `50ms`, found {}", short(value));
    match value {
        #[expect(clippy::cast_precision_loss, reason = "milliseconds beyond 2^53 are refused as too long")]
        Value::Integer(ms) => duration::from_seconds(*ms as f64 / 1000.0).map_err(|_| bad()),
        Value::Number(ms) => duration::from_seconds(*ms / 1000.0).map_err(|_| bad()),
        Value::String(text) => {
            let text = text.to_string_lossy();
            // Elsewhere a time without a unit is in seconds; here the number itself would be milliseconds.
            let without_unit = text.trim().ends_with(|last: char| last.is_ascii_digit() || last == '.');
            let text = if without_unit { format!("{}ms", text.trim()) } else { text };
            duration::parse_duration(&text).map_err(|_| bad())
        }
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        let lua = mlua::Lua::new();
        let text = |text: &str| rate(&Value::String(lua.create_string(text).unwrap()));
        for (written, bits) in [
            ("8mbit", 8_000_000),
            ("1.5 Gbit/s", 1_500_000_000),
            ("500kbit", 500_000),
            ("9600", 9600),
            ("2M", 2_000_000),
        ] {
            assert_eq!(text(written), Ok(bits), "{written}");
        }
        for written in ["", "fast", "8mbyte", "-1mbit", "1e3bit"] {
            assert!(text(written).unwrap_err().contains("8mbit"), "{written}");
        }
        assert_eq!((rate(&Value::Integer(7)), rate(&Value::Number(7e6))), (Ok(7), Ok(7_000_000)));
        assert!(rate(&Value::Integer(-1)).is_err() && rate(&Value::Number(f64::NAN)).is_err());
    }

    #[test]
    fn percentages_and_times() {
        let lua = mlua::Lua::new();
        let text = |text: &str| Value::String(lua.create_string(text).unwrap());
        assert_eq!((percent(&Value::Integer(100)), percent(&text("2.5%"))), (Ok(100.0), Ok(2.5)));
        for bad in [Value::Integer(101), Value::Number(-0.1), Value::Number(f64::NAN), Value::Nil, text("much")] {
            assert!(percent(&bad).is_err(), "{bad:?}");
        }
        assert_eq!(milliseconds(&Value::Integer(50)), Ok(Duration::from_millis(50)));
        assert_eq!(milliseconds(&Value::Number(0.5)), Ok(Duration::from_micros(500)));
        assert_eq!(milliseconds(&text("1s")), Ok(Duration::from_secs(1)));
        assert_eq!(milliseconds(&text("50")), Ok(Duration::from_millis(50)));
        assert!(milliseconds(&Value::Integer(-1)).is_err() && milliseconds(&text("soon")).is_err());
    }
}
