//! The first process of the guest, for a moment; then the guest's own init.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use super::ops::Root;
use super::port::{Devices, complain};
use super::sys::{self, c_string, check};
use super::{oom, root_device, server, settle, uevents};
use crate::agent_protocol::{
    BootFile, BootPlan, GuestInit, LAUNCHER_PATH, PLAN_PATH, PROVIUM_DIR, errno_name, errno_text,
};

/// How far the clock may be from where it should be, in seconds: firmware takes time that the kernel does not count.
const CLOCK_TOLERANCE: i64 = 60;
/// What the agent is started as: systemd spares processes whose name begins so when it switches root.
const AGENT_NAME: &CStr = c"@provium-agent";

/// PID 1: prepares the guest, starts the agent, becomes the guest's init. Never returns.
pub fn launch() -> ! {
    let mut notices = Vec::new();
    if let Err(error) = prepare_and_become_init(&mut notices) {
        complain(&error.to_string());
    }
    // Ending would be a panic that hides the message.
    collect_orphans()
}

fn prepare_and_become_init(notices: &mut Vec<String>) -> io::Result<()> {
    let plan =
        std::fs::read(PLAN_PATH).map_err(|error| io::Error::other(format!("can't read `{PLAN_PATH}`: {error}")))?;
    let plan = BootPlan::decode(&plan).map_err(io::Error::other)?;
    let proc = hidden_mount(c"proc")?;
    let sys = hidden_mount(c"sysfs")?;
    let dev = hidden_mount(c"devtmpfs")?;
    // Before the drivers: nothing they announce is missed.
    let announcements = uevents::open().or_else(|_| uevents::open_watch(&dev)).ok();
    let mut refused = None;
    load_modules(&plan, &mut refused, notices);
    if plan.init == GuestInit::None {
        ordinary_mounts(notices);
    }
    let root = match &plan.init {
        GuestInit::Root(root) => {
            let proc = in_sight(c"proc", c"/proc").map_err(|error| format!("can't mount proc: {error}"));
            Some(proc.and_then(|()| root_device::mount(root, &dev, &sys, announcements.as_ref())))
        }
        _ => None,
    };
    let in_root = matches!(root, Some(Ok(_)));
    prepare_system(&plan, in_root, &mut refused);
    // Not before the files are there: one of them may be the init.
    let init = root.map_or_else(|| find_init(&plan.init), |init| init.map(Some));
    let boot_error = init.as_ref().err().cloned().or(refused);
    let (ended, exec_result) = sys::pipe()?;
    start_agent(&[&proc, &sys, &dev], announcements.as_ref(), &ended, boot_error.as_deref(), notices)?;
    drop((proc, sys, dev, announcements, ended));
    if let Ok(Some(init)) = init {
        remove_traces();
        let error = match if in_root { root_device::enter() } else { Ok(()) } {
            Ok(()) => exec_init(&init),
            Err(error) => error,
        };
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        // The agent waits for this; its own message carries it to the host.
        let _ = sys::write(exec_result.as_fd(), &errno.to_le_bytes());
    }
    // Without an init to become, closing the pipe (here) is what lets the agent go on.
    Ok(())
}

/// Remembers the first thing that the test asked for and that can't be done: the boot fails with it.
fn refuse(refused: &mut Option<String>, what: &str, name: &str, error: &io::Error) {
    refused.get_or_insert_with(|| match error.raw_os_error() {
        Some(errno) => format!("{what}: `{name}`: {} ({})", errno_name(errno), errno_text(errno)),
        None => format!("{what}: `{name}`: {error}"),
    });
}

fn load_modules(plan: &BootPlan, refused: &mut Option<String>, notices: &mut Vec<String>) {
    let short = |module: &str| module.trim_end_matches(".ko").to_owned();
    // A module that lacks one before it fails with ENOENT: the one before it tells more.
    let mut before: Option<(String, io::Error)> = None;
    for module in &plan.modules {
        let Err(error) = load_module(module) else { continue };
        if !plan.required.contains(module) {
            notices.push(format!("module `{module}`: {error}"));
            before = Some((short(module), error));
            continue;
        }
        match before.take() {
            Some((first, cause)) if error.raw_os_error() == Some(libc::ENOENT) => {
                refuse(refused, "load_modules", &first, &cause);
            }
            _ => refuse(refused, "load_modules", &short(module), &error),
        }
    }
}

/// Does what else the test asked to be done before init.
fn prepare_system(plan: &BootPlan, in_root: bool, refused: &mut Option<String>) {
    for file in &plan.files {
        if let Err(error) = write_file(file, in_root) {
            refuse(refused, "files", &file.path, &error);
        }
    }
    if let Some(name) = &plan.hostname {
        // SAFETY: the pointer and length are those of `name`.
        if let Err(error) = check(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) }) {
            refuse(refused, "hostname", name, &error);
        }
    }
    if let Some(time) = plan.initial_time
        && let Err(error) = begin_at(time)
    {
        refuse(refused, "initial_time", &time.to_string(), &error);
    }
}

/// Sets the clock where the kernel did not take it from the machine's: one without a driver for it, or with a clock of its
/// hypervisor's.
fn begin_at(time: i64) -> io::Result<()> {
    let up = i64::try_from(sys::uptime_ns() / 1_000_000_000).unwrap_or_default();
    // SAFETY: a null pointer asks for the value alone.
    let now = unsafe { libc::time(std::ptr::null_mut()) };
    if (now - time).abs() <= up + CLOCK_TOLERANCE {
        return Ok(());
    }
    let value = libc::timespec { tv_sec: time + up, tv_nsec: 0 };
    // SAFETY: `value` lives during the call.
    check(unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &raw const value) }).map(drop)
}

/// A file system that nothing in the guest sees: mounted, opened, and detached again.
fn hidden_mount(kind: &CStr) -> io::Result<OwnedFd> {
    let failed = |error: io::Error| {
        let option = match kind.to_bytes() {
            b"proc" => "CONFIG_PROC_FS",
            b"sysfs" => "CONFIG_SYSFS",
            _ => "CONFIG_DEVTMPFS",
        };
        io::Error::other(format!("can't mount {}: {error}\nhint: the kernel needs {option}=y", kind.to_string_lossy()))
    };
    let target = c_string(format!("{PROVIUM_DIR}/mount").as_bytes())?;
    // SAFETY: `target` is a C string. An existing directory is fine.
    unsafe { libc::mkdir(target.as_ptr(), 0o700) };
    sys::mount(kind, &target, kind, 0).map_err(failed)?;
    let opened = sys::openat(libc::AT_FDCWD, &target, libc::O_RDONLY | libc::O_DIRECTORY, 0);
    // SAFETY: as above.
    check(unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) })?;
    opened
}

/// A file system where every program expects it, until another root takes its place.
fn in_sight(kind: &CStr, target: &CStr) -> io::Result<()> {
    // SAFETY: `target` is a C string. An existing directory is fine.
    unsafe { libc::mkdir(target.as_ptr(), 0o755) };
    sys::mount(kind, target, kind, 0)
}

fn load_module(name: &str) -> io::Result<()> {
    let file = sys::open(format!("{PROVIUM_DIR}/modules/{name}").as_bytes(), libc::O_RDONLY, 0)?;
    // SAFETY: an open file, no parameters, no flags.
    let result = unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0) };
    match check(i32::try_from(result).unwrap_or(-1)) {
        Err(error) if error.raw_os_error() != Some(libc::EEXIST) => Err(error),
        _ => Ok(()),
    }
}

fn write_file(file: &BootFile, in_root: bool) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let path = if in_root { root_device::inside(&file.path) } else { file.path.clone() };
    let path = Path::new(&path);
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(path, &file.content)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(file.mode))
}

/// What a guest without an init of its own gets.
fn ordinary_mounts(notices: &mut Vec<String>) {
    let mounts: [(&CStr, &CStr); 6] = [
        (c"proc", c"/proc"),
        (c"sysfs", c"/sys"),
        (c"devtmpfs", c"/dev"),
        (c"devpts", c"/dev/pts"),
        (c"tmpfs", c"/run"),
        (c"tmpfs", c"/tmp"),
    ];
    for (kind, target) in mounts {
        if let Err(error) = in_sight(kind, target) {
            notices.push(format!("mount of {}: {error}", target.to_string_lossy()));
        }
    }
}

/// The init to become, `None` where there is none to be.
///
/// # Errors
/// A sentence that names what is missing.
fn find_init(init: &GuestInit) -> Result<Option<String>, String> {
    let (path, what) = match init {
        GuestInit::None | GuestInit::Root(_) => return Ok(None),
        GuestInit::Default => ("/init".to_owned(), "the initrd has no `/init`".to_owned()),
        GuestInit::Named(path) => (path.clone(), format!("`rdinit={path}`: the initrd has no `{path}`")),
    };
    match std::fs::metadata(&path) {
        Err(_) => Err(format!("{what}\nhint: `rdinit=` in the profile's `cmdline` names another program")),
        Ok(file) if file.is_dir() => Err(format!("`{path}` in the initrd is a directory, not a program")),
        Ok(file) => {
            use std::os::unix::fs::PermissionsExt;
            match file.permissions().mode() & 0o111 {
                0 => Err(format!("`{path}` in the initrd is not executable")),
                _ => Ok(Some(path)),
            }
        }
    }
}

fn exec_init(path: &str) -> io::Error {
    let Ok(program) = c_string(path.as_bytes()) else { return io::Error::from_raw_os_error(libc::EINVAL) };
    // The kernel's own words for init (`-- single`) follow the name.
    let words: Vec<CString> = std::env::args().skip(1).filter_map(|word| c_string(word.as_bytes()).ok()).collect();
    let argv: Vec<*const libc::c_char> = [program.as_ptr()]
        .into_iter()
        .chain(words.iter().map(|word| word.as_ptr()))
        .chain([std::ptr::null()])
        .collect();
    // Rust ignores SIGPIPE, and an ignored signal stays ignored after exec.
    // SAFETY: `argv` is an array of C strings that ends with a null pointer, and lives during the call.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        libc::execv(program.as_ptr(), argv.as_ptr());
    }
    io::Error::last_os_error()
}

/// Frees what the initramfs held for us: the running program keeps its own file.
fn remove_traces() {
    let _ = std::fs::remove_dir_all(PROVIUM_DIR);
}

/// Forks and becomes the agent in the child. The arguments carry numbers of descriptors and what to tell the host.
fn start_agent(
    trees: &[&OwnedFd; 3],
    announcements: Option<&OwnedFd>,
    exec_result: &OwnedFd,
    boot_error: Option<&str>,
    notices: &[String],
) -> io::Result<()> {
    let program = sys::open(LAUNCHER_PATH.as_bytes(), libc::O_PATH, 0)?;
    let kept: Vec<RawFd> = trees
        .iter()
        .map(|fd| fd.as_raw_fd())
        .chain([exec_result.as_raw_fd(), announcements.map_or(-1, |fd| fd.as_raw_fd())])
        .collect();
    let numbers = kept.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let mut words = vec![
        c_string(b"--agent")?,
        c_string(numbers.as_bytes())?,
        c_string(boot_error.unwrap_or_default().as_bytes())?,
    ];
    for notice in notices {
        words.push(c_string(notice.as_bytes())?);
    }
    let argv: Vec<*const libc::c_char> = [AGENT_NAME.as_ptr()]
        .into_iter()
        .chain(words.iter().map(|word| word.as_ptr()))
        .chain([std::ptr::null()])
        .collect();
    let env = [c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", c"HOME=/", c"TERM=linux"];
    let envp: Vec<*const libc::c_char> = env.iter().map(|word| word.as_ptr()).chain([std::ptr::null()]).collect();
    // SAFETY: this process has one thread; the child only makes system calls on what stands ready above.
    unsafe {
        match check(libc::fork())? {
            0 => {
                libc::setsid();
                for fd in &kept {
                    libc::fcntl(*fd, libc::F_SETFD, 0);
                }
                let (argv, envp) = (argv.as_ptr().cast(), envp.as_ptr().cast());
                libc::execveat(program.as_raw_fd(), c"".as_ptr(), argv, envp, libc::AT_EMPTY_PATH);
                libc::_exit(127);
            }
            _ => Ok(()),
        }
    }
}

/// An agent whose operations happen where PID 1 is, as `proc` shows it.
fn following_pid_1(proc: OwnedFd, dev: OwnedFd, sysfs: OwnedFd) -> server::Setting {
    let program = super::worker::program(Some(&proc)).ok();
    server::Setting { root: Some(Root::new(proc)), dev: Some(dev), sysfs: Some(sysfs), program, is_worker: false }
}

/// The agent, as `start_agent` calls it.
pub fn agent(mut args: impl Iterator<Item = String>) {
    let numbers: Vec<RawFd> = args.next().unwrap_or_default().split(',').filter_map(|fd| fd.parse().ok()).collect();
    let [proc, sys, dev, exec_result, announcements] = numbers[..] else {
        return complain("the launcher passed no descriptors");
    };
    let mut boot_error = args.next().filter(|text| !text.is_empty());
    let mut notices: Vec<String> = args.collect();
    let own = |fd: RawFd| {
        // SAFETY: the launcher left each of these open for this program alone.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: fcntl on an open descriptor. What the agent starts must not inherit it.
        unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) };
        fd
    };
    let devices =
        Devices { sys: own(sys), dev: own(dev), announcements: (announcements >= 0).then(|| own(announcements)) };
    let proc = own(proc);
    if let Err(error) = oom::spare(&proc) {
        notices.push(format!("the agent can't be spared when the guest runs out of memory: {error}"));
    }
    let mut errno = [0; 4];
    // The pipe ends without a word when init was executed, or when there is none to execute.
    if boot_error.is_none() && sys::read(own(exec_result).as_fd(), &mut errno).is_ok_and(|count| count == 4) {
        let error = io::Error::from_raw_os_error(i32::from_le_bytes(errno));
        boot_error = Some(format!("the guest's init could not be executed: {error}"));
    }
    match devices.port(|| settle::is_at_work(&proc)) {
        Ok(port) => {
            if boot_error.is_none() {
                settle::wait(&proc);
            }
            let setting = following_pid_1(proc, devices.dev, devices.sys);
            server::serve(port, setting, server::hello(boot_error, notices));
        }
        Err(error) => complain(&format!("the agent's port can't be used: {error}")),
    }
}

/// The agent of an image that brings it and starts it itself, as root, with `/proc`, `/sys` and `/dev` mounted.
pub fn serve() {
    let directory = |path: &str| sys::open(path.as_bytes(), libc::O_RDONLY | libc::O_DIRECTORY, 0);
    let (Ok(proc), Ok(sys), Ok(dev)) = (directory("/proc"), directory("/sys"), directory("/dev")) else {
        return complain("`--serve` needs /proc, /sys and /dev");
    };
    let announcements = uevents::open().or_else(|_| uevents::open_watch(&dev)).ok();
    let devices = Devices { sys, dev, announcements };
    match devices.port(|| settle::is_at_work(&proc)) {
        Ok(port) => {
            server::serve(port, following_pid_1(proc, devices.dev, devices.sys), server::hello(None, Vec::new()));
        }
        Err(error) => complain(&format!("the agent's port can't be used: {error}")),
    }
}

/// PID 1 without an init: collects whatever ends, for ever.
fn collect_orphans() -> ! {
    loop {
        // SAFETY: no status is asked for. Without any child, wait for the signal that the first one would send.
        unsafe {
            if libc::waitpid(-1, std::ptr::null_mut(), 0) < 0 {
                libc::pause();
            }
        }
    }
}
