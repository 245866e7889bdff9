//! What becomes of a kernel report: which test it belongs to, who expects it, whether the test fails with it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

use super::splats::{Report, SplatKind};
use crate::project::Splats;
use crate::run_events::VmRef;

/// A report that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundReport {
    /// Unique in the run.
    pub id: u64,
    /// The machine's name.
    pub vm: String,
    /// What the kernel said.
    pub report: Report,
    /// Whether a test fails with it, unless it says otherwise itself.
    pub policy: Splats,
    /// Whether it came before the test began.
    pub early: bool,
}

#[derive(Default)]
struct FileDesk {
    running: Option<(String, Option<Splats>)>,
    found: Vec<FoundReport>,
    expectations: Vec<(u64, u64, mpsc::UnboundedSender<FoundReport>)>,
}

#[derive(Default)]
struct Inner {
    next: u64,
    files: HashMap<String, FileDesk>,
}

/// All reports of a run, by test file; clones share it.
#[derive(Clone, Default)]
pub struct SplatDesk {
    inner: Arc<Mutex<Inner>>,
}

impl SplatDesk {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Consistent at every step, so a panic elsewhere does not spoil it.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `test` of the test file `file` runs from now on; `policy` is its own word on reports. Reports that came while no test ran
    /// are its.
    pub fn begin_test(&self, file: &str, test: &str, policy: Option<Splats>) {
        let mut inner = self.inner();
        inner.files.entry(file.to_owned()).or_default().running = Some((test.to_owned(), policy));
    }

    /// The reports that the running test of `file` fails with.
    pub fn failing(&self, file: &str) -> Vec<FoundReport> {
        let inner = self.inner();
        let Some(desk) = inner.files.get(file) else { return Vec::new() };
        let own = desk.running.as_ref().and_then(|(_, policy)| *policy);
        desk.found.iter().filter(|found| own.unwrap_or(found.policy) == Splats::Fail).cloned().collect()
    }

    /// The running test of `file` has ended: the next one starts without reports.
    pub fn end_test(&self, file: &str) {
        if let Some(desk) = self.inner().files.get_mut(file) {
            desk.running = None;
            desk.found.clear();
        }
    }

    /// `file` has ended.
    pub fn end_file(&self, file: &str) {
        self.inner().files.remove(file);
    }

    /// A report of `vm`. Gives the test that runs. A panic fails no test by itself: the calls that it ends do.
    pub fn report(&self, vm: &VmRef, policy: Splats, report: &Report) -> Option<String> {
        let mut inner = self.inner();
        inner.next += 1;
        let id = inner.next;
        let desk = inner.files.entry(vm.file.clone()).or_default();
        let early = desk.running.is_none();
        let found = FoundReport { id, vm: vm.vm.clone(), report: report.clone(), policy, early };
        desk.expectations.retain(|(_, vm_id, reports)| *vm_id != vm.vm_id || reports.send(found.clone()).is_ok());
        if report.kind != SplatKind::Panic {
            desk.found.push(found);
        }
        desk.running.as_ref().map(|(test, _)| test.clone())
    }

    /// Hands over what `vm` reports from now on, besides the ordinary.
    pub fn expect(&self, vm: &VmRef) -> Expectation {
        let mut inner = self.inner();
        inner.next += 1;
        let id = inner.next;
        let (sender, reports) = mpsc::unbounded_channel();
        inner.files.entry(vm.file.clone()).or_default().expectations.push((id, vm.vm_id, sender));
        Expectation { desk: self.clone(), file: vm.file.clone(), id, reports }
    }
}

/// Reports that somebody waits for.
pub struct Expectation {
    desk: SplatDesk,
    file: String,
    id: u64,
    reports: mpsc::UnboundedReceiver<FoundReport>,
}

impl Expectation {
    /// The next report, as soon as there is one.
    pub async fn next(&mut self) -> FoundReport {
        match self.reports.recv().await {
            Some(found) => found,
            // The file has ended, and with it whoever waits.
            None => std::future::pending().await,
        }
    }

    /// The next report, where it has come already.
    pub fn try_next(&mut self) -> Option<FoundReport> {
        self.reports.try_recv().ok()
    }

    /// `found` was expected: no test fails with it.
    pub fn excuse(&self, found: &FoundReport) {
        if let Some(desk) = self.desk.inner().files.get_mut(&self.file) {
            desk.found.retain(|other| other.id != found.id);
        }
    }
}

impl Drop for Expectation {
    fn drop(&mut self) {
        if let Some(desk) = self.desk.inner().files.get_mut(&self.file) {
            desk.expectations.retain(|(id, ..)| *id != self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm(vm_id: u64) -> VmRef {
        VmRef { vm_id, vm: "v".to_owned(), file: "a.lua".to_owned(), test: None }
    }

    fn report(kind: SplatKind, title: &str) -> Report {
        Report { kind, title: title.to_owned(), text: format!("{title}\n") }
    }

    fn failing(desk: &SplatDesk) -> Vec<String> {
        desk.failing("a.lua").into_iter().map(|found| found.report.title).collect()
    }

    #[test]
    fn the_test_s_word_counts_before_the_profile_s() {
        let desk = SplatDesk::default();
        for (profile, own, fails) in [
            (Splats::Log, None, false),
            (Splats::Fail, None, true),
            (Splats::Fail, Some(Splats::Log), false),
            (Splats::Log, Some(Splats::Fail), true),
        ] {
            desk.begin_test("a.lua", "t", own);
            assert_eq!(desk.report(&vm(1), profile, &report(SplatKind::Warning, "w")).as_deref(), Some("t"));
            desk.report(&vm(1), profile, &report(SplatKind::Panic, "p"));
            assert_eq!(failing(&desk), if fails { vec!["w"] } else { vec![] });
            desk.end_test("a.lua");
        }
    }

    #[test]
    fn a_report_between_tests_belongs_to_the_next() {
        let desk = SplatDesk::default();
        assert_eq!(desk.report(&vm(1), Splats::Fail, &report(SplatKind::Bug, "b")), None);
        desk.begin_test("a.lua", "t", None);
        assert!(desk.failing("a.lua")[0].early);
        desk.end_test("a.lua");
        desk.begin_test("a.lua", "u", None);
        assert!(failing(&desk).is_empty());
    }

    #[test]
    fn what_was_expected_fails_nothing() {
        let desk = SplatDesk::default();
        desk.begin_test("a.lua", "t", Some(Splats::Fail));
        let mut expected = desk.expect(&vm(1));
        desk.report(&vm(2), Splats::Log, &report(SplatKind::Bug, "of another VM"));
        desk.report(&vm(1), Splats::Log, &report(SplatKind::Bug, "wanted"));
        desk.report(&vm(1), Splats::Log, &report(SplatKind::Panic, "end"));
        let found = expected.try_next().unwrap();
        expected.excuse(&found);
        assert_eq!(expected.try_next().unwrap().report.kind, SplatKind::Panic);
        assert_eq!((expected.try_next(), failing(&desk)), (None, vec!["of another VM".to_owned()]));
        drop(expected);
        desk.report(&vm(1), Splats::Log, &report(SplatKind::Bug, "later"));
        assert_eq!(failing(&desk), ["of another VM", "later"]);
    }
}
