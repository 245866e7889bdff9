//! Child processes that never outlive this one.
//!
//! `PR_SET_PDEATHSIG` fires when the *thread* that forked ends, not the process, so every child is spawned from one
//! thread that lives as long as the process.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};
use std::sync::OnceLock;
use std::sync::mpsc;

/// Waits for the child `id` to end, and leaves it to be reaped: until then its number is nobody else's.
///
/// # Errors
/// There is no such child.
pub fn wait_unreaped(id: u32) -> io::Result<ExitStatus> {
    loop {
        // SAFETY: a zeroed `siginfo_t` is a valid place for the answer, and the call writes nothing else.
        let (result, info) = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            (libc::waitid(libc::P_PID, id, &raw mut info, libc::WEXITED | libc::WNOWAIT), info)
        };
        if result == 0 {
            // SAFETY: waitid has filled in the fields of a child's end.
            let status = unsafe { info.si_status() };
            let raw = if info.si_code == libc::CLD_EXITED { (status & 0xff) << 8 } else { status & 0x7f };
            return Ok(ExitStatus::from_raw(raw));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// What the kernel sends a child when this process ends, however it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeathSignal {
    /// SIGKILL: nothing of it is left.
    Kill,
    /// SIGTERM, for a program that must stop children of its own first.
    Terminate,
}

/// Spawns `command`; the kernel kills the child with SIGKILL when this process ends, however it ends.
/// The descriptors in `inherit` keep their numbers in the child.
///
/// # Errors
/// Those of `Command::spawn`, and any of the thread that spawns.
pub fn spawn(command: Command, inherit: Vec<OwnedFd>) -> io::Result<Child> {
    spawn_with(command, inherit, DeathSignal::Kill)
}

/// As [`spawn`], with the signal that the child is sent when this process ends.
///
/// # Errors
/// As [`spawn`].
pub fn spawn_with(mut command: Command, inherit: Vec<OwnedFd>, death: DeathSignal) -> io::Result<Child> {
    let death = match death {
        DeathSignal::Kill => libc::SIGKILL,
        DeathSignal::Terminate => libc::SIGTERM,
    };
    let (reply, answer) = mpsc::sync_channel(1);
    let job: Job = Box::new(move || {
        let parent = std::process::id();
        let raw: Vec<i32> = inherit.iter().map(AsRawFd::as_raw_fd).collect();
        // SAFETY: only async-signal-safe calls (prctl, getppid, fcntl) and no allocation between fork and exec.
        unsafe {
            command.pre_exec(move || {
                if libc::prctl(libc::PR_SET_PDEATHSIG, death) != 0 {
                    return Err(io::Error::last_os_error());
                }
                if libc::getppid().unsigned_abs() != parent {
                    return Err(io::Error::from_raw_os_error(libc::ESRCH));
                }
                for fd in &raw {
                    if libc::fcntl(*fd, libc::F_SETFD, 0) != 0 {
                        return Err(io::Error::last_os_error());
                    }
                }
                Ok(())
            });
        }
        let child = command.spawn();
        drop(inherit);
        // The caller may have given up waiting only by ending; then the child ends with it.
        let _ = reply.send(child);
    });
    spawner()?.send(job).map_err(|_| io::Error::other("the thread that starts programs has ended"))?;
    answer.recv().map_err(|_| io::Error::other("the thread that starts programs has ended"))?
}

fn spawner() -> io::Result<mpsc::Sender<Job>> {
    static SPAWNER: OnceLock<Result<mpsc::Sender<Job>, String>> = OnceLock::new();
    SPAWNER
        .get_or_init(|| {
            let (jobs, queue) = mpsc::channel::<Job>();
            std::thread::Builder::new()
                .name("spawner".to_owned())
                .spawn(move || queue.into_iter().for_each(|job| job()))
                .map(|_| jobs)
                .map_err(|error| error.to_string())
        })
        .clone()
        .map_err(io::Error::other)
}

/// For tests: waits until process `id` has ended, be it collected or not. A killed process is not gone at once, and nobody
/// but its parent may wait for it properly.
#[cfg(test)]
pub fn wait_for_end_of(id: &str) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let state = || std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let ended = |state: &str| state.is_empty() || state.contains(") Z") || state.contains(") X");
    while !ended(&state()) {
        assert!(std::time::Instant::now() < deadline, "process {id} lives on: {}", state());
        std::thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::process::Stdio;

    #[test]
    fn inherits_descriptors_by_number() {
        let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let theirs = OwnedFd::from(theirs);
        // Not every sh takes a descriptor of two digits.
        let mut command = Command::new("bash");
        command.arg("-c").arg(format!("echo hi >&{}", theirs.as_raw_fd())).stdin(Stdio::null());
        let mut child = spawn(command, vec![theirs]).unwrap();
        let mut text = String::new();
        ours.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hi\n");
        assert!(child.wait().unwrap().success());
    }

    #[test]
    fn a_child_dies_with_its_parent() {
        let mut command = Command::new("cat");
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = spawn(command, Vec::new()).unwrap();
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        // The parent-death signal itself can't be read; that the thread which forked still lives, can.
        assert!(status.contains(&format!("PPid:\t{}", std::process::id())), "{status}");
        child.kill().unwrap();
        assert!(!child.wait().unwrap().success());
    }
}
