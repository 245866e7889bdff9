//! The files that describe a snapshot.

use serde::{Deserialize, Serialize};

use super::disks::DiskRecord;
use crate::qemu::disks::DiskLayout;
use crate::testbed::options::VmOptions;

/// The version of the format; another one can't be restored.
pub const FORMAT: u32 = 1;

/// What a snapshot is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotKind {
    /// One machine.
    Vm,
    /// A lab with all it holds.
    Lab,
}

impl SnapshotKind {
    /// For messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vm => "a VM",
            Self::Lab => "a lab",
        }
    }
}

/// `snapshot.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// `FORMAT`.
    pub format: u32,
    /// What it is of.
    pub kind: SnapshotKind,
    /// The version of provium that made it.
    pub provium: String,
    /// When, in seconds since the epoch.
    pub created: u64,
    /// The machines: the first one's files lie in `vms/0`.
    pub vms: Vec<VmRecord>,
    /// Who holds which of them; a machine alone is in a lab of its own.
    pub lab: LabRecord,
}

/// One machine of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmRecord {
    /// Its name.
    pub name: String,
    /// Its profile's name.
    pub profile: String,
    /// Whether it was not running: there are files of its disks only then.
    #[serde(default)]
    pub off: bool,
    /// The disks of one that was not running.
    #[serde(default)]
    pub disks: Vec<DiskRecord>,
    /// Whether the disks of its profile and options are among them.
    #[serde(default)]
    pub has_declared: bool,
}

/// A lab and what it holds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LabRecord {
    /// Its name.
    pub name: String,
    /// Its machines.
    #[serde(default)]
    pub vms: Vec<MemberRecord>,
    /// The labs inside.
    #[serde(default)]
    pub labs: Vec<LabRecord>,
    /// Its bridges.
    #[serde(default)]
    pub bridges: Vec<serde_json::Value>,
}

/// A machine in a lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// What the lab calls it.
    pub name: String,
    /// Its place in [`Manifest::vms`].
    pub vm: usize,
}

/// `machine.json`: what a QEMU must be told to go on with the state beside it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MachineRecord {
    /// The QEMU that made it: another version may not understand its state.
    pub qemu: String,
    /// `kvm` or `tcg`.
    pub accel: String,
    /// `x86_64` or `aarch64`.
    pub arch: String,
    /// QEMU's machine, where the profile names one.
    pub machine: Option<String>,
    /// QEMU's CPU model, where the profile names one.
    pub cpu: Option<String>,
    /// Bytes of RAM.
    pub memory: u64,
    /// Number of CPUs.
    pub cpus: u32,
    /// The profile's `qemu_args`.
    pub qemu_args: Vec<String>,
    /// The effective command line of its kernel.
    pub cmdline: String,
    /// What it was booted with.
    pub options: VmOptions,
    /// Whether its clock is to stay as it was.
    #[serde(default)]
    pub clock_frozen: bool,
    /// What its agent waits for.
    pub wake: [u8; 16],
    /// Its network cards.
    #[serde(default)]
    pub nics: Vec<serde_json::Value>,
    /// Its disks.
    #[serde(default)]
    pub disks: Vec<DiskRecord>,
    /// The numbers of the ports that are there for disks.
    #[serde(default)]
    pub disk_ports: Vec<usize>,
    /// The port of its SCSI controller, where it has one.
    #[serde(default)]
    pub scsi_port: Option<String>,
}

impl MachineRecord {
    /// Where its disks hang.
    pub fn disk_layout(&self) -> DiskLayout {
        let disks = self.disks.iter().map(|disk| disk.place.clone()).collect();
        DiskLayout { ports: self.disk_ports.clone(), controller: self.scsi_port.clone(), disks }
    }
}

impl LabRecord {
    /// All labs, this one first, each with the names that lead to it from here.
    pub fn walk(&self) -> Vec<(Vec<&str>, &Self)> {
        let mut found = vec![(Vec::new(), self)];
        for lab in &self.labs {
            for (mut path, inner) in lab.walk() {
                path.insert(0, lab.name.as_str());
                found.push((path, inner));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_for_what_is_to_come() {
        let text = r#"{"format": 1, "kind": "lab", "provium": "0.1.0", "created": 5,
            "vms": [{"name": "a", "profile": "p"}], "lab": {"name": "l", "vms": [{"name": "a", "vm": 0}],
            "labs": [{"name": "inner"}]}}"#;
        let manifest: Manifest = serde_json::from_str(text).unwrap();
        assert!(!manifest.vms[0].off && manifest.lab.bridges.is_empty());
        let paths: Vec<Vec<&str>> = manifest.lab.walk().into_iter().map(|(path, _)| path).collect();
        assert_eq!(paths, [vec![], vec!["inner"]]);
        let again: Manifest = serde_json::from_str(&serde_json::to_string(&manifest).unwrap()).unwrap();
        assert_eq!(again, manifest);
    }
}
