//! A line that carries a descriptor: the kernel hands QEMU its own copy (`SCM_RIGHTS`).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use tokio::io::Interest;
use tokio::net::UnixStream;

/// Bytes of a control message with one descriptor, rounded up.
const ROOM: usize = 64;

/// The control buffer, aligned as the kernel wants it.
#[repr(C, align(8))]
struct Control([u8; ROOM]);

/// Sends the beginning of `line` together with `descriptor`; returns how many bytes went.
///
/// # Errors
/// errno.
pub(super) async fn send_with(stream: &UnixStream, line: &[u8], descriptor: &OwnedFd) -> io::Result<usize> {
    let socket = stream.as_raw_fd();
    stream.async_io(Interest::WRITABLE, || send(socket, line, descriptor.as_raw_fd())).await
}

fn send(socket: RawFd, bytes: &[u8], descriptor: RawFd) -> io::Result<usize> {
    let mut control = Control([0; ROOM]);
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let length = u32::try_from(size_of::<RawFd>()).unwrap_or_default();
    // SAFETY: msghdr is plain data; all that it points to lives during the call, and the control buffer has room for one
    // header with one descriptor, which is checked by CMSG_FIRSTHDR against `msg_controllen`.
    let sent = unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(length) as _;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        if header.is_null() {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(length) as _;
        std::ptr::write_unaligned(libc::CMSG_DATA(header).cast::<RawFd>(), descriptor);
        libc::sendmsg(socket, &raw const message, libc::MSG_NOSIGNAL)
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}
