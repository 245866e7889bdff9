//! What is done to a path in one step: metadata, directories, names.

use std::ffi::CStr;
use std::io;
use std::os::fd::IntoRawFd;

use super::out::{Out, refusal};
use super::sys::{self, c_string, check};
use crate::agent_protocol::{DirEntry, EntryType, FileStat, OpError, OpReply, ToHost};

/// How many bytes of names go into one message.
const NAMES: usize = 32 * 1024;

/// Metadata.
///
/// # Errors
/// errno with the path.
pub fn stat(path: &[u8], follow: bool) -> Result<OpReply, OpError> {
    let op = if follow { "stat" } else { "lstat" };
    let found = sys::stat(path, follow).map_err(|error| refusal(op, path, &error, ""))?;
    Ok(OpReply::Stat(FileStat {
        size: u64::try_from(found.st_size).unwrap_or_default(),
        mtime: found.st_mtime,
        mtime_ns: u32::try_from(found.st_mtime_nsec).unwrap_or_default(),
        perm: found.st_mode & 0o7777,
        entry_type: entry_type(found.st_mode),
        uid: found.st_uid,
        gid: found.st_gid,
        ino: found.st_ino,
        #[cfg_attr(target_arch = "x86_64", expect(clippy::useless_conversion, reason = "u32 on other architectures"))]
        nlink: u64::from(found.st_nlink),
    }))
}

fn entry_type(mode: u32) -> EntryType {
    match mode & libc::S_IFMT {
        libc::S_IFDIR => EntryType::Directory,
        libc::S_IFLNK => EntryType::Symlink,
        libc::S_IFIFO => EntryType::Fifo,
        libc::S_IFSOCK => EntryType::Socket,
        libc::S_IFCHR => EntryType::CharDevice,
        libc::S_IFBLK => EntryType::BlockDevice,
        _ => EntryType::File,
    }
}

/// Whether `path` leads to something. Where that can't be seen, it is not there for the caller.
pub fn exists(path: &[u8]) -> OpReply {
    OpReply::Flag(sys::stat(path, true).is_ok())
}

/// Makes a directory; with `parents` also what is missing above it, and one that is there is fine.
///
/// # Errors
/// errno with the path.
pub fn mkdir(path: &[u8], parents: bool, perm: Option<u32>) -> Result<OpReply, OpError> {
    make_directory(path, parents, perm).map_err(|(at, error)| {
        let detail = if at == path { String::new() } else { format!("at `{}`", String::from_utf8_lossy(at)) };
        refusal("mkdir", path, &error, &detail)
    })?;
    Ok(OpReply::Unit)
}

fn make_directory(path: &[u8], parents: bool, perm: Option<u32>) -> Result<(), (&[u8], io::Error)> {
    let failed = |error| (path, error);
    let name = c_string(path).map_err(failed)?;
    // SAFETY: `name` is a C string that lives during the call.
    let make = || check(unsafe { libc::mkdir(name.as_ptr(), perm.unwrap_or(0o777)) });
    let made = match (make(), above(path)) {
        (Err(error), Some(parent)) if parents && error.raw_os_error() == Some(libc::ENOENT) => {
            make_directory(parent, true, None)?;
            make()
        }
        (made, _) => made,
    };
    match made {
        Err(error) if parents && error.raw_os_error() == Some(libc::EEXIST) => {
            let directory = sys::stat(path, true).is_ok_and(|found| found.st_mode & libc::S_IFMT == libc::S_IFDIR);
            if directory { Ok(()) } else { Err(failed(error)) }
        }
        Err(error) => Err(failed(error)),
        Ok(_) => match perm {
            None => Ok(()),
            // The umask has no say in what was asked for.
            // SAFETY: as above.
            Some(perm) => check(unsafe { libc::chmod(name.as_ptr(), perm) }).map(drop).map_err(failed),
        },
    }
}

/// The directory that holds `path`, where its text names one.
fn above(path: &[u8]) -> Option<&[u8]> {
    let end = path.iter().rposition(|byte| *byte != b'/')?;
    let slash = path[..=end].iter().rposition(|byte| *byte == b'/')?;
    let parent = &path[..slash];
    (!parent.iter().all(|byte| *byte == b'/')).then_some(parent)
}

/// Removes a file or an empty directory.
///
/// # Errors
/// errno with the path.
pub fn unlink(path: &[u8]) -> Result<OpReply, OpError> {
    let removed = c_string(path).and_then(|name| {
        // SAFETY: `name` is a C string that lives during both calls.
        match check(unsafe { libc::unlink(name.as_ptr()) }) {
            Err(error) if error.raw_os_error() == Some(libc::EISDIR) => {
                // SAFETY: as above.
                check(unsafe { libc::rmdir(name.as_ptr()) })
            }
            result => result,
        }
    });
    removed.map_err(|error| refusal("unlink", path, &error, ""))?;
    Ok(OpReply::Unit)
}

/// Renames.
///
/// # Errors
/// errno with both paths.
pub fn rename(from: &[u8], to: &[u8]) -> Result<OpReply, OpError> {
    let renamed = c_string(from).and_then(|old| {
        let new = c_string(to)?;
        // SAFETY: both are C strings that live during the call.
        check(unsafe { libc::rename(old.as_ptr(), new.as_ptr()) })
    });
    renamed.map_err(|error| refusal("rename", from, &error, &format!("to `{}`", String::from_utf8_lossy(to))))?;
    Ok(OpReply::Unit)
}

/// Makes a symbolic link; another link of that name is replaced.
///
/// # Errors
/// errno with the path.
pub fn symlink(target: &[u8], path: &[u8]) -> Result<OpReply, OpError> {
    let made = c_string(target).and_then(|target| {
        let name = c_string(path)?;
        // SAFETY: both are C strings that live during the calls.
        let make = || check(unsafe { libc::symlink(target.as_ptr(), name.as_ptr()) });
        match make() {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) && is_link(path) => {
                // SAFETY: as above.
                check(unsafe { libc::unlink(name.as_ptr()) })?;
                make()
            }
            result => result,
        }
    });
    made.map_err(|error| refusal("symlink", path, &error, ""))?;
    Ok(OpReply::Unit)
}

fn is_link(path: &[u8]) -> bool {
    sys::stat(path, false).is_ok_and(|found| found.st_mode & libc::S_IFMT == libc::S_IFLNK)
}

/// Sends the entries of a directory, in the order in which it has them.
///
/// # Errors
/// errno with the path.
pub fn list(path: &[u8], request: u32, out: &Out) -> Result<(), OpError> {
    let failed = |error: io::Error| refusal("listdir", path, &error, "");
    let directory = sys::open(path, libc::O_RDONLY | libc::O_DIRECTORY, 0).map_err(failed)?;
    // SAFETY: fdopendir takes the descriptor over.
    let stream = unsafe { libc::fdopendir(directory.into_raw_fd()) };
    if stream.is_null() {
        return Err(failed(io::Error::last_os_error()));
    }
    let listed = entries(stream, |entries| out.send(request, &ToHost::Entries(entries)));
    // SAFETY: made above, and not used after.
    unsafe { libc::closedir(stream) };
    listed.map_err(failed)?;
    out.done(request);
    Ok(())
}

fn entries(stream: *mut libc::DIR, mut send: impl FnMut(Vec<DirEntry>) -> io::Result<()>) -> io::Result<()> {
    let (mut found, mut bytes) = (Vec::new(), 0);
    loop {
        // SAFETY: errno is this thread's own. `stream` is open, and each entry is read before the next call.
        let entry = unsafe {
            *libc::__errno_location() = 0;
            libc::readdir(stream)
        };
        if entry.is_null() {
            return match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(0) => send(found),
                error => Err(error),
            };
        }
        // SAFETY: the kernel ends the name with a NUL.
        let (name, kind) = unsafe { (CStr::from_ptr((*entry).d_name.as_ptr()), (*entry).d_type) };
        if name == c"." || name == c".." {
            continue;
        }
        let entry_type = match kind {
            libc::DT_REG => EntryType::File,
            libc::DT_DIR => EntryType::Directory,
            libc::DT_LNK => EntryType::Symlink,
            libc::DT_FIFO => EntryType::Fifo,
            libc::DT_SOCK => EntryType::Socket,
            libc::DT_CHR => EntryType::CharDevice,
            libc::DT_BLK => EntryType::BlockDevice,
            // Not every file system keeps types with the names. What is gone by now is left out.
            _ => match look(stream, name) {
                Some(entry_type) => entry_type,
                None => continue,
            },
        };
        bytes += name.count_bytes() + 8;
        found.push(DirEntry { name: name.to_bytes().to_vec(), entry_type });
        if bytes > NAMES {
            send(std::mem::take(&mut found))?;
            bytes = 0;
        }
    }
}

fn look(stream: *mut libc::DIR, name: &CStr) -> Option<EntryType> {
    // SAFETY: `stream` is open, stat is plain data to be filled, `name` lives during the call.
    unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        let flags = libc::AT_SYMLINK_NOFOLLOW;
        check(libc::fstatat(libc::dirfd(stream), name.as_ptr(), &raw mut stat, flags)).ok()?;
        Some(entry_type(stat.st_mode))
    }
}

/// Moves a descriptor's offset.
///
/// # Errors
/// errno.
pub fn seek(fd: i32, offset: i64, whence: i32) -> io::Result<OpReply> {
    // SAFETY: any number may be tried.
    let at = unsafe { libc::lseek(fd, offset, whence) };
    u64::try_from(at).map(OpReply::Count).map_err(|_| io::Error::last_os_error())
}

/// Flushes a descriptor's file.
///
/// # Errors
/// errno.
pub fn sync(fd: i32) -> io::Result<OpReply> {
    // SAFETY: any number may be tried.
    check(unsafe { libc::fsync(fd) }).map(|_| OpReply::Unit)
}

/// Cuts or extends a descriptor's file.
///
/// # Errors
/// errno.
pub fn truncate(fd: i32, length: u64) -> io::Result<OpReply> {
    let length = i64::try_from(length).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
    // SAFETY: any number may be tried.
    check(unsafe { libc::ftruncate(fd, length) }).map(|_| OpReply::Unit)
}

/// Closes a descriptor that was opened for the host.
///
/// # Errors
/// errno.
pub fn close(fd: i32) -> io::Result<OpReply> {
    // SAFETY: the host closes only what it opened.
    check(unsafe { libc::close(fd) }).map(|_| OpReply::Unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents() {
        for (path, parent) in [
            ("/a/b", Some("/a")),
            ("/a/b/", Some("/a")),
            ("/a//b", Some("/a/")),
            ("a/b", Some("a")),
            ("/a", None),
            ("a", None),
            ("/", None),
            ("", None),
        ] {
            assert_eq!(above(path.as_bytes()), parent.map(str::as_bytes), "{path}");
        }
    }

    #[test]
    fn directories_get_exactly_what_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).into_os_string().into_encoded_bytes();
        mkdir(&path("a/b//c/"), true, Some(0o2757)).unwrap();
        assert_eq!(sys::stat(&path("a/b/c"), true).unwrap().st_mode & 0o7777, 0o2757);
        mkdir(&path("a/b/c"), true, Some(0o700)).unwrap();
        let error = mkdir(&path("a"), false, None).unwrap_err();
        assert_eq!(error.errno, libc::EEXIST);
        std::fs::write(dir.path().join("file"), "").unwrap();
        let error = mkdir(&path("file/below/it"), true, None).unwrap_err();
        assert_eq!((error.errno, error.detail.as_str()), (libc::ENOTDIR, ""));
        assert_eq!(mkdir(&path("file"), true, None).unwrap_err().errno, libc::EEXIST);
        assert_eq!(mkdir(b"a\0b", true, None).unwrap_err().errno, libc::EINVAL);
    }

    #[test]
    fn links_are_replaced_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).into_os_string().into_encoded_bytes();
        symlink(b"x", &path("link")).unwrap();
        symlink(b"y", &path("link")).unwrap();
        assert_eq!(std::fs::read_link(dir.path().join("link")).unwrap().to_str(), Some("y"));
        std::fs::write(dir.path().join("file"), "").unwrap();
        assert_eq!(symlink(b"x", &path("file")).unwrap_err().errno, libc::EEXIST);
    }
}
