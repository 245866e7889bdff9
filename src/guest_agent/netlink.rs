//! Requests to the kernel's routing socket, built and read byte by byte: the few that a card needs.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use super::sys::{self, check};

/// Bytes of a message's header.
const HEADER: usize = 16;
/// The kernel's answers fit.
const BUFFER: usize = 64 * 1024;

/// A routing socket.
pub struct Netlink {
    socket: OwnedFd,
    number: u32,
}

/// A request under construction.
pub struct Request {
    bytes: Vec<u8>,
}

impl Request {
    /// A request of this kind; `body` is the fixed part behind the header.
    pub fn new(kind: u16, flags: i32, body: &[u8]) -> Self {
        let flags = u16::try_from(flags | libc::NLM_F_REQUEST).unwrap_or_default();
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(body);
        Self { bytes }
    }

    /// Adds an attribute.
    pub fn with(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(4 + value.len()).unwrap_or_default();
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    fn finish(mut self, number: u32) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).unwrap_or_default();
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&number.to_ne_bytes());
        self.bytes
    }
}

/// A message from the kernel: its kind and what follows the header.
pub struct Message<'a> {
    /// What it is.
    pub kind: u16,
    /// The fixed part and the attributes.
    pub body: &'a [u8],
}

impl<'a> Message<'a> {
    /// The value of an attribute behind a fixed part of this length.
    pub fn attribute(&self, fixed: usize, wanted: u16) -> Option<&'a [u8]> {
        let mut rest = self.body.get(fixed.next_multiple_of(4)..)?;
        while rest.len() >= 4 {
            let length = usize::from(u16::from_ne_bytes([rest[0], rest[1]]));
            let kind = u16::from_ne_bytes([rest[2], rest[3]]);
            let value = rest.get(4..length)?;
            if kind == wanted {
                return Some(value);
            }
            rest = rest.get(length.next_multiple_of(4)..)?;
        }
        None
    }

    /// A 32-bit number of the fixed part.
    pub fn number(&self, at: usize) -> Option<i32> {
        Some(i32::from_ne_bytes(self.body.get(at..at + 4)?.try_into().ok()?))
    }
}

/// The messages in a datagram; one whose length can't be is the last.
fn messages(mut bytes: &[u8]) -> Vec<Message<'_>> {
    let mut found = Vec::new();
    while bytes.len() >= HEADER {
        let length = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some(body) = bytes.get(HEADER..length) else { break };
        found.push(Message { kind: u16::from_ne_bytes([bytes[4], bytes[5]]), body });
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

impl Netlink {
    /// A socket that also tells of the multicast `groups`.
    ///
    /// # Errors
    /// errno: a kernel without networking.
    pub fn open(groups: u32) -> io::Result<Self> {
        // SAFETY: makes a new descriptor or fails.
        let socket = unsafe {
            OwnedFd::from_raw_fd(check(libc::socket(
                libc::AF_NETLINK,
                libc::SOCK_RAW | libc::SOCK_CLOEXEC,
                libc::NETLINK_ROUTE,
            ))?)
        };
        // SAFETY: sockaddr_nl is plain data.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        address.nl_family = libc::sa_family_t::try_from(libc::AF_NETLINK).unwrap_or_default();
        address.nl_groups = groups;
        let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_nl>()).unwrap_or_default();
        // SAFETY: the address and its length belong together.
        check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
        Ok(Self { socket, number: 0 })
    }

    /// Its descriptor.
    pub fn descriptor(&self) -> &OwnedFd {
        &self.socket
    }

    /// Reads away what it told.
    ///
    /// # Errors
    /// errno.
    pub fn discard(&self) -> io::Result<()> {
        while sys::poll_one(self.socket.as_fd(), libc::POLLIN, 0)? & libc::POLLIN != 0 {
            match sys::read(self.socket.as_fd(), &mut [0; 8192]) {
                Err(error) if error.raw_os_error() != Some(libc::ENOBUFS) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Makes a request that changes something.
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn act(&mut self, request: Request) -> io::Result<()> {
        self.ask(request, |_| {})
    }

    /// Makes a request and shows every message of the answer.
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn ask(&mut self, request: Request, mut each: impl FnMut(&Message<'_>)) -> io::Result<()> {
        self.number += 1;
        let bytes = request.finish(self.number);
        sys::write(self.socket.as_fd(), &bytes)?;
        let mut buffer = vec![0; BUFFER];
        loop {
            let count = sys::read(self.socket.as_fd(), &mut buffer)?;
            for message in messages(&buffer[..count]) {
                match i32::from(message.kind) {
                    libc::NLMSG_DONE => return Ok(()),
                    libc::NLMSG_ERROR => {
                        return match message.number(0) {
                            Some(0) => Ok(()),
                            Some(errno) => Err(io::Error::from_raw_os_error(-errno)),
                            None => Err(io::Error::from_raw_os_error(libc::EBADMSG)),
                        };
                    }
                    _ => each(&message),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_come_back() {
        let bytes = Request::new(16, 0, &[0; 16]).with(1, &[1, 2, 3, 4, 5, 6]).with(4, &7_u32.to_ne_bytes()).finish(9);
        let all = messages(&bytes);
        assert_eq!((all.len(), all[0].kind), (1, 16));
        assert_eq!(all[0].attribute(16, 1), Some(&[1, 2, 3, 4, 5, 6][..]));
        assert_eq!(all[0].attribute(16, 4), Some(&7_u32.to_ne_bytes()[..]));
        assert_eq!(all[0].attribute(16, 5), None);
    }

    #[test]
    fn broken_messages_end_the_list() {
        let mut bytes = Request::new(16, 0, &[0; 16]).finish(1);
        bytes[0] = 200;
        assert!(messages(&bytes).is_empty());
        let odd = Message { kind: 16, body: &[0, 0, 1, 0, 9, 9] };
        assert_eq!(odd.attribute(0, 1), None);
    }

    #[test]
    fn the_kernel_has_a_loopback_card() {
        let mut names = Vec::new();
        let request = Request::new(libc::RTM_GETLINK, libc::NLM_F_DUMP, &[0; 16]);
        Netlink::open(0)
            .unwrap()
            .ask(request, |link| names.extend(link.attribute(16, libc::IFLA_IFNAME).map(<[u8]>::to_vec)))
            .unwrap();
        assert!(names.contains(&b"lo\0".to_vec()), "{names:?}");
    }
}
