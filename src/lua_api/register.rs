//! Rust functions as Lua functions that raise plain strings at the caller's line.

use std::pin::Pin;
use std::rc::Rc;

use mlua::{Function, IntoLuaMulti, Lua, MultiValue, Table, Value};

use super::args::Args;
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
const CHUNK: &str = "=[provium]";

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

/// Makes `thread` a branch: functions that wait yield in it instead of blocking.
///
/// # Errors
/// Those of Lua's allocator.
pub fn add_branch(lua: &Lua, thread: &mlua::Thread) -> mlua::Result<()> {
    lua.named_registry_value::<Table>(BRANCHES_KEY)?.raw_set(thread.clone(), true)
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
    let native = lua.create_function(move |lua, values: MultiValue| {
        let state = FileState::of(lua)?;
        let result = match state.refuse_when_cancelled() {
            Some(error) => Err(error),
            None => body(lua, &state, Args::new(name, values)),
        };
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
    let native = lua.create_function(move |lua, mut values: MultiValue| {
        let in_branch = values.pop_front() == Some(Value::Boolean(true));
        let state = FileState::of(lua)?;
        let begun = match state.refuse_when_cancelled() {
            Some(error) => Err(error),
            None => body(lua, &state, Args::new(name, values)),
        };
        let future = match begun {
            Ok(future) => future,
            Err(error) => return answer::<()>(lua, &state, Err(error)),
        };
        if !in_branch {
            let result = state.wait(future);
            return answer(lua, &state, result);
        }
        let handle = lua.clone();
        let outcome = async move { Ok(future.await?.into_lua_multi(&handle)?) };
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
    let text = match place(lua) {
        Some(place) => format!("{place}: {message}"),
        None => message,
    };
    Ok(MultiValue::from_vec(vec![Value::Boolean(false), Value::String(lua.create_string(text)?)]))
}

/// A class: the table of methods that objects of one kind share.
pub struct Class<'lua> {
    lua: &'lua Lua,
    methods: Table,
}

impl<'lua> Class<'lua> {
    /// An empty class.
    ///
    /// # Errors
    /// Those of Lua's allocator.
    pub fn new(lua: &'lua Lua) -> mlua::Result<Self> {
        Ok(Self { lua, methods: lua.create_table()? })
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
        let short = name.rsplit([':', '.']).next().unwrap_or(name);
        self.methods.raw_set(short, function(self.lua, name, body)?)?;
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
        let short = name.rsplit([':', '.']).next().unwrap_or(name);
        self.methods.raw_set(short, waiting(self.lua, name, body)?)?;
        Ok(self)
    }

    /// Stores the class; objects find it under `key`.
    ///
    /// # Errors
    /// Those of Lua's allocator.
    pub fn store(self, key: &'static str) -> mlua::Result<()> {
        self.lua.set_named_registry_value(key, self.methods)
    }
}

/// The method table stored under `key`.
///
/// # Errors
/// When there is none.
pub fn class(lua: &Lua, key: &str) -> mlua::Result<Table> {
    lua.named_registry_value(key)
}
