//! What a disk's lock guards, and what becomes of one request.

use super::crash::{Chance, fates};
use super::delayed::Delayed;
use super::disk::{Cache, Order, Outcome, Stats};
use super::error::DiskError;
use super::faults::{Effect, Faults, Kind, Wait};
use super::store::{SECTOR, Store};
use super::write_log::{Payload, Pending, Record};

/// A disk's content, faults and counters.
#[derive(Debug)]
pub struct State {
    pub(super) store: Store,
    pub(super) pending: Pending,
    pub(super) faults: Faults,
    pub(super) stats: Stats,
    pub(super) record: Option<Record>,
    pub(super) recording: bool,
    /// Requests that wait.
    pub(super) queue: Vec<Delayed>,
    /// Whether a thread looks after the queue.
    pub(super) delayer: bool,
    pub(super) powered: bool,
    /// Whether requests that would wait fail.
    pub(super) aborting: bool,
    /// A snapshot of the machine is on its way.
    pub(super) pause: Pause,
    readonly: bool,
    cache: Cache,
}

/// What a snapshot of the machine changes for its requests. QEMU waits for all of them, and flushes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// Nothing.
    None,
    /// The guest is about to stand still: nothing may hang.
    Begins,
    /// The guest stands still: what comes is QEMU's own, which meets no faults and makes nothing durable.
    Still,
}

impl State {
    pub(super) fn new(store: Store, readonly: bool, cache: Cache) -> Self {
        Self {
            store,
            pending: Pending::default(),
            faults: Faults::default(),
            stats: Stats::default(),
            record: None,
            recording: false,
            queue: Vec::new(),
            delayer: false,
            powered: true,
            aborting: false,
            pause: Pause::None,
            readonly,
            cache,
        }
    }

    /// A request comes: it is counted and recorded; what it waits for.
    pub(super) fn arrive(&mut self, order: &Order, is_host: bool) -> Wait {
        if self.pause == Pause::Still && !is_host {
            return Wait::default();
        }
        let (kind, first, count) = order.extent();
        let bytes = count.saturating_mul(SECTOR);
        match kind {
            Kind::Read => {
                self.stats.reads += 1;
                self.stats.read_bytes = self.stats.read_bytes.saturating_add(bytes);
            }
            Kind::Write => {
                self.stats.writes += 1;
                self.stats.written_bytes = self.stats.written_bytes.saturating_add(bytes);
            }
            Kind::Flush => self.stats.flushes += 1,
        }
        if let Some(record) = self.record.as_mut().filter(|_| self.recording) {
            record.request(kind, first, count);
        }
        let may_hang = is_host || self.pause == Pause::None;
        if self.faults.is_empty() { Wait::default() } else { self.faults.arrive(kind, first, count, may_hang) }
    }

    /// Carries a request out.
    pub(super) fn perform(&mut self, order: Order, is_host: bool) -> Outcome {
        let outcome = self.try_perform(order, is_host);
        self.stats.errors += u64::from(outcome.is_err());
        outcome
    }

    fn try_perform(&mut self, order: Order, is_host: bool) -> Outcome {
        let (kind, first, count) = order.extent();
        let is_qemus = self.pause == Pause::Still && !is_host;
        if is_qemus && kind == Kind::Flush {
            return Ok(Vec::new());
        }
        if first.checked_add(count).is_none_or(|end| end > self.store.sectors()) {
            return Err(if kind == Kind::Write { libc::ENOSPC } else { libc::EINVAL });
        }
        if kind == Kind::Write && self.readonly {
            return Err(libc::EPERM);
        }
        if kind != Kind::Read && !is_host && !self.powered {
            return Err(libc::EIO);
        }
        let effect =
            if self.faults.is_empty() || is_qemus { Effect::default() } else { self.faults.strike(kind, first, count) };
        if let Some(errno) = effect.errno {
            return Err(errno);
        }
        let result = match order {
            Order::Read { .. } => return self.read(first, count, &effect),
            Order::Write { bytes, durable, .. } if effect.torn => self.write_half(first, &bytes, durable || is_host),
            Order::Write { bytes, durable, .. } => self.write(first, Payload::Bytes(&bytes), durable || is_host),
            Order::Zeroes { durable, .. } => {
                let count = if effect.torn { count / 2 } else { count };
                self.write(first, Payload::Zeroes(count), durable || is_host)
            }
            Order::Flush => self.flush(),
        };
        result.map(|()| Vec::new()).map_err(errno)
    }

    fn read(&mut self, first: u64, count: u64, effect: &Effect) -> Outcome {
        let mut bytes = vec![0; usize::try_from(count * SECTOR).map_err(|_| libc::ENOMEM)?];
        self.store.read(first, &mut bytes).map_err(errno)?;
        for (sector, bit) in &effect.corrupt {
            let at = usize::try_from((sector - first) * SECTOR + bit / 8).unwrap_or_default();
            bytes[at] ^= 1 << (bit % 8);
        }
        Ok(bytes)
    }

    fn write(&mut self, first: u64, payload: Payload<'_>, durable: bool) -> std::io::Result<()> {
        let durable = durable || self.cache == Cache::WriteThrough;
        self.pending.write(&mut self.store, first, payload, durable)?;
        match self.record.as_mut().filter(|_| self.recording) {
            Some(record) => record.write(first, payload, durable),
            None => Ok(()),
        }
    }

    /// The first half of the sectors; of a single one the first half of its bytes.
    fn write_half(&mut self, first: u64, bytes: &[u8], durable: bool) -> std::io::Result<()> {
        let sector = usize::try_from(SECTOR).unwrap_or_default();
        if bytes.len() > sector {
            let half = bytes.len() / sector / 2 * sector;
            return self.write(first, Payload::Bytes(&bytes[..half]), durable);
        }
        let mut mixed = vec![0; bytes.len()];
        self.store.read(first, &mut mixed)?;
        let half = bytes.len() / 2;
        mixed[..half].copy_from_slice(&bytes[..half]);
        self.write(first, Payload::Bytes(&mixed), durable)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if self.cache == Cache::Unsafe {
            return Ok(());
        }
        self.store.sync()?;
        self.pending.settle();
        if let Some(record) = self.record.as_mut().filter(|_| self.recording) {
            record.flush();
        }
        Ok(())
    }

    pub(super) fn power_cut(&mut self, chance: Chance) -> Result<(), DiskError> {
        let fates = fates(&self.pending.steps(), chance);
        self.pending.apply(&mut self.store, &fates)?;
        self.pending.settle();
        self.powered = false;
        self.close_record();
        Ok(())
    }

    /// Holds another content from now on.
    pub(super) fn replace(&mut self, store: Store) {
        self.store = store;
        self.pending.settle();
        self.close_record();
    }

    /// What comes from now on does not follow from what was recorded.
    pub(super) fn close_record(&mut self) {
        if let Some(record) = self.record.as_mut().filter(|_| self.recording) {
            record.close();
        }
    }

    pub(super) fn resize(&mut self, sectors: u64) -> Result<(), DiskError> {
        self.pending.settle();
        let result = self.store.resize(sectors);
        if let Some(record) = &mut self.record {
            record.resize(sectors)?;
        }
        Ok(result?)
    }
}

fn errno(error: std::io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}
