//! The power button, where nothing else in the guest listens to it.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use super::ops::Shared;
use super::out::{Out, refusal};
use super::port::names;
use super::sys::{self, c_string, check};
use super::watchers::Follow;
use crate::agent_protocol::{Button, OpError, OpReply};

/// The input device's name (Linux `drivers/acpi/button.c`).
const NAME: &[u8] = b"Power Button";
/// `input-event-codes.h`.
const EV_KEY: u16 = 1;
const KEY_POWER: u16 = 116;
/// What systemd takes as "power off" (systemd(1)).
const SYSTEMD_POWEROFF: libc::c_int = 4;
/// `sys/mount.h` of Linux 5.2.
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;

/// One event of an input device (`input.h`).
#[repr(C)]
#[derive(Clone, Copy)]
struct InputEvent {
    time: libc::timeval,
    kind: u16,
    code: u16,
    value: i32,
}

/// Looks who hears the power button, and listens for `request` where nobody does.
///
/// # Errors
/// The device can't be looked at or opened.
pub fn watch(request: u32, shared: &Arc<Shared>) -> Result<OpReply, OpError> {
    look(request, shared)
        .map(OpReply::Button)
        .map_err(|(what, error)| refusal("power_button", what.as_bytes(), &error, ""))
}

fn look(request: u32, shared: &Arc<Shared>) -> Result<Button, (String, io::Error)> {
    let named = |what: &str| {
        let what = what.to_owned();
        move |error| (what.clone(), error)
    };
    let sys = tree("sysfs", b"/sys").map_err(named("sysfs"))?;
    let buttons = buttons(&sys);
    if buttons.is_empty() {
        return Ok(Button::NoDevice);
    }
    let proc = tree("proc", b"/proc").map_err(named("proc"))?;
    let numbers: Vec<libc::dev_t> = buttons.iter().map(|button| button.number).collect();
    match listener(&proc, &numbers) {
        Some(pid) if pid == std::process::id() => return Ok(Button::Agent),
        Some(_) => return Ok(Button::Guest),
        None => {}
    }
    let dev = tree("devtmpfs", b"/dev").map_err(named("devtmpfs"))?;
    let mut devices = Vec::new();
    for button in &buttons {
        let path = format!("input/{}", button.node);
        let opened = c_string(path.as_bytes())
            .and_then(|path| sys::openat(dev.as_raw_fd(), &path, libc::O_RDONLY | libc::O_NONBLOCK, 0));
        devices.push(opened.map_err(named(&format!("/dev/{path}")))?);
    }
    let listener = Listener::new(devices, proc).map_err(named("the buttons"))?;
    shared.watchers.add(request, Box::new(listener)).map_err(named("the buttons"))?;
    Ok(Button::Agent)
}

/// A file system of the kernel's own that nothing in the guest sees, or what the guest has at `instead`.
fn tree(kind: &str, instead: &[u8]) -> io::Result<OwnedFd> {
    let detached = || -> io::Result<OwnedFd> {
        let name = c_string(kind.as_bytes())?;
        // SAFETY: system calls on a C string and on descriptors that they just made.
        unsafe {
            let context = new_descriptor(libc::syscall(libc::SYS_fsopen, name.as_ptr(), 1))?;
            let null: *const libc::c_char = std::ptr::null();
            let created = libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_CREATE, null, null, 0);
            check(i32::try_from(created).unwrap_or(-1))?;
            new_descriptor(libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), 1, 0))
        }
    };
    // Before Linux 5.2 there is no mount without a place.
    detached().or_else(|_| sys::open(instead, libc::O_RDONLY | libc::O_DIRECTORY, 0))
}

/// # Safety
/// `result` is what a system call that makes a descriptor returned.
unsafe fn new_descriptor(result: libc::c_long) -> io::Result<OwnedFd> {
    let fd = check(i32::try_from(result).unwrap_or(-1))?;
    // SAFETY: as promised by the caller.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// An input device that is a power button.
struct Found {
    /// `event0`.
    node: String,
    number: libc::dev_t,
}

fn buttons(sys: &OwnedFd) -> Vec<Found> {
    let Ok(list) = sys::openat(sys.as_raw_fd(), c"class/input", libc::O_RDONLY | libc::O_DIRECTORY, 0) else {
        return Vec::new();
    };
    let nodes = names(list).into_iter().filter(|node| node.starts_with("event"));
    nodes
        .filter(|node| read(sys, &format!("class/input/{node}/device/name")).is_ok_and(|name| name == NAME))
        .filter_map(|node| {
            let text = read(sys, &format!("class/input/{node}/dev")).ok()?;
            let number = device_number(&text)?;
            Some(Found { node, number })
        })
        .collect()
}

fn read(directory: &OwnedFd, path: &str) -> io::Result<Vec<u8>> {
    let file = sys::openat(directory.as_raw_fd(), &c_string(path.as_bytes())?, libc::O_RDONLY, 0)?;
    let mut bytes = Vec::new();
    File::from(file).take(4096).read_to_end(&mut bytes)?;
    bytes.truncate(bytes.trim_ascii_end().len());
    Ok(bytes)
}

/// `13:64`.
fn device_number(text: &[u8]) -> Option<libc::dev_t> {
    let (major, minor) = std::str::from_utf8(text).ok()?.split_once(':')?;
    Some(libc::makedev(major.parse().ok()?, minor.parse().ok()?))
}

/// A process that has one of the devices open; or acpid, which may listen to the kernel's ACPI events instead.
fn listener(proc: &OwnedFd, devices: &[libc::dev_t]) -> Option<u32> {
    let list = sys::openat(proc.as_raw_fd(), c".", libc::O_RDONLY | libc::O_DIRECTORY, 0).ok()?;
    names(list).into_iter().filter_map(|name| name.parse::<u32>().ok()).find(|pid| {
        read(proc, &format!("{pid}/comm")).is_ok_and(|name| name == b"acpid") || has_open(proc, *pid, devices)
    })
}

fn has_open(proc: &OwnedFd, pid: u32, devices: &[libc::dev_t]) -> bool {
    let Ok(path) = c_string(format!("{pid}/fd").as_bytes()) else { return false };
    let Ok(list) = sys::openat(proc.as_raw_fd(), &path, libc::O_RDONLY | libc::O_DIRECTORY, 0) else { return false };
    let Ok(directory) = list.try_clone() else { return false };
    names(list).into_iter().any(|number| {
        let Ok(number) = c_string(number.as_bytes()) else { return false };
        // SAFETY: stat is plain data to be filled, `number` is a C string that lives during the call.
        unsafe {
            let mut stat: libc::stat = std::mem::zeroed();
            libc::fstatat(directory.as_raw_fd(), number.as_ptr(), &raw mut stat, 0) == 0
                && stat.st_mode & libc::S_IFMT == libc::S_IFCHR
                && devices.contains(&stat.st_rdev)
        }
    })
}

/// The agent's own ear.
struct Listener {
    devices: Vec<OwnedFd>,
    /// Readable when one of them is.
    any: OwnedFd,
    proc: OwnedFd,
}

impl Listener {
    fn new(devices: Vec<OwnedFd>, proc: OwnedFd) -> io::Result<Self> {
        // SAFETY: makes a new descriptor or fails.
        let any = unsafe { OwnedFd::from_raw_fd(check(libc::epoll_create1(libc::EPOLL_CLOEXEC))?) };
        for device in &devices {
            let mut event = libc::epoll_event { events: libc::EPOLLIN.unsigned_abs(), u64: 0 };
            let (epoll, device) = (any.as_raw_fd(), device.as_raw_fd());
            // SAFETY: both descriptors are open, `event` lives during the call.
            check(unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, device, &raw mut event) })?;
        }
        Ok(Self { devices, any, proc })
    }
}

impl Follow for Listener {
    fn fd(&self) -> BorrowedFd<'_> {
        self.any.as_fd()
    }

    fn ready(&mut self, _request: u32, _out: &Out) -> io::Result<bool> {
        let mut buffer = [0; 16 * size_of::<InputEvent>()];
        let mut is_pressed = false;
        // One that can't be read any more is gone; closing it takes it out of the epoll instance.
        self.devices.retain(|device| {
            loop {
                match sys::read(device.as_fd(), &mut buffer) {
                    Ok(0) => return false,
                    Ok(count) => is_pressed |= pressed(&buffer[..count]),
                    Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
                }
            }
        });
        if is_pressed {
            power_off(&self.proc);
        }
        Ok(!self.devices.is_empty())
    }
}

/// Whether the key went down in one of these events.
fn pressed(bytes: &[u8]) -> bool {
    bytes.chunks_exact(size_of::<InputEvent>()).any(|chunk| {
        // SAFETY: the chunk has the size of an event, for which all bytes are values; it need not be aligned.
        let event = unsafe { chunk.as_ptr().cast::<InputEvent>().read_unaligned() };
        (event.kind, event.code, event.value) == (EV_KEY, KEY_POWER, 1)
    })
}

/// Does what a guest does that listens: systemd is told, any other guest goes off once its data is on disk.
fn power_off(proc: &OwnedFd) {
    let is_systemd = read(proc, "1/comm").is_ok_and(|name| name == b"systemd");
    // SAFETY: no preconditions.
    if is_systemd && unsafe { libc::kill(1, libc::SIGRTMIN() + SYSTEMD_POWEROFF) } == 0 {
        return;
    }
    // On a thread of its own: to write everything may take long.
    let _ = std::thread::Builder::new().name("power off".to_owned()).spawn(|| {
        // SAFETY: no preconditions.
        unsafe {
            libc::sync();
            libc::reboot(libc::RB_POWER_OFF);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: u16, code: u16, value: i32) -> Vec<u8> {
        let mut bytes = vec![0; size_of::<libc::timeval>()];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(code.to_ne_bytes());
        bytes.extend(value.to_ne_bytes());
        bytes
    }

    #[test]
    fn only_the_power_key_going_down_counts() {
        assert!(pressed(&[event(0, 0, 0), event(EV_KEY, KEY_POWER, 1)].concat()));
        for other in [event(EV_KEY, KEY_POWER, 0), event(EV_KEY, 30, 1), event(0, KEY_POWER, 1), vec![1; 5]] {
            assert!(!pressed(&other));
        }
    }

    #[test]
    fn numbers_and_listeners() {
        assert_eq!(device_number(b"13:64"), Some(libc::makedev(13, 64)));
        assert_eq!(device_number(b"13"), None);
        let proc = sys::open(b"/proc", libc::O_RDONLY | libc::O_DIRECTORY, 0).unwrap();
        let _null = File::open("/dev/zero").unwrap();
        let zero = [libc::makedev(1, 5)];
        assert!(has_open(&proc, std::process::id(), &zero));
        assert!(!has_open(&proc, std::process::id(), &[libc::makedev(250, 250)]));
    }
}
