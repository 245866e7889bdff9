//! Classic pcap: what `tcpdump -r` reads.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::frame::LONGEST;

/// Microseconds, in this machine's order of bytes.
const MAGIC: u32 = 0xa1b2_c3d4;
const ETHERNET: u32 = 1;

/// What a file begins with.
pub fn header() -> Vec<u8> {
    let longest = u32::try_from(LONGEST).unwrap_or(u32::MAX);
    let mut bytes = MAGIC.to_ne_bytes().to_vec();
    bytes.extend_from_slice(&2_u16.to_ne_bytes());
    bytes.extend_from_slice(&4_u16.to_ne_bytes());
    // The zone is UTC, and the times are exact.
    for word in [0, 0, longest, ETHERNET] {
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    bytes
}

/// One frame, seen at `time`.
pub fn record(time: SystemTime, frame: &[u8]) -> Vec<u8> {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
    let seconds = u32::try_from(since.as_secs()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(16 + frame.len());
    for word in [seconds, since.subsec_micros(), length, length] {
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    bytes.extend_from_slice(frame);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_format_says() {
        assert_eq!((header().len(), u32::from_ne_bytes(header()[..4].try_into().unwrap())), (24, MAGIC));
        let record = record(UNIX_EPOCH + Duration::new(5, 7000), b"frame");
        let word = |at: usize| u32::from_ne_bytes(record[at..at + 4].try_into().unwrap());
        assert_eq!([word(0), word(4), word(8), word(12)], [5, 7, 5, 5]);
        assert_eq!(&record[16..], b"frame");
    }
}
