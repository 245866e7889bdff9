//! Kernel reports and the running test.

use std::sync::Arc;

use serde_json::Value;

use crate::project::Splats;
use crate::run_events::{TestDone, TestStatus};
use crate::testbed::{FoundReport, Vm};

/// How many reports a failing test's message shows whole.
const SHOWN: usize = 5;

/// What a test's own `meta.splats` says.
pub fn policy(meta: &serde_json::Map<String, Value>) -> Option<Splats> {
    match meta.get("splats").and_then(Value::as_str) {
        Some("fail") => Some(Splats::Fail),
        Some("log") => Some(Splats::Log),
        _ => None,
    }
}

/// Returns once all that the kernels of `vms` have reported until now is known.
pub async fn settle(vms: Vec<Arc<Vm>>) {
    let mut tasks = tokio::task::JoinSet::new();
    for vm in vms {
        tasks.spawn(async move { vm.settle_log().await });
    }
    while tasks.join_next().await.is_some() {}
}

/// Lets the test fail with `reports`; what it failed with already stays in front.
pub fn judge(done: &mut TestDone, reports: &[FoundReport]) {
    let new: Vec<&FoundReport> =
        reports.iter().filter(|found| !done.kernel_reports.contains(&found.report.title)).collect();
    if new.is_empty() {
        return;
    }
    let mut told: Vec<String> = new.iter().take(SHOWN).map(|found| describe(found)).collect();
    if new.len() > SHOWN {
        told.push(format!("and {} more kernel reports", new.len() - SHOWN));
    }
    let told = told.join("\n");
    let titles: Vec<String> = new.iter().map(|found| found.report.title.clone()).collect();
    done.kernel_reports.extend(titles);
    match (&mut done.message, done.status) {
        (Some(message), TestStatus::Failed | TestStatus::TimedOut) => {
            message.push('\n');
            message.push_str(&told);
        }
        (message, _) => {
            done.status = TestStatus::Failed;
            *message = Some(told);
        }
    }
}

fn describe(found: &FoundReport) -> String {
    let early = if found.early { " (before this test began)" } else { "" };
    let text = found.report.text.trim_end().replace('\n', "\n  | ");
    format!("vm `{}`: the kernel reported: {}{early}\n  | {text}", found.vm, found.report.title)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testbed::{Report, SplatKind};

    fn found(title: &str) -> FoundReport {
        let report = Report { kind: SplatKind::Warning, title: title.to_owned(), text: format!("cut\n{title}\n") };
        FoundReport { id: 1, vm: "v".to_owned(), report, policy: Splats::Fail, early: false }
    }

    #[test]
    fn a_report_fails_a_test_and_does_not_hide_its_own_failure() {
        let mut done = TestDone::new("f", "t", TestStatus::Passed, 0.0);
        judge(&mut done, &[]);
        assert_eq!(done.status, TestStatus::Passed);
        judge(&mut done, &[found("WARNING: a")]);
        judge(&mut done, &[found("WARNING: a")]);
        assert_eq!(done.status, TestStatus::Failed);
        assert_eq!(done.message.as_deref(), Some("vm `v`: the kernel reported: WARNING: a\n  | cut\n  | WARNING: a"));
        let mut done = TestDone::new("f", "t", TestStatus::TimedOut, 0.0);
        done.message = Some("timed out".to_owned());
        judge(&mut done, &[found("WARNING: a")]);
        assert_eq!(done.status, TestStatus::TimedOut);
        assert!(done.message.unwrap().starts_with("timed out\nvm `v`: the kernel reported"));
    }
}
