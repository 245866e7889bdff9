//! The kernel's lines on a console. Pure.

use super::recogniser::{Recogniser, Report};

/// How much older than the line before a line of another CPU may be, in microseconds.
const DISORDER: u64 = 1_000_000;

/// The kernel's lines in a console's text, control bytes left out, since the last boot that it tells of: when each was logged in
/// microseconds, and what it says. Where the kernel puts the time in front of its lines, lines without it are not the kernel's;
/// where it does not, all lines may be.
pub fn kernel_lines(text: &str) -> Vec<(Option<u64>, &str)> {
    let mut lines: Vec<(Option<u64>, &str)> = text.lines().map(split_stamp).collect();
    if lines.iter().any(|(micros, _)| micros.is_some()) {
        lines.retain(|(micros, _)| micros.is_some());
        let next: Vec<Option<u64>> = lines.iter().skip(1).map(|(micros, _)| *micros).collect();
        let mut next = next.into_iter();
        // Time does not go back: what a program prints with a time of its own is not the kernel's.
        lines.retain(|(micros, _)| match (micros, next.next().flatten()) {
            (Some(now), Some(next)) => *now <= next.saturating_add(DISORDER),
            _ => true,
        });
    }
    let boot = lines.iter().rposition(|(_, line)| line.starts_with("Linux version ")).unwrap_or_default();
    lines.split_off(boot)
}

/// The reports in a console's text.
pub fn reports_on_console(text: &str) -> Vec<Report> {
    let mut recogniser = Recogniser::default();
    let lines = kernel_lines(text).into_iter();
    let mut reports: Vec<Report> = lines.flat_map(|(micros, line)| recogniser.line(micros, line)).collect();
    reports.extend(recogniser.finish());
    reports
}

/// `[    1.234567] text`, or with the caller's id behind the time: `[    1.234567][    T1] text`.
pub(super) fn split_stamp(line: &str) -> (Option<u64>, &str) {
    let stamp = || {
        let (time, rest) = line.strip_prefix('[')?.split_once(']')?;
        let (seconds, micros) = time.trim_start().split_once('.')?;
        if micros.len() != 6 {
            return None;
        }
        let at = seconds.parse::<u64>().ok()?.checked_mul(1_000_000)?.checked_add(micros.parse().ok()?)?;
        let rest = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((_, rest)) => rest,
            None => rest,
        };
        Some((at, rest.strip_prefix(' ').unwrap_or(rest)))
    };
    stamp().map_or((None, line), |(at, rest)| (Some(at), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps() {
        assert_eq!(split_stamp("[    1.234567] text"), (Some(1_234_567), "text"));
        assert_eq!(split_stamp("[   12.000001][  T109]  <TASK>"), (Some(12_000_001), " <TASK>"));
        assert_eq!(split_stamp("[ OK ] Started x.service"), (None, "[ OK ] Started x.service"));
        assert_eq!(split_stamp("[99999999999999999999.000001] x").0, None);
    }

    #[test]
    fn what_a_program_prints_is_no_report() {
        let text = "[    1.000000] Run /init as init process\nBUG: of the program\n[    9.000000] BUG: with a time\n\
                    [    1.500000] BUG: Bad rss-counter state\n";
        let reports = reports_on_console(text);
        assert_eq!(
            reports.iter().map(|report| report.title.as_str()).collect::<Vec<_>>(),
            ["BUG: Bad rss-counter state"]
        );
        assert_eq!(reports_on_console("BUG: Bad page state\n").len(), 1);
    }
}
