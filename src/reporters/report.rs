//! What a report at the end of a run is made of, collected from the stream.

use crate::run_events::{AcceleratorChosen, Event, EventKind, FileDone, RunDone, RunStarted, TestDone};

/// One file and its tests.
#[derive(Debug, Default)]
pub(super) struct FileResults {
    /// The file's path.
    pub(super) file: String,
    /// In the order in which they ended.
    pub(super) tests: Vec<TestDone>,
    /// How the file ended.
    pub(super) done: Option<FileDone>,
}

/// A run.
#[derive(Debug, Default)]
pub(super) struct RunResults {
    /// In the order in which their first result came.
    pub(super) files: Vec<FileResults>,
    /// The first event.
    pub(super) started: Option<RunStarted>,
    /// QEMU and the accelerator, where anything booted.
    pub(super) accelerator: Option<AcceleratorChosen>,
    /// The last event.
    pub(super) done: Option<RunDone>,
}

impl RunResults {
    /// Takes an event in.
    pub(super) fn take(&mut self, event: &Event) {
        match &event.kind {
            EventKind::RunStarted(started) => self.started = Some(started.clone()),
            EventKind::AcceleratorChosen(chosen) => self.accelerator = Some(chosen.clone()),
            EventKind::TestDone(test) => self.file(&test.file).tests.push((**test).clone()),
            EventKind::FileDone(done) => self.file(&done.file).done = Some(done.clone()),
            EventKind::RunDone(done) => self.done = Some(done.clone()),
            _ => {}
        }
    }

    fn file(&mut self, file: &str) -> &mut FileResults {
        let at = self.files.iter().position(|known| known.file == file).unwrap_or_else(|| {
            self.files.push(FileResults { file: file.to_owned(), ..FileResults::default() });
            self.files.len() - 1
        });
        &mut self.files[at]
    }
}
