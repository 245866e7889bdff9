//! Rust functions as Lua functions that raise plain strings at the caller's line.

use std::pin::Pin;
use std::rc::Rc;

use mlua::{Function, IntoLuaMulti, Lua, MultiValue, Table, Value};

use super::args::Args;
use super::bindings::Recorder;
use super::error::ApiError;
use super::file_state::FileState;
use super::place::{self, Place};

/// Lua side of every function: a failed call raises its message itself, so that `pcall` gives a string. A function that waits
/// is told whether it runs in a branch of `parallel` that may yield; there it answers nil, and the branch is resumed with
/// the outcome once there is one.
const WRAPPER: &str = "
local branches = ...
local error, running, isyieldable, yield = error, coroutine.running, coroutine.isyieldable, coroutine.yield
local function check(ok, ...)
  if ok then return ... end
  if ok == nil then return check(yield()) end
  error((...), 0)
end
local function immediate(native)
  return function(...) return check(native(...)) end
end
local function waiting(native)
  return function(...) return check(native(branches[running()] and isyieldable(), ...)) end
end
return immediate, waiting";
/// Registry keys of the two functions above, and of the table of branches.
const IMMEDIATE_KEY: &str = "provium.immediate";
const WAITING_KEY: &str = "provium.waiting";
const BRANCHES_KEY: &str = "provium.branches";
/// Shown in a traceback for frames of ours; anything but `@` first hides them from `place`.
pub const CHUNK: &str = "=[provium]";

/// Prepares a Lua state; needed once, before any other function here.
///
/// # Errors
/// Those of Lua's allocator.
pub fn install(lua: &Lua) -> mlua::Result<()> {
    let branches = lua.create_table()?;
    let weak = lua.create_table()?;
    weak.raw_set("__mode", "k")?;
    branches.set_metatable(Some(weak))?;
    let (immediate, waiting): (Function, Function) = lua.load(WRAPPER).set_name(CHUNK).call(branches.clone())?;
    lua.set_named_registry_value(BRANCHES_KEY, branches)?;
    lua.set_named_registry_value(IMMEDIATE_KEY, immediate)?;
    lua.set_named_registry_value(WAITING_KEY, waiting)
}

/// Makes `thread` a branch that the running coroutine started: functions that wait yield in it instead of blocking.
///
/// # Errors
/// Those of Lua's allocator.
pub fn add_branch(lua: &Lua, thread: &mlua::Thread) -> mlua::Result<()> {
    branches(lua)?.raw_set(thread.clone(), lua.current_thread())
}

/// The branches, each with the coroutine that started it.
///
/// # Errors
/// When `install` was not called.
pub fn branches(lua: &Lua) -> mlua::Result<Table> {
    lua.named_registry_value(BRANCHES_KEY)
}

/// A Lua function `name` (as the author writes it: `vm:run`) made of `body`.
///
/// # Errors
/// Those of Lua's allocator.
pub fn function<R: IntoLuaMulti>(
    lua: &Lua,
    name: &'static str,
    body: impl Fn(&Lua, &Rc<FileState>, Args) -> Result<R, ApiError> + 'static,
) -> mlua::Result<Function> {
    immediate(lua, Recorder::add(lua, name, false)?, name, body)
}

/// As [`function`], for one of several steps of which a Lua function `name` is made: its failure is that of the whole, its
/// return is not.
///
/// # Errors
/// Those of Lua's allocator.
pub fn step<R: IntoLuaMulti>(
    lua: &Lua,
    name: &'static str,
    body: impl Fn(&Lua, &Rc<FileState>, Args) -> Result<R, ApiError> + 'static,
) -> mlua::Result<Function> {
    immediate(lua, Recorder::add(lua, name, true)?, name, body)
}

fn immediate<R: IntoLuaMulti>(
    lua: &Lua,
    recorder: Recorder,
    name: &'static str,
    body: impl Fn(&Lua, &Rc<FileState>, Args) -> Result<R, ApiError> + 'static,
) -> mlua::Result<Function> {
    let native = lua.create_function(move |lua, values: MultiValue| {
        let state = FileState::of(lua)?;
        let result = match state.refuse_when_cancelled() {
            Some(error) => Err(error),
            None => body(lua, &state, Args::new(name, values)),
        };
        recorder.note(&result);
        answer(lua, &state, result)
    })?;
    lua.named_registry_value::<Function>(IMMEDIATE_KEY)?.call(native)
}

/// A Lua function `name` that waits: `body` decodes the arguments and gives what is to be waited for. In a branch of
/// `parallel` the other branches go on meanwhile; elsewhere the file's thread blocks.
///
/// # Errors
/// Those of Lua's allocator.
pub fn waiting<R, F>(
    lua: &Lua,
    name: &'static str,
    body: impl Fn(&Lua, &Rc<FileState>, Args) -> Result<F, ApiError> + 'static,
) -> mlua::Result<Function>
where
    R: IntoLuaMulti,
    F: Future<Output = Result<R, ApiError>> + 'static,
{
    suspending(lua, Recorder::add(lua, name, false)?, name, body)
}

/// As [`waiting`], for one of several steps of which a Lua function `name` is made (see [`step`]).
///
/// # Errors
/// Those of Lua's allocator.
pub fn waiting_step<R, F>(
    lua: &Lua,
    name: &'static str,
    body: impl Fn(&Lua, &Rc<FileState>, Args) -> Result<F, ApiError> + 'static,
) -> mlua::Result<Function>
where
    R: IntoLuaMulti,
    F: Future<Output = Result<R, ApiError>> + 'static,
{
    suspending(lua, Recorder::add(lua, name, true)?, name, body)
}

fn suspending<R, F>(
    lua: &Lua,
    recorder: Recorder,
    name: &'static str,
    body: impl Fn(&Lua, &Rc<FileState>, Args) -> Result<F, ApiError> + 'static,
) -> mlua::Result<Function>
where
    R: IntoLuaMulti,
    F: Future<Output = Result<R, ApiError>> + 'static,
{
    let native = lua.create_function(move |lua, mut values: MultiValue| {
        let in_branch = values.pop_front() == Some(Value::Boolean(true));
        let state = FileState::of(lua)?;
        let begun = match state.refuse_when_cancelled() {
            Some(error) => Err(error),
            None => body(lua, &state, Args::new(name, values)),
        };
        let future = match begun {
            Ok(future) => future,
            Err(error) => {
                let result = Err(error);
                recorder.note::<()>(&result);
                return answer::<()>(lua, &state, result);
            }
        };
        if !in_branch {
            let result = state.wait(future);
            recorder.note(&result);
            return answer(lua, &state, result);
        }
        let handle = lua.clone();
        let recorder = recorder.clone();
        let outcome = async move {
            let result = future.await;
            recorder.note(&result);
            Ok(result?.into_lua_multi(&handle)?)
        };
        let pending = Pending { outcome: Box::pin(outcome), place: place::caller(lua) };
        *state.pending.borrow_mut() = Some(pending);
        Ok(MultiValue::new())
    })?;
    lua.named_registry_value::<Function>(WAITING_KEY)?.call(native)
}

/// What a call in a branch waits for.
pub struct Pending {
    /// What comes of it.
    pub outcome: Pin<Box<dyn Future<Output = Result<MultiValue, ApiError>>>>,
    /// The author's line that called.
    pub place: Option<Place>,
}

/// `true` and the values, or `false` and what is to be raised.
pub fn answer<R: IntoLuaMulti>(lua: &Lua, state: &FileState, result: Result<R, ApiError>) -> mlua::Result<MultiValue> {
    answer_at(lua, state, result, place::caller)
}

/// As [`answer`], for a call that was made at `place`.
///
/// # Errors
/// Those of Lua's allocator.
pub fn answer_at<R: IntoLuaMulti>(
    lua: &Lua,
    state: &FileState,
    result: Result<R, ApiError>,
    place: impl FnOnce(&Lua) -> Option<Place>,
) -> mlua::Result<MultiValue> {
    let message = match result {
        Ok(values) => {
            let mut values = values.into_lua_multi(lua)?;
            values.push_front(Value::Boolean(true));
            return Ok(values);
        }
        Err(ApiError::Value(value)) => return Ok(MultiValue::from_vec(vec![Value::Boolean(false), value])),
        Err(ApiError::Message(message)) => message,
        Err(ApiError::Cancelled) => {
            state.note_stop(lua);
            state.cancel_message()
        }
    };
    // A function that only passes a call on (`return vm:run(x)`) has no line of its own left.
    let place = place(lua).or_else(|| state.outer_place());
    let text = match place {
        Some(place) => format!("{place}: {message}"),
        None => message,
    };
    Ok(MultiValue::from_vec(vec![Value::Boolean(false), Value::String(lua.create_string(text)?)]))
}

/// A class: the methods and fields that objects of one kind share.
pub struct Class<'lua> {
    lua: &'lua Lua,
    methods: Table,
    fields: Table,
}

impl<'lua> Class<'lua> {
    /// An empty class.
    ///
    /// # Errors
    /// Those of Lua's allocator.
    pub fn new(lua: &'lua Lua) -> mlua::Result<Self> {
        Ok(Self { lua, methods: lua.create_table()?, fields: lua.create_table()? })
    }

    /// Adds a method; `name` is `kind:method`.
    ///
    /// # Errors
    /// Those of Lua's allocator.
    pub fn method<R: IntoLuaMulti>(
        self,
        name: &'static str,
        body: impl Fn(&Lua, &Rc<FileState>, Args) -> Result<R, ApiError> + 'static,
    ) -> mlua::Result<Self> {
        self.methods.raw_set(short(name), function(self.lua, name, body)?)?;
        Ok(self)
    }

    /// Adds a method that waits; `name` is `kind:method`.
    ///
    /// # Errors
    /// Those of Lua's allocator.
    pub fn waits<R, F>(
        self,
        name: &'static str,
        body: impl Fn(&Lua, &Rc<FileState>, Args) -> Result<F, ApiError> + 'static,
    ) -> mlua::Result<Self>
    where
        R: IntoLuaMulti,
        F: Future<Output = Result<R, ApiError>> + 'static,
    {
        self.methods.raw_set(short(name), waiting(self.lua, name, body)?)?;
        Ok(self)
    }

    /// Adds a field of objects that are a `T`; `name` is `kind.field`. Objects of a class with fields need [`index`].
    ///
    /// # Errors
    /// Those of Lua's allocator.
    pub fn field<T: 'static, R: IntoLuaMulti>(
        self,
        name: &'static str,
        get: impl Fn(&Lua, &T) -> Result<R, ApiError> + 'static,
    ) -> mlua::Result<Self> {
        let getter = function(self.lua, name, move |lua, _, mut args| get(lua, &*args.this::<T>()?))?;
        self.fields.raw_set(short(name), getter)?;
        Ok(self)
    }

    /// Adds a method that is written in Lua.
    ///
    /// # Errors
    /// Those of Lua's allocator.
    pub fn in_lua(self, name: &'static str, function: Function) -> mlua::Result<Self> {
        self.methods.raw_set(name, function)?;
        Ok(self)
    }

    /// Stores the class; objects find it under `key`.
    ///
    /// # Errors
    /// Those of Lua's allocator.
    pub fn store(self, key: &'static str) -> mlua::Result<()> {
        self.methods.raw_set(FIELDS, self.fields)?;
        self.lua.set_named_registry_value(key, self.methods)
    }
}

/// The part of `kind:method` behind the kind.
fn short(name: &'static str) -> &'static str {
    name.rsplit([':', '.']).next().unwrap_or(name)
}

/// Where a class keeps the getters of its fields: no name that an author can write behind a dot.
const FIELDS: &str = " fields";
/// `__index` of objects with fields.
const INDEX: &str = "
local methods, fields = ...
return function(object, key)
  local get = fields[key]
  if get then return get(object) end
  return methods[key]
end";

/// `__index` of objects whose class, stored under `key`, has fields.
///
/// # Errors
/// When there is none.
pub fn index(lua: &Lua, key: &str) -> mlua::Result<Function> {
    let methods = class(lua, key)?;
    let fields: Table = methods.raw_get(FIELDS)?;
    lua.load(INDEX).set_name(CHUNK).call((methods, fields))
}

/// The method table stored under `key`.
///
/// # Errors
/// When there is none.
pub fn class(lua: &Lua, key: &str) -> mlua::Result<Table> {
    lua.named_registry_value(key)
}
