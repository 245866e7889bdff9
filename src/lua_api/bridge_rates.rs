//! Impairments: of the whole bridge, or of one ordered pair. A later value takes the place of an earlier one.

use std::time::Duration;

use mlua::Value;

use super::args::{Args, Options};
use super::bridge_args::{milliseconds, pair_in, percent, rate, this};
use super::error::ApiError;
use super::register::Class;
use crate::testbed::network::Bridge;
use crate::testbed::{Impairment, Pair};

type Setter = fn(&mut Impairment, f64);

/// The methods of this file.
///
/// # Errors
/// Those of Lua's allocator.
pub fn methods(class: Class<'_>) -> mlua::Result<Class<'_>> {
    let class = class
        .method("bridge:add_latency", |_, _, mut args| latency(&mut args, false))?
        .method("bridge:add_directional_latency", |_, _, mut args| latency(&mut args, true))?
        .method("bridge:drop_rate", |_, _, mut args| chance(&mut args, false, |own, p| own.loss = p))?
        .method("bridge:loss", |_, _, mut args| chance(&mut args, false, |own, p| own.loss = p))?
        .method("bridge:directional_drop_rate", |_, _, mut args| chance(&mut args, true, |own, p| own.loss = p))?
        .method("bridge:duplicate_rate", |_, _, mut args| chance(&mut args, false, |own, p| own.duplicate = p))?
        .method("bridge:corrupt_rate", |_, _, mut args| chance(&mut args, false, |own, p| own.corrupt = p))?
        .method("bridge:reorder_rate", |_, _, mut args| chance(&mut args, false, |own, p| own.reorder = p))?
        .method("bridge:bandwidth_limit", |_, _, mut args| bandwidth(&mut args))?;
    class
        .method("bridge:latency_ms", |_, _, mut args| {
            let latency = this(&mut args)?.policy().whole.latency;
            Ok(number(latency.as_secs_f64() * 1000.0))
        })?
        .method("bridge:drop_rate_pct", |_, _, mut args| Ok(number(this(&mut args)?.policy().whole.loss)))?
        .method("bridge:bandwidth_bps", |_, _, mut args| {
            Ok(i64::try_from(this(&mut args)?.policy().whole.bandwidth).unwrap_or(i64::MAX))
        })
}

/// A whole number as an integer, so that it prints as one.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 9e15 { Value::Integer(value as i64) } else { Value::Number(value) }
}

/// Changes what is in force for a pair, or for the whole bridge.
fn change(bridge: &Bridge, pair: Option<Pair>, act: impl FnOnce(&mut Impairment)) {
    bridge.switch().change(|policy| match pair {
        Some(pair) => policy.change(pair, act),
        None => act(&mut policy.whole),
    });
}

/// Where a method was called: the object itself, its bridge, the value, and the rest of a table.
struct Called {
    object: Value,
    value: Value,
    options: Option<Options>,
    pair: Option<Pair>,
    bridge: std::sync::Arc<Bridge>,
}

/// Takes `(value)`, or a table with `key` and perhaps a pair.
fn called(args: &mut Args, keys: &[&str], key: &str, needs_pair: bool) -> Result<Called, ApiError> {
    let object = args.peek();
    let bridge = this(args)?;
    let (value, options, pair) = match args.next() {
        Value::Table(table) => {
            let options = Options::checked(args.function(), table, keys)?;
            let pair = pair_in(args, &bridge, &options)?;
            (options.value(key)?, Some(options), pair)
        }
        value if needs_pair => return Err(args.wrong("from", &format!("{{from=, to=, {key}=}}"), &value)),
        value => (value, None, None),
    };
    if needs_pair && pair.is_none() {
        return Err(args.bad("from", &format!("expected {{from=, to=, {key}=}}, found no `from`")));
    }
    Ok(Called { object, value, options, pair, bridge })
}

fn latency(args: &mut Args, needs_pair: bool) -> Result<Value, ApiError> {
    let called = called(args, &["from", "to", "ms", "jitter"], "ms", needs_pair)?;
    let latency = milliseconds(&called.value).map_err(|why| args.bad("ms", &why))?;
    let jitter = match called.options.as_ref().map(|options| options.value("jitter")).transpose()? {
        None | Some(Value::Nil) => Duration::ZERO,
        Some(value) => milliseconds(&value).map_err(|why| args.bad("jitter", &why))?,
    };
    change(&called.bridge, called.pair, |own| {
        own.latency = latency;
        own.jitter = jitter;
    });
    Ok(called.object)
}

fn chance(args: &mut Args, needs_pair: bool, set: Setter) -> Result<Value, ApiError> {
    let called = called(args, &["from", "to", "p"], "p", needs_pair)?;
    let percent = percent(&called.value).map_err(|why| args.bad("p", &why))?;
    change(&called.bridge, called.pair, |own| set(own, percent));
    Ok(called.object)
}

fn bandwidth(args: &mut Args) -> Result<Value, ApiError> {
    let called = called(args, &["from", "to", "bps"], "bps", false)?;
    let bits = rate(&called.value).map_err(|why| args.bad("bps", &why))?;
    change(&called.bridge, called.pair, |own| own.bandwidth = bits);
    Ok(called.object)
}
