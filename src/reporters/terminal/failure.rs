//! What stands below a test or file that failed: message, place, log, consoles.

use super::colour::{Paint, Style};
use super::text::{duration, indent, one_line, tail};
use crate::run_events::{ConsoleTail, FileError, SourceLine, Step, TestDone, TestStatus};

const INDENT: &str = "    ";
const DEEPER: &str = "      ";

/// More steps than this that passed are only counted, unless `-v` asks for all.
const STEPS: usize = 20;

/// How much of a console is shown, in bytes.
const CONSOLE_TAIL: usize = 4096;

/// Everything known about a test that failed.
pub(super) fn failed_test(test: &TestDone, paint: Paint) -> String {
    let mut out = String::new();
    if let Some(message) = &test.message {
        out += &indent(beyond_the_time_out(test.status, message), INDENT);
    }
    out += &places(&test.trace, test.source.as_ref(), paint);
    out += &details(test, paint);
    for console in &test.consoles {
        out += &console_tail(console, paint);
    }
    out
}

/// The message without the line that says again that the test timed out.
fn beyond_the_time_out(status: TestStatus, message: &str) -> &str {
    let (first, rest) = message.split_once('\n').unwrap_or((message, ""));
    if status == TestStatus::TimedOut && first.starts_with("timed out after ") { rest } else { message }
}

/// What a test that passed has to say with `-v`.
pub(super) fn details(test: &TestDone, paint: Paint) -> String {
    let mut out: String = test.steps.iter().map(|each| step(each, paint)).collect();
    out += &log(&test.log);
    for attachment in &test.attachments {
        let place = attachment.path.as_ref().map(|path| format!(": {}", one_line(path))).unwrap_or_default();
        out += &format!("{INDENT}attached `{}` ({} bytes){place}\n", one_line(&attachment.name), attachment.size);
    }
    out
}

/// The steps of a test that did not fail; of many that passed only their number.
pub(super) fn steps(test: &TestDone, paint: Paint) -> String {
    let passed = test.steps.iter().filter(|step| step.status == TestStatus::Passed).count();
    if passed <= STEPS {
        return test.steps.iter().map(|each| step(each, paint)).collect();
    }
    let others: String =
        test.steps.iter().filter(|step| step.status != TestStatus::Passed).map(|each| step(each, paint)).collect();
    format!("{INDENT}{passed} steps {}\n{others}", paint.paint(Style::Good, "PASS"))
}

/// What broke a file, apart from its tests.
pub(super) fn broken_file(error: &FileError, printed: &str, paint: Paint) -> String {
    indent(&error.message, INDENT) + &places(&error.trace, None, paint) + &log(printed)
}

/// The trace, with the quoted line below the frame that it belongs to.
fn places(trace: &[String], source: Option<&SourceLine>, paint: Paint) -> String {
    let unlisted = source.filter(|source| !trace.contains(&source.at)).map(|source| &source.at);
    let mut out = String::new();
    let mut quoted = false;
    for (depth, frame) in unlisted.into_iter().chain(trace).enumerate() {
        out += &format!("{INDENT}{} {}\n", if depth == 0 { "at" } else { "called from" }, one_line(frame));
        if let Some(source) = source.filter(|source| !quoted && source.at == *frame) {
            quoted = true;
            out += &format!("{DEEPER}{}\n", paint.paint(Style::Dim, one_line(source.text.trim())));
        }
    }
    out
}

fn log(text: &str) -> String {
    if text.trim().is_empty() { String::new() } else { format!("{INDENT}log:\n{}", indent(text, DEEPER)) }
}

fn step(step: &Step, paint: Paint) -> String {
    let word = match step.status {
        TestStatus::Passed | TestStatus::Flaky => paint.paint(Style::Good, "PASS"),
        TestStatus::Skipped => paint.paint(Style::Careful, "SKIP"),
        TestStatus::Failed | TestStatus::TimedOut => paint.paint(Style::Bad, "FAIL"),
    };
    let head = format!("{INDENT}step {word} {} ({})\n", one_line(&step.name), duration(step.duration));
    head + &step.message.as_ref().map(|message| indent(message, DEEPER)).unwrap_or_default()
}

fn console_tail(console: &ConsoleTail, paint: Paint) -> String {
    let kept = console.log.as_ref().map(|path| format!(" (whole log: {})", one_line(path))).unwrap_or_default();
    let text = tail(&console.tail, CONSOLE_TAIL);
    if text.trim().is_empty() {
        return format!("{INDENT}console of `{}` is empty{kept}\n", one_line(&console.vm));
    }
    let lines: String =
        indent(text, "| ").lines().map(|line| format!("{INDENT}{}\n", paint.paint(Style::Dim, line))).collect();
    format!("{INDENT}console of `{}`, last lines{kept}:\n{lines}", one_line(&console.vm))
}
