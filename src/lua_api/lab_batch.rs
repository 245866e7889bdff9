//! What is done to every VM of a lab at once.

use std::sync::Arc;

use mlua::Value;

use super::args::Args;
use super::error::ApiError;
use super::file_state::FileState;
use super::lab::this;
use super::register::Class;
use crate::testbed::Vm;

/// The lab, and all VMs of what it lists, also those of labs inside.
fn vms(args: &mut Args, state: &FileState) -> Result<(Value, Vec<Arc<Vm>>), ApiError> {
    let object = args.next();
    let mut first = Args::new(args.function(), mlua::MultiValue::from_iter([object.clone()]));
    let vms = this(&mut first, state)?.vms(state.layer());
    Ok((object, vms.into_iter().map(|vm| vm.0).collect()))
}

/// Adds the methods to the class of labs.
///
/// # Errors
/// Those of Lua's allocator.
pub fn methods(class: Class<'_>) -> mlua::Result<Class<'_>> {
    class
        .waits("lab:boot", |_, state, mut args| {
            let (lab, vms) = vms(&mut args, state)?;
            Ok(async move {
                crate::testbed::boot_all(vms).await?;
                Ok(lab)
            })
        })?
        .waits("lab:shutdown", |_, state, mut args| {
            let (lab, vms) = vms(&mut args, state)?;
            Ok(async move {
                crate::testbed::shutdown_all(vms).await?;
                Ok(lab)
            })
        })?
        .waits("lab:pause", |_, state, mut args| {
            let (lab, vms) = vms(&mut args, state)?;
            Ok(async move {
                crate::testbed::pause_all(vms).await?;
                Ok(lab)
            })
        })?
        .waits("lab:resume", |_, state, mut args| {
            let (lab, vms) = vms(&mut args, state)?;
            Ok(async move {
                crate::testbed::resume_all(vms).await?;
                Ok(lab)
            })
        })
}
