//! What the machines of a run may use together: memory and CPUs of this host, or of the container it is.

use std::path::Path;

/// How much there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// Bytes.
    pub memory: u64,
    /// CPUs.
    pub cpus: u32,
}

impl Default for Pool {
    /// Without limits, for where nothing is known.
    fn default() -> Self {
        Self { memory: u64::MAX, cpus: u32::MAX }
    }
}

impl Pool {
    /// Of this machine: memory from the kernel and the cgroup, CPUs from `NIX_BUILD_CORES`, the cgroup and the affinity.
    pub fn of_machine() -> Self {
        let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
        let unlimited = Self::default();
        let root = Path::new("/sys/fs/cgroup");
        let own = root.join(own_group(&read(Path::new("/proc/self/cgroup"))));
        let mut memory = total_memory(&read(Path::new("/proc/meminfo"))).unwrap_or(unlimited.memory);
        let available = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let mut cpus = u32::try_from(available).unwrap_or(u32::MAX);
        // A limit of a group holds for all below it.
        for group in own.ancestors().take_while(|path| path.starts_with(root)) {
            memory = memory.min(read(&group.join("memory.max")).trim().parse().unwrap_or(u64::MAX));
            cpus = cpus.min(quota(&read(&group.join("cpu.max"))).unwrap_or(u32::MAX));
        }
        let cores = std::env::var("NIX_BUILD_CORES").ok().and_then(|cores| cores.trim().parse().ok());
        let cpus = cores.filter(|cores| *cores > 0).unwrap_or(cpus);
        Self { memory, cpus }
    }

    /// What of `claim` can never be had, as a sentence.
    pub fn lacks(self, claim: Self) -> Option<String> {
        if claim.memory > self.memory {
            return Some(format!("needs {}, the pool has {}", gibibytes(claim.memory), gibibytes(self.memory)));
        }
        if claim.cpus > self.cpus {
            let plural = if self.cpus == 1 { "" } else { "s" };
            return Some(format!("needs {} CPUs, the pool has {} CPU{plural}", claim.cpus, self.cpus));
        }
        None
    }
}

/// `8 GiB`, `1.5 GiB`, `512 MiB`, `12 bytes`.
fn gibibytes(bytes: u64) -> String {
    for (unit, power) in [("TiB", 4), ("GiB", 3), ("MiB", 2), ("KiB", 1)] {
        let factor = 1024_u64.pow(power);
        if bytes >= factor {
            #[expect(clippy::cast_precision_loss, reason = "one digit after the point is shown")]
            let text = format!("{:.1}", bytes as f64 / factor as f64);
            return format!("{} {unit}", text.trim_end_matches('0').trim_end_matches('.'));
        }
    }
    format!("{bytes} bytes")
}

/// `MemTotal` of proc_meminfo(5), in bytes.
fn total_memory(meminfo: &str) -> Option<u64> {
    let value = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = value.trim().trim_end_matches("kB").trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// The process's own group of the unified hierarchy, relative to its mount.
fn own_group(cgroup: &str) -> &str {
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default();
    // A group outside of this namespace's root shows as `/../…`.
    if path.contains("..") { "" } else { path.trim_start_matches('/') }
}

/// Whole CPUs of `cpu.max`: quota and period, or `max`.
fn quota(cpu_max: &str) -> Option<u32> {
    let (quota, period) = cpu_max.trim().split_once(' ')?;
    let (quota, period): (u64, u64) = (quota.parse().ok()?, period.parse().ok()?);
    let cpus = quota.checked_div(period)?.max(1);
    u32::try_from(cpus).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_says() {
        assert_eq!(total_memory("MemTotal:       16384 kB\nMemFree: 1 kB\n"), Some(16_777_216));
        assert_eq!(own_group("1:cpu:/x\n0::/user.slice/a\n"), "user.slice/a");
        assert_eq!(own_group("0::/../b\n"), "");
        assert_eq!((quota("max 100000\n"), quota("250000 100000\n"), quota("50000 100000")), (None, Some(2), Some(1)));
    }

    #[test]
    fn says_what_can_never_be_had() {
        let pool = Pool { memory: 4 << 30, cpus: 2 };
        let lacks = |memory, cpus| pool.lacks(Pool { memory, cpus });
        assert_eq!(lacks(4 << 30, 2), None);
        assert_eq!(lacks(8 << 30, 1).as_deref(), Some("needs 8 GiB, the pool has 4 GiB"));
        assert_eq!(lacks(0, 3).as_deref(), Some("needs 3 CPUs, the pool has 2 CPUs"));
        assert_eq!(gibibytes(1_610_612_736), "1.5 GiB");
    }

    #[test]
    fn this_machine_has_something() {
        let pool = Pool::of_machine();
        assert!(pool.memory > 1 << 20 && pool.cpus > 0 && pool.memory < u64::MAX);
    }
}
