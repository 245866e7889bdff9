//! One disk: requests in, replies out, whatever faults are there in between.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::content::{Content, outside};
use super::crash::{Chance, States, fates};
use super::delayed::Delayed;
use super::error::DiskError;
use super::faults::{Fault, Kind};
use super::image::{self, Base, Format};
use super::state::State;
use super::store::{SECTOR, Store};
use super::write_log::{Record, Recorded};

/// How large a disk is where nobody says.
pub const DEFAULT_SIZE: u64 = 4 << 30;
/// The largest disk, in bytes.
pub const LARGEST_SIZE: u64 = 1 << 50;

/// How a disk treats what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cache {
    /// It is durable once it was flushed.
    #[default]
    WriteBack,
    /// It is durable at once.
    WriteThrough,
    /// It is never durable: flushes succeed, and do nothing.
    Unsafe,
}

impl Cache {
    /// All names.
    pub const NAMES: [&str; 5] = ["writeback", "writethrough", "none", "directsync", "unsafe"];

    /// As QEMU names them; whether the host's page cache is used makes no difference to the guest.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "writeback" | "none" => Some(Self::WriteBack),
            "writethrough" | "directsync" => Some(Self::WriteThrough),
            "unsafe" => Some(Self::Unsafe),
            _ => None,
        }
    }
}

/// What a disk begins with.
#[derive(Debug, Clone)]
pub enum Source {
    /// Zeroes.
    Blank,
    /// An image, which is never written.
    Image(PathBuf, Option<Format>),
    /// An image, which is written itself.
    WriteThrough(PathBuf, Option<Format>),
    /// The content of another disk.
    Content(Arc<Content>),
}

/// A disk to be made.
#[derive(Debug, Clone)]
pub struct DiskSpec {
    /// What it begins with.
    pub source: Source,
    /// How large it is, in bytes; as large as its source where nothing is said.
    pub size: Option<u64>,
    /// Whether writes are refused.
    pub readonly: bool,
    /// How it treats what was written.
    pub cache: Cache,
}

/// Counters of one disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Reads.
    pub reads: u64,
    /// Writes; zeroes and sectors that were given back are some.
    pub writes: u64,
    /// Flushes.
    pub flushes: u64,
    /// Bytes that were read.
    pub read_bytes: u64,
    /// Bytes that were written.
    pub written_bytes: u64,
    /// Requests that failed.
    pub errors: u64,
}

impl Stats {
    /// Both together.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            reads: self.reads + other.reads,
            writes: self.writes + other.writes,
            flushes: self.flushes + other.flushes,
            read_bytes: self.read_bytes.saturating_add(other.read_bytes),
            written_bytes: self.written_bytes.saturating_add(other.written_bytes),
            errors: self.errors + other.errors,
        }
    }
}

/// What is asked of a disk.
#[derive(Debug)]
pub enum Order {
    /// Sectors.
    Read {
        /// The first.
        first: u64,
        /// How many.
        count: u64,
    },
    /// To store whole sectors.
    Write {
        /// The first.
        first: u64,
        /// Their content.
        bytes: Vec<u8>,
        /// Whether they are to be durable at once.
        durable: bool,
    },
    /// To make sectors zero.
    Zeroes {
        /// The first.
        first: u64,
        /// How many.
        count: u64,
        /// Whether they are to be durable at once.
        durable: bool,
    },
    /// What was written to be durable.
    Flush,
}

impl Order {
    /// What it is, its first sector, and how many.
    pub fn extent(&self) -> (Kind, u64, u64) {
        match self {
            Self::Read { first, count } => (Kind::Read, *first, *count),
            Self::Write { first, bytes, .. } => (Kind::Write, *first, bytes.len() as u64 / SECTOR),
            Self::Zeroes { first, count, .. } => (Kind::Write, *first, *count),
            Self::Flush => (Kind::Flush, 0, 0),
        }
    }
}

/// The bytes of a read (empty for all else), or an errno.
pub type Outcome = Result<Vec<u8>, i32>;

/// Who asks.
#[derive(Debug, Clone)]
pub struct Client {
    /// Whether it is the test itself: it is not subject to the guest's power.
    pub is_host: bool,
    /// Cleared when it is gone: what it asked for, and is not carried out yet, is dropped.
    pub alive: Arc<AtomicBool>,
}

impl Client {
    /// A client that is there.
    pub fn new(is_host: bool) -> Self {
        Self { is_host, alive: Arc::new(AtomicBool::new(true)) }
    }
}

/// A disk.
#[derive(Debug)]
pub struct Disk {
    state: Mutex<State>,
    /// Told when a delayed request may go on.
    pub(super) changed: Condvar,
    readonly: bool,
    cache: Cache,
}

impl Disk {
    /// Makes a disk; what is written to it lies in `directory`, in files without a name. Blocks.
    ///
    /// # Errors
    /// The image can't be used, or does not fit the size; no file can be made.
    pub fn open(spec: &DiskSpec, directory: &Path) -> Result<Arc<Self>, DiskError> {
        let store = match &spec.source {
            Source::Blank => Store::over(Base::Blank, sectors_of(spec.size.unwrap_or(DEFAULT_SIZE))?, directory)?,
            Source::Image(path, format) => {
                let (base, sectors) = image::open(path, *format)?;
                Store::over(base, grown(path, sectors, spec.size)?, directory)?
            }
            Source::WriteThrough(path, format) => {
                let (file, sectors) = image::open_for_writing(path, *format)?;
                let wanted = grown(path, sectors, spec.size)?;
                let mut store = Store::write_through(file, sectors, directory);
                if wanted > sectors {
                    store.resize(wanted)?;
                }
                store
            }
            Source::Content(content) => {
                let mut store = content.fork()?;
                let wanted = grown(Path::new("the state"), store.sectors(), spec.size)?;
                store.resize(wanted)?;
                store
            }
        };
        Ok(Self::over(store, spec.readonly, spec.cache))
    }

    pub(super) fn over(store: Store, readonly: bool, cache: Cache) -> Arc<Self> {
        let state = Mutex::new(State::new(store, readonly, cache));
        Arc::new(Self { state, changed: Condvar::new(), readonly, cache })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Consistent between any two statements, and nothing panics with the lock held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.lock().store.sectors() * SECTOR
    }

    /// Whether writes are refused.
    pub fn is_readonly(&self) -> bool {
        self.readonly
    }

    /// How it treats what was written.
    pub fn cache(&self) -> Cache {
        self.cache
    }

    /// Asks something of the disk; `reply` is called once it is done, on any thread.
    pub fn submit(self: &Arc<Self>, order: Order, client: &Client, reply: impl FnOnce(Outcome) + Send + 'static) {
        let mut state = self.lock();
        let wait = state.arrive(&order, client.is_host);
        if wait.is_none() {
            let outcome = state.perform(order, client.is_host);
            drop(state);
            return reply(outcome);
        }
        if state.aborting && !client.is_host {
            state.stats.errors += 1;
            drop(state);
            return reply(Err(libc::EIO));
        }
        state.queue.push(Delayed::new(order, client.clone(), wait, Box::new(reply)));
        self.ensure_delayer(&mut state);
        drop(state);
        self.changed.notify_all();
    }

    /// Asks something of the disk and waits for the reply. Dropping the future takes the request back where it is still
    /// held up.
    pub async fn request(self: &Arc<Self>, order: Order) -> Outcome {
        struct Gone(Client);
        impl Drop for Gone {
            fn drop(&mut self) {
                self.0.alive.store(false, Ordering::SeqCst);
            }
        }
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let gone = Gone(Client::new(true));
        self.submit(order, &gone.0, move |outcome| drop(sender.send(outcome)));
        receiver.await.unwrap_or(Err(libc::EIO))
    }

    /// Adds a fault.
    pub fn inject(&self, fault: Fault) {
        self.lock().faults.inject(fault);
    }

    /// Ends all faults; requests that they hold up go on.
    pub fn clear_faults(&self) {
        self.lock().faults.clear();
        self.changed.notify_all();
    }

    /// The names of the faults that may still strike.
    pub fn active_faults(&self) -> Vec<&'static str> {
        self.lock().faults.names()
    }

    /// The counters.
    pub fn stats(&self) -> Stats {
        self.lock().stats
    }

    /// Begins to record requests anew, or stops; what was recorded stays.
    ///
    /// # Errors
    /// No file can be made.
    pub fn record(&self, on: bool) -> Result<(), DiskError> {
        let mut state = self.lock();
        if on {
            let begin = state.store.fork()?;
            state.record = Some(Record::new(begin, &state.store.directory())?);
        }
        state.recording = on;
        Ok(())
    }

    /// What was recorded.
    pub fn recorded(&self) -> Vec<Recorded> {
        self.lock().record.as_ref().map(|record| record.requests().to_vec()).unwrap_or_default()
    }

    /// What it would hold after a power cut now.
    ///
    /// # Errors
    /// An image that is written through; a file of the host's.
    pub fn crash(&self, chance: Chance) -> Result<Content, DiskError> {
        let mut state = self.lock();
        let mut fork = state.store.fork()?.ok_or_else(through)?;
        state.pending.apply(&mut fork, &fates(&state.pending.steps(), chance))?;
        Ok(Content::new(fork))
    }

    /// What it holds now.
    ///
    /// # Errors
    /// As `crash`.
    pub fn content(&self) -> Result<Content, DiskError> {
        Ok(Content::new(self.lock().store.fork()?.ok_or_else(through)?))
    }

    /// Takes its power away: what was not durable is lost, as chance has it. Requests of the guest that are under way are lost
    /// as well, and until `power_on` it stores nothing more for the guest.
    ///
    /// # Errors
    /// A file of the host's can't be read or written.
    pub fn power_cut(&self, chance: Chance) -> Result<(), DiskError> {
        let mut state = self.lock();
        let lost: Vec<Delayed> = state.queue.extract_if(.., |delayed| !delayed.client.is_host).collect();
        let result = state.power_cut(chance);
        drop(state);
        // Not with the lock held: the replies go to sockets.
        lost.into_iter().for_each(|delayed| delayed.fail(libc::EIO));
        result
    }

    /// It has power (again).
    pub fn power_on(&self) {
        self.lock().powered = true;
    }

    /// While it is `on`, requests of the guest that a fault holds up fail, as when a controller is reset.
    pub fn abort(&self, on: bool) {
        let mut state = self.lock();
        state.aborting = on;
        let lost: Vec<Delayed> = match on {
            true => state.queue.extract_if(.., |delayed| !delayed.client.is_host).collect(),
            false => Vec::new(),
        };
        drop(state);
        lost.into_iter().for_each(|delayed| delayed.fail(libc::EIO));
    }

    /// Holds another content from now on.
    ///
    /// # Errors
    /// One of another size, an image that is written through.
    pub fn restore(&self, content: &Content) -> Result<(), DiskError> {
        let store = content.fork()?;
        let mut state = self.lock();
        if state.store.is_write_through() {
            return Err(through());
        }
        if store.sectors() != state.store.sectors() {
            return Err(DiskError::Unfit(format!(
                "the state has {} sectors, and the disk {}",
                store.sectors(),
                state.store.sectors()
            )));
        }
        state.replace(store);
        Ok(())
    }

    /// Makes it larger, with zeroes, or smaller. What was written before counts as durable then.
    ///
    /// # Errors
    /// No size for a disk; the user's image can't be changed.
    pub fn resize(&self, bytes: u64) -> Result<(), DiskError> {
        let sectors = sectors_of(bytes)?;
        self.lock().resize(sectors)
    }

    /// The states that a power cut could have left at any time since the recording began.
    ///
    /// # Errors
    /// Nothing was recorded; there are more than wanted; the image is written through.
    pub fn states(self: &Arc<Self>, wanted: Exploration) -> Result<Explorer, DiskError> {
        let state = self.lock();
        if state.store.is_write_through() {
            return Err(through());
        }
        let record = state.record.as_ref().ok_or_else(unrecorded)?;
        if !record.is_whole() {
            return Err(DiskError::Unfit("the disk was made smaller since `log(true)`".to_owned()));
        }
        let steps = record.steps();
        let states = match wanted {
            Exploration::Sampled { seed, samples, torn } => States::sampled(steps, seed, samples, torn),
            Exploration::All { limit } => States::all(steps, limit).map_err(|more| {
                let count = if more.states == u64::MAX { "too many to count".to_owned() } else { more.states.to_string() };
                DiskError::Unfit(format!(
                    "there are {count} states, more than the limit of {limit}\nhint: without `exhaustive` they are sampled, or \
                     raise `limit`"
                ))
            })?,
        };
        Ok(Explorer { disk: Arc::clone(self), states, number: record.number() })
    }
}

/// Which states are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exploration {
    /// So many, chosen by a seed.
    Sampled {
        /// The seed.
        seed: u64,
        /// How many.
        samples: u64,
        /// Whether writes may be on the medium in part.
        torn: bool,
    },
    /// All, where they are no more than this.
    All {
        /// The limit.
        limit: u64,
    },
}

/// Gives the states of a recording, one after the other.
#[derive(Debug)]
pub struct Explorer {
    disk: Arc<Disk>,
    states: States,
    number: u64,
}

/// A state, and how it came about.
#[derive(Debug)]
pub struct CrashState {
    /// What the disk would hold.
    pub content: Content,
    /// After how many writes and flushes since the recording began the power went.
    pub point: usize,
}

impl Explorer {
    /// The next state; none where there are no more. Blocks: reads and writes files.
    ///
    /// # Errors
    /// Another recording was begun; a file of the host's.
    pub fn advance(&mut self) -> Result<Option<CrashState>, DiskError> {
        let Some(choice) = self.states.next() else { return Ok(None) };
        let mut state = self.disk.lock();
        let record = state.record.as_mut().filter(|record| record.number() == self.number).ok_or_else(unrecorded)?;
        let store = record.state(choice.settled, &choice.fates)?.ok_or_else(through)?;
        Ok(Some(CrashState { content: Content::new(store), point: choice.point }))
    }
}

fn unrecorded() -> DiskError {
    DiskError::Unfit("nothing was recorded\nhint: `disk:log(true)` comes before what is to be explored".to_owned())
}

pub(super) fn through() -> DiskError {
    let why = "the image is written through: what it held before is not kept\nhint: without `write_through`, writes go to an \
               overlay";
    DiskError::Unfit(why.to_owned())
}

fn sectors_of(bytes: u64) -> Result<u64, DiskError> {
    let why = match bytes {
        0 => "a disk has at least one sector of 512 bytes",
        bytes if !bytes.is_multiple_of(SECTOR) => "a disk has whole sectors of 512 bytes",
        bytes if bytes > LARGEST_SIZE => "a disk has 1024T at most",
        _ => return Ok(bytes / SECTOR),
    };
    Err(DiskError::Unfit(format!("{why}, found {bytes}")))
}

/// The sectors of an image, or of the larger size that is asked for.
fn grown(path: &Path, sectors: u64, size: Option<u64>) -> Result<u64, DiskError> {
    let Some(size) = size else { return Ok(sectors) };
    let wanted = sectors_of(size)?;
    if wanted < sectors {
        let why = format!("it has {} bytes, more than the size {size} that is asked for", sectors * SECTOR);
        return Err(DiskError::Image { path: path.to_owned(), why });
    }
    Ok(wanted)
}

/// The error that a request of the test's ends with.
pub fn refusal(disk: &Disk, order: (Kind, u64, u64), errno: i32) -> DiskError {
    let (kind, first, count) = order;
    let sectors = disk.size() / SECTOR;
    if first.checked_add(count).is_none_or(|end| end > sectors) {
        return outside(first, count, sectors);
    }
    let why = match errno {
        libc::EPERM => "the disk is read-only".to_owned(),
        _ => format!("sectors {first} to {}: the {} failed", first + count.saturating_sub(1), kind.name()),
    };
    DiskError::Refused { errno, why }
}
