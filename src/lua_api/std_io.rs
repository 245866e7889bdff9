//! The parts of Lua's own library that would reach past a test: `print`, `io.write`, `io.stdout` and `io.stderr` go to the
//! running test's log, standard input is empty, `os.exit` raises.

use mlua::{
    Function, IntoLua, Lua, MetaMethod, MultiValue, Table, UserData, UserDataFields, UserDataMethods, Value, Variadic,
};

use super::args::Args;
use super::error::ApiError;
use super::file_state::FileState;
use super::popen::{HostFile, lua_number};
use super::register::{Class, class, function};

/// Registry key of the class of `io.stdout`.
const CLASS: &str = "provium.LogFile";
/// Registry key of where `io.write` goes.
const OUTPUT_KEY: &str = "provium.io.output";

/// `io.stdout` and `io.stderr`: the running test's log.
struct LogFile;

impl UserData for LogFile {
    fn add_fields<F: UserDataFields<Self>>(fields: &mut F) {
        fields.add_meta_field_with(MetaMethod::Index.name(), |lua| class(lua, CLASS));
        fields.add_meta_field("__name", "FILE*");
    }

    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_meta_method(MetaMethod::ToString, |_, _, ()| Ok("file (the test's log)"));
    }
}

/// Puts them into a Lua state.
///
/// # Errors
/// Those of Lua's allocator.
pub fn install(lua: &Lua) -> mlua::Result<()> {
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
    log_file(lua)?;
    let io: Table = globals.get("io")?;
    let log = LogFile.into_lua(lua)?;
    lua.set_named_registry_value(OUTPUT_KEY, log.clone())?;
    io.set("stdout", log.clone())?;
    io.set("stderr", LogFile)?;
    output(lua, &io)?;
    types(lua, &io)?;
    // Nothing is read from the terminal that the run was started on: a test would wait for it, uncancelled.
    let empty: Value = io.get::<Function>("open")?.call("/dev/null")?;
    if !empty.is_nil() {
        io.get::<Function>("input")?.call::<()>(empty.clone())?;
        io.set("stdin", empty)?;
    }
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

fn text_of(lua: &Lua, args: &mut Args) -> Result<String, ApiError> {
    let mut out = String::new();
    for value in args.rest() {
        match &value {
            Value::String(text) => out.push_str(&text.to_string_lossy()),
            Value::Integer(_) | Value::Number(_) => out.push_str(&lua_number(lua, &value)?),
            other => return Err(args.wrong("value", "a string or a number", other)),
        }
    }
    Ok(out)
}

fn log_file(lua: &Lua) -> mlua::Result<()> {
    let refuse = |lua: &Lua, args: &mut Args| -> Result<MultiValue, ApiError> {
        args.this::<LogFile>()?;
        let message = Value::String(lua.create_string("Bad file descriptor")?);
        Ok(MultiValue::from_vec(vec![Value::Nil, message, Value::Integer(i64::from(libc::EBADF))]))
    };
    Class::new(lua)?
        .method("io.stdout:write", |lua, state, mut args| {
            let object = args.next();
            Args::new("io.stdout:write", MultiValue::from_iter([object.clone()])).this::<LogFile>()?;
            state.log(&text_of(lua, &mut args)?);
            Ok(object)
        })?
        .method("io.stdout:flush", |_, _, mut args| {
            let object = args.next();
            Args::new("io.stdout:flush", MultiValue::from_iter([object.clone()])).this::<LogFile>()?;
            Ok(object)
        })?
        .method("io.stdout:setvbuf", |_, _, mut args| args.this::<LogFile>().map(|_| true))?
        .method("io.stdout:close", move |lua, _, mut args| refuse(lua, &mut args))?
        .method("io.stdout:seek", move |lua, _, mut args| refuse(lua, &mut args))?
        .method("io.stdout:read", move |lua, _, mut args| refuse(lua, &mut args))?
        .method("io.stdout:lines", |_, _, _| Err::<(), _>(ApiError::new("io.stdout:lines: it can only be written")))?
        .store(CLASS)
}

fn is_ours(value: &Value) -> bool {
    value.as_userdata().is_some_and(|object| object.is::<LogFile>() || object.is::<HostFile>())
}

/// `io.write` and `io.output`.
fn output(lua: &Lua, io: &Table) -> mlua::Result<()> {
    io.set(
        "write",
        function(lua, "io.write", |lua, state, mut args| {
            let target: Value = lua.named_registry_value(OUTPUT_KEY)?;
            let Some(file) = target.as_userdata() else {
                return Err(ApiError::new("io.write: there is no output file"));
            };
            if file.is::<LogFile>() {
                state.log(&text_of(lua, &mut args)?);
                return Ok(MultiValue::from_iter([target]));
            }
            let write: Function = mlua::ObjectLike::get(file, "write")?;
            let mut values = args.rest();
            values.push_front(target.clone());
            Ok(write.call::<MultiValue>(values)?)
        })?,
    )?;
    let native: Function = io.get("output")?;
    let is_file: Function = io.get("type")?;
    io.set(
        "output",
        function(lua, "io.output", move |lua, _, mut args| {
            let value = args.next();
            let target = match &value {
                Value::Nil => return Ok(lua.named_registry_value::<Value>(OUTPUT_KEY)?),
                // Opened by the library itself, which knows what to say where it can't.
                Value::String(_) => native.call::<Value>(value.clone())?,
                other if is_ours(other) => value.clone(),
                other if !is_file.call::<Value>(other)?.is_nil() => value.clone(),
                other => return Err(args.wrong("file", "a file or its name", other)),
            };
            lua.set_named_registry_value(OUTPUT_KEY, &target)?;
            Ok(target)
        })?,
    )
}

/// `io.type` and `io.close` also for the files that are not Lua's own.
fn types(lua: &Lua, io: &Table) -> mlua::Result<()> {
    let native: Function = io.get("type")?;
    io.set(
        "type",
        lua.create_function(move |lua, value: Value| {
            if let Some(object) = value.as_userdata() {
                if object.is::<LogFile>() {
                    return "file".into_lua(lua);
                }
                if let Ok(file) = object.borrow::<HostFile>() {
                    return if file.is_closed() { "closed file" } else { "file" }.into_lua(lua);
                }
            }
            native.call(value)
        })?,
    )?;
    // In Lua, so that closing a pipe can wait.
    let wrap = "local native, ours, output = ...
        return function(file, ...)
          if file == nil then file = output() end
          if ours(file) then return file:close() end
          return native(file, ...)
        end";
    let ours = lua.create_function(|_, value: Value| Ok(is_ours(&value)))?;
    let native: Function = io.get("close")?;
    let output: Function = io.get("output")?;
    let close: Function = lua.load(wrap).set_name(super::register::CHUNK).call((native, ours, output))?;
    io.set("close", close)
}
