//! Workers: second processes in a guest that do what a VM does.

use std::sync::Arc;

use mlua::{Lua, MetaMethod, UserData, UserDataFields, UserDataMethods};

use super::args::Args;
use super::error::ApiError;
use super::guest_object::guest;
use super::register::{Class, class};
use super::signal::signal;
use super::{syscalls, vm_files, vm_run};
use crate::testbed::Worker;

/// Registry key of the class.
const CLASS: &str = "provium.Worker";
/// What `kill` sends where nothing else is said.
const SIGTERM: i32 = 15;

/// A worker as Lua holds it. It lives until it is closed or joined, or its scope ends.
pub struct WorkerHandle(pub Arc<Worker>);

impl UserData for WorkerHandle {
    fn add_fields<F: UserDataFields<Self>>(fields: &mut F) {
        fields.add_meta_field_with(MetaMethod::Index.name(), |lua| class(lua, CLASS));
        fields.add_meta_field("__name", "Worker");
    }

    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_meta_method(MetaMethod::ToString, |_, this, ()| {
            Ok(format!("worker {} in vm `{}`", this.0.number(), this.0.guest().name()))
        });
    }
}

fn this(args: &mut Args) -> Result<Arc<Worker>, ApiError> {
    Ok(Arc::clone(&args.this::<WorkerHandle>()?.0))
}

/// Makes the class known to a Lua state.
///
/// # Errors
/// Those of Lua's allocator.
pub fn install(lua: &Lua) -> mlua::Result<()> {
    Class::new(lua)?
        .waits("worker:run", vm_run::run)?
        .waits("worker:run_async", vm_run::run_async)?
        .waits("worker:open_file", |lua, _, mut args| vm_files::open_file(lua, guest(&mut args)?, args))?
        .waits("worker:read_file", |lua, _, mut args| vm_files::read_file(lua, guest(&mut args)?, args))?
        .waits("worker:write_file", |_, _, mut args| vm_files::write_file(guest(&mut args)?, args))?
        .waits("worker:stat", |lua, _, mut args| vm_files::stat(lua, guest(&mut args)?, args, true))?
        .waits("worker:syscall", syscalls::syscall)?
        .waits("worker:syscall_async", syscalls::syscall_async)?
        .waits("worker:ioctl", syscalls::ioctl)?
        .waits("worker:kill", |_, _, mut args| {
            let worker = this(&mut args)?;
            let number = signal(&mut args, Some(SIGTERM))?;
            Ok(async move { Ok(worker.kill(number).await?) })
        })?
        .waits("worker:join", |_, _, mut args| {
            let worker = this(&mut args)?;
            Ok(async move { Ok(worker.join().await?) })
        })?
        .waits("worker:close", |_, _, mut args| {
            let worker = this(&mut args)?;
            Ok(async move {
                worker.close().await;
                Ok(())
            })
        })?
        .method("worker:handle", |_, _, mut args| Ok(this(&mut args)?.number()))?
        .store(CLASS)
}
