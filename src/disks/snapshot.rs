//! A disk's part of a snapshot of its machine.

use std::path::PathBuf;
use std::sync::Arc;

use super::content::Content;
use super::delayed::Delayed;
use super::disk::{Cache, Disk, Stats, through};
use super::error::DiskError;
use super::faults::Faults;
use super::state::Pause;
use super::write_log::{FrozenWrites, Pending};

/// What a disk was at one moment: its content, what of it was not durable, its faults. It does not change any more.
#[derive(Debug)]
pub struct DiskSnapshot {
    pub(super) content: Content,
    pub(super) pending: Option<FrozenWrites>,
    pub(super) faults: Faults,
    pub(super) readonly: bool,
    pub(super) cache: Cache,
    pub(super) powered: bool,
}

impl DiskSnapshot {
    /// The content.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// Bytes that it takes; those of an image that it lies over are not its own.
    pub fn allocated(&self) -> u64 {
        self.content.store().allocated()
    }
}

impl Disk {
    /// What belongs to a snapshot of the machine. Nothing is copied but what a flush has not made durable.
    ///
    /// # Errors
    /// An image that is written through; a file of the host's.
    pub fn snapshot(&self) -> Result<DiskSnapshot, DiskError> {
        let mut state = self.lock();
        let content = Content::new(state.store.fork()?.ok_or_else(through)?);
        Ok(DiskSnapshot {
            content,
            pending: state.pending.freeze(&state.store)?,
            faults: state.faults.clone(),
            readonly: self.is_readonly(),
            cache: self.cache(),
            powered: state.powered,
        })
    }

    /// A disk with the content of a snapshot; nothing is copied. It meets no faults until it is armed.
    ///
    /// # Errors
    /// No file can be made.
    pub fn from_snapshot(snapshot: &DiskSnapshot) -> Result<Arc<Self>, DiskError> {
        Ok(Self::over(snapshot.content.fork()?, snapshot.readonly, snapshot.cache))
    }

    /// A disk that was made from the snapshot begins to count, and to meet the faults of then: its guest is about to go on.
    pub fn arm(&self, snapshot: &DiskSnapshot) {
        let mut state = self.lock();
        state.faults = snapshot.faults.clone();
        state.pending = snapshot.pending.as_ref().map(Pending::thaw).unwrap_or_default();
        state.powered = snapshot.powered;
        state.stats = Stats::default();
    }

    /// Takes the place of `old` for the test: its counters and what was recorded go on. What still waits in `old` fails.
    pub fn succeed(&self, old: &Self) {
        let (record, recording, stats, lost) = {
            let mut state = old.lock();
            let lost: Vec<Delayed> = state.queue.drain(..).collect();
            (state.record.take(), state.recording, state.stats, lost)
        };
        lost.into_iter().for_each(|delayed| delayed.fail(libc::EIO));
        let mut state = self.lock();
        state.record = record;
        state.recording = recording;
        state.stats = state.stats.and(stats);
        state.close_record();
    }

    /// The files of the image that it lies over, the one itself first; none where it began blank.
    pub fn image(&self) -> Vec<PathBuf> {
        self.lock().store.base().image().map(|(_, files)| files).unwrap_or_default()
    }

    /// Whether it is written to an image of the user's.
    pub fn is_write_through(&self) -> bool {
        self.lock().store.is_write_through()
    }

    /// Whether a request of the guest's is held up until a fault is cleared.
    pub fn hangs(&self) -> bool {
        self.lock().queue.iter().any(|delayed| !delayed.client.is_host && delayed.is_hung())
    }

    /// The guest is about to stand still for a snapshot: its requests no longer hang.
    pub fn begin_pause(&self) {
        self.lock().pause = Pause::Begins;
    }

    /// The guest stands still for a snapshot: what comes is QEMU's own.
    pub fn stand_still(&self) {
        self.lock().pause = Pause::Still;
    }

    /// The snapshot is taken, or was given up.
    pub fn end_pause(&self) {
        self.lock().pause = Pause::None;
    }
}
