//! Finding the channel: the virtio-serial port with our name.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use super::sys::{self, c_string};
use super::uevents;
use crate::agent_protocol::PORT_NAME;

/// How long a guest has to load a driver for the port by itself, at least and at most.
const GRACE: Duration = Duration::from_secs(5);
const LONGEST_GRACE: Duration = Duration::from_secs(30);
/// How often it is looked whether the time is over, in milliseconds.
const LOOK_AGAIN_MS: i32 = 500;

/// The directories of devices, kept open from before the guest's init changed anything.
pub struct Devices {
    /// A `sysfs`.
    pub sys: OwnedFd,
    /// A `devtmpfs`.
    pub dev: OwnedFd,
    /// Where the kernel announces devices; opened before any driver was loaded.
    pub announcements: Option<OwnedFd>,
}

impl Devices {
    /// Waits for the port and opens it. A guest without a driver for it gets some time to load one by itself, more while its
    /// init `is_at_work`; then the host is told that there is none.
    ///
    /// # Errors
    /// When the port is there but can't be opened, or nothing announces devices.
    pub fn port(&self, is_at_work: impl Fn() -> bool) -> io::Result<OwnedFd> {
        let begun = Instant::now();
        let mut told = false;
        loop {
            if let Some(name) = self.find() {
                return sys::openat(self.dev.as_raw_fd(), &c_string(name.as_bytes())?, libc::O_RDWR, 0);
            }
            let waits_for_driver = !told && !self.has_driver();
            let passed = begun.elapsed();
            if waits_for_driver && (passed >= LONGEST_GRACE || passed >= GRACE && !is_at_work()) {
                told = true;
                complain(
                    "no virtio-serial port: the kernel has no driver for it\nhint: give the profile `modules`, or build the \
                     kernel with CONFIG_VIRTIO_PCI=y and CONFIG_VIRTIO_CONSOLE=y",
                );
            }
            let Some(socket) = &self.announcements else {
                return Err(io::Error::other("the kernel can't announce devices (CONFIG_NET, CONFIG_INOTIFY_USER)"));
            };
            let pause = if waits_for_driver && !told { LOOK_AGAIN_MS } else { -1 };
            if sys::poll_one(socket.as_fd(), libc::POLLIN, pause)? != 0 {
                uevents::wait(socket)?;
            }
        }
    }

    fn has_driver(&self) -> bool {
        sys::openat(self.sys.as_raw_fd(), c"bus/virtio/drivers/virtio_console", libc::O_PATH, 0).is_ok()
    }

    /// The node of the port, such as `vport0p1`.
    fn find(&self) -> Option<String> {
        let ports =
            sys::openat(self.sys.as_raw_fd(), c"class/virtio-ports", libc::O_RDONLY | libc::O_DIRECTORY, 0).ok()?;
        names(ports).into_iter().find(|port| {
            let Ok(path) = c_string(format!("class/virtio-ports/{port}/name").as_bytes()) else { return false };
            let Ok(file) = sys::openat(self.sys.as_raw_fd(), &path, libc::O_RDONLY, 0) else { return false };
            let mut buffer = [0; 256];
            let count = sys::read(file.as_fd(), &mut buffer).unwrap_or_default();
            buffer[..count].trim_ascii_end() == PORT_NAME.as_bytes()
        })
    }
}

/// The names in a directory, without `.` and `..`.
pub(super) fn names(directory: OwnedFd) -> Vec<String> {
    use std::os::fd::IntoRawFd;
    let mut found = Vec::new();
    // SAFETY: fdopendir takes the descriptor over; each entry is read before the next call.
    unsafe {
        let stream = libc::fdopendir(directory.into_raw_fd());
        if stream.is_null() {
            return found;
        }
        loop {
            let entry = libc::readdir(stream);
            if entry.is_null() {
                break;
            }
            let name = CStr::from_ptr((*entry).d_name.as_ptr()).to_string_lossy().into_owned();
            if !name.starts_with('.') {
                found.push(name);
            }
        }
        libc::closedir(stream);
    }
    found
}

/// Writes a fatal problem where the host reads it: on the console. The host looks for this form of line.
pub fn complain(message: &str) {
    let text: String = message.lines().map(|line| format!("provium-agent: fatal: {line}\r\n")).collect();
    for console in [b"/dev/console" as &[u8], b"/dev/kmsg"] {
        let file = sys::open(console, libc::O_WRONLY | libc::O_NOCTTY, 0);
        if file.is_ok_and(|file| sys::write(file.as_fd(), text.as_bytes()).is_ok()) {
            return;
        }
    }
    eprint!("{text}");
}
