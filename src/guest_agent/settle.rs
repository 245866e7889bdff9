//! Waiting until the guest's init has come to rest for the first time.
//!
//! The agent could speak as soon as init was executed, but a test that then reads `/proc` would race with the init script
//! that mounts it. There is no event for "init has done its first work", but the scheduler knows: a thread of the class
//! `SCHED_IDLE` runs on a CPU when nothing else wants it. It then looks whether any process of the guest is at work (running,
//! or in an uninterruptible wait such as that of `mount`); where one is, it goes back behind it. A guest whose processes all
//! sleep is at rest: its init waits for a child, a descriptor or a signal.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use super::port::names;
use super::sys::{self, c_string};

/// An init that is at work longer is a system that boots for long: its own services say when they are ready.
const LONGEST: Duration = Duration::from_secs(10);
/// How long an idle CPU is left alone while another one works, in milliseconds: a mount in the guest ends the wait.
const PAUSE_MS: i32 = 1;

/// Returns once the guest's processes sleep, at the latest after ten seconds. `proc` is a mounted `/proc`.
pub fn wait(proc: &OwnedFd) {
    let Ok(mounts) = sys::openat(proc.as_raw_fd(), c"1/mounts", libc::O_RDONLY, 0) else { return };
    set_class(libc::SCHED_IDLE);
    let begun = Instant::now();
    while begun.elapsed() < LONGEST && is_at_work(proc) {
        use std::os::fd::AsFd;
        // A failure only means no pause.
        let _ = sys::poll_one(mounts.as_fd(), libc::POLLPRI, PAUSE_MS);
    }
    set_class(libc::SCHED_OTHER);
}

fn set_class(class: i32) {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: plain data, this thread only. A kernel that refuses leaves the class as it was, which costs accuracy only.
    unsafe { libc::sched_setscheduler(0, class, &raw const parameters) };
}

/// Whether init or a process started after the agent is running or in an uninterruptible wait.
pub fn is_at_work(proc: &OwnedFd) -> bool {
    let own = std::process::id();
    let Ok(list) = sys::openat(proc.as_raw_fd(), c".", libc::O_RDONLY | libc::O_DIRECTORY, 0) else { return false };
    names(list)
        .into_iter()
        .filter_map(|name| name.parse::<u32>().ok())
        .filter(|pid| *pid == 1 || *pid > own)
        .any(|pid| state_of(proc, pid).is_some_and(|(state, parent)| parent != 2 && matches!(state, 'R' | 'D')))
}

/// State and parent of a process, as `/proc/<pid>/stat` tells (proc_pid_stat(5)).
fn state_of(proc: &OwnedFd, pid: u32) -> Option<(char, u32)> {
    let path = c_string(format!("{pid}/stat").as_bytes()).ok()?;
    let file = sys::openat(proc.as_raw_fd(), &path, libc::O_RDONLY, 0).ok()?;
    let mut text = String::new();
    File::from(file).take(1024).read_to_string(&mut text).ok()?;
    parse_stat(&text)
}

fn parse_stat(text: &str) -> Option<(char, u32)> {
    // The name stands in parentheses and may hold any character, parentheses as well.
    let mut fields = text.rsplit_once(") ")?.1.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses() {
        assert_eq!(parse_stat("12 (a) R (b)) S 1 12 12 0"), Some(('S', 1)));
        assert_eq!(parse_stat("2 (kthreadd) S 0 0"), Some(('S', 0)));
        assert_eq!(parse_stat(""), None);
    }
}
