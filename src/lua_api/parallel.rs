//! `parallel(fn, …)`: functions that run at the same time inside one test.
//!
//! Each function is a coroutine, a *branch*. Where it calls something that waits, it yields (`register`), and the future
//! here polls what the branches wait for and resumes those that can go on. All Lua runs on the file's own thread; only the
//! waiting overlaps.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use mlua::{Function, Lua, MultiValue, Thread, Value};

use super::args::Args;
use super::error::{ApiError, lua_message};
use super::file_state::FileState;
use super::place::{self, Place};
use super::register::{self, Pending, answer_at};

/// The global `parallel`; `body` is the prelude's function that runs a branch and gives `true` and its first result, or
/// `false` and the error value.
///
/// # Errors
/// Those of Lua's allocator.
pub fn function(lua: &Lua, body: Function) -> mlua::Result<Function> {
    register::waiting(lua, "parallel", move |lua, state, mut args: Args| {
        let mut branches = Vec::new();
        while !args.is_empty() {
            let function = args.callable("fn")?;
            let thread = lua.create_thread(body.clone())?;
            register::add_branch(lua, &thread)?;
            branches.push(Branch { thread, at: At::Start(function) });
        }
        let place = place::caller(lua);
        Ok(Parallel { lua: lua.clone(), state: Rc::clone(state), body: body.clone(), branches, place })
    })
}

enum At {
    /// Not begun.
    Start(Function),
    /// Yielded.
    Waiting(Pending),
    /// Its first result.
    Done(Value),
}

struct Branch {
    thread: Thread,
    at: At,
}

struct Parallel {
    lua: Lua,
    state: Rc<FileState>,
    body: Function,
    branches: Vec<Branch>,
    /// Where `parallel` was called: of a branch without lines of its own, such as `function() return vm:run(x) end`.
    place: Option<Place>,
}

impl Future for Parallel {
    type Output = Result<MultiValue, ApiError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        for index in 0..this.branches.len() {
            if let Err(error) = this.branches[index].advance(&this.lua, &this.state, this.place.as_ref(), context) {
                // Dropping what the others wait for gives it up; closing runs their `<close>` variables.
                for branch in this.branches.drain(..) {
                    drop(branch.at);
                    if branch.thread.is_resumable() {
                        let _ = branch.thread.reset(this.body.clone());
                    }
                }
                return Poll::Ready(Err(error));
            }
        }
        if this.branches.iter().any(|branch| !matches!(branch.at, At::Done(_))) {
            return Poll::Pending;
        }
        let results = this.branches.drain(..).map(|branch| match branch.at {
            At::Done(value) => value,
            At::Start(_) | At::Waiting(_) => Value::Nil,
        });
        Poll::Ready(Ok(results.collect()))
    }
}

impl Branch {
    /// Goes on as far as nothing has to be waited for.
    fn advance(
        &mut self,
        lua: &Lua,
        state: &FileState,
        called_at: Option<&Place>,
        context: &mut Context<'_>,
    ) -> Result<(), ApiError> {
        loop {
            let arguments = match &mut self.at {
                At::Done(_) => return Ok(()),
                At::Start(function) => MultiValue::from_iter([Value::Function(function.clone())]),
                At::Waiting(pending) => {
                    let Poll::Ready(outcome) = pending.outcome.as_mut().poll(context) else { return Ok(()) };
                    let place = pending.place.take().or_else(|| called_at.cloned());
                    answer_at(lua, state, outcome, |_| place)?
                }
            };
            let outer = state.branch_place.replace(called_at.cloned());
            let resumed = self.thread.resume::<MultiValue>(arguments);
            state.branch_place.replace(outer);
            // A broken coroutine: its own errors come back as values.
            let mut values = resumed.map_err(|error| ApiError::new(lua_message(&error)))?;
            if self.thread.is_resumable() {
                let Some(pending) = state.pending.borrow_mut().take() else {
                    return Err(ApiError::new("parallel: coroutine.yield outside of a coroutine of the test's own"));
                };
                self.at = At::Waiting(pending);
                continue;
            }
            let ok = values.pop_front() == Some(Value::Boolean(true));
            let value = values.pop_front().unwrap_or(Value::Nil);
            if !ok {
                state.note_raised(&value, values.pop_front().unwrap_or(Value::Nil));
                return Err(ApiError::Value(value));
            }
            self.at = At::Done(value);
        }
    }
}
