//! One layer of a disk's content: the sectors that were written while it was on top.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::sector_map::SectorMap;
use super::store::{SECTOR, read_or_zero};

/// Sectors that are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// The first.
    pub first: u64,
    /// How many.
    pub count: u64,
    /// Whether they are more than zeroes.
    pub is_data: bool,
}

/// Sectors that were written.
#[derive(Debug)]
pub struct Layer {
    pub(super) file: File,
    pub(super) map: SectorMap,
    /// From this sector on nothing below is seen: the disk was smaller once.
    pub(super) below: u64,
    /// Where in the file pieces begin, of a stored layer: by their first sector. In any other each sector has its own place.
    places: Option<BTreeMap<u64, (Piece, u64)>>,
}

impl Layer {
    /// An empty one, whose file has no name.
    ///
    /// # Errors
    /// No file can be made.
    pub fn new(directory: &Path, below: u64) -> io::Result<Self> {
        Ok(Self { file: tempfile::tempfile_in(directory)?, map: SectorMap::default(), below, places: None })
    }

    /// One that was stored: the pieces that are data stand one behind the other in the file.
    pub fn stored(file: File, pieces: &[Piece], below: u64) -> Self {
        let (mut map, mut places, mut place) = (SectorMap::default(), BTreeMap::new(), 0);
        for piece in pieces {
            map.insert(piece.first, piece.count);
            places.insert(piece.first, (*piece, place));
            place += if piece.is_data { piece.count * SECTOR } else { 0 };
        }
        Self { file, map, below, places: Some(places) }
    }

    /// Reads sectors that it holds.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn read(&self, first: u64, buffer: &mut [u8]) -> io::Result<()> {
        let Some(places) = &self.places else { return read_or_zero(&self.file, first * SECTOR, buffer) };
        let (mut at, mut left) = (first, buffer);
        while !left.is_empty() {
            let Some((piece, place)) = holder(places, at) else {
                left.fill(0);
                return Ok(());
            };
            let within = at - piece.first;
            let count = (piece.count - within).min(left.len() as u64 / SECTOR);
            let (part, rest) = left.split_at_mut(usize::try_from(count * SECTOR).unwrap_or(usize::MAX));
            match piece.is_data {
                true => read_or_zero(&self.file, place + within * SECTOR, part)?,
                false => part.fill(0),
            }
            at += count;
            left = rest;
        }
        Ok(())
    }

    /// Whether the sector `first`, which it holds, may be more than zeroes, and how many are alike, `count` at most.
    ///
    /// # Errors
    /// The file can't be looked at.
    pub fn extent(&self, first: u64, count: u64) -> io::Result<(bool, u64)> {
        if let Some(places) = &self.places {
            let Some((piece, _)) = holder(places, first) else { return Ok((false, count)) };
            return Ok((piece.is_data, (piece.first + piece.count - first).min(count)));
        }
        let from = first * SECTOR;
        match self.seek(from, libc::SEEK_DATA)? {
            None => Ok((false, count)),
            Some(data) if data / SECTOR > first => Ok((false, (data / SECTOR - first).min(count))),
            Some(_) => {
                let end = self.seek(from, libc::SEEK_HOLE)?.unwrap_or(u64::MAX);
                Ok((true, (end.div_ceil(SECTOR).saturating_sub(first)).clamp(1, count)))
            }
        }
    }

    /// The next byte of a hole, or of none, from an offset on; none where there is no more. A file system that knows no holes has none.
    fn seek(&self, from: u64, whence: i32) -> io::Result<Option<u64>> {
        let offset = i64::try_from(from).map_err(io::Error::other)?;
        // SAFETY: an open descriptor and numbers; nobody relies on its offset.
        let found = unsafe { libc::lseek(self.file.as_raw_fd(), offset, whence) };
        if let Ok(found) = u64::try_from(found) {
            return Ok(Some(found));
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::ENXIO) => Ok(None),
            Some(libc::EINVAL) => Ok((whence == libc::SEEK_DATA).then_some(from)),
            _ => Err(error),
        }
    }
}

fn holder(places: &BTreeMap<u64, (Piece, u64)>, sector: u64) -> Option<(Piece, u64)> {
    let (_, found) = places.range(..=sector).next_back()?;
    (sector < found.0.first + found.0.count).then_some(*found)
}
