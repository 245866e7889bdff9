//! One guest's cable: frames with a 4-byte length before each, over a socket that never blocks.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use super::frame::LONGEST;
use super::port::Port;

/// Bytes of a length.
const PREFIX: usize = 4;
/// How much is read at once.
const INPUT: usize = 256 * 1024;
/// How much may wait for a guest that does not read, in bytes; what is more is lost.
const OUTPUT: usize = 2 * 1024 * 1024;
/// From here on, what was sent is taken off the buffer.
const COMPACT: usize = 256 * 1024;

/// A frame that has come, or what is none.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// A frame, at this place of the input.
    Frame(std::ops::Range<usize>),
    /// A length that no frame has.
    Nonsense,
}

/// A cable.
#[derive(Debug)]
pub struct Wire {
    stream: UnixStream,
    input: Box<[u8]>,
    filled: usize,
    taken: usize,
    /// Bytes of a giant that are still to come.
    skip: usize,
    output: Vec<u8>,
    sent: usize,
    /// Where each waiting frame comes from, and its length with prefix.
    frames: VecDeque<(Port, usize)>,
    /// How much of the first waiting frame has been sent.
    head_sent: usize,
    /// Whether the socket is watched for room.
    pub waits_for_room: bool,
}

impl Wire {
    /// A cable over `stream`.
    ///
    /// # Errors
    /// errno.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            input: vec![0; INPUT].into_boxed_slice(),
            filled: 0,
            taken: 0,
            skip: 0,
            output: Vec::new(),
            sent: 0,
            frames: VecDeque::new(),
            head_sent: 0,
            waits_for_room: false,
        })
    }

    /// Its socket.
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Reads what is there, one buffer at most. False at the end.
    pub fn fill(&mut self) -> bool {
        if self.taken > 0 {
            self.input.copy_within(self.taken..self.filled, 0);
            self.filled -= self.taken;
            self.taken = 0;
        }
        loop {
            return match self.stream.read(&mut self.input[self.filled..]) {
                Ok(0) => false,
                Ok(count) => {
                    self.filled += count;
                    true
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => error.kind() == io::ErrorKind::WouldBlock,
            };
        }
    }

    /// The next whole frame of what was read.
    pub fn next(&mut self) -> Option<Piece> {
        loop {
            let skipped = self.skip.min(self.filled - self.taken);
            self.taken += skipped;
            self.skip -= skipped;
            let rest = &self.input[self.taken..self.filled];
            let length = u32::from_be_bytes(rest.get(..PREFIX)?.try_into().ok()?);
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            if length > LONGEST {
                self.taken += PREFIX;
                self.skip = length;
                return Some(Piece::Nonsense);
            }
            rest.get(..PREFIX + length)?;
            let from = self.taken + PREFIX;
            self.taken = from + length;
            if length > 0 {
                return Some(Piece::Frame(from..from + length));
            }
        }
    }

    /// The bytes of a piece.
    pub fn bytes(&self, range: std::ops::Range<usize>) -> &[u8] {
        &self.input[range]
    }

    /// Puts a frame behind what waits; false where that is too much already.
    pub fn push(&mut self, from: Port, frame: &[u8]) -> bool {
        let Ok(length) = u32::try_from(frame.len()) else { return false };
        if self.output.len() - self.sent + PREFIX + frame.len() > OUTPUT {
            return false;
        }
        self.output.extend_from_slice(&length.to_be_bytes());
        self.output.extend_from_slice(frame);
        self.frames.push_back((from, PREFIX + frame.len()));
        true
    }

    /// Whether something waits.
    pub fn has_output(&self) -> bool {
        self.sent < self.output.len()
    }

    /// Sends what fits. False where the other end is gone.
    pub fn flush(&mut self) -> bool {
        while self.has_output() {
            match self.stream.write(&self.output[self.sent..]) {
                Ok(count) => self.went(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            }
        }
        true
    }

    fn went(&mut self, count: usize) {
        self.sent += count;
        self.head_sent += count;
        while let Some((_, length)) = self.frames.front()
            && self.head_sent >= *length
        {
            self.head_sent -= length;
            self.frames.pop_front();
        }
        if self.sent == self.output.len() {
            self.output.clear();
            self.sent = 0;
            // A burst's memory is not kept.
            self.output.shrink_to(COMPACT);
        } else if self.sent - self.head_sent > COMPACT {
            // What went of the first waiting frame stays: `take_back` keeps that frame whole.
            self.output.drain(..self.sent - self.head_sent);
            self.sent = self.head_sent;
        }
    }

    /// Takes back waiting frames of which nothing has been sent; returns how many.
    pub fn take_back(&mut self, goes: impl Fn(Port) -> bool) -> u64 {
        if !self.frames.iter().any(|(from, _)| goes(*from)) {
            return 0;
        }
        let begun = self.head_sent > 0;
        // The first one begins before what is left to send, where a part of it went.
        let mut at = self.sent - self.head_sent;
        let (mut output, mut frames, mut gone) = (Vec::new(), VecDeque::new(), 0);
        for (index, (from, length)) in self.frames.drain(..).enumerate() {
            if goes(from) && !(index == 0 && begun) {
                gone += 1;
            } else {
                output.extend_from_slice(&self.output[at..at + length]);
                frames.push_back((from, length));
            }
            at += length;
        }
        self.output = output;
        self.frames = frames;
        self.sent = self.head_sent;
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Wire, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Wire::new(ours).unwrap(), theirs)
    }

    fn all(wire: &mut Wire) -> Vec<Option<Vec<u8>>> {
        let mut found = Vec::new();
        while let Some(piece) = wire.next() {
            found.push(match piece {
                Piece::Frame(range) => Some(wire.bytes(range).to_vec()),
                Piece::Nonsense => None,
            });
        }
        found
    }

    #[test]
    fn frames_come_whole_however_they_are_cut() {
        let (mut wire, mut guest) = pair();
        let bytes = [&[0, 0, 0, 2][..], b"ab", &[0, 0, 0, 0], &[0, 0, 0, 3], b"cde"].concat();
        let mut found = Vec::new();
        for byte in bytes {
            guest.write_all(&[byte]).unwrap();
            assert!(wire.fill());
            found.extend(all(&mut wire));
        }
        assert_eq!(found, [Some(b"ab".to_vec()), Some(b"cde".to_vec())]);
        drop(guest);
        assert!(!wire.fill());
    }

    #[test]
    fn a_giant_is_skipped() {
        let (mut wire, mut guest) = pair();
        let length = LONGEST + 1;
        guest.write_all(&u32::try_from(length).unwrap().to_be_bytes()).unwrap();
        let mut found = Vec::new();
        for _ in 0..length / 1000 {
            guest.write_all(&[7; 1000]).unwrap();
            assert!(wire.fill());
            found.extend(all(&mut wire));
        }
        guest.write_all(&vec![7; length % 1000]).unwrap();
        guest.write_all(b"\0\0\0\x01z").unwrap();
        assert!(wire.fill());
        found.extend(all(&mut wire));
        assert_eq!(found, [None, Some(b"z".to_vec())]);
    }

    #[test]
    fn what_a_guest_does_not_read_is_bounded_and_can_be_taken_back() {
        let (mut wire, mut guest) = pair();
        let mut count = 0;
        while wire.push(Port(1 + count % 2), &[u8::try_from(count % 2).unwrap(); 1000]) {
            count += 1;
        }
        assert!(count > 1000 && wire.output.len() <= OUTPUT);
        assert!(wire.flush() && wire.has_output());
        let gone = wire.take_back(|from| from == Port(2));
        assert!(gone > 500);
        guest.set_nonblocking(true).unwrap();
        let mut received = Vec::new();
        while wire.has_output() || received.is_empty() {
            let mut buffer = vec![0; 1 << 20];
            while let Ok(read) = guest.read(&mut buffer) {
                received.extend_from_slice(&buffer[..read]);
            }
            assert!(wire.flush());
        }
        let mut buffer = vec![0; 1 << 20];
        while let Ok(read) = guest.read(&mut buffer) {
            received.extend_from_slice(&buffer[..read]);
        }
        assert_eq!(received.len() % 1004, 0);
        let whole =
            |frame: &[u8]| frame[..4] == 1000_u32.to_be_bytes() && frame[5..].iter().all(|byte| *byte == frame[4]);
        assert!(received.chunks(1004).all(whole));
        let of_second = received.chunks(1004).filter(|frame| frame[4] == 1).count();
        assert_eq!(u64::from(count / 2) - gone, u64::try_from(of_second).unwrap());
    }

    #[test]
    fn a_frame_that_is_half_sent_survives_at_any_place() {
        for steps in 0..80 {
            let (mut wire, mut guest) = pair();
            while wire.push(Port(1), &[1; 60_000]) {}
            guest.set_nonblocking(true).unwrap();
            let mut received = Vec::new();
            let mut take = |wire: &mut Wire, most: usize| {
                let mut buffer = vec![0; most];
                if let Ok(read) = guest.read(&mut buffer) {
                    received.extend_from_slice(&buffer[..read]);
                }
                assert!(wire.flush());
            };
            // Far more than is kept of what was sent.
            for _ in 0..steps {
                take(&mut wire, 17_777);
            }
            wire.take_back(|from| from == Port(1));
            while wire.has_output() {
                take(&mut wire, 1 << 20);
            }
            for _ in 0..20 {
                take(&mut wire, 1 << 20);
            }
            let whole =
                |frame: &[u8]| frame[..4] == 60_000_u32.to_be_bytes() && frame[4..].iter().all(|byte| *byte == 1);
            assert_eq!(received.len() % 60_004, 0);
            assert!(received.chunks(60_004).all(whole));
        }
    }
}
