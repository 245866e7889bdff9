use proptest::prelude::*;

use super::*;
use crate::run_events::{RunDone, RunStatus, VmStarted};

fn file(name: &str) -> FileRef {
    FileRef { file: name.into() }
}

fn file_done(name: &str, status: FileStatus) -> EventKind {
    EventKind::FileDone(FileDone { file: name.into(), status, duration: 0.0, error: None, log: String::new() })
}

fn test_started(file: &str, name: &str) -> EventKind {
    EventKind::TestStarted(TestStarted { file: file.into(), name: name.into(), profile: None })
}

fn test_done(file: &str, name: &str) -> EventKind {
    EventKind::TestDone(Box::new(TestDone::new(file, name, TestStatus::Passed, 0.0)))
}

fn vm(id: u64) -> VmRef {
    VmRef { vm_id: id, vm: format!("v{id}"), file: "a".into(), test: None }
}

fn vm_started(id: u64) -> EventKind {
    EventKind::VmStarted(VmStarted {
        vm: vm(id),
        profile: "p".into(),
        pid: 1,
        accelerator: "tcg".into(),
        kernel: "k".into(),
        kernel_store_path: None,
        cmdline: String::new(),
    })
}

fn vm_stopped(id: u64) -> EventKind {
    EventKind::VmStopped(VmStopped { vm: vm(id), reason: StopReason::Shutdown, detail: None })
}

fn run_done() -> EventKind {
    EventKind::RunDone(RunDone { status: RunStatus::Passed, exit_code: 0, duration: 0.0, counts: Counts::default() })
}

fn written(ledger: &mut Ledger, kind: EventKind) -> Vec<EventKind> {
    match ledger.admit(kind) {
        Admission::Write(kinds) => kinds,
        Admission::Refuse(why) => panic!("refused: {why}"),
    }
}

fn refused(ledger: &mut Ledger, kind: EventKind) -> String {
    match ledger.admit(kind) {
        Admission::Write(kinds) => panic!("written: {kinds:?}"),
        Admission::Refuse(why) => why,
    }
}

#[test]
fn an_orderly_run_passes_through() {
    let mut ledger = Ledger::new();
    for kind in [
        EventKind::FileDiscovered(file("a")),
        EventKind::FileQueued(file("a")),
        EventKind::FileStarted(file("a")),
        test_started("a", "t"),
        vm_started(1),
        vm_stopped(1),
        test_done("a", "t"),
        file_done("a", FileStatus::Passed),
        run_done(),
    ] {
        assert_eq!(written(&mut ledger, kind.clone()), [kind]);
    }
    assert_eq!(ledger.counts(), Counts { passed: 1, files: 1, ..Counts::default() });
}

#[test]
fn what_is_missing_at_the_end_is_written_before_run_done() {
    let mut ledger = Ledger::new();
    written(&mut ledger, EventKind::FileDiscovered(file("a")));
    written(&mut ledger, EventKind::FileDiscovered(file("b")));
    written(&mut ledger, test_started("a", "t"));
    written(&mut ledger, vm_started(1));
    let kinds = written(&mut ledger, run_done());
    let names: Vec<String> = kinds.iter().map(|kind| serde_json::to_value(kind).unwrap()["kind"].to_string()).collect();
    assert_eq!(names, ["\"vm_stopped\"", "\"test_done\"", "\"file_done\"", "\"file_done\"", "\"run_done\""]);
    assert_eq!(ledger.counts(), Counts { failed: 1, files: 2, files_not_run: 1, ..Counts::default() });
}

#[test]
fn a_skipped_test_needs_no_start_of_its_own() {
    let mut ledger = Ledger::new();
    let kinds = written(&mut ledger, test_done("a", "t"));
    assert_eq!(kinds, [EventKind::FileDiscovered(file("a")), test_started("a", "t"), test_done("a", "t")]);
}

#[test]
fn second_results_are_refused() {
    let mut ledger = Ledger::new();
    written(&mut ledger, test_done("a", "t"));
    assert_eq!(refused(&mut ledger, test_done("a", "t")), "test `t` of `a` has two results");
    // A machine that was stopped may be booted again.
    for _ in 0..2 {
        written(&mut ledger, vm_started(1));
        refused(&mut ledger, vm_started(1));
        written(&mut ledger, vm_stopped(1));
        refused(&mut ledger, vm_stopped(1));
    }
    written(&mut ledger, file_done("a", FileStatus::Passed));
    refused(&mut ledger, file_done("a", FileStatus::Passed));
    refused(&mut ledger, test_started("a", "u"));
    written(&mut ledger, run_done());
    refused(&mut ledger, run_done());
}

#[test]
fn a_repeated_test_has_one_result_for_each_start() {
    let mut ledger = Ledger::new();
    for _ in 0..2 {
        written(&mut ledger, test_started("a", "t"));
        refused(&mut ledger, test_started("a", "t"));
        written(&mut ledger, test_done("a", "t"));
    }
    assert_eq!(ledger.counts().passed, 2);
}

#[test]
fn an_interrupted_test_says_so() {
    let mut ledger = Ledger::new();
    written(&mut ledger, test_started("a", "t"));
    let kinds = written(&mut ledger, file_done("a", FileStatus::Interrupted));
    let EventKind::TestDone(done) = &kinds[0] else { panic!("{kinds:?}") };
    assert_eq!((done.status, done.message.as_deref()), (TestStatus::Failed, Some("interrupted")));
}

fn any_kind() -> impl Strategy<Value = EventKind> {
    let name = || prop_oneof![Just("a"), Just("b")];
    prop_oneof![
        name().prop_map(|f| EventKind::FileDiscovered(file(f))),
        name().prop_map(|f| EventKind::FileStarted(file(f))),
        name().prop_map(|f| file_done(f, FileStatus::Passed)),
        (name(), name()).prop_map(|(f, t)| test_started(f, t)),
        (name(), name()).prop_map(|(f, t)| test_done(f, t)),
        (0..3_u64).prop_map(vm_started),
        (0..3_u64).prop_map(vm_stopped),
    ]
}

proptest! {
    /// Whatever is told, in whatever order, what is written keeps every promise.
    #[test]
    fn promises_hold_for_any_story(story in prop::collection::vec(any_kind(), 0..40)) {
        let mut ledger = Ledger::new();
        let mut lines = Vec::new();
        for kind in story.into_iter().chain([run_done()]) {
            if let Admission::Write(kinds) = ledger.admit(kind) {
                lines.extend(kinds);
            }
        }
        let mut files = HashMap::new();
        let mut tests = HashMap::new();
        let mut vms = HashSet::new();
        for kind in &lines {
            match kind {
                EventKind::FileDiscovered(f) => prop_assert!(files.insert(f.file.clone(), 0).is_none()),
                EventKind::FileDone(f) => *files.get_mut(&f.file).unwrap() += 1,
                EventKind::TestStarted(t) => *tests.entry((&t.file, &t.name)).or_insert(0) += 1,
                EventKind::TestDone(t) => *tests.get_mut(&(&t.file, &t.name)).unwrap() -= 1,
                EventKind::VmStarted(v) => prop_assert!(vms.insert(v.vm.vm_id)),
                EventKind::VmStopped(v) => prop_assert!(vms.remove(&v.vm.vm_id)),
                _ => {}
            }
        }
        prop_assert!(files.values().all(|done| *done == 1));
        prop_assert!(tests.values().all(|open| *open == 0));
        prop_assert!(vms.is_empty());
        prop_assert!(matches!(lines.last(), Some(EventKind::RunDone(_))));
    }
}
