//! A snapshot of a machine whose RAM is copy-on-write. QEMU can leave only shared RAM out of the state it writes, so the
//! whole state goes to a second QEMU with shared RAM, which is the one that is stored.

use std::path::Path;
use std::sync::Arc;

use crate::disks::Disk;
use crate::foundation::path_error::describe_io;
use crate::qemu::disks::DiskLayout;
use crate::qemu::{MachineSpec, QemuProcess, RamFile, RamKind};
use crate::testbed::bed::Testbed;
use crate::testbed::error::VmError;
use crate::testbed::running::Running;
use crate::testbed::vm::Vm;
use crate::testbed::vm_disks::serve_all;

/// Writes the device state of a machine that stands still to `device`. `layout` says where its disks hang now, `disks` are some with
/// their content, which the twin may have. Its RAM, which nobody writes to any more.
///
/// # Errors
/// No memory for the twin, a QEMU that fails.
pub async fn save(
    bed: &Testbed,
    vm: &Vm,
    running: &Arc<Running>,
    layout: &DiskLayout,
    disks: &[Arc<Disk>],
    device: &Path,
) -> Result<RamFile, VmError> {
    let failed = |source| VmError::Qemu { vm: vm.name().to_owned(), op: "snapshot", source };
    let io_failed =
        |error: std::io::Error| VmError::Environment(format!("no memory for a snapshot can be had: {error}"));
    let source = &running.built().spec;
    let spec = MachineSpec {
        ram: RamKind::Shared,
        incoming: true,
        disks: layout.clone(),
        reset_log: bed.shared.settings.runtime_dir.join(format!("twin-{}.reset.log", bed.next_start())),
        ..source.clone()
    };
    let ram = RamFile::in_memory(spec.ram_size()).map_err(io_failed)?;
    // The way between the two lies in memory as well.
    let way = RamFile::in_memory(0).map_err(io_failed)?;
    let path = format!("/proc/{}/fd/{}", std::process::id(), way.descriptor());
    let machine = bed.machine().await?;
    let served = serve_all(disks)
        .map_err(|error| VmError::Environment(format!("disks can't be served: {}", describe_io(&error))))?;
    let (started, saved) = tokio::join!(
        QemuProcess::start(machine.qemu(), &spec, Some(&ram), served),
        running.qemu().save(Path::new(&path), true)
    );
    let (twin, _ends) = started.map_err(failed)?;
    let result = async {
        saved?;
        twin.load(Path::new(&path), true).await?;
        twin.save(device, false).await
    };
    let result = result.await;
    twin.kill().await;
    // The log of its resets is of no use to anybody.
    let _ = std::fs::remove_file(&spec.reset_log);
    result.map(|()| ram).map_err(failed)
}
