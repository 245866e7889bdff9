//! The VM's methods that start something in the guest: programs, system calls, workers.

use std::rc::Rc;
use std::sync::Arc;

use super::place;
use super::register::Class;
use super::vm::VmHandle;
use super::worker::WorkerHandle;
use super::{syscalls, vm_run};

/// Adds them to the class.
///
/// # Errors
/// Those of Lua's allocator.
pub fn methods(class: Class<'_>) -> mlua::Result<Class<'_>> {
    class
        .waits("vm:run", vm_run::run)?
        .waits("vm:run_async", vm_run::run_async)?
        .waits("vm:syscall", syscalls::syscall)?
        .waits("vm:syscall_async", syscalls::syscall_async)?
        .waits("vm:ioctl", syscalls::ioctl)?
        .waits("vm:read_mem", syscalls::read_mem)?
        .waits("vm:spawn_worker", |lua, state, mut args| {
            let vm = Arc::clone(&args.this::<VmHandle>()?.0);
            let place = place::caller(lua).map(|place| place.to_string());
            let state = Rc::clone(state);
            Ok(async move {
                let worker = vm.spawn_worker(place).await?;
                state.with_belongings(|belongings| belongings.add_worker(Arc::clone(&worker)));
                Ok(WorkerHandle(worker))
            })
        })
}
