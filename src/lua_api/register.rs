//! Rust functions as Lua functions that raise plain strings at the caller's line.

use std::rc::Rc;

use mlua::{Function, IntoLuaMulti, Lua, MultiValue, Table, Value};

use super::args::Args;
use super::error::ApiError;
use super::file_state::FileState;
use super::place;

/// Lua side of every function: a failed call raises its message itself, so that `pcall` gives a string.
const WRAPPER: &str = "
local error = error
local function check(ok, ...)
  if ok then return ... end
  error((...), 0)
end
return function(native)
  return function(...) return check(native(...)) end
end";
/// Registry key of the wrapper above.
const WRAPPER_KEY: &str = "provium.wrapper";
/// Shown in a traceback for frames of ours; anything but `@` first hides them from `place`.
const CHUNK: &str = "=[provium]";

/// Prepares a Lua state; needed once, before any other function here.
///
/// # Errors
/// Those of Lua's allocator.
pub fn install(lua: &Lua) -> mlua::Result<()> {
    let factory: Function = lua.load(WRAPPER).set_name(CHUNK).eval()?;
    lua.set_named_registry_value(WRAPPER_KEY, factory)
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
        match result {
            Ok(values) => {
                let mut values = values.into_lua_multi(lua)?;
                values.push_front(Value::Boolean(true));
                Ok(values)
            }
            Err(error) => {
                let value = raised(lua, &state, error)?;
                Ok(MultiValue::from_vec(vec![Value::Boolean(false), value]))
            }
        }
    })?;
    lua.named_registry_value::<Function>(WRAPPER_KEY)?.call(native)
}

fn raised(lua: &Lua, state: &FileState, error: ApiError) -> mlua::Result<Value> {
    let message = match error {
        ApiError::Value(value) => return Ok(value),
        ApiError::Message(message) => message,
        ApiError::Cancelled => {
            state.note_stop(lua);
            state.cancel_message()
        }
    };
    let text = match place::caller(lua) {
        Some(place) => format!("{place}: {message}"),
        None => message,
    };
    Ok(Value::String(lua.create_string(text)?))
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
