//! Keeps what the stream promises: every discovered file has exactly one `file_done`, every started test exactly one
//! `test_done`, every `vm_started` one `vm_stopped`, and nothing follows `run_done`.
//!
//! Pure: it is asked about each event before it is written, answers with what to write, and knows what is missing.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::event::EventKind;
use super::results::{FileDone, FileRef, FileStatus, TestDone, TestStarted, TestStatus};
use super::run::Counts;
use super::vm::{StopReason, VmRef, VmStopped};

const NOT_TOLD: &str = "provium did not say how this ended; this is a bug in provium, or it was stopped";

/// What to write for an event.
#[derive(Debug, Clone, PartialEq)]
pub enum Admission {
    /// These, in this order: the event itself, and before it what must stand there.
    Write(Vec<EventKind>),
    /// Nothing: it would break a promise, which is a bug in provium, described here.
    Refuse(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FileState {
    Open,
    Done,
}

/// The state of the promises.
#[derive(Debug, Default)]
pub struct Ledger {
    // In order of discovery, so that what is synthesised at the end comes in that order.
    files: Vec<String>,
    file_states: HashMap<String, FileState>,
    running_tests: Vec<TestStarted>,
    finished_tests: HashSet<(String, String)>,
    running_vms: BTreeMap<u64, VmRef>,
    counts: Counts,
    ended: bool,
}

impl Ledger {
    /// Nothing has happened.
    pub fn new() -> Self {
        Self::default()
    }

    /// Numbers so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether `run_done` was written.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// What to write for `kind`; the ledger counts it as written.
    pub fn admit(&mut self, kind: EventKind) -> Admission {
        if self.ended {
            return Admission::Refuse("an event came after `run_done`".to_owned());
        }
        match &kind {
            EventKind::FileDiscovered(FileRef { file }) => self.discover(file).map(|()| Vec::new()),
            EventKind::FileQueued(FileRef { file }) | EventKind::FileStarted(FileRef { file }) => self.touch(file),
            EventKind::FileDone(done) => self.file_done(done),
            EventKind::TestStarted(started) => self.test_started(started),
            EventKind::TestDone(done) => self.test_done(done),
            EventKind::VmStarted(started) => self.vm_started(&started.vm),
            EventKind::VmStopped(stopped) => self.vm_stopped(&stopped.vm),
            EventKind::RunDone(_) => {
                let missing = self.close();
                self.ended = true;
                Ok(missing)
            }
            _ => Ok(Vec::new()),
        }
        .map_or_else(Admission::Refuse, |mut before| {
            before.push(kind);
            Admission::Write(before)
        })
    }

    /// The events that are still owed, in the order in which they are to be written; they count as written.
    pub fn close(&mut self) -> Vec<EventKind> {
        let mut owed = Vec::new();
        for (_, vm) in std::mem::take(&mut self.running_vms) {
            owed.push(EventKind::VmStopped(VmStopped { vm, reason: StopReason::Unknown, detail: None }));
        }
        let open: Vec<String> =
            self.files.iter().filter(|file| self.file_states.get(*file) == Some(&FileState::Open)).cloned().collect();
        for file in open {
            let status = if self.has_running_tests(&file) { FileStatus::Failed } else { FileStatus::NotRun };
            let done = FileDone { file, status, duration: 0.0, error: None, log: String::new() };
            // The file is open, so this can't be refused.
            owed.extend(self.file_done(&done).unwrap_or_default());
            owed.push(EventKind::FileDone(done));
        }
        owed
    }

    fn discover(&mut self, file: &str) -> Result<(), String> {
        if self.file_states.contains_key(file) {
            return Err(format!("`{file}` was discovered twice"));
        }
        self.file_states.insert(file.to_owned(), FileState::Open);
        self.files.push(file.to_owned());
        self.counts.files += 1;
        Ok(())
    }

    /// The `file_discovered` that is missing before an event of `file`; an error once the file is done.
    fn touch(&mut self, file: &str) -> Result<Vec<EventKind>, String> {
        match self.file_states.get(file) {
            Some(FileState::Open) => Ok(Vec::new()),
            Some(FileState::Done) => Err(format!("an event of `{file}` came after its `file_done`")),
            None => {
                self.discover(file)?;
                Ok(vec![EventKind::FileDiscovered(FileRef { file: file.to_owned() })])
            }
        }
    }

    fn has_running_tests(&self, file: &str) -> bool {
        self.running_tests.iter().any(|test| test.file == file)
    }

    fn file_done(&mut self, done: &FileDone) -> Result<Vec<EventKind>, String> {
        let mut before = self.touch(&done.file)?;
        let (unfinished, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.running_tests).into_iter().partition(|test| test.file == done.file);
        self.running_tests = others;
        for test in unfinished {
            let mut result = TestDone::new(test.file, test.name, TestStatus::Failed, 0.0);
            result.profile = test.profile;
            let message = if done.status == FileStatus::Interrupted { "interrupted" } else { NOT_TOLD };
            result.message = Some(message.to_owned());
            self.count_test(&result);
            before.push(EventKind::TestDone(Box::new(result)));
        }
        self.file_states.insert(done.file.clone(), FileState::Done);
        self.counts.files_broken += u64::from(done.error.is_some());
        self.counts.files_not_run += u64::from(matches!(done.status, FileStatus::Interrupted | FileStatus::NotRun));
        Ok(before)
    }

    fn test_started(&mut self, started: &TestStarted) -> Result<Vec<EventKind>, String> {
        let before = self.touch(&started.file)?;
        if self.running_tests.iter().any(|test| test.file == started.file && test.name == started.name) {
            return Err(format!("test `{}` of `{}` was started twice", started.name, started.file));
        }
        self.finished_tests.remove(&(started.file.clone(), started.name.clone()));
        self.running_tests.push(started.clone());
        Ok(before)
    }

    fn test_done(&mut self, done: &TestDone) -> Result<Vec<EventKind>, String> {
        if self.finished_tests.contains(&(done.file.clone(), done.name.clone())) {
            return Err(format!("test `{}` of `{}` has two results", done.name, done.file));
        }
        let mut before = self.touch(&done.file)?;
        match self.running_tests.iter().position(|test| test.file == done.file && test.name == done.name) {
            Some(at) => {
                self.running_tests.remove(at);
            }
            // A test that was skipped without a start.
            None => before.push(EventKind::TestStarted(TestStarted {
                file: done.file.clone(),
                name: done.name.clone(),
                profile: done.profile.clone(),
            })),
        }
        self.count_test(done);
        Ok(before)
    }

    fn count_test(&mut self, done: &TestDone) {
        self.finished_tests.insert((done.file.clone(), done.name.clone()));
        let count = match done.status {
            TestStatus::Passed => &mut self.counts.passed,
            TestStatus::Failed => &mut self.counts.failed,
            TestStatus::Skipped => &mut self.counts.skipped,
            TestStatus::TimedOut => &mut self.counts.timed_out,
            TestStatus::Flaky => &mut self.counts.flaky,
        };
        *count += 1;
    }

    fn vm_started(&mut self, vm: &VmRef) -> Result<Vec<EventKind>, String> {
        // One that was stopped may be booted again.
        if self.running_vms.contains_key(&vm.vm_id) {
            return Err(format!("VM `{}` was started while it was running", vm.vm));
        }
        self.running_vms.insert(vm.vm_id, vm.clone());
        Ok(Vec::new())
    }

    fn vm_stopped(&mut self, vm: &VmRef) -> Result<Vec<EventKind>, String> {
        if self.running_vms.remove(&vm.vm_id).is_none() {
            return Err(format!("VM `{}` was stopped without running", vm.vm));
        }
        Ok(Vec::new())
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
