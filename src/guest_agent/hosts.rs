//! Names for addresses: a block of lines in `/etc/hosts`. Where that can't be written, a file in memory lies over it.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

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

/// Puts a file in memory over the one that can't be written.
fn cover(text: &str) -> io::Result<()> {
    let call = |number: libc::c_long, arguments: [libc::c_long; 5]| {
        let [a, b, c, d, e] = arguments;
        // SAFETY: each caller below passes what the call takes; strings are literals that end with a NUL.
        let result = unsafe { libc::syscall(number, a, b, c, d, e) };
        check(i32::try_from(result).unwrap_or(-1))
    };
    let string = |text: &'static CStr| text.as_ptr() as libc::c_long;
    let owned = |fd: i32| {
        // SAFETY: the call just made this descriptor.
        unsafe { OwnedFd::from_raw_fd(fd) }
    };
    // fsopen, fsconfig(FSCONFIG_CMD_CREATE), fsmount, open_tree, move_mount: Linux 5.2 and newer.
    let context = owned(call(libc::SYS_fsopen, [string(c"tmpfs"), 1, 0, 0, 0])?);
    let raw = |fd: &OwnedFd| libc::c_long::from(fd.as_raw_fd());
    call(libc::SYS_fsconfig, [raw(&context), 6, 0, 0, 0])?;
    let mount = owned(call(libc::SYS_fsmount, [raw(&context), 1, 0, 0, 0])?);
    let file = sys::openat(mount.as_raw_fd(), c"hosts", libc::O_CREAT | libc::O_WRONLY, 0o644)?;
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        let count = sys::write(file.as_fd(), rest)?;
        rest = &rest[count..];
    }
    const CLONE_AND_CLOEXEC: libc::c_long = 1 | 0o2_000_000;
    let tree = owned(call(libc::SYS_open_tree, [raw(&mount), string(c"hosts"), CLONE_AND_CLOEXEC, 0, 0])?);
    // From no path but the descriptor itself; to what a link leads to, where the file is one.
    const EMPTY_FROM_PATH: libc::c_long = 4;
    const FOLLOW_TO: libc::c_long = 0x10;
    let here = libc::c_long::from(libc::AT_FDCWD);
    call(libc::SYS_move_mount, [raw(&tree), string(c""), here, string(c"/etc/hosts"), EMPTY_FROM_PATH | FOLLOW_TO])
        .map(drop)
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
