//! Logs as kernels write them, and the reports in them.
//!
//! `golden/*.log` are logs as `dmesg` prints them: those named after a kernel were captured from it, the others follow the formats
//! of the kernel's documentation and sources. Beside each stands what is to be found in it; `PROVIUM_UPDATE_SNAPSHOTS=1` writes that
//! anew.

use std::path::Path;

use super::console::split_stamp;
use super::*;

fn rendered(reports: &[Report]) -> String {
    reports.iter().map(|report| format!("# {}: {}\n{}\n", report.kind, report.title, report.text)).collect()
}

/// The reports in a log whose times may go back: several logs in one.
fn reports_in(log: &str) -> Vec<Report> {
    let mut recogniser = Recogniser::default();
    let lines = log.lines().map(split_stamp);
    let mut reports: Vec<Report> = lines.flat_map(|(micros, line)| recogniser.line(micros, line)).collect();
    reports.extend(recogniser.finish());
    reports
}

fn titles(log: &str) -> Vec<String> {
    reports_on_console(log).into_iter().map(|report| format!("{}: {}", report.kind, report.title)).collect()
}

#[test]
fn golden_logs() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/testbed/splats/golden");
    let mut logs = 0;
    for entry in std::fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "log") {
            continue;
        }
        logs += 1;
        let found = rendered(&reports_in(&std::fs::read_to_string(&path).unwrap()));
        let expected = path.with_extension("reports");
        if std::env::var_os("PROVIUM_UPDATE_SNAPSHOTS").is_some() {
            std::fs::write(&expected, &found).unwrap();
        }
        let expected = std::fs::read_to_string(&expected).unwrap();
        // Only the first difference: the whole is too much to read.
        for (number, (found, expected)) in found.lines().zip(expected.lines()).enumerate() {
            assert_eq!(found, expected, "reports in {}: line {}", path.display(), number + 1);
        }
        assert_eq!(found.len(), expected.len(), "reports in {}", path.display());
    }
    assert!(logs >= 10, "only {logs} logs were found");
}

#[test]
fn ordinary_logs_hold_no_report() {
    for log in [include_str!("golden/nothing.log"), include_str!("golden/systemd-boot.log")] {
        assert_eq!(titles(log), Vec::<String>::new());
    }
}

#[test]
fn a_pause_ends_a_report_and_unrelated_lines_do_not_join_it() {
    let log = "[    1.000000] INFO: task sh:1 blocked for more than 1 seconds.\n[    1.000001]       Not tainted 6.1.0\n\
               [    3.000000] eth0: link is up\n";
    let reports = reports_on_console(log);
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0].text, "INFO: task sh:1 blocked for more than 1 seconds.\n      Not tainted 6.1.0\n");
}

#[test]
fn what_was_cut_off_is_still_told() {
    let log =
        "[    1.000000] ------------[ cut here ]------------\n[    1.000001] refcount_t: underflow; use-after-free.\n";
    assert_eq!(titles(log), ["warning: refcount_t: underflow; use-after-free."]);
    assert_eq!(titles("[    1.000000] ------------[ cut here ]------------\n"), Vec::<String>::new());
}

#[test]
fn a_report_that_never_ends_is_bounded() {
    let mut log = "[    1.000000] BUG: workqueue lockup - pool cpus=0 stuck for 33s!\n".to_owned();
    for _ in 0..10_000 {
        log.push_str("[    1.000001] and on\n");
    }
    let reports = reports_on_console(&log);
    assert_eq!(reports.len(), 1);
    assert!(reports[0].text.lines().count() <= 4000);
}

fn any_line() -> impl proptest::strategy::Strategy<Value = String> {
    use proptest::prelude::*;
    let known: Vec<&str> = vec![
        "------------[ cut here ]------------",
        "==================================================================",
        "BUG: KASAN: use-after-free in x",
        "BUG: kernel NULL pointer dereference, address: 0000000000000000",
        "Oops: 0000 [#1] SMP",
        "WARNING: CPU: 0 PID: 1 at x.c:1 x+0x1/0x2",
        "WARNING: something",
        "WARNING: possible recursive locking detected",
        "kernel BUG at x.c:1!",
        "list_del corruption. prev->next should be 1, but was 2",
        "UBSAN: shift-out-of-bounds in x.c:1:1",
        "INFO: task sh:1 blocked for more than 1 seconds.",
        "rcu: INFO: rcu_preempt self-detected stall on CPU",
        "Kernel panic - not syncing: x",
        "Call Trace:",
        " </TASK>",
        "---[ end trace 0000000000000000 ]---",
        "---[ end Kernel panic - not syncing: x ]---",
    ];
    prop_oneof![3 => proptest::sample::select(known).prop_map(str::to_owned), 1 => any::<String>()]
}

proptest::proptest! {
    /// Whatever comes: each report is a run of the log's own lines, no line is in two of them, and its title is one of its lines.
    #[test]
    fn reports_are_pieces_of_the_log(
        lines in proptest::collection::vec((any_line(), 0..2_u64), 0..60),
    ) {
        let mut recogniser = Recogniser::default();
        let (mut reports, mut micros) = (Vec::new(), 0);
        for (line, seconds) in &lines {
            micros += seconds * 2_000_000;
            reports.extend(recogniser.line(Some(micros), line));
        }
        reports.extend(recogniser.finish());
        let all: Vec<&str> = lines.iter().map(|(line, _)| line.trim_end()).collect();
        let mut from = 0;
        for report in reports {
            let own: Vec<&str> = report.text.strip_suffix('\n').unwrap().split('\n').collect();
            let text = own.join("\n");
            let at = (from..all.len()).find(|at| all[*at..].join("\n").starts_with(&text));
            proptest::prop_assert!(at.is_some(), "{text:?} is no piece of {all:?} from {from}");
            proptest::prop_assert!(report.text.contains(&report.title));
            from = at.unwrap_or_default() + 1;
        }
    }
}
