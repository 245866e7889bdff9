//! `--junit FILE`: the run as JUnit XML. A suite is a file, a case is a test.

use std::path::Path;
use std::time::Duration;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::error::ReporterError;
use super::report::{FileResults, RunResults};
use super::spool::Spool;
use crate::run_events::{Consumer, ConsumerError, Event, FileStatus, TestDone, TestStatus};

/// Collects results and writes them at the end.
pub struct JunitFile {
    spool: Spool,
    results: RunResults,
}

impl JunitFile {
    /// Prepares to write `path`; an old file there stays until the end.
    ///
    /// # Errors
    /// As of the event file.
    pub fn create(path: &Path) -> Result<Self, ReporterError> {
        Ok(Self { spool: Spool::create("the JUnit report", path)?, results: RunResults::default() })
    }
}

impl Consumer for JunitFile {
    fn output(&self) -> String {
        "JUnit report".to_owned()
    }

    fn event(&mut self, event: &Event) {
        self.results.take(event);
    }

    fn finish(mut self: Box<Self>) -> Result<(), ConsumerError> {
        let error = |error: String| ConsumerError::new("JUnit report", error);
        report(&self.results).serialize(&mut self.spool).map_err(|cause| error(cause.to_string()))?;
        self.spool.put_in_place().map_err(|cause| error(cause.to_string()))
    }
}

fn report(results: &RunResults) -> Report {
    let mut report = Report::new("provium");
    if let Some(done) = &results.done {
        report.set_time(seconds(done.duration));
    }
    report.add_test_suites(results.files.iter().map(suite));
    report
}

fn suite(file: &FileResults) -> TestSuite {
    let mut suite = TestSuite::new(file.file.as_str());
    suite.add_test_cases(file.tests.iter().map(case));
    if let Some(done) = &file.done {
        suite.set_time(seconds(done.duration));
        if !done.log.is_empty() {
            suite.set_system_out(done.log.as_str());
        }
        // What broke the file belongs to none of its tests.
        let why = match (&done.error, done.status) {
            (Some(error), _) => Some(error.message.clone()),
            (None, FileStatus::TimedOut) => Some("the file timed out".to_owned()),
            (None, FileStatus::Interrupted) => Some("interrupted".to_owned()),
            _ => None,
        };
        if let Some(why) = why {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
            status.set_message(first_line(&why)).set_description(why.as_str());
            let mut case = TestCase::new("(file)", status);
            case.set_classname(file.file.as_str()).set_time(seconds(done.duration));
            suite.add_test_case(case);
        }
    }
    suite
}

fn case(test: &TestDone) -> TestCase {
    let message = test.message.as_deref().unwrap_or_default();
    let status = match test.status {
        TestStatus::Passed | TestStatus::Flaky => TestCaseStatus::success(),
        TestStatus::Skipped => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(message);
            status
        }
        TestStatus::Failed | TestStatus::TimedOut => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            let kind = if test.status == TestStatus::TimedOut { "timed_out" } else { "failed" };
            status.set_type(kind).set_message(first_line(message)).set_description(description(test));
            status
        }
    };
    let name = match &test.profile {
        Some(profile) => format!("{} [{profile}]", test.name),
        None => test.name.clone(),
    };
    let mut case = TestCase::new(name, status);
    case.set_classname(test.file.as_str()).set_time(seconds(test.duration));
    if !test.log.is_empty() {
        case.set_system_out(test.log.as_str());
    }
    let consoles: String =
        test.consoles.iter().map(|console| format!("console of `{}`:\n{}\n", console.vm, console.tail)).collect();
    if !consoles.is_empty() {
        case.set_system_err(consoles);
    }
    case
}

fn description(test: &TestDone) -> String {
    let mut text = test.message.clone().unwrap_or_default();
    for report in &test.kernel_reports {
        text += &format!("\nkernel report: {report}");
    }
    for frame in &test.trace {
        text += &format!("\nat {frame}");
    }
    text
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run_events::{EventKind, EventSink, FileDone, FileError, FilePhase, RunStatus};

    #[test]
    fn results_become_cases_of_their_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("junit.xml");
        let sink = EventSink::new(vec![Box::new(JunitFile::create(&path).unwrap())]).unwrap();
        let mut failed = TestDone::new("a.test.lua", "it <fails>", TestStatus::Failed, 1.5);
        failed.message = Some("expected 1, found \u{1b}[31m2\nmore".to_owned());
        failed.trace = vec!["a.test.lua:3".to_owned()];
        failed.log = "printed".to_owned();
        failed.kernel_reports = vec!["KASAN: use-after-free".to_owned()];
        sink.emit(EventKind::TestDone(Box::new(TestDone::new("a.test.lua", "it works", TestStatus::Passed, 0.25))));
        sink.emit(EventKind::TestDone(Box::new(failed)));
        sink.emit(EventKind::FileDone(FileDone {
            file: "b.test.lua".to_owned(),
            status: FileStatus::Failed,
            duration: 0.0,
            error: Some(FileError { phase: FilePhase::Load, message: "syntax".to_owned(), trace: Vec::new() }),
            log: String::new(),
        }));
        sink.end_run(RunStatus::Failed, 1);
        sink.finish().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        for part in [
            "<testsuites name=\"provium\" tests=\"3\" skipped=\"0\" failures=\"1\" errors=\"1\"",
            "<testcase name=\"it works\" classname=\"a.test.lua\" time=\"0.250\"",
            "name=\"it &lt;fails&gt;\"",
            "at a.test.lua:3",
            "kernel report: KASAN: use-after-free",
            "<system-out>printed</system-out>",
            "<error message=\"syntax\"",
        ] {
            assert!(text.contains(part), "no {part} in {text}");
        }
        assert!(!text.contains('\u{1b}'), "a control character makes it no XML: {text}");
    }

    #[test]
    fn a_place_that_can_t_be_written_is_said_at_once() {
        let error = JunitFile::create(Path::new("/nonexistent/junit.xml")).err().unwrap();
        assert!(error.to_string().starts_with("can't save the JUnit report: "), "{error}");
    }
}
