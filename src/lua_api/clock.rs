//! The guest's clock.

use std::sync::Arc;

use mlua::{Lua, MetaMethod, UserData, UserDataFields, Value};

use super::args::Args;
use super::error::ApiError;
use super::register::{Class, class};
use super::render::short;
use crate::foundation::duration::parse_duration;
use crate::testbed::{Guest, Vm};

/// Registry key of the class.
const CLASS: &str = "provium.Clock";
const NANOSECONDS: f64 = 1e9;
/// The furthest time that nanoseconds since the epoch can tell, in seconds.
const LATEST: f64 = 9_223_372_036.0;

/// A clock as Lua holds it.
pub struct ClockHandle {
    vm: Arc<Vm>,
}

impl ClockHandle {
    /// The clock of `vm`.
    pub fn new(vm: Arc<Vm>) -> Self {
        Self { vm }
    }
}

impl UserData for ClockHandle {
    fn add_fields<F: UserDataFields<Self>>(fields: &mut F) {
        fields.add_meta_field_with(MetaMethod::Index.name(), |lua| class(lua, CLASS));
        fields.add_meta_field("__name", "Clock");
    }
}

/// Seconds, or text with a unit, perhaps with `-` in front; as nanoseconds.
fn nanoseconds(args: &mut Args, name: &str) -> Result<i64, ApiError> {
    let value = args.next();
    let seconds = match &value {
        Value::Integer(seconds) => {
            return seconds
                .checked_mul(1_000_000_000)
                .ok_or_else(|| args.bad(name, &format!("`{seconds}` is beyond what nanoseconds can tell")));
        }
        Value::Number(seconds) => *seconds,
        Value::String(text) => {
            let text = text.to_string_lossy();
            let (sign, rest) = match text.trim().strip_prefix('-') {
                Some(rest) => (-1.0, rest),
                None => (1.0, text.trim()),
            };
            sign * parse_duration(rest).map_err(|error| args.bad(name, &error.to_string()))?.as_secs_f64()
        }
        other => return Err(args.wrong(name, "a time (seconds, or text such as `500ms`)", other)),
    };
    if !seconds.is_finite() || seconds.abs() > LATEST {
        return Err(args.wrong(name, "a number of seconds that a clock can show", &value));
    }
    // In range: the whole seconds and their fraction are each exact enough.
    Ok(seconds.trunc() as i64 * 1_000_000_000 + (seconds.fract() * NANOSECONDS).round() as i64)
}

fn not_negative(args: &Args, name: &str, nanoseconds: i64) -> Result<i64, ApiError> {
    match nanoseconds {
        0.. => Ok(nanoseconds),
        _ => Err(args.bad(name, "expected a time since 1970, found a negative one")),
    }
}

/// Makes the class known to a Lua state.
///
/// # Errors
/// Those of Lua's allocator.
pub fn install(lua: &Lua) -> mlua::Result<()> {
    let class = Class::new(lua)?
        .waits("clock:get", |_, _, mut args| {
            let vm = Arc::clone(&args.this::<ClockHandle>()?.vm);
            #[expect(clippy::cast_precision_loss, reason = "float seconds are what is asked for; get_ns is exact")]
            Ok(async move { Ok(vm.clock().await? as f64 / NANOSECONDS) })
        })?
        .waits("clock:get_ns", |_, _, mut args| {
            let vm = Arc::clone(&args.this::<ClockHandle>()?.vm);
            Ok(async move { Ok(vm.clock().await?) })
        })?
        .waits("clock:set", |_, _, mut args| {
            let vm = Arc::clone(&args.this::<ClockHandle>()?.vm);
            let time = nanoseconds(&mut args, "s")?;
            let time = not_negative(&args, "s", time)?;
            Ok(async move { Ok(vm.set_clock(time).await?) })
        })?
        .waits("clock:set_ns", |_, _, mut args| {
            let vm = Arc::clone(&args.this::<ClockHandle>()?.vm);
            let time = match args.next() {
                Value::Integer(nanoseconds) => not_negative(&args, "n", nanoseconds)?,
                other => return Err(args.wrong("n", "a whole number of nanoseconds", &other)),
            };
            Ok(async move { Ok(vm.set_clock(time).await?) })
        })?;
    moving(class)?.store(CLASS)
}

fn moving(class: Class<'_>) -> mlua::Result<Class<'_>> {
    class
        .waits("clock:advance", |_, _, mut args| {
            let vm = Arc::clone(&args.this::<ClockHandle>()?.vm);
            let time = nanoseconds(&mut args, "d")?;
            Ok(async move { Ok(vm.advance_clock(time).await?) })
        })?
        .waits("clock:sleep", |_, _, mut args| {
            let guest = Guest::new(Arc::clone(&args.this::<ClockHandle>()?.vm));
            let time = args.duration_opt("d")?.ok_or_else(|| args.bad("d", "expected a time, found nil"))?;
            Ok(async move { Ok(guest.sleep(time).await?) })
        })?
        .method("clock:freeze_on_restore", |_, _, mut args| {
            args.this::<ClockHandle>()?.vm.freeze_clock_on_restore();
            match args.next() {
                Value::Nil => Ok(()),
                other => Err(args.bad("freeze_on_restore", &format!("takes no argument, found {}", short(&other)))),
            }
        })
}
