//! `--html FILE`: the run as one page that needs nothing beside it.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use super::error::ReporterError;
use super::report::{FileResults, RunResults};
use super::spool::Spool;
use crate::foundation::path_error::PathContext;
use crate::run_events::{Consumer, ConsumerError, Event, RunDone, TestDone, TestStatus};

const STYLE: &str = "body{font:15px/1.5 sans-serif;max-width:70em;margin:2em auto;padding:0 1em}\
h2{font-size:1.05em;margin:1.6em 0 .3em}table{border-collapse:collapse;width:100%}\
td{padding:.2em .6em;border-top:1px solid #ddd;vertical-align:top}td:last-child{text-align:right}\
.passed,.flaky{color:#176f2c}.failed,.timed_out{color:#b3131b;font-weight:bold}.skipped{color:#7a5a00}\
pre{background:#f5f5f5;padding:.6em;overflow:auto;white-space:pre-wrap}dt{float:left;clear:left;width:9em}";

/// Collects results and writes the page at the end.
pub struct HtmlFile {
    spool: Spool,
    results: RunResults,
}

impl HtmlFile {
    /// Prepares to write `path`; an old file there stays until the end.
    ///
    /// # Errors
    /// As of the event file.
    pub fn create(path: &Path) -> Result<Self, ReporterError> {
        Ok(Self { spool: Spool::create("the HTML report", path)?, results: RunResults::default() })
    }
}

impl Consumer for HtmlFile {
    fn output(&self) -> String {
        "HTML report".to_owned()
    }

    fn event(&mut self, event: &Event) {
        self.results.take(event);
    }

    fn finish(mut self: Box<Self>) -> Result<(), ConsumerError> {
        let page = page(&self.results);
        let written = self.spool.write_all(page.as_bytes()).at("write", self.spool.target());
        written.and_then(|()| self.spool.put_in_place()).map_err(|error| ConsumerError::new("HTML report", error))
    }
}

fn page(results: &RunResults) -> String {
    let mut out = String::from("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n");
    let title = title(results);
    let _ = write!(out, "<title>{title}</title>\n<style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n<dl>");
    for (name, value) in facts(results) {
        let _ = write!(out, "<dt>{name}</dt><dd>{}</dd>", escape(&value));
    }
    out += "</dl>\n";
    for file in &results.files {
        out += &section(file);
    }
    out += "</body></html>\n";
    out
}

fn title(results: &RunResults) -> String {
    match &results.done {
        None => "provium: no result".to_owned(),
        Some(RunDone { counts, .. }) => {
            let mut title = format!(
                "{} passed, {} failed, {} skipped",
                counts.passed + counts.flaky,
                counts.failed + counts.timed_out,
                counts.skipped
            );
            // A file that broke has no test that would be counted.
            for (files, what) in [(counts.files_broken, "could not run"), (counts.files_not_run, "not run")] {
                if files > 0 {
                    let _ = write!(title, ", {files} file{} {what}", if files == 1 { "" } else { "s" });
                }
            }
            title
        }
    }
}

fn facts(results: &RunResults) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    if let Some(started) = &results.started {
        facts.push(("provium", started.version.clone()));
        facts.push(("host", format!("{}, Linux {}", started.host.os, started.host.release)));
    }
    if let Some(chosen) = &results.accelerator {
        if let Some(qemu) = &chosen.qemu {
            facts.push(("QEMU", format!("{} ({}, from {})", qemu.version, qemu.path, qemu.origin)));
        }
        facts.push(("accelerator", format!("{} ({})", chosen.accelerator, chosen.reason)));
    }
    if let Some(done) = &results.done {
        facts.push(("duration", format!("{:.1} s", done.duration)));
    }
    facts
}

fn section(file: &FileResults) -> String {
    let mut out = format!("<h2>{}</h2>\n<table>\n", escape(&file.file));
    for test in &file.tests {
        out += &row(test);
    }
    out += "</table>\n";
    if let Some(error) = file.done.as_ref().and_then(|done| done.error.as_ref()) {
        let _ = writeln!(out, "<p class=\"failed\">this file could not run</p><pre>{}</pre>", escape(&error.message));
    }
    out
}

fn row(test: &TestDone) -> String {
    let (class, word) = match test.status {
        TestStatus::Passed => ("passed", "passed"),
        TestStatus::Failed => ("failed", "failed"),
        TestStatus::Skipped => ("skipped", "skipped"),
        TestStatus::TimedOut => ("timed_out", "timed out"),
        TestStatus::Flaky => ("flaky", "flaky"),
    };
    let mut body = escape(&test.name);
    let mut block = |what: &str, text: &str| {
        if !text.trim().is_empty() {
            let _ = write!(body, "<div>{what}</div><pre>{}</pre>", escape(text));
        }
    };
    block("", test.message.as_deref().unwrap_or_default());
    block("kernel reports", &test.kernel_reports.join("\n"));
    block("at", &test.trace.join("\n"));
    block("log", &test.log);
    for console in &test.consoles {
        block(&format!("console of {}", escape(&console.vm)), &console.tail);
    }
    for attachment in &test.attachments {
        let _ = write!(body, "<div>attached {} ({} bytes)</div>", escape(&attachment.name), attachment.size);
    }
    format!("<tr><td class=\"{class}\">{word}</td><td>{body}</td><td>{:.2} s</td></tr>\n", test.duration)
}

/// Text as it may stand in HTML, between tags and in attributes.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '&' => out += "&amp;",
            '"' => out += "&quot;",
            '\n' | '\t' => out.push(c),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run_events::{EventKind, EventSink, FileDone, FileError, FilePhase, FileStatus, RunStatus};

    #[test]
    fn the_page_tells_results_and_runs_nothing_of_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("report.html");
        let sink = EventSink::new(vec![Box::new(HtmlFile::create(&path).unwrap())]).unwrap();
        let mut failed = TestDone::new("a.test.lua", "<script>alert(1)</script>", TestStatus::Failed, 1.5);
        failed.message = Some("a < b & \"c\"\u{1b}[0m".to_owned());
        sink.emit(EventKind::TestDone(Box::new(failed)));
        let mut of_profile = TestDone::new("a.test.lua", "variant [stable]", TestStatus::Passed, 0.5);
        of_profile.profile = Some("stable".to_owned());
        sink.emit(EventKind::TestDone(Box::new(of_profile)));
        for (file, status, error) in
            [("a.test.lua", FileStatus::Failed, None), ("b.test.lua", FileStatus::Failed, Some("unexpected symbol"))]
        {
            let error = error.map(|message: &str| FileError {
                phase: FilePhase::Load,
                message: message.to_owned(),
                trace: Vec::new(),
            });
            let (file, log) = (file.to_owned(), String::new());
            sink.emit(EventKind::FileDone(FileDone { file, status, duration: 2.0, error, log }));
        }
        sink.end_run(RunStatus::Failed, 1);
        sink.finish().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("<h1>1 passed, 1 failed, 0 skipped, 1 file could not run</h1>"), "{text}");
        assert!(text.contains("&lt;script&gt;alert(1)") && !text.contains("<script"), "{text}");
        assert!(text.contains("<td>variant [stable]</td>"), "{text}");
        assert!(text.contains("a &lt; b &amp; &quot;c&quot;[0m"), "{text}");
    }
}
