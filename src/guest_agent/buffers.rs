//! Memory that a system call may write to: each buffer ends before a page that nobody may touch, so that a call which
//! writes too much gets `EFAULT` instead of destroying the agent.

use std::io;
use std::ptr;

/// Where buffers begin within the pages they fill to the end, in bytes: as aligned as anything that a kernel looks at.
const ALIGNMENT: usize = 16;

/// Some buffers in one mapping of their own, which ends with this value.
pub struct Buffers {
    base: *mut u8,
    length: usize,
    places: Vec<(*mut u8, usize)>,
}

// SAFETY: the mapping belongs to this value alone.
unsafe impl Send for Buffers {}

impl Buffers {
    /// Buffers with the content of `contents`, in their order.
    ///
    /// # Errors
    /// errno: no memory.
    pub fn new(contents: &[Vec<u8>]) -> io::Result<Self> {
        // SAFETY: no preconditions.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
        let room = |content: &Vec<u8>| content.len().next_multiple_of(ALIGNMENT).max(ALIGNMENT);
        let pages = |content: &Vec<u8>| room(content).next_multiple_of(page);
        let length = contents.iter().map(|content| pages(content) + page).sum::<usize>();
        let mut buffers = Self { base: ptr::null_mut(), length, places: Vec::new() };
        if contents.is_empty() {
            return Ok(buffers);
        }
        // SAFETY: a new mapping; nothing lies there.
        let base = unsafe {
            libc::mmap(ptr::null_mut(), length, libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        buffers.base = base.cast();
        let mut at = 0;
        for content in contents {
            // SAFETY: all offsets lie inside the new mapping; what is copied to was just made writable and is large enough.
            unsafe {
                let begin = buffers.base.add(at);
                if libc::mprotect(begin.cast(), pages(content), libc::PROT_READ | libc::PROT_WRITE) != 0 {
                    return Err(io::Error::last_os_error());
                }
                let place = begin.add(pages(content) - room(content));
                ptr::copy_nonoverlapping(content.as_ptr(), place, content.len());
                buffers.places.push((place, content.len()));
            }
            at += pages(content) + page;
        }
        Ok(buffers)
    }

    /// Address of the buffer `index`.
    pub fn address(&self, index: usize) -> Option<u64> {
        self.places.get(index).map(|(place, _)| place.expose_provenance() as u64)
    }

    /// Writes the address of `child` into `parent` at `offset`. False where that is no place in it.
    pub fn link(&mut self, parent: usize, child: usize, offset: usize) -> bool {
        let (Some(&(place, length)), Some(address)) = (self.places.get(parent), self.address(child)) else {
            return false;
        };
        let bytes = address.to_ne_bytes();
        if offset.checked_add(bytes.len()).is_none_or(|end| end > length) {
            return false;
        }
        // SAFETY: checked to lie inside the buffer, which is writable.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), place.add(offset), bytes.len()) };
        true
    }

    /// What the buffers hold now.
    pub fn contents(&self) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        for (place, length) in &self.places {
            let mut content = vec![0; *length];
            // SAFETY: both are `length` bytes long and the buffer is readable.
            unsafe { ptr::copy_nonoverlapping(*place, content.as_mut_ptr(), *length) };
            all.push(content);
        }
        all
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        if !self.base.is_null() {
            // SAFETY: the mapping is ours, and nothing points to it after this.
            unsafe { libc::munmap(self.base.cast(), self.length) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_addresses_and_links() {
        let mut buffers = Buffers::new(&[vec![0; 16], b"child".to_vec(), Vec::new(), vec![7; 10_000]]).unwrap();
        assert!(buffers.link(0, 1, 8));
        assert!(!buffers.link(0, 1, 9) && !buffers.link(0, 4, 0) && !buffers.link(4, 0, 0));
        assert!(!buffers.link(0, 1, usize::MAX));
        let contents = buffers.contents();
        assert_eq!(contents[0][..8], [0; 8]);
        assert_eq!(contents[0][8..], buffers.address(1).unwrap().to_ne_bytes());
        assert_eq!(contents[1..], [b"child".to_vec(), Vec::new(), vec![7; 10_000]]);
        assert_eq!(buffers.address(3).unwrap() % 16, 0);
    }

    #[test]
    fn a_call_that_writes_past_the_end_is_refused() {
        let (reading, writing) = crate::guest_agent::sys::pipe().unwrap();
        use std::os::fd::{AsFd, AsRawFd};
        crate::guest_agent::sys::write(writing.as_fd(), &[1; 4096]).unwrap();
        let buffers = Buffers::new(&[vec![0; 16]]).unwrap();
        // SAFETY: the kernel checks the address.
        let result = unsafe { libc::syscall(libc::SYS_read, reading.as_raw_fd(), buffers.address(0).unwrap(), 4096) };
        assert_ne!(result, 4096);
    }
}
