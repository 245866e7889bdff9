//! What is done to several machines at once.

use std::sync::Arc;

use super::error::VmError;
use super::options::VmOptions;
use super::vm::{Vm, VmState};

/// Boots all of `vms` at once; the first error is returned when all have ended.
///
/// # Errors
/// As `Vm::boot`.
pub async fn boot_all(vms: Vec<Arc<Vm>>) -> Result<(), VmError> {
    all(
        vms,
        |vm| async move { if vm.state() == VmState::Booted { Ok(()) } else { vm.boot(VmOptions::default()).await } },
    )
    .await
}

/// Shuts all of `vms` down at once.
///
/// # Errors
/// As `Vm::shutdown`.
pub async fn shutdown_all(vms: Vec<Arc<Vm>>) -> Result<(), VmError> {
    all(vms, |vm| async move { vm.shutdown().await }).await
}

/// Pauses all of `vms` at once; one that is paused already stays so.
///
/// # Errors
/// As `Vm::pause`.
pub async fn pause_all(vms: Vec<Arc<Vm>>) -> Result<(), VmError> {
    all(vms, |vm| async move { if vm.state() == VmState::Paused { Ok(()) } else { vm.pause().await } }).await
}

/// Lets all of `vms` go on at once; one that was not paused does so anyway.
///
/// # Errors
/// As `Vm::resume`.
pub async fn resume_all(vms: Vec<Arc<Vm>>) -> Result<(), VmError> {
    all(vms, |vm| async move { if vm.state() == VmState::Booted { Ok(()) } else { vm.resume().await } }).await
}

async fn all<F>(vms: Vec<Arc<Vm>>, act: impl Fn(Arc<Vm>) -> F) -> Result<(), VmError>
where
    F: Future<Output = Result<(), VmError>> + Send + 'static,
{
    let mut tasks = tokio::task::JoinSet::new();
    for vm in vms {
        tasks.spawn(act(vm));
    }
    let mut first = Ok(());
    while let Some(done) = tasks.join_next().await {
        if let (Ok(Err(error)), true) = (done, first.is_ok()) {
            first = Err(error);
        }
    }
    first
}
