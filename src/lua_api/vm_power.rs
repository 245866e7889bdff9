//! The VM's power, its buttons, and waiting for a guest that goes down by itself.

use std::sync::Arc;

use mlua::Value;

use super::args::Args;
use super::error::ApiError;
use super::register::Class;
use super::vm::{borrow, options};
use crate::testbed::{Down, Vm, VmError};

/// The methods of this file.
///
/// # Errors
/// Those of Lua's allocator.
pub fn methods(class: Class<'_>) -> mlua::Result<Class<'_>> {
    let class = class.waits("vm:boot", |lua, state, mut args| {
        let (object, vm) = this(&mut args)?;
        let options = options(lua, state, &mut args)?;
        Ok(async move {
            vm.boot(options).await?;
            Ok(object)
        })
    })?;
    by_itself(simple(class)?)
}

/// The object a method was called on, to be returned, and its VM.
fn this(args: &mut Args) -> Result<(Value, Arc<Vm>), ApiError> {
    let object = args.next();
    let vm = borrow(args, &object)?;
    Ok((object, vm))
}

/// What takes no arguments and returns the VM.
fn simple(class: Class<'_>) -> mlua::Result<Class<'_>> {
    fn act<F: Future<Output = Result<(), VmError>>>(
        mut args: Args,
        act: impl FnOnce(Arc<Vm>) -> F,
    ) -> Result<impl Future<Output = Result<Value, ApiError>>, ApiError> {
        let (object, vm) = this(&mut args)?;
        let acting = act(vm);
        Ok(async move {
            acting.await?;
            Ok(object)
        })
    }
    class
        .waits("vm:shutdown", |_, _, args| act(args, |vm| async move { vm.shutdown().await }))?
        .waits("vm:pause", |_, _, args| act(args, |vm| async move { vm.pause().await }))?
        .waits("vm:resume", |_, _, args| act(args, |vm| async move { vm.resume().await }))?
        .waits("vm:reset", |_, _, args| act(args, |vm| async move { vm.reset().await }))?
        .waits("vm:wakeup", |_, _, args| act(args, |vm| async move { vm.wakeup().await }))
}

fn by_itself(class: Class<'_>) -> mlua::Result<Class<'_>> {
    class
        .waits("vm:power_button", |_, _, mut args| {
            let (object, vm) = this(&mut args)?;
            let timeout = args.options(&["timeout"])?.duration("timeout")?;
            Ok(async move {
                vm.power_button(timeout).await?;
                Ok(object)
            })
        })?
        .waits("vm:wait_shutdown", |_, _, mut args| {
            let (_, vm) = this(&mut args)?;
            let timeout = args.duration_opt("timeout")?;
            Ok(async move {
                Ok(match vm.wait_shutdown(timeout).await? {
                    Down::Shutdown => "shutdown",
                    Down::Reset => "reset",
                    Down::Panic => "panic",
                })
            })
        })?
        .waits("vm:wait_reboot", |_, _, mut args| {
            let (object, vm) = this(&mut args)?;
            let timeout = args.duration_opt("timeout")?;
            Ok(async move {
                vm.wait_reboot(timeout).await?;
                Ok(object)
            })
        })
}
