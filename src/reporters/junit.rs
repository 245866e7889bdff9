//! `--junit FILE`: the run as JUnit XML. A suite is a file, a case is a test.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::error::ReporterError;
use super::report::{FileResults, RunResults};
use super::spool::Spool;
use crate::foundation::path_error::PathContext;
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
        let text = document(&self.results).map_err(|cause| error(cause.to_string()))?;
        self.spool
            .write_all(text.as_bytes())
            .at("write", self.spool.target())
            .map_err(|cause| error(cause.to_string()))?;
        self.spool.put_in_place().map_err(|cause| error(cause.to_string()))
    }
}

/// XML of any text: the two characters that are no control characters and that XML has no place for are left out.
fn document(results: &RunResults) -> Result<String, quick_junit::SerializeError> {
    report(results).to_string().map(|text| text.replace(['\u{fffe}', '\u{ffff}'], ""))
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
        // What broke the file belongs to none of its tests. One that ran out of time is told by the test that did, if there was one.
        let timed_out = file.tests.iter().any(|test| test.status == TestStatus::TimedOut);
        let why = match (&done.error, done.status) {
            (Some(error), FileStatus::TimedOut) => Some((NonSuccessKind::Failure, error.message.clone())),
            (Some(error), _) => Some((NonSuccessKind::Error, error.message.clone())),
            (None, FileStatus::TimedOut) if !timed_out => {
                Some((NonSuccessKind::Failure, "the file timed out".to_owned()))
            }
            (None, FileStatus::Interrupted) => Some((NonSuccessKind::Error, "interrupted".to_owned())),
            _ => None,
        };
        if let Some((kind, why)) = why {
            let mut status = TestCaseStatus::non_success(kind);
            status.set_message(first_line(&why)).set_description(why.as_str());
            if kind == NonSuccessKind::Failure {
                status.set_type("timed_out");
            }
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
    let mut case = TestCase::new(test.name.as_str(), status);
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
        failed.log = "prin\u{ffff}t\u{fffe}ed".to_owned();
        failed.kernel_reports = vec!["KASAN: use-after-free".to_owned()];
        let mut works = TestDone::new("a.test.lua", "it works [stable]", TestStatus::Passed, 0.25);
        works.profile = Some("stable".to_owned());
        sink.emit(EventKind::TestDone(Box::new(works)));
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
            "<testcase name=\"it works [stable]\" classname=\"a.test.lua\" time=\"0.250\"",
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
    fn a_time_out_is_one_failure() {
        let written = |tests: &[TestStatus]| {
            let done = FileDone {
                file: "a.test.lua".to_owned(),
                status: FileStatus::TimedOut,
                duration: 1.0,
                error: None,
                log: String::new(),
            };
            let tests = tests.iter().map(|status| TestDone::new("a.test.lua", "t", *status, 1.0)).collect();
            let report = report(&RunResults {
                files: vec![FileResults { file: done.file.clone(), tests, done: Some(done) }],
                ..RunResults::default()
            });
            report.to_string().unwrap()
        };
        for tests in [&[TestStatus::Passed, TestStatus::TimedOut][..], &[TestStatus::Passed]] {
            let text = written(tests);
            assert!(
                text.contains("tests=\"2\" skipped=\"0\" failures=\"1\" errors=\"0\"")
                    && text.contains("type=\"timed_out\""),
                "{text}"
            );
        }
    }

    #[test]
    fn a_place_that_can_t_be_written_is_said_at_once() {
        let error = JunitFile::create(Path::new("/nonexistent/junit.xml")).err().unwrap();
        assert!(error.to_string().starts_with("can't save the JUnit report: "), "{error}");
    }
}
