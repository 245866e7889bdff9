//! Runs test files one after the other: deadlines, cancelling, and what is told about each file.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::foundation::cancel::{CancelReason, CancelToken};
use crate::run_events::{EventKind, EventSink, FileDone, FileError, FilePhase, FileRef, FileStatus, RunStatus};

/// A test file to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileJob {
    /// The path as it is shown to people and in events; unique in a run.
    pub file: String,
    /// Where to read it.
    pub path: PathBuf,
}

/// How files are run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RunOptions {
    /// The time that each file has; none is no limit.
    pub file_timeout: Option<Duration>,
    /// Stop at the first failure.
    pub fail_fast: bool,
}

/// What a file's runner gets besides the file.
#[derive(Debug, Clone)]
pub struct FileContext {
    /// Cancelled at the file's deadline and when the run is interrupted. The runner must return soon after, with
    /// everything torn down.
    pub cancel: CancelToken,
    /// The limit behind the token's deadline, for messages.
    pub timeout: Option<Duration>,
    /// Leave out the file's other tests after the first failure.
    pub fail_fast: bool,
}

/// How a file ended, as its runner says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileOutcome {
    /// How it ended.
    pub status: FileStatus,
    /// What broke it, apart from its tests.
    pub error: Option<FileError>,
    /// What it printed outside of tests.
    pub log: String,
    /// How many of its tests the selection has.
    pub selected: usize,
    /// How many it would have if slow ones were included, beyond `selected`.
    pub left_out_as_slow: usize,
}

impl FileOutcome {
    /// A file that ended by itself, with nothing to add.
    pub fn new(status: FileStatus, selected: usize) -> Self {
        Self { status, error: None, log: String::new(), selected, left_out_as_slow: 0 }
    }

    /// A file that broke apart from its tests.
    pub fn broken(phase: FilePhase, message: impl Into<String>, trace: Vec<String>) -> Self {
        let error = Some(FileError { phase, message: message.into(), trace });
        Self { status: FileStatus::Failed, error, log: String::new(), selected: 0, left_out_as_slow: 0 }
    }
}

/// How a run ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunOutcome {
    /// A signal ended it.
    pub interrupted: bool,
    /// A test failed or timed out, or a file did not load.
    pub failed: bool,
    /// What broke files apart from their tests, in the order of the files.
    pub errors: Vec<(String, FileError)>,
    /// Selected tests, over all files that ran.
    pub selected: usize,
    /// Tests that were left out only because they are slow.
    pub left_out_as_slow: usize,
}

impl RunOutcome {
    /// The first error of a phase, with its file.
    pub fn first_error(&self, phase: FilePhase) -> Option<&(String, FileError)> {
        self.errors.iter().find(|(_, error)| error.phase == phase)
    }

    /// The run's status: a bug weighs more than an interrupt, that more than the environment or the configuration,
    /// these more than a failure, and a failure more than an empty selection.
    pub fn status(&self) -> RunStatus {
        let has = |phase| self.first_error(phase).is_some();
        if has(FilePhase::Internal) {
            RunStatus::Bug
        } else if self.interrupted {
            RunStatus::Interrupted
        } else if has(FilePhase::Environment) || has(FilePhase::Config) {
            RunStatus::Error
        } else if self.failed {
            RunStatus::Failed
        } else if self.selected == 0 {
            RunStatus::Empty
        } else {
            RunStatus::Passed
        }
    }

    fn add(&mut self, file: &str, outcome: &FileOutcome) {
        self.failed |= matches!(outcome.status, FileStatus::Failed | FileStatus::TimedOut);
        self.interrupted |= outcome.status == FileStatus::Interrupted;
        self.selected += outcome.selected;
        self.left_out_as_slow += outcome.left_out_as_slow;
        self.errors.extend(outcome.error.clone().map(|error| (file.to_owned(), error)));
    }

    /// Whether the files after this one have no chance, or are not wanted.
    fn ends_run(&self, options: RunOptions) -> bool {
        (options.fail_fast && self.failed) || self.first_error(FilePhase::Environment).is_some()
    }
}

/// Runs `plan` in its order and tells of it through `sink`: every file is discovered and queued first, and every file
/// gets its `file_done`, also when the run ends early. A runner that panics costs its file, not the run.
pub fn run(
    plan: &[FileJob],
    options: RunOptions,
    interrupt: &CancelToken,
    sink: &EventSink,
    mut runner: impl FnMut(&FileJob, &FileContext) -> FileOutcome,
) -> RunOutcome {
    for job in plan {
        sink.emit(EventKind::FileDiscovered(job.file_ref()));
    }
    for job in plan {
        sink.emit(EventKind::FileQueued(job.file_ref()));
    }
    let mut outcome = RunOutcome::default();
    for job in plan {
        let started = Instant::now();
        let file = if interrupt.is_cancelled() {
            FileOutcome::new(FileStatus::Interrupted, 0)
        } else if outcome.ends_run(options) {
            FileOutcome::new(FileStatus::NotRun, 0)
        } else {
            sink.emit(EventKind::FileStarted(job.file_ref()));
            run_one(job, options, interrupt, &mut runner)
        };
        outcome.add(&job.file, &file);
        sink.emit(EventKind::FileDone(FileDone {
            file: job.file.clone(),
            status: file.status,
            duration: started.elapsed().as_secs_f64(),
            error: file.error,
            log: file.log,
        }));
    }
    // A signal that came with no file left to run.
    outcome.interrupted |= interrupt.is_cancelled();
    outcome
}

fn run_one(
    job: &FileJob,
    options: RunOptions,
    interrupt: &CancelToken,
    runner: &mut impl FnMut(&FileJob, &FileContext) -> FileOutcome,
) -> FileOutcome {
    let cancel = match options.file_timeout {
        Some(limit) => interrupt.child_with_deadline(limit, CancelReason::FileTimeout),
        None => interrupt.child(),
    };
    let context = FileContext { cancel, timeout: options.file_timeout, fail_fast: options.fail_fast };
    // What the runner had in hand is dropped while it unwinds; nothing of it is used afterwards.
    let mut outcome = catch_unwind(AssertUnwindSafe(|| runner(job, &context))).unwrap_or_else(|panic| {
        FileOutcome::broken(FilePhase::Internal, format!("provium panicked: {}", panic_text(&*panic)), Vec::new())
    });
    let broke = outcome.error.as_ref().is_some_and(|error| error.phase == FilePhase::Internal);
    if interrupt.is_cancelled() && !broke {
        outcome.status = FileStatus::Interrupted;
    }
    outcome
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

impl FileJob {
    fn file_ref(&self) -> FileRef {
        FileRef { file: self.file.clone() }
    }
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
