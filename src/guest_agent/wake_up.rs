//! What makes a clone its own: its clock, its random numbers, its name.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use super::clock;
use super::sys::{self, check};
use crate::agent_protocol::{Hello, ToHost, Wake};

/// `linux/random.h`: `_IOW('R', 0x03, int[2])` and `_IO('R', 0x07)`.
const RNDADDENTROPY: libc::c_ulong = 0x4008_5203;
const RNDRESEEDCRNG: libc::c_ulong = 0x5207;

/// The real-time priority of an agent that sleeps: the lowest one goes before everything that is not real time.
const PRIORITY: libc::c_int = 1;

/// An agent that sleeps: whatever else of the guest wants to run after the snapshot comes behind its waking up. That holds for
/// programs, which could draw on the random numbers of other clones, and for the kernel's own work, such as that of the
/// event that tells of a new generation. Dropping it ends that.
pub struct Sleep {
    random: io::Result<OwnedFd>,
    hello: ToHost,
}

impl Sleep {
    /// Falls asleep on this thread, and gets ready what waking up needs: every step is long for a QEMU that must translate it
    /// anew. `hello` is what it will say first; `dev` is a `/dev` that the kernel fills.
    pub fn new(hello: Hello, dev: Option<&OwnedFd>) -> Self {
        // A guest may forbid it to the agent as well: then it waits for its turn.
        set_class(libc::SCHED_FIFO, PRIORITY);
        Self { random: open_random(dev), hello: ToHost::Hello(hello) }
    }

    /// What is said first on waking up.
    pub fn hello(&self) -> &ToHost {
        &self.hello
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        set_class(libc::SCHED_OTHER, 0);
    }
}

fn set_class(class: libc::c_int, priority: libc::c_int) {
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: plain data, this thread only.
    unsafe { libc::sched_setscheduler(0, class, &raw const parameters) };
}

fn open_random(dev: Option<&OwnedFd>) -> io::Result<OwnedFd> {
    match dev {
        Some(dev) => sys::openat(dev.as_raw_fd(), c"urandom", libc::O_RDWR, 0),
        None => sys::open(b"/dev/urandom", libc::O_RDWR, 0),
    }
}

/// Does as `wake` says. What did not work and may matter.
pub fn wake_up(wake: &Wake, sleep: &Sleep) -> Vec<String> {
    let mut notices = Vec::new();
    // First: nothing that the guest does after the snapshot may draw on the numbers of another clone.
    if !wake.entropy.is_empty()
        && let Err(error) = reseed(&wake.entropy, &sleep.random)
    {
        notices.push(format!("its random numbers may be those of other clones of the same snapshot: {error}"));
    }
    if let Some(time) = wake.time
        && let Err(error) = clock::set(time)
    {
        notices.push(format!("its clock stands where the snapshot was taken: {error}"));
    }
    if let Some(name) = &wake.hostname {
        // SAFETY: the pointer and the length belong together.
        if let Err(error) = check(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) }) {
            notices.push(format!("its host name could not be set to `{name}`: {error}"));
        }
    }
    notices
}

fn reseed(entropy: &[u8], random: &io::Result<OwnedFd>) -> io::Result<()> {
    let random = random.as_ref().map_err(|error| io::Error::new(error.kind(), error.to_string()))?;
    let pool = pool_info(entropy)?;
    // SAFETY: the first call reads the structure that `pool` is (`struct rand_pool_info`), the second takes nothing.
    unsafe {
        check(libc::ioctl(random.as_raw_fd(), RNDADDENTROPY as _, pool.as_ptr()))?;
        // Kernels before 4.14 have no such call: they mix new entropy in by themselves.
        libc::ioctl(random.as_raw_fd(), RNDRESEEDCRNG as _);
    }
    Ok(())
}

/// `struct rand_pool_info`: how much entropy it is in bits, how many bytes follow, the bytes.
fn pool_info(entropy: &[u8]) -> io::Result<Vec<u32>> {
    let bytes = u32::try_from(entropy.len()).map_err(io::Error::other)?;
    let bits = bytes.checked_mul(8).ok_or(io::ErrorKind::InvalidInput)?;
    let words = entropy.chunks(4).map(|chunk| {
        let mut word = [0; 4];
        word[..chunk.len()].copy_from_slice(chunk);
        u32::from_ne_bytes(word)
    });
    Ok([bits, bytes].into_iter().chain(words).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_structure() {
        let pool = pool_info(&[1, 0, 0, 0, 2]).unwrap();
        assert_eq!(pool, [40, 5, u32::from_ne_bytes([1, 0, 0, 0]), u32::from_ne_bytes([2, 0, 0, 0])]);
    }

    #[test]
    fn what_did_not_work_is_told() {
        let null = sys::open(b"/", libc::O_RDONLY | libc::O_DIRECTORY, 0).unwrap();
        let asleep = |dev| Sleep::new(crate::guest_agent::server::hello(None, Vec::new()), dev);
        let notices = wake_up(&Wake { entropy: vec![1], ..Wake::default() }, &asleep(Some(&null)));
        assert!(notices.len() == 1 && notices[0].contains("random numbers"), "{notices:?}");
        assert!(notices[0].contains("No such file"), "{notices:?}");
        assert!(wake_up(&Wake::default(), &asleep(None)).is_empty());
    }
}
