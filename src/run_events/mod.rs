//! What happened in a run, as one ordered stream.
//!
//! Everything the runner does is told through an [`EventSink`]; every output is a [`Consumer`] of it. The format is
//! fixed by the page "Events and reports" of the specification.

mod error;
mod event;
mod fixture;
mod ledger;
mod realise;
mod results;
mod run;
mod sink;
mod vm;

pub use error::ConsumerError;
pub use event::{Event, EventKind, FORMAT_VERSION};
pub use fixture::{FixtureBuildDone, FixtureBuildStarted, FixtureBuildWaiting, FixtureDamaged, FixtureHit};
pub use ledger::{Admission, Ledger};
pub use realise::{
    ProfileRealiseDone, ProfileRealiseFailed, ProfileRealiseProgress, ProfileRealiseStarted, RealiseStep, RealisedPath,
};
pub use results::{
    Attachment, ConsoleTail, FileBlocked, FileDone, FileError, FilePhase, FileRef, FileStatus, SourceLine, Step,
    TestDone, TestStarted, TestStatus,
};
pub use run::{AcceleratorChosen, Counts, HostInfo, QemuInfo, RunDone, RunStarted, RunStatus, Warning};
pub use sink::{Consumer, EventSink};
pub use vm::{BootHow, GuestPanic, GuestSplat, StopReason, VmReady, VmRef, VmStarted, VmStopped};
