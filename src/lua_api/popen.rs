//! `os.execute` and `io.popen`: as Lua's own, but they wait as every call of the API does, so that a deadline ends them.

use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::rc::Rc;

use mlua::{Function, IntoLua, Lua, MetaMethod, MultiValue, Table, UserData, UserDataFields, UserDataMethods, Value};
use tokio::net::unix::pipe;
use tokio::sync::Mutex;

use super::args::Args;
use super::error::ApiError;
use super::file_state::FileState;
use super::read_formats::{self, Format, Source};
use super::register::{Class, class, waiting, waiting_step};
use super::render::short;
use crate::testbed::{HostProcess, Pipe, PipeEnd};

/// Registry key of the class.
const CLASS: &str = "provium.HostFile";
/// Registry key of what closes a `<close>` variable.
const LEAVE_KEY: &str = "provium.HostFile.leave";

/// A function that calls another with the same arguments each time, whatever a `for` loop passes.
const ITERATOR: &str = "
local read, n, a = (...), select('#', ...) - 1, {select(2, ...)}
local unpack = table.unpack
return function() return read(unpack(a, 1, n)) end";

/// What `io.popen` gives.
pub struct HostFile {
    inner: Rc<Mutex<Inner>>,
}

enum Inner {
    Reading(HostProcess, Reader),
    Writing(HostProcess, pipe::Sender),
    Closed,
}

struct Reader {
    pipe: pipe::Receiver,
    unread: Vec<u8>,
    at_end: bool,
}

impl Source for Reader {
    fn unread(&mut self) -> &mut Vec<u8> {
        &mut self.unread
    }

    async fn more(&mut self) -> std::io::Result<bool> {
        let mut buffer = vec![0; 64 * 1024];
        while !self.at_end {
            self.pipe.readable().await?;
            match self.pipe.try_read(&mut buffer) {
                Ok(0) => self.at_end = true,
                Ok(count) => {
                    self.unread.extend_from_slice(&buffer[..count]);
                    return Ok(true);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }
}

impl HostFile {
    /// Whether it was closed; one that is in use is not.
    pub fn is_closed(&self) -> bool {
        self.inner.try_lock().is_ok_and(|inner| matches!(*inner, Inner::Closed))
    }
}

impl UserData for HostFile {
    fn add_fields<F: UserDataFields<Self>>(fields: &mut F) {
        fields.add_meta_field_with(MetaMethod::Index.name(), |lua| class(lua, CLASS));
        fields.add_meta_field_with(MetaMethod::Close.name(), |lua| lua.named_registry_value::<Function>(LEAVE_KEY));
        fields.add_meta_field("__name", "FILE*");
    }

    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_meta_method(MetaMethod::ToString, |_, this, ()| {
            Ok(if this.is_closed() {
                "file (closed)".to_owned()
            } else {
                format!("file ({:p})", Rc::as_ptr(&this.inner))
            })
        });
    }
}

/// As Lua's functions tell of a failure of the system: nil, the message, errno.
fn failure(lua: &Lua, error: &std::io::Error) -> mlua::Result<MultiValue> {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let errno = error.raw_os_error().unwrap_or_default();
    (Value::Nil, text, errno).into_lua_multi_of(lua)
}

/// As `os.execute` tells how a program ended.
fn ending(lua: &Lua, status: ExitStatus) -> mlua::Result<MultiValue> {
    match (status.code(), status.signal()) {
        (Some(0), _) => (true, "exit", 0).into_lua_multi_of(lua),
        (Some(code), _) => (Value::Nil, "exit", code).into_lua_multi_of(lua),
        (None, signal) => (Value::Nil, "signal", signal.unwrap_or_default()).into_lua_multi_of(lua),
    }
}

/// Tuples of three as Lua values.
trait IntoMulti {
    fn into_lua_multi_of(self, lua: &Lua) -> mlua::Result<MultiValue>;
}

impl<A: IntoLua, B: IntoLua, C: IntoLua> IntoMulti for (A, B, C) {
    fn into_lua_multi_of(self, lua: &Lua) -> mlua::Result<MultiValue> {
        mlua::IntoLuaMulti::into_lua_multi(self, lua)
    }
}

/// Replaces `os.execute` and `io.popen`.
///
/// # Errors
/// Those of Lua's allocator.
pub fn install(lua: &Lua) -> mlua::Result<()> {
    let class = reading(Class::new(lua)?)?;
    closing(class)?.store(CLASS)?;
    let leave = waiting_step(lua, "io.file:close", |lua, state, mut args| {
        let inner = inner(&mut args)?;
        let (lua, state) = (lua.clone(), Rc::clone(state));
        Ok(async move { close(&lua, &state, &inner).await.map(drop) })
    })?;
    lua.set_named_registry_value(LEAVE_KEY, leave)?;
    let os: Table = lua.globals().get("os")?;
    os.set("execute", waiting(lua, "os.execute", execute)?)?;
    let io: Table = lua.globals().get("io")?;
    io.set("popen", waiting(lua, "io.popen", popen)?)
}

fn execute(
    lua: &Lua,
    state: &Rc<FileState>,
    mut args: Args,
) -> Result<impl Future<Output = Result<MultiValue, ApiError>> + use<>, ApiError> {
    let line = if args.is_empty() { None } else { Some(args.bytes("command")?) };
    let (lua, state) = (lua.clone(), Rc::clone(state));
    Ok(async move {
        let Some(line) = line else {
            let there = std::path::Path::new("/bin/sh").exists();
            return Ok(MultiValue::from_iter([Value::Boolean(there)]));
        };
        let (mut process, _) = match state.host_processes().shell(&line, Pipe::None) {
            Ok(started) => started,
            Err(error) => return Ok(failure(&lua, &error)?),
        };
        let (status, words) = process.wait().await;
        state.log(&String::from_utf8_lossy(&words));
        Ok(ending(&lua, status)?)
    })
}

fn popen(
    lua: &Lua,
    state: &Rc<FileState>,
    mut args: Args,
) -> Result<impl Future<Output = Result<MultiValue, ApiError>> + use<>, ApiError> {
    let line = args.bytes("prog")?;
    let held = match args.text_opt("mode")?.as_deref() {
        None | Some("r") => Pipe::Output,
        Some("w") => Pipe::Input,
        Some(other) => return Err(args.bad("mode", &format!("expected \"r\" or \"w\", found \"{other}\""))),
    };
    let (lua, state) = (lua.clone(), Rc::clone(state));
    Ok(async move {
        let inner = match state.host_processes().shell(&line, held) {
            Ok((process, Some(PipeEnd::Output(pipe)))) => {
                Inner::Reading(process, Reader { pipe, unread: Vec::new(), at_end: false })
            }
            Ok((process, Some(PipeEnd::Input(pipe)))) => Inner::Writing(process, pipe),
            Ok((_, None)) => Inner::Closed,
            Err(error) => return Ok(failure(&lua, &error)?),
        };
        let file = HostFile { inner: Rc::new(Mutex::new(inner)) };
        Ok(MultiValue::from_iter([file.into_lua(&lua)?]))
    })
}

fn inner(args: &mut Args) -> Result<Rc<Mutex<Inner>>, ApiError> {
    Ok(Rc::clone(&args.this::<HostFile>()?.inner))
}

fn closed() -> ApiError {
    ApiError::new("attempt to use a closed file")
}

fn bad_descriptor() -> std::io::Error {
    std::io::Error::from_raw_os_error(libc::EBADF)
}

fn formats(args: &mut Args) -> Result<Vec<Format>, ApiError> {
    let mut formats = Vec::new();
    for value in args.rest() {
        formats.push(
            Format::of(&value).ok_or_else(|| args.wrong("format", "\"n\", \"a\", \"l\", \"L\" or a number", &value))?,
        );
    }
    if formats.is_empty() {
        formats.push(Format::Line);
    }
    Ok(formats)
}

fn reading(class: Class<'_>) -> mlua::Result<Class<'_>> {
    class
        .waits("io.file:read", |lua, _, mut args| {
            let inner = inner(&mut args)?;
            let formats = formats(&mut args)?;
            let lua = lua.clone();
            Ok(async move {
                match &mut *inner.lock().await {
                    Inner::Closed => Err(closed()),
                    Inner::Writing(..) => Ok(failure(&lua, &bad_descriptor())?),
                    Inner::Reading(_, reader) => match read_formats::read(&lua, reader, &formats).await {
                        Ok(values) => Ok(values?),
                        Err(error) => Ok(failure(&lua, &error)?),
                    },
                }
            })
        })?
        .method("io.file:lines", |lua, _, mut args| {
            let object = args.next();
            let mut rest: Vec<Value> = args.rest().into_iter().collect();
            let mut check =
                Args::new("io.file:lines", std::iter::once(object.clone()).chain(rest.iter().cloned()).collect());
            if check.this::<HostFile>()?.is_closed() {
                return Err(closed());
            }
            formats(&mut check)?;
            rest.insert(0, object);
            let read: Function = super::register::class(lua, CLASS)?.raw_get("read")?;
            rest.insert(0, Value::Function(read));
            let iterator: Function = lua.load(ITERATOR).set_name("=[provium]").call(MultiValue::from_vec(rest))?;
            Ok(iterator)
        })?
        .waits("io.file:write", |lua, _, mut args| {
            let object = args.next();
            let inner = inner(&mut Args::new("io.file:write", MultiValue::from_iter([object.clone()])))?;
            let mut bytes = Vec::new();
            for value in args.rest() {
                match &value {
                    Value::String(text) => bytes.extend_from_slice(&text.as_bytes()),
                    Value::Integer(_) | Value::Number(_) => {
                        bytes.extend_from_slice(lua_number(lua, &value)?.as_bytes())
                    }
                    other => return Err(args.wrong("value", "a string or a number", other)),
                }
            }
            let lua = lua.clone();
            Ok(async move {
                match &mut *inner.lock().await {
                    Inner::Closed => Err(closed()),
                    Inner::Reading(..) => Ok(failure(&lua, &bad_descriptor())?),
                    Inner::Writing(_, pipe) => match write_all(pipe, &bytes).await {
                        Ok(()) => Ok(MultiValue::from_iter([object])),
                        Err(error) => Ok(failure(&lua, &error)?),
                    },
                }
            })
        })
}

/// A number as `tostring` writes it.
pub fn lua_number(lua: &Lua, value: &Value) -> Result<String, ApiError> {
    let text = lua.coerce_string(value.clone())?;
    Ok(text.map_or_else(|| short(value), |text| text.to_string_lossy()))
}

async fn write_all(pipe: &pipe::Sender, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        pipe.writable().await?;
        match pipe.try_write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn closing(class: Class<'_>) -> mlua::Result<Class<'_>> {
    class
        .waits("io.file:close", |lua, state, mut args| {
            let inner = inner(&mut args)?;
            let (lua, state) = (lua.clone(), Rc::clone(state));
            Ok(async move { close(&lua, &state, &inner).await?.ok_or_else(closed) })
        })?
        .method("io.file:flush", |_, _, mut args| {
            let object = args.next();
            let file =
                Args::new("io.file:flush", MultiValue::from_iter([object.clone()])).this::<HostFile>()?.is_closed();
            if file { Err(closed()) } else { Ok(object) }
        })?
        .method(
            "io.file:setvbuf",
            |_, _, mut args| if args.this::<HostFile>()?.is_closed() { Err(closed()) } else { Ok(true) },
        )?
        .method("io.file:seek", |lua, _, mut args| {
            if args.this::<HostFile>()?.is_closed() {
                return Err(closed());
            }
            Ok(failure(lua, &std::io::Error::from_raw_os_error(libc::ESPIPE))?)
        })
}

/// Closes the pipe and waits for the program; none where it is closed already.
async fn close(lua: &Lua, state: &FileState, inner: &Mutex<Inner>) -> Result<Option<MultiValue>, ApiError> {
    let mut process = match std::mem::replace(&mut *inner.lock().await, Inner::Closed) {
        Inner::Closed => return Ok(None),
        Inner::Reading(process, reader) => {
            drop(reader);
            process
        }
        Inner::Writing(process, pipe) => {
            drop(pipe);
            process
        }
    };
    let (status, words) = process.wait().await;
    state.log(&String::from_utf8_lossy(&words));
    Ok(Some(ending(lua, status)?))
}

impl Drop for HostFile {
    fn drop(&mut self) {
        // Forgotten by Lua, as a file that the collector closes: the program goes on until its scope ends.
        if let Ok(mut inner) = self.inner.try_lock()
            && let Inner::Reading(process, _) | Inner::Writing(process, _) = &mut *inner
        {
            process.let_go();
        }
    }
}
