//! Where events are told: numbered and stamped under one lock, then handed to each consumer's own thread through an
//! unbounded channel, so that a slow consumer never slows the run.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::error::ConsumerError;
use super::event::{Event, EventKind, FORMAT_VERSION};
use super::ledger::{Admission, Ledger};
use super::run::{Counts, RunDone, RunStatus, Warning};

/// Reads the stream, on a thread of its own.
pub trait Consumer: Send {
    /// What it makes, for messages: `event file`, `terminal output`.
    fn output(&self) -> String;

    /// The next event. Failures are kept until [`finish`](Self::finish).
    fn event(&mut self, event: &Event);

    /// The stream is over.
    ///
    /// # Errors
    /// Whatever went wrong since the start.
    fn finish(self: Box<Self>) -> Result<(), ConsumerError>;
}

/// The stream's writing end; clones write to the same stream.
#[derive(Clone)]
pub struct EventSink {
    shared: Arc<Shared>,
}

struct Shared {
    stream: Mutex<Stream>,
    next_vm_id: AtomicU64,
    started: Instant,
}

struct Stream {
    ledger: Ledger,
    next_seq: u64,
    last_ts: u64,
    consumers: Vec<Reader>,
}

struct Reader {
    output: String,
    events: Sender<Arc<Event>>,
    thread: JoinHandle<Result<(), ConsumerError>>,
}

impl EventSink {
    /// A stream with these consumers.
    ///
    /// # Errors
    /// When a consumer's thread can't be started.
    pub fn new(consumers: Vec<Box<dyn Consumer>>) -> std::io::Result<Self> {
        let consumers = consumers.into_iter().map(Reader::start).collect::<Result<_, _>>()?;
        let stream = Stream { ledger: Ledger::new(), next_seq: 0, last_ts: 0, consumers };
        Ok(Self {
            shared: Arc::new(Shared {
                stream: Mutex::new(stream),
                next_vm_id: AtomicU64::new(1),
                started: Instant::now(),
            }),
        })
    }

    /// Tells an event. Never blocks on a reader. An event that would break a promise of the stream is left out, and a
    /// warning that says so is written in its place.
    pub fn emit(&self, kind: EventKind) {
        self.lock().emit(kind);
    }

    /// A number that no other machine of this run has.
    pub fn next_vm_id(&self) -> u64 {
        self.shared.next_vm_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Numbers so far.
    pub fn counts(&self) -> Counts {
        self.lock().ledger.counts()
    }

    /// Seconds since the stream began.
    pub fn elapsed(&self) -> Duration {
        self.shared.started.elapsed()
    }

    /// Writes what is still owed, then `run_done` with the stream's own counts and duration.
    pub fn end_run(&self, status: RunStatus, exit_code: u8) {
        let duration = self.elapsed().as_secs_f64();
        let mut stream = self.lock();
        if stream.ledger.has_ended() {
            return;
        }
        for kind in stream.ledger.close() {
            stream.write(kind);
        }
        let counts = stream.ledger.counts();
        stream.emit(EventKind::RunDone(RunDone { status, exit_code, duration, counts }));
    }

    /// Ends the stream and waits until every consumer has read it to the end. A run that was not ended is ended as a
    /// bug. Later events go nowhere.
    ///
    /// # Errors
    /// Those of the consumers.
    pub fn finish(&self) -> Result<(), Vec<ConsumerError>> {
        self.end_run(RunStatus::Bug, 70);
        let consumers = std::mem::take(&mut self.lock().consumers);
        let errors: Vec<_> = consumers.into_iter().filter_map(|reader| reader.join().err()).collect();
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    fn lock(&self) -> MutexGuard<'_, Stream> {
        // A panic while an event is written leaves at worst an unused number.
        self.shared.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stream {
    fn emit(&mut self, kind: EventKind) {
        match self.ledger.admit(kind) {
            Admission::Write(kinds) => kinds.into_iter().for_each(|kind| self.write(kind)),
            Admission::Refuse(why) if self.ledger.has_ended() => tracing::debug!("event left out: {why}"),
            Admission::Refuse(why) => self.write(EventKind::Warning(Warning {
                message: format!("an event was left out, this is a bug in provium: {why}"),
                hint: None,
            })),
        }
    }

    fn write(&mut self, kind: EventKind) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        // The wall clock may be set back; the order may not. 64 bits of nanoseconds last until 2554.
        self.last_ts = self.last_ts.max(u64::try_from(now).unwrap_or(u64::MAX));
        let event = Arc::new(Event { v: FORMAT_VERSION, ts: self.last_ts, seq: self.next_seq, kind });
        self.next_seq += 1;
        for reader in &self.consumers {
            // A reader that is gone is reported by `finish`.
            let _ = reader.events.send(Arc::clone(&event));
        }
    }
}

impl Reader {
    fn start(mut consumer: Box<dyn Consumer>) -> std::io::Result<Self> {
        let output = consumer.output();
        let (events, queue) = mpsc::channel::<Arc<Event>>();
        let thread = std::thread::Builder::new().name(output.clone()).spawn(move || {
            for event in queue {
                consumer.event(&event);
            }
            consumer.finish()
        })?;
        Ok(Self { output, events, thread })
    }

    fn join(self) -> Result<(), ConsumerError> {
        drop(self.events);
        self.thread.join().unwrap_or_else(|_| {
            let message = "its writer broke, this is a bug in provium".to_owned();
            Err(ConsumerError { output: self.output, message, bug: true })
        })
    }
}

#[cfg(test)]
#[path = "sink_tests.rs"]
mod tests;
