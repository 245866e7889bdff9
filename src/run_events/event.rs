//! The events and their JSON form: one object a line, `v`, `ts`, `seq` and `kind` first.
//!
//! Only `test_done` has both `name` and `status` at top level, so that a reader finds results by these two keys alone.

use serde::{Deserialize, Serialize};

use super::fixture::{FixtureBuildDone, FixtureBuildStarted, FixtureBuildWaiting, FixtureDamaged, FixtureHit};
use super::realise::{ProfileRealiseDone, ProfileRealiseFailed, ProfileRealiseProgress, ProfileRealiseStarted};
use super::results::{FileBlocked, FileDone, FileRef, TestDone, TestStarted};
use super::run::{AcceleratorChosen, RunDone, RunStarted, Warning};
use super::vm::{GuestPanic, GuestSplat, VmReady, VmStarted, VmStopped};

/// The `v` of every event.
pub const FORMAT_VERSION: u32 = 1;

/// One line of the stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Version of the format, [`FORMAT_VERSION`].
    pub v: u32,
    /// Nanoseconds since 1970; never smaller than that of the event before.
    pub ts: u64,
    /// From 0, without gaps: the total order.
    pub seq: u64,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

impl Event {
    /// The event as one line of JSON, without the newline.
    ///
    /// # Errors
    /// None that comes from outside: every field of every kind has a JSON form.
    pub fn to_json_line(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }
}

/// What happened; in JSON the variant's name is `kind` and its fields stand beside it.
#[expect(missing_docs, reason = "each variant's struct says what it is")]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EventKind {
    RunStarted(RunStarted),
    AcceleratorChosen(AcceleratorChosen),
    ProfileRealiseStarted(ProfileRealiseStarted),
    ProfileRealiseProgress(ProfileRealiseProgress),
    ProfileRealiseDone(ProfileRealiseDone),
    ProfileRealiseFailed(ProfileRealiseFailed),
    FileDiscovered(FileRef),
    FileQueued(FileRef),
    FileBlocked(FileBlocked),
    FileStarted(FileRef),
    FileDone(FileDone),
    TestStarted(TestStarted),
    TestDone(Box<TestDone>),
    VmStarted(VmStarted),
    VmReady(VmReady),
    VmStopped(VmStopped),
    GuestPanic(GuestPanic),
    GuestSplat(GuestSplat),
    FixtureBuildStarted(FixtureBuildStarted),
    FixtureBuildWaiting(FixtureBuildWaiting),
    FixtureBuildDone(FixtureBuildDone),
    FixtureHit(FixtureHit),
    FixtureDamaged(FixtureDamaged),
    Warning(Warning),
    RunDone(RunDone),
}

#[cfg(test)]
#[path = "event_tests.rs"]
mod tests;
