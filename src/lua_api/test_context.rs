//! `t`, what a test's body is given.

use std::rc::Rc;

use mlua::{Lua, MetaMethod, UserData, UserDataFields, Value};

use super::args::Args;
use super::error::ApiError;
use super::file_state::{Failure, FileState};
use super::place;
use super::register::{Class, index, step};
use super::render::{deep_equal, difference, short};

/// Registry key of the class.
const CLASS: &str = "provium.Test";

/// The test context as Lua holds it.
pub struct TestHandle {
    /// The test's name.
    pub name: String,
    /// The author's table.
    pub meta: Value,
}

impl UserData for TestHandle {
    fn add_fields<F: UserDataFields<Self>>(fields: &mut F) {
        fields.add_meta_field_with(MetaMethod::Index.name(), |lua| index(lua, CLASS));
        fields.add_meta_field("__name", "Test");
    }
}

/// Records a failed assertion and gives the error to raise.
fn fail(lua: &Lua, state: &FileState, what: &str, custom: Option<String>) -> ApiError {
    let message = match (custom, what) {
        (Some(custom), "") => custom,
        (Some(custom), what) => format!("{custom}\n{what}"),
        (None, what) => what.to_owned(),
    };
    if let Some(test) = &mut *state.current.borrow_mut()
        && test.raises_depth == 0
    {
        test.failures.push(Failure { message: message.clone(), trace: place::stack(lua) });
    }
    ApiError::Message(message)
}

fn message(args: &mut Args) -> Result<Option<String>, ApiError> {
    match args.next() {
        Value::Nil => Ok(None),
        Value::String(text) => Ok(Some(text.to_string_lossy())),
        other => Ok(Some(short(&other))),
    }
}

/// Makes the class known to a Lua state; `assert_raises` comes from the prelude.
///
/// # Errors
/// Those of Lua's allocator.
pub fn install(lua: &Lua, assert_raises: mlua::Function) -> mlua::Result<()> {
    let class = Class::new(lua)?;
    let class = assertions(class)?;
    class
        .field("t.name", |_, this: &TestHandle| Ok(this.name.clone()))?
        .field("t.meta", |_, this: &TestHandle| Ok(this.meta.clone()))?
        .method("t:fail", |lua, state, mut args| {
            args.this::<TestHandle>()?;
            let custom = message(&mut args)?.unwrap_or_else(|| "failed".to_owned());
            Err::<(), _>(fail(lua, state, "", Some(custom)))
        })?
        .method("t:skip", |_, state, mut args| {
            args.this::<TestHandle>()?;
            let reason = message(&mut args)?.unwrap_or_else(|| "no reason given".to_owned());
            if let Some(test) = &mut *state.current.borrow_mut() {
                test.skipped = Some(reason.clone());
            }
            Err::<(), _>(ApiError::new(format!("skipped: {reason}")))
        })?
        .method("t:log", |_, state, mut args| {
            args.this::<TestHandle>()?;
            let value = args.next();
            let text = match &value {
                Value::String(text) => text.to_string_lossy(),
                other => super::render::pretty(other),
            };
            state.log(&format!("{text}\n"));
            Ok(())
        })?
        .method("t:attach", |_, state, mut args| {
            args.this::<TestHandle>()?;
            let name = args.text("name")?;
            if name.trim().is_empty() {
                return Err(args.bad("name", "expected a file's name, found an empty string"));
            }
            let bytes = args.bytes("bytes")?;
            let kept = state.bed.artifacts().attach(&state.display, &name, &bytes);
            kept.map(drop).map_err(|error| ApiError::new(format!("t:attach: {error}")))
        })?
        .store(CLASS)?;
    super::register::class(lua, CLASS)?.raw_set("assert_raises", assert_raises)
}

fn assertions(class: Class<'_>) -> mlua::Result<Class<'_>> {
    class
        .method("t:assert", |lua, state, mut args| {
            args.this::<TestHandle>()?;
            let value = args.next();
            let custom = message(&mut args)?;
            if matches!(value, Value::Nil | Value::Boolean(false)) {
                let what = if custom.is_some() {
                    String::new()
                } else {
                    format!("assert: expected a true value, found {}", short(&value))
                };
                return Err(fail(lua, state, &what, custom));
            }
            Ok(value)
        })?
        .method("t:assert_eq", |lua, state, mut args| {
            args.this::<TestHandle>()?;
            let (left, right) = (args.next(), args.next());
            let custom = message(&mut args)?;
            if deep_equal(&left, &right) {
                return Ok(());
            }
            let what = format!("assert_eq: the values differ\n{}", difference(&left, &right));
            Err(fail(lua, state, &what, custom))
        })?
        .method("t:assert_neq", |lua, state, mut args| {
            args.this::<TestHandle>()?;
            let (left, right) = (args.next(), args.next());
            let custom = message(&mut args)?;
            if !deep_equal(&left, &right) {
                return Ok(());
            }
            let what = format!("assert_neq: both values are {}", short(&left));
            Err(fail(lua, state, &what, custom))
        })?
        .method("t:assert_contains", assert_contains)?
        .method("t:assert_match", assert_match)
}

fn assert_contains(lua: &Lua, state: &Rc<FileState>, mut args: Args) -> Result<(), ApiError> {
    args.this::<TestHandle>()?;
    let (haystack, needle) = (args.next(), args.next());
    let custom = message(&mut args)?;
    let found = match (&haystack, &needle) {
        (Value::String(text), Value::String(part)) => {
            let (text, part) = (text.as_bytes(), part.as_bytes());
            part.is_empty() || text.windows(part.len()).any(|window| *window == *part)
        }
        (Value::Table(list), _) => {
            list.sequence_values::<Value>().any(|item| item.is_ok_and(|item| deep_equal(&item, &needle)))
        }
        (Value::String(_), other) => return Err(args.wrong("needle", "a string", other)),
        (other, _) => return Err(args.wrong("haystack", "a string or an array", other)),
    };
    if found {
        return Ok(());
    }
    let what = format!("assert_contains: not found\n  needle:   {}\n  haystack: {}", short(&needle), short(&haystack));
    Err(fail(lua, state, &what, custom))
}

fn assert_match(lua: &Lua, state: &Rc<FileState>, mut args: Args) -> Result<Value, ApiError> {
    args.this::<TestHandle>()?;
    let text = args.next();
    if !matches!(text, Value::String(_)) {
        return Err(args.wrong("text", "a string", &text));
    }
    let pattern = args.text("pattern")?;
    let custom = message(&mut args)?;
    let matching: mlua::Function = lua.globals().get::<mlua::Table>("string")?.get("match")?;
    let found: Value = matching.call((text.clone(), pattern.as_str()))?;
    if !found.is_nil() {
        return Ok(found);
    }
    let what = format!("assert_match: no match\n  pattern: {pattern}\n  text:    {}", short(&text));
    Err(fail(lua, state, &what, custom))
}

/// The natives behind the prelude's `assert_raises`.
///
/// # Errors
/// Those of Lua's allocator.
pub fn natives(lua: &Lua, table: &mlua::Table) -> mlua::Result<()> {
    table.raw_set(
        "raises_begin",
        step(lua, "t:assert_raises", |_, state, mut args| {
            args.this::<TestHandle>()?;
            args.callable("fn")?;
            if let Some(test) = &mut *state.current.borrow_mut() {
                test.raises_depth += 1;
            }
            Ok(())
        })?,
    )?;
    table.raw_set(
        "raises_end",
        super::register::function(lua, "t:assert_raises", |lua, state, mut args| {
            args.this::<TestHandle>()?;
            if let Some(test) = &mut *state.current.borrow_mut() {
                test.raises_depth = test.raises_depth.saturating_sub(1);
            }
            let ok = args.next();
            let custom = message(&mut args)?;
            if ok == Value::Boolean(true) {
                return Err(fail(lua, state, "assert_raises: the function returned without an error", custom));
            }
            Ok(())
        })?,
    )
}
