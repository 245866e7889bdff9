//! The file that a machine's RAM lies in, and copies of it without the empty pages.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

/// What is looked at as one: a piece that is all zeroes becomes a hole.
const PAGE: usize = 4096;
/// How much is mapped at once, in bytes.
const WINDOW: u64 = 64 * 1024 * 1024;

/// A file of RAM; clones are the same file.
#[derive(Debug, Clone)]
pub struct RamFile(Arc<File>);

impl RamFile {
    /// Empty RAM that lies in memory only: nothing is left of it once the last process that uses it has ended.
    ///
    /// # Errors
    /// errno.
    pub fn in_memory(bytes: u64) -> io::Result<Self> {
        // SAFETY: the name is a NUL-terminated literal.
        let fd = unsafe { libc::memfd_create(c"guest-ram".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and owned by nobody else.
        let file = unsafe { File::from_raw_fd(fd) };
        file.set_len(bytes)?;
        Ok(Self(Arc::new(file)))
    }

    /// The stored RAM `path`, which is only read.
    ///
    /// # Errors
    /// errno.
    pub fn open(path: &Path) -> io::Result<Self> {
        File::open(path).map(|file| Self(Arc::new(file)))
    }

    /// A descriptor of it for a child.
    ///
    /// # Errors
    /// errno.
    pub(super) fn share(&self) -> io::Result<OwnedFd> {
        self.0.as_fd().try_clone_to_owned()
    }

    /// Whether both are the same file; as long as one is open, no other can be taken for it.
    pub fn is(&self, other: &Self) -> bool {
        let identity = |ram: &Self| ram.0.metadata().map(|file| (file.dev(), file.ino())).ok();
        identity(self).is_some_and(|own| Some(own) == identity(other))
    }

    /// The number of its descriptor in this process.
    pub fn descriptor(&self) -> i32 {
        self.0.as_raw_fd()
    }

    /// Its length in bytes.
    ///
    /// # Errors
    /// errno.
    pub fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    /// How much of it is there, in bytes.
    ///
    /// # Errors
    /// errno.
    pub fn allocated(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.blocks() * 512)
    }

    /// A copy in memory. Blocks.
    ///
    /// # Errors
    /// errno.
    pub fn copy_in_memory(&self) -> io::Result<Self> {
        let copy = Self::in_memory(self.size()?)?;
        self.copy_to(&copy.0)?;
        Ok(copy)
    }

    /// Copies it into the new file `path`; what is empty takes no room there. Blocks.
    ///
    /// # Errors
    /// errno: `ENOSPC` where there is no room.
    pub fn copy_to_path(&self, path: &Path) -> io::Result<()> {
        let target = File::create_new(path)?;
        target.set_len(self.size()?)?;
        self.copy_to(&target)
    }

    fn copy_to(&self, target: &File) -> io::Result<()> {
        let size = self.size()?;
        let mut at = 0;
        while let Some((from, to)) = self.data(at, size)? {
            let mut begin = from;
            while begin < to {
                let end = to.min(begin + WINDOW);
                Mapping::new(&self.0, begin, end)?.copy(target, begin)?;
                begin = end;
            }
            at = to;
        }
        Ok(())
    }

    /// The next stretch behind `at` that is not a hole.
    fn data(&self, at: u64, size: u64) -> io::Result<Option<(u64, u64)>> {
        let seek = |offset: u64, whence| {
            let offset = i64::try_from(offset).map_err(io::Error::other)?;
            // SAFETY: lseek on an open descriptor; nobody relies on its offset.
            match unsafe { libc::lseek(self.0.as_raw_fd(), offset, whence) } {
                -1 => Err(io::Error::last_os_error()),
                found => u64::try_from(found).map_err(io::Error::other),
            }
        };
        if at >= size {
            return Ok(None);
        }
        match seek(at, libc::SEEK_DATA) {
            Ok(from) => Ok(Some((from, seek(from, libc::SEEK_HOLE)?.min(size)))),
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// A stretch of the file in this process's memory.
struct Mapping {
    address: *mut libc::c_void,
    length: usize,
}

impl Mapping {
    fn new(file: &File, from: u64, to: u64) -> io::Result<Self> {
        let length = usize::try_from(to - from).map_err(io::Error::other)?;
        let offset = i64::try_from(from).map_err(io::Error::other)?;
        // SAFETY: a new mapping where the kernel likes; the file is never cut, so that its pages can be read.
        let address = unsafe {
            libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), offset)
        };
        if address == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Self { address, length }) }
    }

    /// Writes all but the empty pages to `target`, whose place `base` the mapping begins at.
    fn copy(&self, target: &File, base: u64) -> io::Result<()> {
        // SAFETY: the mapping is readable and lives as long as `self`. The machine stands still, nobody writes to it.
        let bytes = unsafe { std::slice::from_raw_parts(self.address.cast::<u8>(), self.length) };
        let mut begin = None;
        for (index, page) in bytes.chunks(PAGE).enumerate() {
            let at = index * PAGE;
            match (is_empty(page), begin) {
                (false, None) => begin = Some(at),
                (true, Some(from)) => {
                    target.write_all_at(&bytes[from..at], base + from as u64)?;
                    begin = None;
                }
                _ => {}
            }
        }
        match begin {
            Some(from) => target.write_all_at(&bytes[from..], base + from as u64),
            None => Ok(()),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and not used any more.
        unsafe { libc::munmap(self.address, self.length) };
    }
}

fn is_empty(page: &[u8]) -> bool {
    // SAFETY: any bytes are values of u128.
    let (head, words, tail) = unsafe { page.align_to::<u128>() };
    head.iter().chain(tail).all(|byte| *byte == 0) && words.iter().all(|word| *word == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_the_bytes_and_not_the_empty_pages() {
        const SIZE: u64 = 80 << 20;
        let ram = RamFile::in_memory(SIZE).unwrap();
        for (at, bytes) in [(5000, &b"first"[..]), (WINDOW - 3, b"across"), (SIZE - 4, b"last")] {
            ram.0.write_all_at(bytes, at).unwrap();
        }
        // Written, but empty.
        ram.0.write_all_at(&vec![0; 1 << 20], 8 << 20).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ram");
        ram.copy_to_path(&path).unwrap();
        let copy = RamFile::open(&path).unwrap();
        assert_eq!(copy.size().unwrap(), SIZE);
        assert!(std::fs::read(&path).unwrap() == std::fs::read(format!("/proc/self/fd/{}", ram.descriptor())).unwrap());
        assert!(copy.allocated().unwrap() <= 64 * 1024, "{}", copy.allocated().unwrap());
        let again = copy.copy_in_memory().unwrap();
        assert!(
            std::fs::read(&path).unwrap() == std::fs::read(format!("/proc/self/fd/{}", again.descriptor())).unwrap()
        );
        assert_eq!(ram.copy_to_path(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }
}
