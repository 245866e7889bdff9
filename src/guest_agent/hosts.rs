//! Names for addresses: a block of lines in `/etc/hosts`. Where that can't be written, a file in memory lies over it.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;

use super::out::refusal;
use super::sys::{self, check};
use crate::agent_protocol::{OpError, OpReply};

const FILE: &str = "/etc/hosts";
/// What stands around our lines.
const BEGIN: &str = "# provium: the members of this machine's bridges";
const END: &str = "# provium: end";
/// What every system has, where the file is missing or empty.
const LOCAL: &str = "127.0.0.1 localhost\n::1 localhost\n";

/// Replaces our lines by `lines`.
///
/// # Errors
/// errno of a file that can't be written, nor covered.
pub fn set(lines: &str) -> Result<OpReply, OpError> {
    let old = match std::fs::read_to_string(FILE) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => String::new(),
        Err(_) => String::new(),
    };
    let text = replaced(&old, lines);
    if text == old {
        return Ok(OpReply::Unit);
    }
    let written = match std::fs::write(FILE, &text) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            std::fs::create_dir_all("/etc").and_then(|()| std::fs::write(FILE, &text))
        }
        written => written,
    };
    let refused = |error: io::Error, detail: &str| refusal("attach", FILE.as_bytes(), &error, detail);
    match written {
        Ok(()) => {}
        Err(error) if matches!(error.raw_os_error(), Some(libc::EROFS | libc::EACCES | libc::EPERM)) => {
            cover(&text).map_err(|why| refused(error, &uncovered(&why)))?;
        }
        Err(error) => return Err(refused(error, "")),
    }
    Ok(OpReply::Unit)
}

/// Why no file could be put over the one that can't be written, and what to do.
fn uncovered(why: &io::Error) -> String {
    match why.raw_os_error() {
        Some(libc::ENOENT) => {
            "there is no file that one in memory could lie over\nhint: the members' names go into this file; give the \
                               guest an empty one, or make its `/etc` writable"
                .to_owned()
        }
        Some(libc::ENOSYS) => {
            "no file in memory can be put over it: that takes Linux 5.2 or newer\nhint: make the file writable"
                .to_owned()
        }
        _ => format!("no file in memory can be put over it: {why}\nhint: make the file writable"),
    }
}

fn replaced(old: &str, lines: &str) -> String {
    let mut kept = String::new();
    let mut ours = false;
    for line in old.lines() {
        match line {
            BEGIN => ours = true,
            END => ours = false,
            line if !ours => {
                kept.push_str(line);
                kept.push('\n');
            }
            _ => {}
        }
    }
    if kept.trim().is_empty() {
        LOCAL.clone_into(&mut kept);
    }
    if !lines.is_empty() {
        kept.push_str(&format!("{BEGIN}\n{}\n{END}\n", lines.trim_end()));
    }
    kept
}

/// Puts a file in memory over the one that can't be written, or over what it is a link to. Takes `open_tree` and `move_mount`:
/// Linux 5.2 and newer.
fn cover(text: &str) -> io::Result<()> {
    // In a thread with mounts of its own, so that nobody sees the rest of what the file lies in. A mount that is nowhere can't be
    // cloned from before Linux 6.15.
    let file = std::thread::scope(|scope| scope.spawn(|| file_in_memory(text)).join())
        .map_err(|_| io::Error::other("the thread that makes it ended"))??;
    // From no path but the descriptor itself.
    const EMPTY_FROM_PATH: libc::c_long = 4;
    const FOLLOW_TO: libc::c_long = 0x10;
    let flags = EMPTY_FROM_PATH | FOLLOW_TO;
    let (from, here) = (libc::c_long::from(file.as_raw_fd()), libc::c_long::from(libc::AT_FDCWD));
    // SAFETY: both paths are C strings, and the descriptor is open.
    let moved = unsafe { libc::syscall(libc::SYS_move_mount, from, c"".as_ptr(), here, c"/etc/hosts".as_ptr(), flags) };
    check_long(moved).map(drop)
}

/// A mount of nothing but a file that holds `text`. Leaves the thread with mounts of its own.
fn file_in_memory(text: &str) -> io::Result<OwnedFd> {
    // SAFETY: only this thread, which does nothing else, gets mounts of its own.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    sys::mount(c"", c"/", c"", libc::MS_REC | libc::MS_PRIVATE)?;
    sys::mount(c"tmpfs", c"/etc", c"tmpfs", 0)?;
    std::fs::write("/etc/provium-hosts", text)?;
    std::fs::set_permissions("/etc/provium-hosts", std::fs::Permissions::from_mode(0o644))?;
    const CLONE: libc::c_long = 1;
    let flags = CLONE | libc::c_long::from(libc::O_CLOEXEC);
    // SAFETY: the path is a C string.
    let tree = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, c"/etc/provium-hosts".as_ptr(), flags) };
    let tree = check_long(tree)?;
    // SAFETY: the call just made this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(tree) })
}

fn check_long(result: libc::c_long) -> io::Result<i32> {
    check(i32::try_from(result).unwrap_or(-1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_lines_change() {
        let first = replaced("127.0.0.1 localhost\n10.0.0.9 theirs\n", "10.1.1.2 a.lan a\n");
        assert_eq!(first, format!("127.0.0.1 localhost\n10.0.0.9 theirs\n{BEGIN}\n10.1.1.2 a.lan a\n{END}\n"));
        let second = replaced(&first, "10.1.1.3 b.lan\n");
        assert!(second.contains("b.lan") && !second.contains("a.lan") && second.contains("theirs"));
        assert_eq!(replaced(&second, ""), "127.0.0.1 localhost\n10.0.0.9 theirs\n");
        assert!(replaced("", "10.1.1.2 a.lan\n").starts_with(LOCAL));
    }
}
