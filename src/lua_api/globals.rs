//! The globals: `test`, `todo`, `wait_until`, `sleep`, `print`, `json`, `provium`, `require`.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use mlua::{Function, Lua, Table, UserData, Value, Variadic};

use super::args::Args;
use super::error::{ApiError, lua_message};
use super::file_state::{FileState, Registered};
use super::lab::LabHandle;
use super::register::{function, step, waiting, waiting_step};
use super::render::short;
use super::{
    batch, call, console, file, json, lab, parallel, place, process, register, run_result, stream, test_context, vm,
    worker,
};
use crate::foundation::duration::format_duration;

/// Defaults of `wait_until`.
const WAIT_TIMEOUT: Duration = Duration::from_secs(10);
const WAIT_INTERVAL: Duration = Duration::from_millis(100);

/// Puts the whole API into a Lua state; `roots` are searched by `require`.
///
/// # Errors
/// Those of Lua's allocator.
pub fn install(lua: &Lua, roots: Vec<PathBuf>) -> mlua::Result<Table> {
    register::install(lua)?;
    let natives = lua.create_table()?;
    wait_natives(lua, &natives)?;
    test_context::natives(lua, &natives)?;
    batch::natives(lua, &natives)?;
    natives.raw_set(
        "stack",
        lua.create_function(|lua, ()| Ok(place::stack(lua).iter().map(ToString::to_string).collect::<Vec<_>>()))?,
    )?;
    let prelude: Table = lua.load(include_str!("prelude.lua")).set_name("=[provium]").call(natives)?;
    vm::install(lua, prelude.get("batch")?)?;
    process::install(lua)?;
    call::install(lua)?;
    worker::install(lua)?;
    batch::install(lua)?;
    run_result::install(lua)?;
    console::install(lua)?;
    stream::install(lua)?;
    file::install(lua)?;
    lab::install(lua)?;
    test_context::install(lua, prelude.get("assert_raises")?)?;

    let globals = lua.globals();
    globals.set("test", function(lua, "test", register_test)?)?;
    globals.set(
        "todo",
        function(lua, "todo", |_, state, mut args| {
            let reason = args.text_opt("reason")?.unwrap_or_else(|| "todo".to_owned());
            *state.todo.borrow_mut() = Some(reason);
            Ok(())
        })?,
    )?;
    globals.set("wait_until", prelude.get::<Function>("wait_until")?)?;
    globals.set(
        "sleep",
        waiting(lua, "sleep", |_, _, mut args| {
            let time = args.duration_opt("t")?.ok_or_else(|| args.bad("t", "expected a time, found nil"))?;
            Ok(pause(time))
        })?,
    )?;
    globals.set("parallel", parallel::function(lua, prelude.get("branch")?)?)?;
    globals.set("json", json::module(lua)?)?;
    globals.set("provium", LabHandle)?;
    standard_library(lua)?;
    module_path(lua, roots)?;
    Ok(prelude)
}

async fn pause(time: Duration) -> Result<(), ApiError> {
    tokio::time::sleep(time).await;
    Ok(())
}

fn register_test(lua: &Lua, state: &Rc<FileState>, mut args: Args) -> Result<(), ApiError> {
    if state.loaded.get() {
        return Err(ApiError::new("test: tests are registered at file scope, not inside a test"));
    }
    let name = args.text("name")?;
    if name.is_empty() {
        return Err(args.bad("name", "expected a name, found an empty string"));
    }
    let (meta, body) = match args.next() {
        Value::Function(body) => (None, body),
        Value::Table(meta) => (Some(meta), args.callable("fn")?),
        Value::Nil => (None, args.callable("fn")?),
        other => return Err(args.wrong("meta", "a table, or the test's function", &other)),
    };
    let place = place::caller(lua);
    let mut tests = state.tests.borrow_mut();
    if let Some(first) = tests.iter().find(|test| test.name == name) {
        let first = first.place.as_ref().map(|place| format!(", first at {place}")).unwrap_or_default();
        return Err(ApiError::new(format!("test: there are two tests `{name}` in this file{first}")));
    }
    let meta = match meta {
        None => serde_json::Map::new(),
        Some(table) => check_meta(lua, &table)?,
    };
    tests.push(Registered { name, meta, body, place });
    Ok(())
}

fn check_meta(lua: &Lua, table: &Table) -> Result<serde_json::Map<String, serde_json::Value>, ApiError> {
    let bad = |key: &str, expected: &str, value: &Value| {
        ApiError::new(format!("test: `meta.{key}`: expected {expected}, found {}", short(value)))
    };
    let value: Value = table.get("timeout")?;
    if !value.is_nil() {
        super::args::to_duration(&value).map_err(|why| ApiError::new(format!("test: `meta.timeout`: {why}")))?;
    }
    let value: Value = table.get("slow")?;
    if !matches!(value, Value::Nil | Value::Boolean(_)) {
        return Err(bad("slow", "true or false", &value));
    }
    let value: Value = table.get("skip")?;
    if !matches!(value, Value::Nil | Value::Boolean(_) | Value::String(_)) {
        return Err(bad("skip", "true, or the reason as a string", &value));
    }
    let value: Value = table.get("tags")?;
    let fine = match &value {
        Value::Nil | Value::String(_) => true,
        Value::Table(tags) => super::args::list_of_bytes(tags).is_ok(),
        _ => false,
    };
    if !fine {
        return Err(bad("tags", "a string or an array of strings", &value));
    }
    match json::to_json(lua, &Value::Table(table.clone())) {
        Ok(serde_json::Value::Object(meta)) => Ok(meta),
        Ok(_) => Err(ApiError::new("test: `meta`: expected a table with named keys, found an array")),
        Err(why) => Err(ApiError::new(format!("test: `meta`: {why}"))),
    }
}

/// One `wait_until` under way.
struct Wait {
    timeout: Duration,
    interval: Duration,
    deadline: Instant,
    desc: String,
}

impl UserData for Wait {}

fn wait_natives(lua: &Lua, natives: &Table) -> mlua::Result<()> {
    natives.raw_set(
        "wait_begin",
        step(lua, "wait_until", |_, _, mut args| {
            args.callable("fn")?;
            let options = args.options(&["timeout", "interval", "desc"])?;
            let timeout = options.duration("timeout")?.unwrap_or(WAIT_TIMEOUT);
            Ok(Wait {
                timeout,
                interval: options.duration("interval")?.unwrap_or(WAIT_INTERVAL),
                deadline: Instant::now() + timeout,
                desc: options.text("desc")?.unwrap_or_else(|| "condition".to_owned()),
            })
        })?,
    )?;
    natives.raw_set(
        "wait_again",
        waiting_step(lua, "wait_until", |_, _, mut args| {
            let wait = args.this::<Wait>()?;
            let left = wait.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ApiError::new(format!(
                    "wait_until: {} not met within {}",
                    wait.desc,
                    format_duration(wait.timeout)
                )));
            }
            Ok(pause(wait.interval.min(left)))
        })?,
    )?;
    natives.raw_set("wait_end", function(lua, "wait_until", |_, _, _| Ok(()))?)
}

/// `print` and `io.write` go to the running test's log; `os.exit` raises.
fn standard_library(lua: &Lua) -> mlua::Result<()> {
    let globals = lua.globals();
    let tostring: Function = globals.get("tostring")?;
    globals.set(
        "print",
        lua.create_function(move |lua, values: Variadic<Value>| {
            let mut parts = Vec::new();
            for value in values {
                parts.push(tostring.call::<mlua::LuaString>(value)?.to_string_lossy());
            }
            FileState::of(lua)?.log(&format!("{}\n", parts.join("\t")));
            Ok(())
        })?,
    )?;
    let io: Table = globals.get("io")?;
    let stdout: Value = io.get("stdout")?;
    io.set(
        "write",
        function(lua, "io.write", move |_, state, mut args| {
            while !args.is_empty() {
                match args.next() {
                    Value::String(text) => state.log(&text.to_string_lossy()),
                    value @ (Value::Integer(_) | Value::Number(_)) => state.log(&short(&value)),
                    other => return Err(args.wrong("value", "a string or a number", &other)),
                }
            }
            Ok(stdout.clone())
        })?,
    )?;
    let os: Table = globals.get("os")?;
    os.set(
        "exit",
        function(lua, "os.exit", |_, _, _| {
            Err::<(), _>(ApiError::new(
                "os.exit: a test can't end the run\nhint: use t:fail(…) or t:skip(…), or return from the test",
            ))
        })?,
    )
}

/// `require("a.b")` is `a/b.lua` under every root, then beside the file that asks.
fn module_path(lua: &Lua, roots: Vec<PathBuf>) -> mlua::Result<()> {
    let package: Table = lua.globals().get("package")?;
    package.set("path", "")?;
    package.set("cpath", "")?;
    let searchers: Table = lua.create_table()?;
    let old: Table = package.get("searchers")?;
    searchers.raw_push(old.get::<Value>(1)?)?; // package.preload
    searchers.raw_push(lua.create_function(move |lua, name: String| {
        let state = FileState::of(lua)?;
        let relative = PathBuf::from(name.replace('.', "/"));
        let mut tried = String::new();
        let beside = state.path.parent().map(Path::to_owned).into_iter();
        let caller = place::caller(lua).and_then(|place| state.bed.absolute(&place.file).parent().map(Path::to_owned));
        for directory in roots.iter().cloned().chain(caller).chain(beside) {
            for candidate in
                [directory.join(&relative).with_extension("lua"), directory.join(&relative).join("init.lua")]
            {
                match std::fs::read(&candidate) {
                    Ok(text) => {
                        let shown = state.bed.display(&candidate);
                        let chunk = lua
                            .load(text)
                            .set_name(format!("@{shown}"))
                            .into_function()
                            .map_err(|error| mlua::Error::runtime(lua_message(&error)))?;
                        return Ok((Value::Function(chunk), Some(shown)));
                    }
                    Err(_) => tried.push_str(&format!("\n\tno file `{}`", state.bed.display(&candidate))),
                }
            }
        }
        Ok((Value::String(lua.create_string(&tried)?), None))
    })?)?;
    package.set("searchers", searchers)
}
