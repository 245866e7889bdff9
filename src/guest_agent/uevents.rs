//! Waiting for devices: the kernel tells of each new one.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use super::sys::{self, check};

/// The kernel's own multicast group.
const KERNEL_GROUP: u32 = 1;

/// A socket on which the kernel announces devices.
///
/// # Errors
/// errno: a kernel without networking has no netlink.
pub fn open() -> io::Result<OwnedFd> {
    // SAFETY: makes a new descriptor or fails.
    let socket = unsafe {
        OwnedFd::from_raw_fd(check(libc::socket(
            libc::AF_NETLINK,
            libc::SOCK_DGRAM | libc::SOCK_CLOEXEC,
            libc::NETLINK_KOBJECT_UEVENT,
        ))?)
    };
    // SAFETY: sockaddr_nl is plain data.
    let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
    address.nl_family = libc::sa_family_t::try_from(libc::AF_NETLINK).unwrap_or_default();
    address.nl_groups = KERNEL_GROUP;
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_nl>()).unwrap_or_default();
    // SAFETY: the address and its length belong together.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
    Ok(socket)
}

/// Without netlink: a descriptor that is readable when a node appears in a `/dev` that the kernel fills.
///
/// # Errors
/// errno.
pub fn open_watch(dev: &OwnedFd) -> io::Result<OwnedFd> {
    // SAFETY: makes a new descriptor or fails.
    let watch = unsafe { OwnedFd::from_raw_fd(check(libc::inotify_init1(libc::IN_CLOEXEC))?) };
    let path = sys::c_string(format!("/proc/self/fd/{}", dev.as_raw_fd()).as_bytes())?;
    // SAFETY: `path` lives during the call.
    check(unsafe { libc::inotify_add_watch(watch.as_raw_fd(), path.as_ptr(), libc::IN_CREATE) })?;
    Ok(watch)
}

/// Waits for the next announcement, whatever it is about.
///
/// # Errors
/// errno; announcements that were lost (`ENOBUFS`) count as one.
pub fn wait(socket: &OwnedFd) -> io::Result<()> {
    let mut buffer = [0; 8192];
    match sys::read(socket.as_fd(), &mut buffer) {
        Ok(_) => Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(()),
        Err(error) => Err(error),
    }
}
