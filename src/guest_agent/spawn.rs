//! Starting a process: `clone` with a shared address space, as `posix_spawn` does, so that a large agent costs nothing.

use std::ffi::{CString, c_void};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;

use super::oom;
use super::sys::{c_string, check};
use super::users::User;

/// The stack of the short-lived child that shares our memory, in bytes.
const STACK: usize = 64 * 1024;

/// A process to start.
pub struct Command {
    /// Program and arguments, at least the program.
    pub argv: Vec<Vec<u8>>,
    /// Its whole environment, `NAME=value`.
    pub env: Vec<Vec<u8>>,
    /// The program as an open file; it is looked for by its name where none is given.
    pub program: Option<i32>,
    /// Where it starts; where the caller is, where none is given.
    pub cwd: Option<Vec<u8>>,
    /// As whom.
    pub user: Option<User>,
    /// Whether it is killed when the calling thread ends.
    pub ends_with_us: bool,
    /// Its standard input, output and error.
    pub stdio: [OwnedFd; 3],
}

/// What could not be done on the way to the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Before anything that the caller named.
    Setup,
    /// The working directory.
    Directory,
    /// The user.
    User,
    /// The program itself.
    Program,
}

struct Plan {
    candidates: Vec<CString>,
    argv: Vec<*const libc::c_char>,
    env: Vec<*const libc::c_char>,
    program: Option<i32>,
    cwd: Option<CString>,
    user: Option<(u32, u32, Vec<u32>)>,
    ends_with_us: bool,
    stdio: [i32; 3],
    failed: Option<(Stage, i32)>,
}

/// Starts the process in a session and process group of its own.
///
/// # Errors
/// errno and what it was about.
pub fn spawn(command: &Command) -> Result<libc::pid_t, (Stage, io::Error)> {
    let setup = |error| (Stage::Setup, error);
    let argv: Vec<CString> = command.argv.iter().map(|word| c_string(word)).collect::<Result<_, _>>().map_err(setup)?;
    let env: Vec<CString> = command.env.iter().map(|word| c_string(word)).collect::<Result<_, _>>().map_err(setup)?;
    let mut plan = Plan {
        candidates: candidates(command).map_err(|error| (Stage::Program, error))?,
        argv: argv.iter().map(|word| word.as_ptr()).chain([ptr::null()]).collect(),
        env: env.iter().map(|word| word.as_ptr()).chain([ptr::null()]).collect(),
        program: command.program,
        cwd: command.cwd.as_ref().map(|cwd| c_string(cwd)).transpose().map_err(|error| (Stage::Directory, error))?,
        user: command.user.as_ref().map(|user| (user.uid, user.gid, user.groups.clone())),
        ends_with_us: command.ends_with_us,
        stdio: [command.stdio[0].as_raw_fd(), command.stdio[1].as_raw_fd(), command.stdio[2].as_raw_fd()],
        failed: None,
    };
    let mut stack = vec![0_u8; STACK];
    let top = stack.as_mut_ptr_range().end;
    let top = top.wrapping_sub(top.addr() % 16);
    // SAFETY: the child runs `child` on a stack of its own while this thread is suspended (CLONE_VFORK), touches only
    // `plan`, and ends in exec or _exit; `plan`, `argv`, `env` and `stack` outlive it.
    let pid = check(unsafe {
        libc::clone(
            child,
            top.cast(),
            libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD,
            ptr::from_mut(&mut plan).cast(),
        )
    })
    .map_err(setup)?;
    // SAFETY: `plan` was written by the child, which has ended or runs another program now.
    match unsafe { ptr::read_volatile(&raw const plan.failed) } {
        None => Ok(pid),
        Some((stage, errno)) => {
            // SAFETY: the child is ours; its status is of no interest.
            unsafe { libc::waitpid(pid, ptr::null_mut(), 0) };
            Err((stage, io::Error::from_raw_os_error(errno)))
        }
    }
}

/// The files to try, in order: the program as it is where it has a slash, else one for each directory of `PATH`.
fn candidates(command: &Command) -> io::Result<Vec<CString>> {
    let program = command.argv.first().ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))?;
    if program.is_empty() {
        return Err(io::Error::from_raw_os_error(libc::ENOENT));
    }
    if program.contains(&b'/') {
        return Ok(vec![c_string(program)?]);
    }
    let path = command.env.iter().find_map(|entry| entry.strip_prefix(b"PATH=")).unwrap_or(b"/usr/bin:/bin");
    path.split(|byte| *byte == b':')
        .map(|directory| if directory.is_empty() { b"." as &[u8] } else { directory })
        .map(|directory| c_string(&[directory, b"/", program].concat()))
        .collect()
}

/// Runs in the child, in our memory: system calls only, nothing that allocates or locks. The identity is changed by raw
/// calls: libc's would change the whole process's threads.
extern "C" fn child(argument: *mut c_void) -> libc::c_int {
    // SAFETY: `spawn` passes its plan, and waits.
    let plan = unsafe { &mut *argument.cast::<Plan>() };
    plan.failed = Some(prepare_and_exec(plan));
    // SAFETY: ends the child without running anything of the parent's.
    unsafe { libc::_exit(127) }
}

fn last(stage: Stage) -> (Stage, i32) {
    (stage, io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}

/// Returns only when something failed.
fn prepare_and_exec(plan: &Plan) -> (Stage, i32) {
    // SAFETY: plain system calls on data that `spawn` prepared and keeps alive.
    unsafe {
        libc::setsid();
        oom::count_again();
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        for signal in [libc::SIGPIPE, libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            libc::signal(signal, libc::SIG_DFL);
        }
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
        for (target, fd) in (0..).zip(plan.stdio) {
            if libc::dup2(fd, target) < 0 {
                return last(Stage::Setup);
            }
        }
        if let Some((uid, gid, groups)) = &plan.user {
            // An ordinary user's agent may name only itself; then there is nothing to change.
            let other = libc::geteuid() != *uid || libc::getegid() != *gid;
            let changed = !other
                || libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) == 0
                    && libc::syscall(libc::SYS_setresgid, *gid, *gid, *gid) == 0
                    && libc::syscall(libc::SYS_setresuid, *uid, *uid, *uid) == 0;
            if !changed {
                return last(Stage::User);
            }
        }
        // After the identity, whose change would clear it.
        if plan.ends_with_us && libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) < 0 {
            return last(Stage::Setup);
        }
        if let Some(cwd) = &plan.cwd
            && libc::chdir(cwd.as_ptr()) < 0
        {
            return last(Stage::Directory);
        }
        if let Some(program) = plan.program {
            // As a file the program may be gone, or lie where this process can't look.
            let (argv, env) = (plan.argv.as_ptr().cast(), plan.env.as_ptr().cast());
            libc::execveat(program, c"".as_ptr(), argv, env, libc::AT_EMPTY_PATH);
            return last(Stage::Program);
        }
        let mut found = libc::ENOENT;
        for candidate in &plan.candidates {
            libc::execve(candidate.as_ptr(), plan.argv.as_ptr(), plan.env.as_ptr());
            match last(Stage::Program).1 {
                libc::ENOENT | libc::ENOTDIR => {}
                // A file that may not be executed is remembered, but a later directory may have a better one.
                libc::EACCES => found = libc::EACCES,
                other => return (Stage::Program, other),
            }
        }
        (Stage::Program, found)
    }
}
