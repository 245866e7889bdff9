//! What begins a kernel report, line by line. Pure.

use std::fmt;

/// The kind of a kernel report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SplatKind {
    /// A bad access that the address sanitizer found.
    Kasan,
    /// A bad access that KFENCE found.
    Kfence,
    /// A use of memory that was never written.
    Kmsan,
    /// A data race.
    Kcsan,
    /// Undefined behaviour.
    Ubsan,
    /// `BUG:`, `kernel BUG at`.
    Bug,
    /// `WARNING:`.
    Warning,
    /// The lock validator's.
    Lockdep,
    /// RCU waits for too long.
    RcuStall,
    /// A task is blocked for too long.
    HungTask,
    /// A CPU does not schedule.
    SoftLockup,
    /// A CPU does not even take interrupts.
    HardLockup,
    /// The kernel killed what it ran: a page fault, a general protection fault, …
    Oops,
    /// The end.
    Panic,
}

impl SplatKind {
    /// As events name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kasan => "kasan",
            Self::Kfence => "kfence",
            Self::Kmsan => "kmsan",
            Self::Kcsan => "kcsan",
            Self::Ubsan => "ubsan",
            Self::Bug => "bug",
            Self::Warning => "warning",
            Self::Lockdep => "lockdep",
            Self::RcuStall => "rcu_stall",
            Self::HungTask => "hung_task",
            Self::SoftLockup => "soft_lockup",
            Self::HardLockup => "hard_lockup",
            Self::Oops => "oops",
            Self::Panic => "panic",
        }
    }
}

impl fmt::Display for SplatKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What ends a report, besides quiet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// `---[ end trace`.
    Trace,
    /// A line of `=` like the first.
    Frame,
    /// The end of a task's stack, where the architecture says so.
    Task,
    /// Nothing else.
    Quiet,
}

/// What a line begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// `------------[ cut here ]------------`: what it is comes later.
    CutHere,
    /// A line of `=`: what it is comes next, or it is no report.
    Frame,
    /// A report.
    Titled(SplatKind, End),
    /// A report if a stack follows.
    Perhaps(SplatKind, End),
}

/// Words in front of what the kernel says.
const PREFIXES: [&str; 4] = ["NMI watchdog: ", "watchdog: ", "rcu: ", "traps: "];

/// How the lock validator's reports go on behind `WARNING: ` (`INFO: ` in old kernels), or contain.
const LOCKDEP: [&str; 16] = [
    "possible circular locking dependency",
    "possible recursive locking",
    "possible irq lock inversion",
    "inconsistent lock state",
    "-safe -> ",
    "bad unlock balance",
    "bad contention",
    "held lock freed",
    "lock held when returning to user space",
    "still has locks held",
    "lock held at task exit",
    "suspicious RCU usage",
    "Nested lock was not taken",
    "Invalid wait context",
    "locking bug in",
    "trying to register non-static key",
];

/// What `line` begins; none where it begins nothing.
pub(super) fn start(line: &str) -> Option<Start> {
    use SplatKind::{Bug, HungTask, Kasan, Kcsan, Kfence, Kmsan, Lockdep, Oops, Panic, RcuStall, SoftLockup, Ubsan};
    if line.starts_with("------------[ cut here ]") {
        return Some(Start::CutHere);
    }
    if is_frame(line) {
        return Some(Start::Frame);
    }
    let line = PREFIXES.iter().find_map(|prefix| line.strip_prefix(prefix)).unwrap_or(line);
    if line.contains("detected hard LOCKUP") {
        return Some(Start::Titled(SplatKind::HardLockup, End::Quiet));
    }
    if is_oops(line) || line.starts_with("Unable to handle kernel ") || line.starts_with("PANIC: double fault") {
        return Some(Start::Titled(Oops, End::Trace));
    }
    if line.starts_with("kernel BUG at ") || is_list_corruption(line) {
        return Some(Start::Titled(Bug, End::Trace));
    }
    let titled = |kind, end| Some(Start::Titled(kind, end));
    match line.split_once(": ")? {
        ("BUG", what) => match what.split([':', ' ']).next().unwrap_or_default() {
            "KASAN" => titled(Kasan, End::Frame),
            "KFENCE" => titled(Kfence, End::Frame),
            "KMSAN" => titled(Kmsan, End::Frame),
            "KCSAN" => titled(Kcsan, End::Frame),
            "soft" if what.starts_with("soft lockup") => titled(SoftLockup, End::Task),
            "kernel" | "unable" | "stack" | "TASK" | "IRQ" if is_fault(what) => titled(Oops, End::Trace),
            _ => titled(Bug, End::Task),
        },
        ("[ BUG", _) => titled(Lockdep, End::Task),
        ("UBSAN", _) => titled(Ubsan, End::Trace),
        ("WARNING" | "INFO", what) if LOCKDEP.iter().any(|known| what.contains(known)) => titled(Lockdep, End::Task),
        ("WARNING", what) if is_place(what) => titled(SplatKind::Warning, End::Trace),
        ("WARNING", _) => Some(Start::Perhaps(SplatKind::Warning, End::Task)),
        ("INFO", what) if what.starts_with("rcu") && what.contains("stall") => titled(RcuStall, End::Quiet),
        ("INFO", what) if what.starts_with("task ") && what.contains(" blocked ") => titled(HungTask, End::Task),
        ("Kernel panic - not syncing", _) => titled(Panic, End::Quiet),
        (slab, _) if slab.starts_with("BUG ") && slab.to_lowercase().contains("tainted") => titled(Bug, End::Task),
        _ => None,
    }
}

/// A line of `=` only.
pub(super) fn is_frame(line: &str) -> bool {
    line.len() >= 20 && line.bytes().all(|byte| byte == b'=')
}

/// The line that numbers an oops: `Oops: 0000 [#1] PREEMPT SMP`, `general protection fault, …: 0000 [#1]`. A program's own
/// fault (`traps: a.out[77] general protection fault ip:…`) is none.
pub(super) fn is_oops(line: &str) -> bool {
    let Some(at) = line.find(" [#") else { return false };
    let number = line[at + 3..].split(']').next().unwrap_or_default();
    let code = line[..at].rsplit(' ').next().unwrap_or_default();
    !number.is_empty()
        && number.bytes().all(|digit| digit.is_ascii_digit())
        && code.len() >= 4
        && code.bytes().all(|digit| digit.is_ascii_hexdigit())
}

fn is_fault(what: &str) -> bool {
    ["kernel NULL pointer", "unable to handle", "stack guard page", "TASK stack guard", "IRQ stack guard"]
        .iter()
        .any(|begin| what.starts_with(begin))
}

fn is_list_corruption(line: &str) -> bool {
    ["list_add corruption", "list_del corruption", "list_add double add"].iter().any(|begin| line.starts_with(begin))
}

/// What `WARN` puts behind `WARNING: `: `CPU: 0 PID: 1 at file:line`, since Linux 6.18 `file:line at function`.
fn is_place(what: &str) -> bool {
    if what.starts_with("CPU: ") {
        return true;
    }
    let place = what.split(" at ").next().unwrap_or_default();
    match place.rsplit_once(':') {
        Some((file, line)) => {
            !file.is_empty()
                && !file.contains(' ')
                && !line.is_empty()
                && line.bytes().all(|digit| digit.is_ascii_digit())
        }
        None => false,
    }
}
