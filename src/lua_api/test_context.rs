//! `t`, what a test's body is given.

use std::rc::Rc;

use mlua::{AnyUserData, Function, Lua, MetaMethod, Table, UserData, UserDataFields, UserDataRef, Value};

use super::args::Args;
use super::error::ApiError;
use super::file_state::{Failure, FileState};
use super::place;
use super::register::{Class, index, step};
use super::render::{deep_equal, difference, short};
use super::steps::{self, StepHandle};

/// Registry key of the class.
const CLASS: &str = "provium.Test";
/// Registry key of the prelude's `context`.
const CONTEXT_KEY: &str = "provium.context";

/// The test context as Lua holds it.
pub struct TestHandle {
    /// The test's name.
    pub name: String,
    /// The author's table.
    pub meta: Value,
    /// The profile, where the test runs once per profile.
    pub profile: Option<String>,
    /// The test's number in its file.
    pub serial: u64,
}

impl UserData for TestHandle {
    fn add_fields<F: UserDataFields<Self>>(fields: &mut F) {
        fields.add_meta_field_with(MetaMethod::Index.name(), |lua| index(lua, CLASS));
        fields.add_meta_field("__name", "Test");
    }
}

/// Takes `t` off the arguments of one of its methods.
///
/// # Errors
/// When it is something else, or belongs to a test that has ended.
pub fn context(args: &mut Args, state: &FileState) -> Result<(), ApiError> {
    let this = args.this::<TestHandle>()?;
    let current = state.current.borrow();
    if current.as_ref().is_some_and(|test| test.serial == this.serial) {
        return Ok(());
    }
    let now = current.as_ref().map(|test| format!(", now `{}` runs", test.name)).unwrap_or_default();
    Err(ApiError::new(format!("{}: this `t` is of the test `{}`, which has ended{now}", args.function(), this.name)))
}

/// Whether the running call is inside of `assert_raises`, and its innermost open step.
pub fn enclosing(lua: &Lua) -> (bool, Option<UserDataRef<StepHandle>>) {
    let ask =
        || -> mlua::Result<(bool, Option<AnyUserData>)> { lua.named_registry_value::<Function>(CONTEXT_KEY)?.call(()) };
    match ask() {
        Ok((inside, step)) => (inside, step.and_then(|step| step.borrow::<StepHandle>().ok())),
        // Only where the test must end now: the hook raises in every function.
        Err(_) => (false, None),
    }
}

/// Records a failed assertion and gives the error to raise.
pub fn fail(lua: &Lua, state: &FileState, what: &str, custom: Option<String>) -> ApiError {
    let message = match (custom, what) {
        (Some(custom), "") => custom,
        (Some(custom), what) => format!("{custom}\n{what}"),
        (None, what) => what.to_owned(),
    };
    let (inside, step) = enclosing(lua);
    let step = steps::index_of(state, step.as_ref());
    if let Some(test) = &mut *state.current.borrow_mut()
        && !inside
    {
        test.steps.fail(step, &message);
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

/// Makes the class known to a Lua state; a part of it comes from the prelude.
///
/// # Errors
/// Those of Lua's allocator.
pub fn install(lua: &Lua, prelude: &Table) -> mlua::Result<()> {
    lua.set_named_registry_value(CONTEXT_KEY, prelude.get::<Function>("context")?)?;
    let class = Class::new(lua)?;
    let class = assertions(class)?;
    let class = steps::methods(class)?;
    class
        .field("t.name", |_, this: &TestHandle| Ok(this.name.clone()))?
        .field("t.meta", |_, this: &TestHandle| Ok(this.meta.clone()))?
        .field("t.profile", |_, this: &TestHandle| Ok(this.profile.clone()))?
        .method("t:fail", |lua, state, mut args| {
            context(&mut args, state)?;
            let custom = message(&mut args)?.unwrap_or_else(|| "failed".to_owned());
            Err::<(), _>(fail(lua, state, "", Some(custom)))
        })?
        .method("t:skip", |_, state, mut args| {
            context(&mut args, state)?;
            let reason = message(&mut args)?.unwrap_or_else(|| "no reason given".to_owned());
            if let Some(test) = &mut *state.current.borrow_mut() {
                test.skipped = Some(reason.clone());
            }
            Err::<(), _>(ApiError::new(format!("skipped: {reason}")))
        })?
        .method("t:log", |_, state, mut args| {
            context(&mut args, state)?;
            let value = args.next();
            let text = match &value {
                Value::String(text) => text.to_string_lossy(),
                other => super::render::pretty(other),
            };
            state.log(&format!("{text}\n"));
            Ok(())
        })?
        .method("t:attach", |_, state, mut args| {
            context(&mut args, state)?;
            let name = args.text("name")?;
            if name.trim().is_empty() {
                return Err(args.bad("name", "expected a file's name, found an empty string"));
            }
            let bytes = args.bytes("bytes")?;
            let kept = state.bed.artifacts().attach(&state.display, &name, &bytes);
            kept.map(drop).map_err(|error| ApiError::new(format!("t:attach: {error}")))
        })?
        .store(CLASS)?;
    let class = super::register::class(lua, CLASS)?;
    class.raw_set("assert_raises", prelude.get::<Function>("assert_raises")?)?;
    class.raw_set("step", prelude.get::<Function>("step")?)
}

fn assertions(class: Class<'_>) -> mlua::Result<Class<'_>> {
    class
        .method("t:assert", |lua, state, mut args| {
            context(&mut args, state)?;
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
            context(&mut args, state)?;
            let (left, right) = (args.next(), args.next());
            let custom = message(&mut args)?;
            if deep_equal(&left, &right) {
                return Ok(());
            }
            let what = format!("assert_eq: the values differ\n{}", difference(&left, &right));
            Err(fail(lua, state, &what, custom))
        })?
        .method("t:assert_neq", |lua, state, mut args| {
            context(&mut args, state)?;
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
    context(&mut args, state)?;
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
    context(&mut args, state)?;
    let text = args.next();
    if !matches!(text, Value::String(_)) {
        return Err(args.wrong("text", "a string", &text));
    }
    let pattern = lua.create_string(args.bytes("pattern")?)?;
    let custom = message(&mut args)?;
    let matching: Function = lua.globals().get::<Table>("string")?.get("match")?;
    let found: Value = matching.call((text.clone(), pattern.clone()))?;
    if !found.is_nil() {
        return Ok(found);
    }
    let what = format!("assert_match: no match\n  pattern: {}\n  text:    {}", pattern.to_string_lossy(), short(&text));
    Err(fail(lua, state, &what, custom))
}

/// The natives behind the prelude's `assert_raises`.
///
/// # Errors
/// Those of Lua's allocator.
pub fn natives(lua: &Lua, table: &Table) -> mlua::Result<()> {
    table.raw_set(
        "raises_begin",
        step(lua, "t:assert_raises", |_, state, mut args| {
            context(&mut args, state)?;
            args.callable("fn")?;
            Ok(())
        })?,
    )?;
    table.raw_set(
        "raises_end",
        super::register::function(lua, "t:assert_raises", |lua, state, mut args| {
            context(&mut args, state)?;
            let ok = args.next();
            let custom = message(&mut args)?;
            if ok == Value::Boolean(true) {
                return Err(fail(lua, state, "assert_raises: the function returned without an error", custom));
            }
            Ok(())
        })?,
    )
}
