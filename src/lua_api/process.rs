//! Processes in a guest that go on.

use std::sync::Arc;

use mlua::{Lua, MetaMethod, UserData, UserDataFields, UserDataMethods};

use super::args::Args;
use super::error::ApiError;
use super::register::{Class, class};
use super::run_result::RunResult;
use super::signal::signal;
use super::stream::StreamHandle;
use crate::testbed::{Process, ProcessState};

/// Registry key of the class.
const CLASS: &str = "provium.Process";
/// What `kill` sends where nothing else is said.
const SIGTERM: i32 = 15;

/// A process as Lua holds it. It goes on when Lua drops it, until its scope ends.
pub struct ProcessHandle(pub Arc<Process>);

impl UserData for ProcessHandle {
    fn add_fields<F: UserDataFields<Self>>(fields: &mut F) {
        fields.add_meta_field_with(MetaMethod::Index.name(), |lua| class(lua, CLASS));
        fields.add_meta_field("__name", "Process");
    }

    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_meta_method(MetaMethod::ToString, |_, this, ()| {
            Ok(format!("process {} (`{}`) in vm `{}`", this.0.pid(), this.0.command(), this.0.guest().name()))
        });
    }
}

fn this(args: &mut Args) -> Result<Arc<Process>, ApiError> {
    Ok(Arc::clone(&args.this::<ProcessHandle>()?.0))
}

/// Makes the class known to a Lua state.
///
/// # Errors
/// Those of Lua's allocator.
pub fn install(lua: &Lua) -> mlua::Result<()> {
    let class = Class::new(lua)?
        .waits("process:wait", |_, _, mut args| {
            let process = this(&mut args)?;
            let timeout = args.duration_opt("timeout")?;
            if timeout.is_some_and(|timeout| timeout.is_zero()) {
                return Err(args.bad(
                    "timeout",
                    "expected a time above 0, found 0\nhint: `:status()` tells without waiting whether it runs",
                ));
            }
            Ok(async move {
                let outcome = process.wait(timeout).await?;
                Ok(RunResult::new(process.guest().name(), process.command().to_owned(), outcome))
            })
        })?
        .waits("process:close", |_, _, mut args| {
            let process = this(&mut args)?;
            Ok(async move { Ok(process.close().await?) })
        })?
        .method("process:pid", |_, _, mut args| Ok(this(&mut args)?.pid()))?
        .method("process:handle", |_, _, mut args| Ok(this(&mut args)?.number()))?
        .method("process:status", |_, _, mut args| {
            Ok(match this(&mut args)?.state() {
                ProcessState::Running => "running",
                ProcessState::Exited => "exited",
                ProcessState::Signalled => "signalled",
            })
        })?;
    input(signals(class)?)?
        .method("process:stdout_stream", |lua, _, mut args| stream(lua, &mut args, false))?
        .method("process:stderr_stream", |lua, _, mut args| stream(lua, &mut args, true))?
        .store(CLASS)
}

fn signals(class: Class<'_>) -> mlua::Result<Class<'_>> {
    class
        .waits("process:kill", |_, _, mut args| {
            let process = this(&mut args)?;
            let number = signal(&mut args, Some(SIGTERM))?;
            Ok(async move { Ok(process.signal("kill", number).await?) })
        })?
        .waits("process:signal", |_, _, mut args| {
            let process = this(&mut args)?;
            let number = signal(&mut args, None)?;
            Ok(async move { Ok(process.signal("signal", number).await?) })
        })
}

fn input(class: Class<'_>) -> mlua::Result<Class<'_>> {
    class
        .waits("process:stdin_write", |_, _, mut args| {
            let process = this(&mut args)?;
            let bytes = args.bytes("s")?;
            Ok(async move { Ok(process.write_stdin(&bytes).await?) })
        })?
        .waits("process:close_stdin", |_, _, mut args| {
            let process = this(&mut args)?;
            Ok(async move { Ok(process.close_stdin().await?) })
        })
}

fn stream(lua: &Lua, args: &mut Args, stderr: bool) -> Result<StreamHandle, ApiError> {
    let process = this(args)?;
    let what = format!("{} of `{}`", if stderr { "stderr" } else { "stdout" }, process.command());
    Ok(StreamHandle::new(lua, process.guest().vm(), process.stream(stderr), what))
}
