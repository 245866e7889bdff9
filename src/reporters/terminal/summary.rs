//! The last lines of a run: what failed, and the numbers.

use super::colour::{Paint, Style};
use super::text::{long_duration, plural};
use crate::run_events::{Counts, RunDone, RunStatus};

/// The list of `failures` (each as `file: name`) and the line of numbers; nothing for a run without files.
pub(super) fn summary(run: &RunDone, failures: &[String], paint: Paint) -> String {
    if run.counts.files == 0 {
        return String::new();
    }
    let mut out = String::from("\n");
    if !failures.is_empty() {
        out += "failed:\n";
        for failure in failures {
            out += &format!("  {} {failure}\n", paint.paint(Style::Bad, "FAIL"));
        }
        out += "\n";
    }
    if run.status == RunStatus::Interrupted {
        out += &format!("{}\n", paint.paint(Style::Careful, "interrupted"));
    }
    let style = match run.status {
        RunStatus::Passed => Style::Good,
        RunStatus::Empty | RunStatus::Interrupted => Style::Careful,
        RunStatus::Failed | RunStatus::Error | RunStatus::Bug => Style::Bad,
    };
    out += &format!("{} in {}\n", paint.paint(style, numbers(&run.counts)), long_duration(run.duration));
    out
}

fn numbers(counts: &Counts) -> String {
    let of_them = |count: u64, word: &str| if count == 0 { String::new() } else { format!(" ({count} {word})") };
    let beside = |count: u64, word: &str| if count == 0 { String::new() } else { format!(", {count} {word}") };
    format!(
        "{} passed{}, {} failed{}, {} skipped ({}{}{})",
        counts.passed + counts.flaky,
        of_them(counts.flaky, "flaky"),
        counts.failed + counts.timed_out,
        of_them(counts.timed_out, "timed out"),
        counts.skipped,
        plural(counts.files, "file"),
        beside(counts.files_broken, "could not run"),
        beside(counts.files_not_run, "not run to the end"),
    )
}
