//! What labs offer beside their members: `claim`, `barrier`, `depends_on_file`, `pack`, `unpack`, and the settings of the
//! file (`provium.timeout`, `provium.reset_between_tests`).

use std::rc::Rc;
use std::time::Duration;

use mlua::{Function, IntoLua, Lua, MultiValue, Table, Value};

use super::args::{Args, to_duration};
use super::error::ApiError;
use super::file_state::FileState;
use super::lab::{LabHandle, this};
use super::place;
use super::register::Class;
use super::render::short;
use crate::foundation::path_error::describe_io;
use crate::foundation::suggest;
use crate::testbed::Pool;

/// How long a barrier is waited at.
const BARRIER: Duration = Duration::from_secs(60);
/// What can be set on `provium`.
const SETTINGS: &[&str] = &["timeout", "reset_between_tests"];

/// A setting of the file: none where `name` is no setting.
///
/// # Errors
/// Those of Lua's allocator.
pub fn property(lua: &Lua, state: &FileState, name: &str) -> mlua::Result<Option<Value>> {
    Ok(match name {
        "timeout" => Some(state.test_timeout.get().map_or(Value::Nil, |limit| Value::Number(limit.as_secs_f64()))),
        "reset_between_tests" => Some(Value::Boolean(state.resets.get())),
        "profile" => state.fixture.as_ref().map(|run| run.wish.profile.as_str().into_lua(lua)).transpose()?,
        _ => None,
    })
}

/// `provium.KEY = VALUE`.
///
/// # Errors
/// No such setting, a bad value, or a test runs.
pub fn assign(state: &FileState, is_root: bool, name: &str, value: &Value) -> Result<(), ApiError> {
    if !is_root || !SETTINGS.contains(&name) {
        let hint = match suggest::nearest(name, SETTINGS).filter(|_| is_root) {
            Some(nearest) => format!("did you mean `{nearest}`?"),
            None => "provium.timeout and provium.reset_between_tests can be set; members are created with :vm and :lab"
                .to_owned(),
        };
        return Err(ApiError::new(format!("a lab has no setting `{name}`\nhint: {hint}")));
    }
    if state.in_test() {
        return Err(ApiError::new(format!(
            "provium.{name}: it is for the whole file: set it at file scope\nhint: a test's own time is `meta.timeout`"
        )));
    }
    match (name, value) {
        ("timeout", Value::Nil) => state.test_timeout.set(None),
        ("timeout", value) => {
            let limit = to_duration(value).map_err(|why| ApiError::new(format!("provium.timeout: {why}")))?;
            state.test_timeout.set(Some(limit));
        }
        (_, Value::Boolean(resets)) => state.resets.set(*resets),
        (_, other) => {
            let found = short(other);
            return Err(ApiError::new(format!("provium.reset_between_tests: expected true or false, found {found}")));
        }
    }
    Ok(())
}

/// Adds the methods to the class of labs.
///
/// # Errors
/// Those of Lua's allocator.
pub fn methods(class: Class<'_>) -> mlua::Result<Class<'_>> {
    class
        .method("lab:claim", claim)?
        .waits("lab:barrier", |_, state, mut args| {
            let lab = this(&mut args, state)?;
            let name = args.text("name")?;
            let count = match args.next() {
                Value::Integer(count @ 1..=1_000_000) => u32::try_from(count).unwrap_or(u32::MAX),
                other => return Err(args.wrong("count", "a whole number from 1", &other)),
            };
            let timeout = args.duration_opt("timeout")?.unwrap_or(BARRIER);
            let key = (Rc::as_ptr(&lab).addr(), name.clone());
            let barrier = Rc::clone(state.barriers.borrow_mut().entry(key).or_default());
            Ok(async move {
                barrier.wait(count, timeout).await.map_err(|why| ApiError::new(format!("lab:barrier: `{name}`: {why}")))
            })
        })?
        .method("lab:depends_on_file", |lua, state, mut args| {
            this(&mut args, state)?;
            let name = args.text("path")?;
            let path = place::host_path(lua, state, &name);
            match std::fs::metadata(&path) {
                Ok(found) if found.is_dir() => {
                    Err(args.bad("path", &format!("`{}` is a directory, expected a file", path.display())))
                }
                Ok(_) => {
                    state.depend_on(&path);
                    state.dependencies.borrow_mut().insert(path);
                    Ok(())
                }
                Err(error) => Err(args.bad("path", &format!("`{}`: {}", path.display(), describe_io(&error)))),
            }
        })?
        .method("lab:pack", |lua, _, args| string_function(lua, args, "pack"))?
        .method("lab:unpack", |lua, _, args| string_function(lua, args, "unpack"))
}

/// `string.pack` and `string.unpack`, called with a dot or with a colon.
fn string_function(lua: &Lua, mut args: Args, name: &str) -> Result<MultiValue, ApiError> {
    let mut values = args.rest();
    let is_lab = |value: &Value| value.as_userdata().is_some_and(|object| object.is::<LabHandle>());
    if values.front().is_some_and(is_lab) {
        values.pop_front();
    }
    let function: Function = lua.globals().get::<Table>("string")?.get(name)?;
    function
        .call(values)
        .map_err(|error| ApiError::new(format!("{}: {}", args.function(), super::error::lua_message(&error))))
}

fn claim(lua: &Lua, state: &Rc<FileState>, mut args: Args) -> Result<(), ApiError> {
    this(&mut args, state)?;
    let options = args.options(&["memory", "cpus"])?;
    let memory = options.size("memory")?;
    let cpus = options.integer("cpus", 1, i64::from(u32::MAX))?;
    if memory.is_none() && cpus.is_none() {
        return Err(args.bad("options", "expected `memory`, `cpus` or both, as in {memory = \"2G\", cpus = 2}"));
    }
    if memory == Some(0) {
        return Err(args.bad("memory", "expected a size above 0, found 0"));
    }
    let mut claimed = state.claim.borrow_mut();
    if let Some((_, first)) = &*claimed {
        let message = format!("lab:claim: this file has claimed already, {first}: it is done once");
        return Err(ApiError::new(message));
    }
    let claim = Pool {
        memory: memory.unwrap_or_default(),
        cpus: cpus.and_then(|cpus| u32::try_from(cpus).ok()).unwrap_or_default(),
    };
    if let Some(lack) = state.bed.pool().lacks(claim) {
        return Err(ApiError::new(format!("lab:claim: {lack}")));
    }
    let place = place::caller(lua).map_or_else(String::new, |place| format!("at {place}"));
    *claimed = Some((claim, place));
    Ok(())
}
