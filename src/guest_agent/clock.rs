//! The guest's real-time clock.

use std::io;

use super::out::refusal;
use super::sys::check;
use crate::agent_protocol::{OpError, OpReply};

const NANOSECONDS: i64 = 1_000_000_000;

/// Nanoseconds since the epoch.
///
/// # Errors
/// errno.
pub fn get() -> Result<OpReply, OpError> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a timespec to be filled.
    match check(unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut time) }) {
        Ok(_) => Ok(OpReply::Clock(time.tv_sec.saturating_mul(NANOSECONDS).saturating_add(time.tv_nsec))),
        Err(error) => Err(refusal("clock", b"get", &error, "")),
    }
}

/// Sets it.
///
/// # Errors
/// errno: the kernel refuses times that would put its boot before 1970.
pub fn set(nanoseconds: i64) -> Result<OpReply, OpError> {
    let time =
        libc::timespec { tv_sec: nanoseconds.div_euclid(NANOSECONDS), tv_nsec: nanoseconds.rem_euclid(NANOSECONDS) };
    // SAFETY: `time` lives during the call.
    let result: io::Result<i32> = check(unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &raw const time) });
    result
        .map(|_| OpReply::Unit)
        .map_err(|error| refusal("clock", format!("set to {}.{:09}", time.tv_sec, time.tv_nsec).as_bytes(), &error, ""))
}
