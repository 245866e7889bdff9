use std::collections::BTreeMap;

use super::*;
use crate::run_events::*;

fn vm() -> VmRef {
    VmRef { vm_id: 1, vm: "v".into(), file: "a.test.lua".into(), test: Some("adds".into()) }
}

fn qemu() -> QemuInfo {
    QemuInfo { path: "/usr/bin/qemu-system-x86_64".into(), version: "10.0.13".into(), origin: "PATH".into() }
}

fn file() -> FileRef {
    FileRef { file: "a.test.lua".into() }
}

fn run_kinds() -> Vec<EventKind> {
    vec![
        EventKind::RunStarted(RunStarted {
            version: "0.1.0".into(),
            qemu: Some(qemu()),
            accelerator: None,
            host: HostInfo::default(),
            config: Some("provium.toml".into()),
        }),
        EventKind::AcceleratorChosen(AcceleratorChosen {
            accelerator: "tcg".into(),
            reason: "no /dev/kvm".into(),
            qemu: Some(qemu()),
        }),
        EventKind::ProfileRealiseStarted(ProfileRealiseStarted {
            profiles: vec!["p".into()],
            values: vec![".#k".into()],
        }),
        EventKind::ProfileRealiseProgress(ProfileRealiseProgress {
            step: RealiseStep::Building,
            text: "linux".into(),
            done: Some(1),
            expected: None,
        }),
        EventKind::ProfileRealiseDone(ProfileRealiseDone { duration: 1.5, paths: Vec::new() }),
        EventKind::ProfileRealiseFailed(ProfileRealiseFailed { duration: 1.5, message: "no".into() }),
        EventKind::Warning(Warning { message: "careful".into(), hint: None }),
        EventKind::RunDone(RunDone {
            status: RunStatus::Passed,
            exit_code: 0,
            duration: 2.0,
            counts: Counts::default(),
        }),
    ]
}

/// One of each kind.
fn every_kind() -> Vec<EventKind> {
    let mut all = run_kinds();
    all.extend([
        EventKind::FileDiscovered(file()),
        EventKind::FileQueued(file()),
        EventKind::FileBlocked(FileBlocked { file: file().file, reason: "memory".into() }),
        EventKind::FileStarted(file()),
        EventKind::FileDone(FileDone {
            file: file().file,
            status: FileStatus::Failed,
            duration: 0.25,
            error: Some(FileError { phase: FilePhase::Load, message: "no".into(), trace: vec!["a.test.lua:1".into()] }),
            log: String::new(),
        }),
        EventKind::TestStarted(TestStarted { file: file().file, name: "adds".into(), profile: None }),
        EventKind::TestDone(Box::new(TestDone::new("a.test.lua", "adds", TestStatus::TimedOut, 0.5))),
        EventKind::VmStarted(VmStarted {
            vm: vm(),
            profile: "p".into(),
            pid: 17,
            accelerator: "tcg".into(),
            kernel: "/k".into(),
            kernel_store_path: None,
            cmdline: "quiet".into(),
        }),
        EventKind::VmReady(VmReady {
            vm: vm(),
            how: BootHow::Boot,
            duration: 1.0,
            phases: BTreeMap::from([("kernel".to_owned(), 0.5)]),
            kernel_release: "6.1.0".into(),
        }),
        EventKind::VmStopped(VmStopped { vm: vm(), reason: StopReason::ScopeEnded, detail: None }),
        EventKind::FixtureBuildStarted(FixtureBuildStarted {
            fixture: "base".into(),
            profile: "p".into(),
            file: file().file,
        }),
        EventKind::FixtureBuildWaiting(FixtureBuildWaiting {
            fixture: "base".into(),
            profile: "p".into(),
            file: file().file,
            holder: "b.test.lua".into(),
        }),
        EventKind::FixtureBuildDone(FixtureBuildDone {
            fixture: "base".into(),
            profile: "p".into(),
            file: file().file,
            key: Some("0123".into()),
            error: None,
            duration: 1.5,
        }),
        EventKind::FixtureHit(FixtureHit {
            fixture: "base".into(),
            profile: "p".into(),
            file: file().file,
            key: "0123".into(),
            from: Some("/nix/store/base.fixture".into()),
        }),
        EventKind::FixtureDamaged(FixtureDamaged {
            fixture: "base".into(),
            key: "0123".into(),
            path: "/cache/0123".into(),
            reason: "short".into(),
        }),
        EventKind::GuestPanic(GuestPanic { vm: vm(), message: "Kernel panic".into() }),
        EventKind::GuestSplat(GuestSplat {
            vm_id: 1,
            vm: "v".into(),
            file: "a.test.lua".into(),
            test: Some("adds".into()),
            splat: "warning".into(),
            title: "WARNING: CPU: 0 PID: 1 at x.c:1 x+0x1/0x2".into(),
            report: "WARNING: CPU: 0 PID: 1 at x.c:1 x+0x1/0x2\n".into(),
        }),
    ]);
    all
}

fn event(kind: EventKind) -> Event {
    Event { v: FORMAT_VERSION, ts: u64::MAX, seq: 3, kind }
}

#[test]
fn the_head_comes_first_and_the_kind_is_snake_case() {
    let line = event(EventKind::FileDiscovered(file())).to_json_line().unwrap();
    assert_eq!(line, r#"{"v":1,"ts":18446744073709551615,"seq":3,"kind":"file_discovered","file":"a.test.lua"}"#);
}

#[test]
fn the_kinds_are_those_of_the_specification() {
    let names: Vec<String> = every_kind()
        .into_iter()
        .map(|kind| serde_json::to_value(kind).unwrap()["kind"].as_str().unwrap().to_owned())
        .collect();
    for name in [
        "run_started",
        "profile_realise_started",
        "profile_realise_progress",
        "profile_realise_done",
        "profile_realise_failed",
        "file_discovered",
        "file_queued",
        "file_blocked",
        "file_started",
        "file_done",
        "test_started",
        "test_done",
        "vm_started",
        "vm_ready",
        "vm_stopped",
        "guest_panic",
        "guest_splat",
        "fixture_build_started",
        "fixture_build_waiting",
        "fixture_build_done",
        "fixture_hit",
        "fixture_damaged",
        "run_done",
    ] {
        assert!(names.iter().any(|found| found == name), "{name}");
    }
}

#[test]
fn only_a_test_result_has_both_name_and_status() {
    for kind in every_kind() {
        let json = serde_json::to_value(event(kind)).unwrap();
        let both = json.get("name").is_some() && json.get("status").is_some();
        assert_eq!(both, json["kind"] == "test_done", "{json}");
    }
}

#[test]
fn every_kind_is_one_line_and_reads_back() {
    for kind in every_kind() {
        let event = event(kind);
        let line = event.to_json_line().unwrap();
        assert!(!line.contains('\n'));
        assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event);
    }
}

#[test]
fn a_result_keeps_what_the_specification_names() {
    let json = serde_json::to_value(TestDone::new("f", "n", TestStatus::Passed, 0.5)).unwrap();
    for key in ["file", "name", "status", "duration", "message", "trace", "log", "meta", "steps", "attachments"] {
        assert!(json.get(key).is_some(), "{key}");
    }
    assert_eq!(json["status"], "passed");
}

#[test]
fn a_source_line_is_found_by_number() {
    let line = SourceLine::pick("a.lua", 2, "one\n  two\n").unwrap();
    assert_eq!((line.at.as_str(), line.text.as_str()), ("a.lua:2", "  two"));
    assert_eq!(SourceLine::pick("a.lua", 0, "one"), None);
    assert_eq!(SourceLine::pick("a.lua", 2, "one"), None);
}
