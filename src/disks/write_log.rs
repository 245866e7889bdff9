//! What is remembered of writes: those that no flush has made durable, so that a power cut can undo them; and, while a test
//! records, all of them with their content.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::crash::{Fate, Step};
use super::faults::Kind;
use super::store::{SECTOR, Store};

/// Room for what was overwritten is given back to the file system beyond this, in bytes.
const KEPT_ROOM: u64 = 16 << 20;

/// What is written.
#[derive(Debug, Clone, Copy)]
pub enum Payload<'a> {
    /// These bytes: whole sectors.
    Bytes(&'a [u8]),
    /// So many sectors of zeroes.
    Zeroes(u64),
}

impl Payload<'_> {
    /// How many sectors.
    pub fn sectors(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64 / SECTOR,
            Self::Zeroes(count) => *count,
        }
    }

    fn write(&self, store: &mut Store, first: u64) -> io::Result<()> {
        match self {
            Self::Bytes(bytes) => store.write(first, bytes),
            Self::Zeroes(count) => store.write_zeroes(first, *count),
        }
    }
}

/// What a write replaced.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Old {
    /// It is saved at this offset.
    Saved(u64),
    /// It is still there, in what was below so many layers.
    Below(usize),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Overwritten {
    first: u64,
    count: u64,
    old: Old,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PendingWrite {
    first: u64,
    sectors: u64,
    zeroes: bool,
    durable: bool,
    overwritten: Vec<Overwritten>,
}

impl PendingWrite {
    /// Whether it, and what it replaced, lies on a disk of so many sectors; `saved` is the length of the file of the latter.
    pub(super) fn is_within(&self, sectors: u64, saved: u64) -> bool {
        let fits = |first: u64, count: u64| first.checked_add(count).is_some_and(|end| end <= sectors);
        let old = |piece: &Overwritten| match piece.old {
            Old::Saved(place) => place.checked_add(piece.count.saturating_mul(SECTOR)).is_some_and(|end| end <= saved),
            Old::Below(_) => false,
        };
        fits(self.first, self.sectors)
            && self.overwritten.iter().all(|piece| fits(piece.first, piece.count) && old(piece))
    }
}

/// Writes that no flush has made durable, in their order.
#[derive(Debug, Default)]
pub struct Pending {
    writes: Vec<PendingWrite>,
    saved: Option<File>,
    saved_length: u64,
    /// What was overwritten before a snapshot: this much of a file that no longer changes.
    frozen: Option<(Arc<File>, u64)>,
}

/// Writes that no flush had made durable when a snapshot was taken, with all that they replaced.
#[derive(Debug)]
pub struct FrozenWrites {
    pub(super) writes: Vec<PendingWrite>,
    pub(super) saved: Arc<File>,
    pub(super) length: u64,
}

impl Pending {
    /// Writes to the store. A write that is `durable` at once stays when the power goes.
    ///
    /// # Errors
    /// A file of the host's that can't be read or written; nothing has changed then that a power cut would not undo.
    pub fn write(&mut self, store: &mut Store, first: u64, payload: Payload<'_>, durable: bool) -> io::Result<()> {
        let sectors = payload.sectors();
        if durable && self.writes.is_empty() {
            return payload.write(store, first);
        }
        let overwritten = self.save(store, first, sectors)?;
        let zeroes = matches!(payload, Payload::Zeroes(_));
        self.writes.push(PendingWrite { first, sectors, zeroes, durable, overwritten });
        payload.write(store, first)
    }

    fn save(&mut self, store: &Store, first: u64, sectors: u64) -> io::Result<Vec<Overwritten>> {
        let mut overwritten = Vec::new();
        let (mut at, end) = (first, first + sectors);
        while at < end {
            let (held, mut count) = store.run_of_top(at, end - at);
            let old = if held {
                count = count.min(2048);
                let mut bytes = vec![0; bytes_of(count)];
                store.read(at, &mut bytes)?;
                let file = match &mut self.saved {
                    Some(file) => file,
                    none => none.insert(tempfile::tempfile_in(store.directory())?),
                };
                file.write_all_at(&bytes, self.saved_length)?;
                let place = self.saved_length;
                self.saved_length += bytes.len() as u64;
                Old::Saved(place)
            } else {
                Old::Below(store.depth())
            };
            overwritten.push(Overwritten { first: at, count, old });
            at += count;
        }
        Ok(overwritten)
    }

    /// All that was written is durable.
    pub fn settle(&mut self) {
        self.writes.clear();
        if self.saved_length > KEPT_ROOM {
            self.saved = None;
        }
        self.saved_length = 0;
        self.frozen = None;
    }

    /// As they are now; none where all is durable.
    ///
    /// # Errors
    /// A file of the host's that can't be read or written.
    pub fn freeze(&self, store: &Store) -> io::Result<Option<FrozenWrites>> {
        if self.writes.is_empty() {
            return Ok(None);
        }
        let file = tempfile::tempfile_in(store.directory())?;
        let mut length = 0;
        let mut writes = self.writes.clone();
        for overwritten in writes.iter_mut().flat_map(|write| &mut write.overwritten) {
            let (mut at, end) = (overwritten.first, overwritten.first + overwritten.count);
            let mut from = if let Old::Saved(place) = overwritten.old { place } else { 0 };
            let place = length;
            while at < end {
                let mut bytes = vec![0; bytes_of((end - at).min(2048))];
                match overwritten.old {
                    Old::Saved(_) => self.read_saved(&mut bytes, from)?,
                    Old::Below(depth) => store.read_below(depth, at, &mut bytes)?,
                }
                file.write_all_at(&bytes, length)?;
                length += bytes.len() as u64;
                from += bytes.len() as u64;
                at += bytes.len() as u64 / SECTOR;
            }
            overwritten.old = Old::Saved(place);
        }
        Ok(Some(FrozenWrites { writes, saved: Arc::new(file), length }))
    }

    /// Those of a snapshot.
    pub fn thaw(frozen: &FrozenWrites) -> Self {
        let saved_length = frozen.length;
        let frozen_file = Some((Arc::clone(&frozen.saved), frozen.length));
        Self { writes: frozen.writes.clone(), saved: None, saved_length, frozen: frozen_file }
    }

    fn read_saved(&self, bytes: &mut [u8], place: u64) -> io::Result<()> {
        match (&self.frozen, &self.saved) {
            (Some((file, length)), _) if place < *length => file.read_exact_at(bytes, place),
            (_, Some(file)) => file.read_exact_at(bytes, place),
            (_, None) => Err(io::Error::other("what was overwritten is gone")),
        }
    }

    /// The writes as steps, for a choice of their fates.
    pub fn steps(&self) -> Vec<Step> {
        self.writes.iter().map(|write| Step::Write { sectors: write.sectors, durable: write.durable }).collect()
    }

    /// Makes `store`, which has seen all the writes, what it would be had they met these fates. `store` may be a fork.
    ///
    /// # Errors
    /// A file of the host's that can't be read or written.
    pub fn apply(&self, store: &mut Store, fates: &[Fate]) -> io::Result<()> {
        // What comes before the first write that is not kept whole stays as it is.
        let Some(begin) = fates.iter().position(|fate| *fate != Fate::Kept) else { return Ok(()) };
        let mut again: Vec<(u64, Vec<u8>, u64)> = Vec::new();
        for (write, fate) in self.writes.iter().zip(fates).skip(begin).rev() {
            let keep = match fate {
                Fate::Kept => write.sectors,
                Fate::Dropped => 0,
                Fate::Torn(sectors) => (*sectors).min(write.sectors),
            };
            let mut bytes = Vec::new();
            if keep > 0 && !write.zeroes {
                bytes = vec![0; bytes_of(keep)];
                store.read(write.first, &mut bytes)?;
            }
            again.push((write.first, bytes, keep));
            self.undo(store, write)?;
        }
        for (first, bytes, keep) in again.iter().rev().filter(|(_, _, keep)| *keep > 0) {
            let payload = if bytes.is_empty() { Payload::Zeroes(*keep) } else { Payload::Bytes(bytes) };
            payload.write(store, *first)?;
        }
        Ok(())
    }

    fn undo(&self, store: &mut Store, write: &PendingWrite) -> io::Result<()> {
        for Overwritten { first, count, old } in write.overwritten.iter().rev() {
            match old {
                Old::Below(depth) if *depth == store.depth() => store.forget(*first, *count),
                Old::Below(depth) => {
                    let (mut at, end) = (*first, first + count);
                    while at < end {
                        let piece = (end - at).min(2048);
                        let mut bytes = vec![0; bytes_of(piece)];
                        store.read_below(*depth, at, &mut bytes)?;
                        store.write(at, &bytes)?;
                        at += piece;
                    }
                }
                Old::Saved(place) => {
                    let (mut at, end, mut from) = (*first, first + count, *place);
                    while at < end {
                        let mut bytes = vec![0; bytes_of((end - at).min(2048))];
                        self.read_saved(&mut bytes, from)?;
                        store.write(at, &bytes)?;
                        from += bytes.len() as u64;
                        at += bytes.len() as u64 / SECTOR;
                    }
                }
            }
        }
        Ok(())
    }
}

fn bytes_of(sectors: u64) -> usize {
    usize::try_from(sectors * SECTOR).unwrap_or(usize::MAX)
}

/// One request that was recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// What it was.
    pub kind: Kind,
    /// Its first sector.
    pub sector: u64,
    /// How many.
    pub count: u64,
    /// Seconds since the recording began.
    pub time: f64,
}

#[derive(Debug)]
struct RecordedWrite {
    first: u64,
    sectors: u64,
    durable: bool,
    /// Where its content is saved; none: zeroes.
    place: Option<u64>,
}

/// A recording: every request, and what was written over which content.
#[derive(Debug)]
pub struct Record {
    /// The content when it began; none where it can't be kept.
    begin: Option<Store>,
    /// What tells it from others.
    number: u64,
    began: Instant,
    /// Whether what is written now no longer follows from what was recorded.
    closed: bool,
    requests: Vec<Recorded>,
    /// A write, or a flush.
    steps: Vec<Option<RecordedWrite>>,
    data: File,
    length: u64,
}

impl Record {
    /// Begins now; `begin` is the content, which counts as durable.
    ///
    /// # Errors
    /// No file can be made.
    pub fn new(begin: Option<Store>, directory: &Path) -> io::Result<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        Ok(Self {
            begin,
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            began: Instant::now(),
            closed: false,
            requests: Vec::new(),
            steps: Vec::new(),
            data: tempfile::tempfile_in(directory)?,
            length: 0,
        })
    }

    /// What tells this recording from others.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Whether the content at its beginning is still there.
    pub fn is_whole(&self) -> bool {
        self.begin.is_some()
    }

    /// What is written from now on does not follow from what was: requests are still noted, writes no more.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// The disk has another size.
    ///
    /// # Errors
    /// None that can happen to a private store.
    pub fn resize(&mut self, sectors: u64) -> io::Result<()> {
        match &mut self.begin {
            // What was recorded may lie behind the new end.
            Some(begin) if begin.sectors() > sectors => self.begin = None,
            Some(begin) => begin.resize(sectors)?,
            None => {}
        }
        Ok(())
    }

    /// A request came.
    pub fn request(&mut self, kind: Kind, sector: u64, count: u64) {
        let time = self.began.elapsed().as_secs_f64();
        self.requests.push(Recorded { kind, sector, count, time });
    }

    /// This was written.
    ///
    /// # Errors
    /// The host's file system is full.
    pub fn write(&mut self, first: u64, payload: Payload<'_>, durable: bool) -> io::Result<()> {
        if self.closed {
            return Ok(());
        }
        let place = match payload {
            Payload::Zeroes(_) => None,
            Payload::Bytes(bytes) => {
                self.data.write_all_at(bytes, self.length)?;
                self.length += bytes.len() as u64;
                Some(self.length - bytes.len() as u64)
            }
        };
        self.steps.push(Some(RecordedWrite { first, sectors: payload.sectors(), durable, place }));
        Ok(())
    }

    /// A flush succeeded.
    pub fn flush(&mut self) {
        if !self.closed {
            self.steps.push(None);
        }
    }

    /// The requests so far.
    pub fn requests(&self) -> &[Recorded] {
        &self.requests
    }

    /// What happened, for a choice of states.
    pub fn steps(&self) -> Vec<Step> {
        let step = |step: &Option<RecordedWrite>| match step {
            None => Step::Flush,
            Some(write) => Step::Write { sectors: write.sectors, durable: write.durable },
        };
        self.steps.iter().map(step).collect()
    }

    /// The content with the first `settled` steps, and those behind them that their fates kept; none where the beginning was
    /// not kept.
    ///
    /// # Errors
    /// A file of the host's that can't be read or written.
    pub fn state(&mut self, settled: usize, fates: &[Fate]) -> io::Result<Option<Store>> {
        let Some(begin) = &mut self.begin else { return Ok(None) };
        let Some(mut store) = begin.fork()? else { return Ok(None) };
        let all = std::iter::repeat_n(&Fate::Kept, settled).chain(fates);
        for (step, fate) in self.steps.iter().zip(all) {
            let Some(write) = step else { continue };
            let keep = match fate {
                Fate::Kept => write.sectors,
                Fate::Dropped => continue,
                Fate::Torn(sectors) => (*sectors).min(write.sectors),
            };
            match write.place {
                None => store.write_zeroes(write.first, keep)?,
                Some(place) => {
                    let mut bytes = vec![0; bytes_of(keep)];
                    self.data.read_exact_at(&mut bytes, place)?;
                    store.write(write.first, &bytes)?;
                }
            }
        }
        Ok(Some(store))
    }
}
