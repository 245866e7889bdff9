//! Which test file runs when; deadlines, signals, and which tests are selected.
//!
//! The test body comes as a function, so all of this is testable without a virtual machine.

mod error;
mod files;
mod selection;
mod signals;

pub use error::SchedulerError;
pub use files::{FileContext, FileJob, FileOutcome, RunOptions, RunOutcome, run};
pub use selection::{Decision, MetaPair, Selection, Shard, SlowTests};
pub use signals::watch_signals;
