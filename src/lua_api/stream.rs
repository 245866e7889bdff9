//! Streams of bytes from a guest: file tails, process output, consoles.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use mlua::{Function, Lua, MetaMethod, UserData, UserDataFields, Value};

use super::args::{Args, Options};
use super::error::ApiError;
use super::place::{self, Place};
use super::register::{Class, class, waiting};
use crate::testbed::{ByteStream, HandleGuard, HandleKind, StreamError, Vm};

/// Registry key of the class.
const CLASS: &str = "provium.Stream";
/// Registry key of the iterator of `lines`.
const NEXT_LINE: &str = "provium.Stream.lines";
/// How long a stream is waited for.
const WAIT: Duration = Duration::from_secs(10);
/// How long `drain` collects.
const DRAIN: Duration = Duration::from_millis(500);

/// Where a match ends in the unread bytes.
pub type Matcher = Box<dyn FnMut(&[u8]) -> Result<Option<usize>, String>>;

/// A stream as Lua holds it.
pub struct StreamHandle {
    stream: Arc<ByteStream>,
    /// What it is of, for messages.
    what: String,
    place: Option<Place>,
    open: RefCell<Vec<HandleGuard>>,
    /// Whether it ends when Lua forgets it.
    ends_when_forgotten: bool,
}

impl StreamHandle {
    /// `stream` of `vm`, opened by the running Lua code; `what` is for messages: ``tail of `/x` ``.
    pub fn new(lua: &Lua, vm: &Vm, stream: Arc<ByteStream>, what: String) -> Self {
        Self::opened_at(place::caller(lua), vm, stream, what)
    }

    /// As [`Self::new`], for a stream that is there only later than the call at `place`.
    pub fn opened_at(place: Option<Place>, vm: &Vm, stream: Arc<ByteStream>, what: String) -> Self {
        let open = vm.handles().open(HandleKind::Stream, what.clone(), place.as_ref().map(ToString::to_string));
        let what = format!("vm `{}`: {what}", vm.name());
        Self { stream, what, place, open: RefCell::new(vec![open]), ends_when_forgotten: true }
    }

    /// `stream` of several machines, each of which counts it as open. With `keeps` it goes on when Lua forgets it.
    pub fn shared(lua: &Lua, vms: &[Arc<Vm>], stream: Arc<ByteStream>, what: String, keeps: bool) -> Self {
        let place = place::caller(lua);
        let shown = place.as_ref().map(ToString::to_string);
        let open = vms.iter().map(|vm| vm.handles().open(HandleKind::Stream, what.clone(), shown.clone())).collect();
        Self { stream, what, place, open: RefCell::new(open), ends_when_forgotten: !keeps }
    }

    fn close(&self) {
        self.stream.close();
        self.open.borrow_mut().clear();
    }
}

impl Drop for StreamHandle {
    fn drop(&mut self) {
        if self.ends_when_forgotten {
            self.stream.close();
        }
    }
}

impl UserData for StreamHandle {
    fn add_fields<F: UserDataFields<Self>>(fields: &mut F) {
        fields.add_meta_field_with(MetaMethod::Index.name(), |lua| class(lua, CLASS));
        fields.add_meta_field("__name", "Stream");
    }
}

fn failed(what: &str, op: &str, error: &StreamError) -> ApiError {
    ApiError::new(format!("{what}: {op}: {error}"))
}

/// What is waited for: a plain substring, or `{pattern = "…"}`.
///
/// # Errors
/// Something else, or an empty pattern.
pub fn matcher(lua: &Lua, args: &mut Args) -> Result<(Matcher, String), ApiError> {
    match args.next() {
        Value::String(text) if text.as_bytes().is_empty() => {
            Err(args.bad("pattern", "expected what to wait for, found an empty string"))
        }
        Value::String(text) => {
            let needle = text.as_bytes().to_vec();
            let shown = super::render::quote(&needle);
            // What was searched in vain is not searched again, but for the bytes that may begin a match.
            let mut searched = 0;
            let find = move |bytes: &[u8]| {
                let from = searched.min(bytes.len());
                let found = memchr::memmem::find(&bytes[from..], &needle).map(|at| from + at + needle.len());
                searched = (bytes.len() + 1).saturating_sub(needle.len());
                Ok(found)
            };
            Ok((Box::new(find), shown))
        }
        Value::Table(table) => {
            let options = Options::checked(args.function(), table, &["pattern"])?;
            let pattern = options
                .bytes("pattern")?
                .ok_or_else(|| args.bad("pattern", "expected {pattern = \"…\"}, found a table without `pattern`"))?;
            let shown = super::render::quote(&pattern);
            let find: Function = lua.globals().get::<mlua::Table>("string")?.get("find")?;
            // A broken pattern is told at once, not when the first byte comes.
            find.call::<Value>(("", lua.create_string(&pattern)?))?;
            let lua = lua.clone();
            let search = move |bytes: &[u8]| {
                let call = || -> mlua::Result<Option<usize>> {
                    let (_, end): (Value, Option<usize>) =
                        find.call((lua.create_string(bytes)?, lua.create_string(&pattern)?))?;
                    Ok(end)
                };
                call().map_err(|error| super::error::lua_message(&error))
            };
            Ok((Box::new(search), shown))
        }
        other => Err(args.wrong("pattern", "a string or {pattern = \"…\"}", &other)),
    }
}

/// Makes the class known to a Lua state.
///
/// # Errors
/// Those of Lua's allocator.
pub fn install(lua: &Lua) -> mlua::Result<()> {
    lua.set_named_registry_value(NEXT_LINE, next_line(lua)?)?;
    let class = reading(Class::new(lua)?)?;
    let class = searching(class)?;
    class
        .method("stream:eof", |_, _, mut args| Ok(args.this::<StreamHandle>()?.stream.at_end()))?
        .method("stream:close", |_, _, mut args| {
            args.this::<StreamHandle>()?.close();
            Ok(())
        })?
        .method("stream:creation_site", |lua, _, mut args| {
            let this = args.this::<StreamHandle>()?;
            let site = lua.create_table()?;
            if let Some(place) = &this.place {
                site.raw_set("file", place.file.as_str())?;
                site.raw_set("line", place.line)?;
            }
            Ok(site)
        })?
        .store(CLASS)
}

fn reading(class: Class<'_>) -> mlua::Result<Class<'_>> {
    class
        .waits("stream:next", |lua, _, mut args| {
            let (stream, what) = parts(&mut args)?;
            let timeout = args.duration_opt("timeout")?.unwrap_or(WAIT);
            let lua = lua.clone();
            Ok(async move {
                match stream.next(timeout).await {
                    Ok(None) => Ok(Value::Nil),
                    Ok(Some(bytes)) => Ok(Value::String(lua.create_string(bytes)?)),
                    Err(error) => Err(failed(&what, "next", &error)),
                }
            })
        })?
        .waits("stream:drain", |lua, _, mut args| {
            let (stream, what) = parts(&mut args)?;
            let timeout = args.duration_opt("timeout")?.unwrap_or(DRAIN);
            let lua = lua.clone();
            Ok(async move {
                let pieces = stream.drain(timeout).await.map_err(|error| failed(&what, "drain", &error))?;
                let list = lua.create_table()?;
                for piece in pieces {
                    list.raw_push(lua.create_string(piece)?)?;
                }
                Ok(list)
            })
        })?
        .method("stream:lines", |lua, _, mut args| {
            let object = args.next();
            Args::new("stream:lines", mlua::MultiValue::from_vec(vec![object.clone()])).this::<StreamHandle>()?;
            Ok(lua.named_registry_value::<Function>(NEXT_LINE)?.bind(object)?)
        })
}

/// The iterator of `lines`.
fn next_line(lua: &Lua) -> mlua::Result<Function> {
    waiting(lua, "stream:lines", |lua, _, mut args| {
        let (stream, what) = parts(&mut args)?;
        let lua = lua.clone();
        Ok(async move {
            match stream.next_line().await {
                Ok(None) => Ok(Value::Nil),
                Ok(Some(line)) => Ok(Value::String(lua.create_string(line)?)),
                Err(error) => Err(failed(&what, "lines", &error)),
            }
        })
    })
}

fn searching(class: Class<'_>) -> mlua::Result<Class<'_>> {
    class
        .waits("stream:read_until", |lua, _, mut args| {
            let (stream, what) = parts(&mut args)?;
            let (find, shown) = matcher(lua, &mut args)?;
            let timeout = args.duration_opt("timeout")?.unwrap_or(WAIT);
            let lua = lua.clone();
            Ok(async move {
                let bytes = stream.read_until(Some(timeout), find).await;
                let bytes = bytes.map_err(|error| failed(&what, &format!("read_until {shown}"), &error))?;
                Ok(lua.create_string(bytes)?)
            })
        })?
        .waits("stream:expect", |lua, _, mut args| {
            let (stream, what) = parts(&mut args)?;
            let (find, shown) = matcher(lua, &mut args)?;
            let timeout = args.duration_opt("timeout")?.unwrap_or(WAIT);
            Ok(async move {
                let found = stream.read_until(Some(timeout), find).await;
                found.map(drop).map_err(|error| failed(&what, &format!("expect {shown}"), &error))
            })
        })
}

fn parts(args: &mut Args) -> Result<(Arc<ByteStream>, String), ApiError> {
    let this = args.this::<StreamHandle>()?;
    Ok((Arc::clone(&this.stream), this.what.clone()))
}
