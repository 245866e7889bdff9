//! The kernel's log: `/dev/kmsg`, whose reads each give one record.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::out::{Out, refusal};
use super::sys::{self, check};
use super::watchers::{Follow, Watchers};
use crate::agent_protocol::{CHUNK, OpError, ToHost};

/// No record is longer, in bytes: the kernel's own limit (`PRINTK_MESSAGE_MAX`) is 2 KiB of text, each byte escaped.
const LARGEST_RECORD: usize = 16 * 1024;
/// How much is passed on before others get their turn, in bytes.
const TURN: usize = 4 * CHUNK;
/// How much one request or one look gives at most, in bytes: a kernel that never stops logging must not hold it up.
const MOST: usize = 64 * 1024 * 1024;

/// Reads the log, and goes on with it where `follow` is set: after a snapshot from where it stood then. `dev` is a `/dev` that the kernel fills.
///
/// # Errors
/// The log can't be opened or read.
pub fn begin(request: u32, follow: bool, dev: Option<&OwnedFd>, watchers: &Watchers, out: &Out) -> Result<(), OpError> {
    let refused = |error: io::Error| refusal("dmesg", b"/dev/kmsg", &error, "");
    if follow && let Some(log) = watchers.take_kept() {
        return watchers.add(request, log).map_err(refused);
    }
    let flags = libc::O_RDONLY | libc::O_NONBLOCK;
    let opened = match dev {
        Some(dev) => sys::openat(dev.as_raw_fd(), c"kmsg", flags, 0),
        None => sys::open(b"/dev/kmsg", flags, 0),
    };
    let mut log = match opened {
        Ok(file) => Log { file, broken: false },
        Err(error) if !follow && error.raw_os_error() == Some(libc::ENOENT) => {
            let records = from_syslog().map_err(refused)?;
            records
                .chunks(CHUNK)
                .try_for_each(|piece| out.send(request, &ToHost::Data(piece.to_vec())))
                .map_err(refused)?;
            out.done(request);
            return Ok(());
        }
        Err(error) => return Err(refused(error)),
    };
    if follow {
        return watchers.add(request, Box::new(log)).map_err(refused);
    }
    // What `dmesg --clear` has cleared is not shown again.
    // SAFETY: lseek on an open descriptor; a kernel that can't is no matter.
    unsafe { libc::lseek(log.file.as_raw_fd(), 0, libc::SEEK_DATA) };
    log.pass(request, out, MOST).map_err(refused)?;
    if !log.broken {
        out.done(request);
    }
    Ok(())
}

struct Log {
    file: OwnedFd,
    /// Whether reading failed, which the host was told.
    broken: bool,
}

impl Log {
    /// Whole records, about `CHUNK` bytes; empty where there are no more.
    fn take(&self) -> io::Result<Vec<u8>> {
        let mut records = Vec::with_capacity(CHUNK);
        let mut record = [0; LARGEST_RECORD];
        while records.len() < CHUNK - LARGEST_RECORD {
            match sys::read(self.file.as_fd(), &mut record) {
                Ok(0) => break,
                Ok(count) => records.extend_from_slice(&record[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // The oldest records were overwritten before they were read: the next read gives what is left. The host sees
                // it by the numbers.
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(records)
    }

    /// Passes on what there is, at most about `most` bytes.
    ///
    /// # Errors
    /// When the host is gone.
    fn pass(&mut self, request: u32, out: &Out, most: usize) -> io::Result<()> {
        let mut passed = 0;
        while passed < most && !self.broken {
            let records = match self.take() {
                Ok(records) if records.is_empty() => break,
                Ok(records) => records,
                Err(error) => {
                    self.broken = true;
                    return out.send(request, &ToHost::Failed(refusal("dmesg", b"/dev/kmsg", &error, "")));
                }
            };
            passed += records.len();
            out.send(request, &ToHost::Data(records))?;
        }
        Ok(())
    }
}

impl Follow for Log {
    fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    fn ready(&mut self, request: u32, out: &Out) -> io::Result<bool> {
        self.pass(request, out, TURN)?;
        Ok(!self.broken)
    }

    fn outlives_its_request(&self) -> bool {
        true
    }

    fn flush(&mut self, request: u32, out: &Out) -> io::Result<()> {
        self.pass(request, out, MOST)
    }
}

/// The log by `syslog(2)`, as records of `/dev/kmsg`; numbered from 0.
fn from_syslog() -> io::Result<Vec<u8>> {
    const READ_ALL: libc::c_int = 3;
    const SIZE: libc::c_int = 10;
    let call = |action, buffer: *mut libc::c_char, length| {
        // SAFETY: the buffer and its length belong together; SIZE takes none.
        check(unsafe { libc::klogctl(action, buffer, length) })
    };
    let size = call(SIZE, std::ptr::null_mut(), 0)?;
    let mut text = vec![0_u8; usize::try_from(size).unwrap_or_default()];
    let count = call(READ_ALL, text.as_mut_ptr().cast(), size)?;
    text.truncate(usize::try_from(count).unwrap_or_default());
    Ok(records_of(&text))
}

/// Lines like `<6>[    1.234567] text` as records.
fn records_of(text: &[u8]) -> Vec<u8> {
    let mut records = Vec::new();
    for (number, line) in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).enumerate() {
        let (priority, rest) = split_between(line, b'<', b'>').unwrap_or((b"6", line));
        let (time, rest) = split_between(rest, b'[', b']').unwrap_or((b"0", rest));
        let time = String::from_utf8_lossy(time);
        let (seconds, micros) = time.trim().split_once('.').unwrap_or((time.trim(), "0"));
        let micros = seconds.parse::<u64>().unwrap_or_default() * 1_000_000 + micros.parse::<u64>().unwrap_or_default();
        let head = format!("{},{number},{micros},-;", String::from_utf8_lossy(priority));
        records.extend_from_slice(head.as_bytes());
        records.extend_from_slice(rest.strip_prefix(b" ").unwrap_or(rest));
        records.push(b'\n');
    }
    records
}

/// What stands between `open`, which comes first, and `close`; and the rest.
fn split_between(line: &[u8], open: u8, close: u8) -> Option<(&[u8], &[u8])> {
    let inner = line.strip_prefix(&[open])?;
    let end = inner.iter().position(|byte| *byte == close)?;
    Some((&inner[..end], &inner[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syslog_s_lines_become_records() {
        let text = b"<6>[    1.234567] one\n<12>[   12.000001] two; three\nbare\n";
        let expected = "6,0,1234567,-;one\n12,1,12000001,-;two; three\n6,2,0,-;bare\n";
        assert_eq!(String::from_utf8(records_of(text)).unwrap(), expected);
    }
}
