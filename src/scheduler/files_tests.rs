use std::sync::{Arc, Mutex};

use super::*;
use crate::run_events::{Consumer, ConsumerError, Event};

struct Recorder(Arc<Mutex<Vec<EventKind>>>);

impl Consumer for Recorder {
    fn output(&self) -> String {
        "recorder".to_owned()
    }
    fn event(&mut self, event: &Event) {
        self.0.lock().unwrap().push(event.kind.clone());
    }
    fn finish(self: Box<Self>) -> Result<(), ConsumerError> {
        Ok(())
    }
}

fn plan(files: &[&str]) -> Vec<FileJob> {
    files.iter().map(|file| FileJob { file: (*file).to_owned(), path: PathBuf::from(file) }).collect()
}

/// The run's outcome and each file's last status, in order.
fn play(
    files: &[&str],
    options: RunOptions,
    interrupt: &CancelToken,
    runner: impl FnMut(&FileJob, &FileContext) -> FileOutcome,
) -> (RunOutcome, Vec<FileStatus>) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let sink = EventSink::new(vec![Box::new(Recorder(Arc::clone(&events)))]).unwrap();
    let outcome = run(&plan(files), options, interrupt, &sink, runner);
    sink.finish().unwrap();
    let events = events.lock().unwrap();
    let done = |kind: &EventKind| match kind {
        EventKind::FileDone(done) => Some(done.status),
        _ => None,
    };
    (outcome, events.iter().filter_map(done).collect())
}

fn passed(_: &FileJob, _: &FileContext) -> FileOutcome {
    FileOutcome::new(FileStatus::Passed, 1)
}

#[test]
fn files_run_in_order() {
    let mut seen = Vec::new();
    let (outcome, done) = play(&["a", "b"], RunOptions::default(), &CancelToken::new(), |job, context| {
        seen.push(job.file.clone());
        assert_eq!(context.cancel.deadline(), None);
        passed(job, context)
    });
    assert_eq!(seen, ["a", "b"]);
    assert_eq!(done, [FileStatus::Passed; 2]);
    assert_eq!((outcome.status(), outcome.selected), (RunStatus::Passed, 2));
}

#[test]
fn nothing_selected_is_its_own_status() {
    let (outcome, _) = play(&["a"], RunOptions::default(), &CancelToken::new(), |_, _| {
        let mut file = FileOutcome::new(FileStatus::Skipped, 0);
        file.left_out_as_slow = 2;
        file
    });
    assert_eq!((outcome.status(), outcome.left_out_as_slow), (RunStatus::Empty, 2));
}

#[test]
fn an_interrupt_ends_this_file_and_the_rest() {
    let interrupt = CancelToken::new();
    let (outcome, done) = play(&["a", "b", "c"], RunOptions::default(), &interrupt, |job, context| {
        if job.file == "b" {
            interrupt.cancel(CancelReason::Interrupted);
            assert_eq!(context.cancel.reason(), Some(CancelReason::Interrupted));
            return FileOutcome::new(FileStatus::Failed, 1);
        }
        passed(job, context)
    });
    assert_eq!(done, [FileStatus::Passed, FileStatus::Interrupted, FileStatus::Interrupted]);
    assert_eq!((outcome.status(), outcome.failed), (RunStatus::Interrupted, false));
}

#[test]
fn the_deadline_is_the_files_own() {
    let options = RunOptions { file_timeout: Some(Duration::ZERO), ..RunOptions::default() };
    let (outcome, done) = play(&["a", "b"], options, &CancelToken::new(), |_, context| {
        assert_eq!(context.cancel.reason(), Some(CancelReason::FileTimeout));
        assert_eq!(context.timeout, Some(Duration::ZERO));
        FileOutcome::new(FileStatus::TimedOut, 1)
    });
    assert_eq!(done, [FileStatus::TimedOut; 2]);
    assert_eq!(outcome.status(), RunStatus::Failed);
}

#[test]
fn a_panic_costs_its_file() {
    let (outcome, done) = play(&["a", "b"], RunOptions::default(), &CancelToken::new(), |job, context| {
        assert!(job.file != "a", "on {}", "purpose");
        passed(job, context)
    });
    assert_eq!(done, [FileStatus::Failed, FileStatus::Passed]);
    assert_eq!(outcome.status(), RunStatus::Bug);
    let (file, error) = outcome.first_error(FilePhase::Internal).unwrap();
    assert_eq!((file.as_str(), error.message.as_str()), ("a", "provium panicked: on purpose"));
}

#[test]
fn fail_fast_leaves_the_rest() {
    let options = RunOptions { fail_fast: true, ..RunOptions::default() };
    let (outcome, done) = play(&["a", "b"], options, &CancelToken::new(), |_, context| {
        assert!(context.fail_fast);
        FileOutcome::new(FileStatus::Failed, 1)
    });
    assert_eq!(done, [FileStatus::Failed, FileStatus::NotRun]);
    assert_eq!(outcome.status(), RunStatus::Failed);
}

#[test]
fn an_environment_without_machines_ends_the_run_and_a_bad_file_does_not() {
    let broken = |phase| move |_: &FileJob, _: &FileContext| FileOutcome::broken(phase, "no", Vec::new());
    let (outcome, done) = play(&["a", "b"], RunOptions::default(), &CancelToken::new(), broken(FilePhase::Environment));
    assert_eq!((outcome.status(), done), (RunStatus::Error, vec![FileStatus::Failed, FileStatus::NotRun]));
    let (outcome, done) = play(&["a", "b"], RunOptions::default(), &CancelToken::new(), broken(FilePhase::Load));
    assert_eq!((outcome.status(), done), (RunStatus::Failed, vec![FileStatus::Failed; 2]));
    assert_eq!(outcome.errors.len(), 2);
}
