//! `root=` without an initrd: what the kernel itself would mount and hand over to, had the launcher not come first.
//!
//! The order of steps and the names tried are those of Linux `init/do_mounts.c` and `init/main.c`.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use super::sys::{self, c_string, check};
use super::uevents;
use crate::agent_protocol::RootDevice;

/// Where it is mounted before it becomes `/`; not in our own directory, which is removed.
const PLACE: &str = "/root";
/// How long a device may take to appear after its driver was loaded, unless `rootwait` waits for ever.
const PATIENCE: Duration = Duration::from_secs(10);
/// The inits that the kernel tries where the command line names none.
const INITS: [&str; 4] = ["/sbin/init", "/etc/init", "/bin/init", "/bin/sh"];
/// `RESOLVE_IN_ROOT` of `linux/openat2.h`: links are followed as if the directory were `/`.
const RESOLVE_IN_ROOT: u64 = 0x10;

/// Mounts the device at a place of its own and finds its init.
///
/// # Errors
/// A sentence for the host: what is missing, and where it was looked for.
pub fn mount(
    root: &RootDevice,
    dev: &OwnedFd,
    sys: &OwnedFd,
    announcements: Option<&OwnedFd>,
) -> Result<String, String> {
    let named = format!("`root={}`", root.device);
    let source = match root.device.strip_prefix("/dev/") {
        Some(name) => {
            wait_for(name, root.wait, dev, announcements).map_err(|error| {
                format!("{named}: there is no such device: {error}\nhint: there are {}", block_devices(sys))
            })?;
            format!("/proc/self/fd/{}/{name}", dev.as_raw_fd())
        }
        None if root.fs_types.iter().any(|kind| kind == "9p" || kind == "virtiofs") => root.device.clone(),
        None => {
            return Err(format!(
                "{named}: expected a device such as `/dev/vda`, or a tag with `rootfstype=9p` or `virtiofs`"
            ));
        }
    };
    mount_one_of(root, &source).map_err(|error| format!("{named} can't be mounted: {error}"))?;
    // As CONFIG_DEVTMPFS_MOUNT does; a root without /dev goes without.
    let _ = sys::mount(c"devtmpfs", &place("/dev"), c"devtmpfs", 0);
    find_init(root)
}

/// Makes the mounted device `/` of this process.
///
/// # Errors
/// errno.
pub fn enter() -> io::Result<()> {
    let place = place("");
    // SAFETY: the paths are C strings, and the other arguments may be null for a move.
    unsafe {
        check(libc::chdir(place.as_ptr()))?;
        check(libc::mount(c".".as_ptr(), c"/".as_ptr(), std::ptr::null(), libc::MS_MOVE, std::ptr::null()))?;
        check(libc::chroot(c".".as_ptr()))?;
        check(libc::chdir(c"/".as_ptr()))?;
    }
    Ok(())
}

/// A path below the mounted device, before it is `/`.
pub fn inside(path: &str) -> String {
    format!("{PLACE}{path}")
}

fn place(path: &str) -> CString {
    CString::new(inside(path)).unwrap_or_default()
}

fn wait_for(name: &str, for_ever: bool, dev: &OwnedFd, announcements: Option<&OwnedFd>) -> io::Result<()> {
    let path = c_string(name.as_bytes())?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let missing = match sys::openat(dev.as_raw_fd(), &path, libc::O_PATH, 0) {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        let Some(socket) = announcements else { return Err(missing) };
        let left = deadline.saturating_duration_since(Instant::now());
        if !for_ever && left.is_zero() {
            return Err(missing);
        }
        let timeout = if for_ever { -1 } else { i32::try_from(left.as_millis()).unwrap_or(i32::MAX) };
        if sys::poll_one(socket.as_fd(), libc::POLLIN, timeout)? != 0 {
            uevents::wait(socket)?;
        }
    }
}

fn block_devices(sys: &OwnedFd) -> String {
    let names = std::fs::read_dir(format!("/proc/self/fd/{}/class/block", sys.as_raw_fd()));
    let mut names: Vec<String> = names
        .map(|all| all.flatten().map(|entry| format!("`/dev/{}`", entry.file_name().to_string_lossy())).collect())
        .unwrap_or_default();
    names.sort();
    if names.is_empty() {
        "no block devices at all; are the drivers in `modules`?".to_owned()
    } else {
        names.join(", ")
    }
}

/// Tries each file system that may be on it, as the kernel does where the command line names none.
fn mount_one_of(root: &RootDevice, source: &str) -> io::Result<()> {
    // SAFETY: a C string. An existing directory is fine.
    unsafe { libc::mkdir(place("").as_ptr(), 0o755) };
    let kinds = if root.fs_types.is_empty() { known_file_systems()? } else { root.fs_types.clone() };
    let flags = if root.writable { 0 } else { libc::MS_RDONLY };
    let (source, options) = (c_string(source.as_bytes())?, c_string(root.flags.as_bytes())?);
    let mut last = io::Error::from_raw_os_error(libc::ENODEV);
    for kind in kinds {
        let kind = c_string(kind.as_bytes())?;
        // SAFETY: all are C strings that live during the call.
        let result =
            unsafe { libc::mount(source.as_ptr(), place("").as_ptr(), kind.as_ptr(), flags, options.as_ptr().cast()) };
        match check(result) {
            Ok(_) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn known_file_systems() -> io::Result<Vec<String>> {
    let text = std::fs::read_to_string("/proc/filesystems")?;
    Ok(text.lines().filter(|line| !line.starts_with("nodev")).map(|line| line.trim().to_owned()).collect())
}

fn find_init(root: &RootDevice) -> Result<String, String> {
    let candidates: Vec<&str> = root.init.as_deref().map_or_else(|| INITS.to_vec(), |init| vec![init]);
    let there = |path: &&&str| exists(path).unwrap_or(false);
    match candidates.iter().find(there) {
        Some(found) => Ok((*found).to_owned()),
        None => Err(format!(
            "`root={}` has no `{}`\nhint: `init=` in the profile's `cmdline` names another program",
            root.device,
            candidates.join("`, `")
        )),
    }
}

/// Whether the mounted device has `path`, links followed within it.
fn exists(path: &str) -> io::Result<bool> {
    let root = sys::open(PLACE.as_bytes(), libc::O_PATH | libc::O_DIRECTORY, 0)?;
    let path = c_string(path.trim_start_matches('/').as_bytes())?;
    let how = [u64::try_from(libc::O_PATH | libc::O_CLOEXEC).unwrap_or_default(), 0, RESOLVE_IN_ROOT];
    // SAFETY: `open_how` is three 64-bit numbers; the path lives during the call.
    let result =
        unsafe { libc::syscall(libc::SYS_openat2, root.as_raw_fd(), path.as_ptr(), how.as_ptr(), size_of_val(&how)) };
    match check(i32::try_from(result).unwrap_or(-1)) {
        Ok(fd) => {
            // SAFETY: the descriptor was just made, and nothing else has it.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
            Ok(true)
        }
        // A kernel before 5.6: executing it will tell.
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(true),
        Err(_) => Ok(false),
    }
}
