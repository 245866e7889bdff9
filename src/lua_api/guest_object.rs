//! What operations in a guest are called on: a VM, a worker in it, a batch that records them.

use super::args::Args;
use super::batch::BatchHandle;
use super::error::ApiError;
use super::vm::VmHandle;
use super::worker::WorkerHandle;
use crate::testbed::Guest;

/// Where the operation happens that is called on the next argument.
///
/// # Errors
/// When that is something else, or a batch that is over.
pub fn guest(args: &mut Args) -> Result<Guest, ApiError> {
    let value = args.next();
    let Some(object) = value.as_userdata() else { return Err(args.wrong_object(&value)) };
    if let Ok(vm) = object.borrow::<VmHandle>() {
        return Ok(vm.guest());
    }
    if let Ok(worker) = object.borrow::<WorkerHandle>() {
        return Ok(worker.0.guest().clone());
    }
    match object.borrow::<BatchHandle>() {
        Ok(batch) => batch.next_guest(args),
        Err(_) => Err(args.wrong_object(&value)),
    }
}
