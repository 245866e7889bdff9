//! What can be asked of one machine, at its creation or at boot.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::disks::DiskOptions;

/// A file that is present in the guest before its init runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootFile {
    /// Absolute, in the guest.
    pub path: String,
    /// Any bytes.
    pub content: Vec<u8>,
    /// Permission bits, 0 to 0o7777.
    pub mode: u32,
}

/// Options of one machine; what is absent comes from its profile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VmOptions {
    /// Bytes of RAM.
    pub memory: Option<u64>,
    /// Number of CPUs, at least 1.
    pub cpus: Option<u32>,
    /// Replaces the profile's command line.
    pub kernel_cmdline: Option<String>,
    /// Is put behind the profile's command line.
    pub kernel_cmdline_append: Option<String>,
    /// How long boot waits for the agent; above zero.
    pub agent_timeout: Option<Duration>,
    /// Makes the guest's random numbers the same in every boot.
    pub rng_seed: Option<u64>,
    /// Seconds since the epoch that the guest's clock begins at.
    pub initial_time: Option<i64>,
    /// The guest's host name.
    pub hostname: Option<String>,
    /// Files that are present before init.
    pub files: Option<Vec<BootFile>>,
    /// Modules, from the profile's `modules`, that are loaded before init.
    pub load_modules: Option<Vec<String>>,
    /// Whether it has network cards from the start, which need their driver.
    pub network: bool,
    /// Disks that it boots with, besides its profile's. A snapshot has them on its own.
    #[serde(skip)]
    pub disks: Option<Vec<DiskOptions>>,
}

impl VmOptions {
    /// These options with those of `later` in their place, key by key.
    pub fn overlaid(self, later: Self) -> Self {
        Self {
            memory: later.memory.or(self.memory),
            cpus: later.cpus.or(self.cpus),
            kernel_cmdline: later.kernel_cmdline.or(self.kernel_cmdline),
            kernel_cmdline_append: later.kernel_cmdline_append.or(self.kernel_cmdline_append),
            agent_timeout: later.agent_timeout.or(self.agent_timeout),
            rng_seed: later.rng_seed.or(self.rng_seed),
            initial_time: later.initial_time.or(self.initial_time),
            hostname: later.hostname.or(self.hostname),
            files: later.files.or(self.files),
            load_modules: later.load_modules.or(self.load_modules),
            network: later.network || self.network,
            disks: later.disks.or(self.disks),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_option_wins_key_by_key() {
        let first = VmOptions { memory: Some(1), cpus: Some(2), ..VmOptions::default() };
        let later = VmOptions { memory: Some(3), hostname: Some("h".to_owned()), ..VmOptions::default() };
        let merged = first.overlaid(later);
        assert_eq!((merged.memory, merged.cpus, merged.hostname.as_deref()), (Some(3), Some(2), Some("h")));
    }
}
