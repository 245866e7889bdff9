//! What the launcher is told: a file in the archive that brings it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The directory in the initramfs that is ours.
pub const PROVIUM_DIR: &str = "/.provium";
/// The launcher: what `rdinit=` names. It is the agent's own program.
pub const LAUNCHER_PATH: &str = "/.provium/launcher";
/// The plan.
pub const PLAN_PATH: &str = "/.provium/boot";

/// First bytes of a plan, with the version of its format.
const MAGIC: &[u8] = b"provium-boot-2\n";

/// Who becomes PID 1 once the agent has started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum GuestInit {
    /// `/init` of the user's initrd.
    Default,
    /// The program that the profile's own `rdinit=` names.
    Named(String),
    /// The init on the device that `root=` names: there is no initrd.
    Root(RootDevice),
    /// Nobody: there is no initrd, the launcher mounts what a system needs and collects orphans.
    None,
}

/// What the kernel's command line says of the root file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootDevice {
    /// `root=`: a device, or the tag of a shared file system.
    pub device: String,
    /// `rootfstype=`; empty: whatever the kernel knows.
    pub fs_types: Vec<String>,
    /// `rootflags=`.
    pub flags: String,
    /// `rw` comes after `ro`.
    pub writable: bool,
    /// `rootwait`: the device may take for ever to appear.
    pub wait: bool,
    /// `init=`.
    pub init: Option<String>,
}

/// A file that the launcher writes before init runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootFile {
    /// Absolute.
    pub path: String,
    /// Any bytes.
    pub content: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
}

/// What the launcher does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootPlan {
    /// Who becomes PID 1.
    pub init: GuestInit,
    /// Modules below `/.provium/modules`, in the order to load them.
    pub modules: Vec<String>,
    /// Those of them that the test asked for: without them the boot fails.
    pub required: Vec<String>,
    /// Seconds since the epoch that the clock should have begun at.
    pub initial_time: Option<i64>,
    /// Files to write.
    pub files: Vec<BootFile>,
    /// The host name to set.
    pub hostname: Option<String>,
}

/// A plan that can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlanError;

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{PLAN_PATH}` is not a boot plan of this version")
    }
}

impl std::error::Error for PlanError {}

impl BootPlan {
    /// The plan as the bytes of a file.
    pub fn encode(&self) -> Vec<u8> {
        let plan = postcard::to_allocvec(self).expect("plain data always has a wire form");
        [MAGIC, &plan].concat()
    }

    /// The plan in the bytes of a file.
    ///
    /// # Errors
    /// When it is something else.
    pub fn decode(bytes: &[u8]) -> Result<Self, PlanError> {
        let plan = bytes.strip_prefix(MAGIC).ok_or(PlanError)?;
        postcard::from_bytes(plan).map_err(|_| PlanError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_comes_back() {
        let plan = BootPlan {
            init: GuestInit::Named("/sbin/init".to_owned()),
            modules: vec!["a.ko".to_owned()],
            required: vec!["a.ko".to_owned()],
            initial_time: Some(1),
            files: vec![BootFile { path: "/etc/x".to_owned(), content: vec![0, 255], mode: 0o600 }],
            hostname: Some("h".to_owned()),
        };
        assert_eq!(BootPlan::decode(&plan.encode()), Ok(plan));
        assert_eq!(BootPlan::decode(b"provium-boot-0\n"), Err(PlanError));
    }
}
