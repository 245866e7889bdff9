//! The machine that runs the tests, for the run's first event.

use std::fs;

use crate::run_events::HostInfo;

/// Asks the system; what it does not say stays empty or 0.
pub fn host_info() -> HostInfo {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    HostInfo {
        os: os_name(&read("/etc/os-release")),
        release: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        arch: std::env::consts::ARCH.to_owned(),
        cpus: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        memory: total_memory(&read("/proc/meminfo")),
    }
}

/// `PRETTY_NAME` of os-release(5), without its quotes.
fn os_name(os_release: &str) -> String {
    let value = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or_default();
    value.trim().trim_matches(['"', '\'']).to_owned()
}

/// `MemTotal` of proc_meminfo(5), in bytes.
fn total_memory(meminfo: &str) -> u64 {
    let value = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap_or_default();
    let kibibytes: u64 = value.trim().trim_end_matches("kB").trim().parse().unwrap_or(0);
    kibibytes.saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_system_says() {
        assert_eq!(os_name("ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"), "Debian GNU/Linux 12");
        assert_eq!(os_name(""), "");
        assert_eq!(total_memory("MemTotal:       16384 kB\nMemFree: 1 kB\n"), 16_777_216);
        assert_eq!(total_memory("nonsense"), 0);
    }

    #[test]
    fn this_machine_has_cpus_and_memory() {
        let host = host_info();
        assert!(host.cpus > 0 && host.memory > 0 && !host.release.is_empty());
    }
}
