//! Which QEMU runs the guests, and on what: chosen once, at the first boot.

use crate::qemu::{self, Accel, AccelRequest, Candidates, QemuBinary};
use crate::run_events::{AcceleratorChosen, EventKind, EventSink, QemuInfo};

/// What was asked for.
#[derive(Debug, Clone, Default)]
pub struct MachineRequest {
    /// Who names a QEMU.
    pub qemu: Candidates,
    /// Which accelerator.
    pub accel: AccelRequest,
}

/// What was chosen.
#[derive(Debug, Clone)]
pub struct Machine {
    qemu: QemuBinary,
    accel: Accel,
}

impl Machine {
    /// Finds QEMU, probes the accelerator, and tells of both.
    ///
    /// # Errors
    /// A message: no usable QEMU, or KVM was asked for in vain.
    pub fn choose(request: &MachineRequest, sink: &EventSink) -> Result<Self, String> {
        let arch = std::env::consts::ARCH;
        let qemu = qemu::find(&request.qemu, arch).map_err(|error| error.to_string())?;
        let chosen = qemu::choose(request.accel, arch).map_err(|error| error.to_string())?;
        sink.emit(EventKind::AcceleratorChosen(AcceleratorChosen {
            accelerator: chosen.accel.name().to_owned(),
            reason: chosen.reason,
            qemu: Some(QemuInfo {
                path: qemu.path.display().to_string(),
                version: qemu.version.to_string(),
                origin: qemu.origin.trim_matches('`').to_owned(),
            }),
        }));
        Ok(Self { qemu, accel: chosen.accel })
    }

    /// The QEMU.
    pub fn qemu(&self) -> &QemuBinary {
        &self.qemu
    }

    /// The accelerator.
    pub fn accel(&self) -> Accel {
        self.accel
    }
}
