//! The hook that ends a test at its deadline, and `debug.sethook` beside it: Lua has one hook, and an author's must not take
//! the place of ours.

use mlua::debug::{Debug, DebugEvent};
use mlua::{Function, HookTriggers, Lua, MultiValue, Table, Value, VmState};

use super::error::ApiError;
use super::file_state::FileState;
use super::register::{CHUNK, function};

/// How many Lua instructions run between two looks at the deadline.
const INTERVAL: u32 = 10_000;

/// What `debug.sethook` was given.
#[derive(Clone)]
pub struct AuthorHook {
    hook: Function,
    mask: String,
    /// Every so many instructions; 0 is never.
    count: u32,
}

/// Looks at the deadline every so often.
///
/// # Errors
/// Those of Lua.
pub fn watch(lua: &Lua) -> mlua::Result<()> {
    set(lua, INTERVAL)
}

fn set(lua: &Lua, interval: u32) -> mlua::Result<()> {
    let author = FileState::of(lua)?.author_hook.borrow().clone();
    let count = author.as_ref().map_or(0, |author| author.count);
    let interval = if count == 0 { interval } else { interval.min(count) };
    let mut triggers = HookTriggers::new().every_nth_instruction(interval);
    if let Some(author) = &author {
        triggers.on_calls = author.mask.contains('c');
        triggers.on_returns = author.mask.contains('r');
        triggers.every_line = author.mask.contains('l');
    }
    lua.set_global_hook(triggers, |lua, debug| {
        let state = FileState::of(lua)?;
        if state.refuse_when_cancelled().is_some() {
            state.note_stop(lua);
            // Every instruction raises from now on, so that no `pcall` goes on.
            set(lua, 1)?;
            return Err(mlua::Error::runtime(state.cancel_message()));
        }
        let author = state.author_hook.borrow().clone();
        if let Some(author) = author {
            call(&author, debug)?;
        }
        Ok(VmState::Continue)
    })
}

fn call(author: &AuthorHook, debug: &Debug<'_>) -> mlua::Result<()> {
    if debug.source().source.as_deref() == Some(CHUNK) {
        return Ok(()); // The lines of our own wrappers are nobody's.
    }
    match debug.event() {
        DebugEvent::Count if author.count > 0 => author.hook.call("count"),
        DebugEvent::Line => author.hook.call(("line", debug.current_line())),
        DebugEvent::Call => author.hook.call("call"),
        DebugEvent::TailCall => author.hook.call("tail call"),
        DebugEvent::Ret => author.hook.call("return"),
        DebugEvent::Count | DebugEvent::Unknown(_) => Ok(()),
    }
}

/// Puts `debug.sethook`, `debug.gethook` and `xpcall` into a Lua state. An author's hook is that of all coroutines.
///
/// # Errors
/// Those of Lua's allocator.
pub fn install(lua: &Lua) -> mlua::Result<()> {
    let debug: Table = lua.globals().get("debug")?;
    debug.set(
        "sethook",
        function(lua, "debug.sethook", |lua, state, mut args| {
            let mut value = args.next();
            if matches!(value, Value::Thread(_)) {
                value = args.next();
            }
            let author = match value {
                Value::Nil => None,
                Value::Function(hook) => {
                    let mask = args.text_opt("mask")?.unwrap_or_default();
                    let count = match args.next() {
                        Value::Nil => 0,
                        Value::Integer(count) => u32::try_from(count.max(0)).unwrap_or(u32::MAX),
                        other => return Err(args.wrong("count", "a whole number", &other)),
                    };
                    let idle = count == 0 && !mask.contains(['c', 'r', 'l']);
                    (!idle).then_some(AuthorHook { hook, mask, count })
                }
                other => return Err(args.wrong("hook", "a function", &other)),
            };
            *state.author_hook.borrow_mut() = author;
            watch(lua).map_err(ApiError::from)
        })?,
    )?;
    debug.set(
        "gethook",
        function(lua, "debug.gethook", |lua, state, _| {
            let author = state.author_hook.borrow().clone();
            Ok(match author {
                None => MultiValue::from_iter([Value::Nil]),
                Some(author) => {
                    let mask = Value::String(lua.create_string(&author.mask)?);
                    MultiValue::from_vec(vec![Value::Function(author.hook), mask, Value::Integer(author.count.into())])
                }
            })
        })?,
    )?;
    // A message handler that is called by an error of the hook runs without the hook: past the deadline none is called.
    let over = lua.create_function(|lua, ()| Ok(FileState::of(lua)?.refuse_when_cancelled().is_some()))?;
    let wrap = "local xpcall, traceback, over = ...
        return function(fn, handler, ...)
          if handler == traceback or handler == nil then return xpcall(fn, handler, ...) end
          return xpcall(fn, function(...)
            if over() then return (...) end
            return handler(...)
          end, ...)
        end";
    let native: Function = lua.globals().get("xpcall")?;
    let traceback: Value = debug.get("traceback")?;
    let xpcall: Function = lua.load(wrap).set_name(CHUNK).call((native, traceback, over))?;
    lua.globals().set("xpcall", xpcall)
}
