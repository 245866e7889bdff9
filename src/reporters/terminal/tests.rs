//! Whole runs as text.

use std::collections::BTreeMap;

use super::*;
use crate::reporters::lines::test_writers::Shared;
use crate::run_events::*;

fn qemu() -> QemuInfo {
    QemuInfo { path: "/usr/bin/qemu-system-x86_64".into(), version: "10.0.13".into(), origin: "PATH".into() }
}

fn vm() -> VmRef {
    VmRef { vm_id: 1, vm: "v".into(), file: "a.test.lua".into(), test: Some("boots".into()) }
}

fn done(file: &str, name: &str, status: TestStatus, duration: f64) -> TestDone {
    TestDone::new(file, name, status, duration)
}

fn test(done: TestDone) -> EventKind {
    EventKind::TestDone(Box::new(done))
}

fn run_done(status: RunStatus, counts: Counts) -> EventKind {
    EventKind::RunDone(RunDone { status, exit_code: 0, duration: 12.34, counts })
}

fn failing() -> TestDone {
    TestDone {
        message: Some("assert_eq: values differ\n  left:  1\n  right: 2".into()),
        trace: vec!["lib/check.lua:3".into(), "a.test.lua:12".into()],
        source: Some(SourceLine { at: "lib/check.lua:3".into(), text: "\tt:assert_eq(a, b)".into() }),
        log: "hello\nworld\n".into(),
        steps: vec![Step { name: "prepare".into(), status: TestStatus::Passed, duration: 0.1, message: None }],
        attachments: vec![Attachment { name: "trace.dat".into(), size: 17, path: Some("/t/trace.dat".into()) }],
        consoles: vec![
            ConsoleTail {
                vm: "v".into(),
                tail: "[    0.0] Linux\r\n\x1b[31moops\x1b[0m\r\n".into(),
                log: Some("/t/v.log".into()),
            },
            ConsoleTail { vm: "w".into(), tail: String::new(), log: None },
        ],
        ..done("a.test.lua", "adds up", TestStatus::Failed, 0.123)
    }
}

fn story() -> Vec<Event> {
    let file = |name: &str| FileRef { file: name.into() };
    let skipped =
        TestDone { message: Some("needs KVM".into()), ..done("a.test.lua", "fast", TestStatus::Skipped, 0.0) };
    let message = Some("timed out after 5s\nbefore that: not equal".into());
    let slow = TestDone { limit: Some(5.0), message, ..done("b.test.lua", "hangs", TestStatus::TimedOut, 5.012) };
    let passed = TestDone { log: "booted\n".into(), ..done("a.test.lua", "boots", TestStatus::Passed, 1.234) };
    let kinds = vec![
        EventKind::RunStarted(RunStarted {
            version: "0.1.0".into(),
            qemu: None,
            accelerator: None,
            host: HostInfo::default(),
            config: None,
        }),
        EventKind::ProfileRealiseStarted(ProfileRealiseStarted {
            profiles: vec!["stable".into()],
            values: vec![".#k".into()],
        }),
        realise(RealiseStep::Building, "linux-6.12"),
        realise(RealiseStep::Log, "  CC main.o"),
        EventKind::ProfileRealiseDone(ProfileRealiseDone { duration: 3.2, paths: vec![] }),
        EventKind::FileStarted(file("a.test.lua")),
        EventKind::TestStarted(TestStarted { file: "a.test.lua".into(), name: "boots".into(), profile: None }),
        EventKind::AcceleratorChosen(AcceleratorChosen {
            accelerator: "tcg".into(),
            reason: "/dev/kvm is missing".into(),
            qemu: Some(qemu()),
        }),
        EventKind::VmStarted(VmStarted {
            vm: vm(),
            profile: "stable".into(),
            pid: 42,
            accelerator: "tcg".into(),
            kernel: "/k".into(),
            kernel_store_path: None,
            cmdline: "quiet".into(),
        }),
        EventKind::VmReady(VmReady {
            vm: vm(),
            how: BootHow::Boot,
            duration: 1.5,
            phases: BTreeMap::from([("qemu".to_owned(), 0.1), ("kernel".to_owned(), 1.4)]),
            kernel_release: "6.1.0-40-cloud-amd64".into(),
        }),
        EventKind::VmStopped(VmStopped { vm: vm(), reason: StopReason::ScopeEnded, detail: None }),
        test(passed),
        test(failing()),
        test(skipped),
        test(slow),
        EventKind::Warning(Warning { message: "careful".into(), hint: Some("look".into()) }),
        EventKind::FileDone(FileDone {
            file: "c.test.lua".into(),
            status: FileStatus::Failed,
            duration: 0.0,
            error: Some(FileError {
                phase: FilePhase::Load,
                message: "c.test.lua:3: unexpected symbol near `}`".into(),
                trace: vec![],
            }),
            log: String::new(),
        }),
        run_done(
            RunStatus::Failed,
            Counts { passed: 1, failed: 1, skipped: 1, timed_out: 1, files: 3, files_broken: 1, ..Counts::default() },
        ),
    ];
    record(kinds)
}

fn realise(step: RealiseStep, text: &str) -> EventKind {
    let (done, expected) = (Some(1), Some(2));
    EventKind::ProfileRealiseProgress(ProfileRealiseProgress { step, text: text.into(), done, expected })
}

fn record(kinds: Vec<EventKind>) -> Vec<Event> {
    (0..).zip(kinds).map(|(seq, kind)| Event { v: FORMAT_VERSION, ts: 0, seq, kind }).collect()
}

fn show(kinds: Vec<EventKind>) -> String {
    render(&record(kinds), Options::default())
}

const FAILURES: &str = "\
FAIL a.test.lua: adds up (0.12s)
    assert_eq: values differ
      left:  1
      right: 2
    at lib/check.lua:3
      t:assert_eq(a, b)
    called from a.test.lua:12
    step PASS prepare (0.10s)
    log:
      hello
      world
    attached `trace.dat` (17 bytes): /t/trace.dat
    console of `v`, last lines (whole log: /t/v.log):
    | [    0.0] Linux
    | oops
    console of `w` is empty
";

const SUMMARY: &str = "
failed:
  FAIL a.test.lua: adds up
  FAIL b.test.lua: hangs
  FAIL c.test.lua: could not load

1 passed, 2 failed (1 timed out), 1 skipped (3 files, 1 could not run) in 12.3s
";

const BROKEN_FILE: &str = "\
FAIL c.test.lua: could not load
    c.test.lua:3: unexpected symbol near `}`
";

const TIMED_OUT: &str = "FAIL b.test.lua: hangs timed out after 5s\n    before that: not equal\n";

#[test]
fn a_run_as_people_see_it() {
    let head = "\
building linux-6.12 (1/2)
realised in 3.20s
accelerator: tcg (/dev/kvm is missing); QEMU 10.0.13 (/usr/bin/qemu-system-x86_64, found on PATH)
PASS a.test.lua: boots (1.23s)
";
    let rest = "SKIP a.test.lua: fast (needs KVM)\n";
    let warning = "warning: careful\nhint: look\n";
    let expected = [head, FAILURES, rest, TIMED_OUT, warning, BROKEN_FILE, SUMMARY].concat();
    assert_eq!(render(&story(), Options::default()), expected);
}

#[test]
fn quiet_shows_failures_and_the_summary() {
    let options = Options { verbosity: Verbosity::Quiet, colour: false, closing: false };
    assert_eq!(render(&story(), options), [FAILURES, TIMED_OUT, BROKEN_FILE, SUMMARY].concat());
}

#[test]
fn verbose_shows_machines_and_logs() {
    let options = Options { verbosity: Verbosity::Verbose, colour: false, closing: false };
    let text = render(&story(), options);
    let expected = "\
realising 1 value for stable
building linux-6.12 (1/2)
  |   CC main.o
realised in 3.20s
file a.test.lua
RUN  a.test.lua: boots
accelerator: tcg (/dev/kvm is missing); QEMU 10.0.13 (/usr/bin/qemu-system-x86_64, found on PATH)
  vm `v`: started (profile `stable`, tcg, pid 42)
  vm `v`: ready after 1.50s (kernel 1.40s, qemu 0.10s), Linux 6.1.0-40-cloud-amd64
  vm `v`: stopped (end of scope)
PASS a.test.lua: boots (1.23s)
    log:
      booted
FAIL a.test.lua: adds up (0.12s)
";
    assert!(text.starts_with(expected), "{text}");
}

#[test]
fn colour_only_adds_to_the_text() {
    let coloured = render(&story(), Options { colour: true, ..Options::default() });
    assert!(coloured.contains("\x1b[32mPASS\x1b[0m a.test.lua: boots"));
    assert_eq!(text::plain(&coloured), render(&story(), Options::default()));
}

#[test]
fn names_from_outside_stay_on_their_line() {
    let text = show(vec![test(done("a\x1b[2J.lua", "two\nlines", TestStatus::Passed, 0.0))]);
    assert_eq!(text, "PASS a.lua: two\\nlines (0.00s)\n");
}

#[test]
fn all_is_well() {
    let counts = Counts { passed: 12, skipped: 2, files: 1, ..Counts::default() };
    assert_eq!(show(vec![run_done(RunStatus::Passed, counts)]), "\n12 passed, 0 failed, 2 skipped (1 file) in 12.3s\n");
}

#[test]
fn an_interrupted_run_says_so() {
    let counts = Counts { passed: 1, files: 3, files_not_run: 2, ..Counts::default() };
    assert_eq!(
        show(vec![run_done(RunStatus::Interrupted, counts)]),
        "\ninterrupted\n1 passed, 0 failed, 0 skipped (3 files, 2 not run to the end) in 12.3s\n"
    );
}

#[test]
fn a_run_without_files_has_no_summary() {
    assert_eq!(show(vec![run_done(RunStatus::Error, Counts::default())]), "");
}

#[test]
fn a_long_console_is_cut_to_its_last_lines() {
    let tail: String = (0..1000).map(|n| format!("line {n}\n")).collect();
    let consoles = vec![ConsoleTail { vm: "v".into(), tail, log: None }];
    let text = show(vec![test(TestDone { consoles, ..done("a", "t", TestStatus::Failed, 0.0) })]);
    assert!(text.ends_with("    | line 999\n"));
    assert!(text.len() < 8192 && !text.contains("| line 1\n"));
}

#[test]
fn a_flaky_test_passes_and_is_named() {
    assert_eq!(show(vec![test(done("a", "t", TestStatus::Flaky, 1.0))]), "PASS a: t (1.00s, flaky)\n");
}

#[test]
fn the_consumer_writes_what_is_rendered() {
    let out = Shared::default();
    let sink = EventSink::new(vec![Box::new(Terminal::new(Options::default(), out.clone()))]).unwrap();
    sink.emit(test(done("a", "t", TestStatus::Passed, 1.0)));
    sink.end_run(RunStatus::Passed, 0);
    sink.finish().unwrap();
    assert!(out.text().starts_with("PASS a: t (1.00s)\n\n1 passed, 0 failed, 0 skipped (1 file"), "{}", out.text());
}

#[test]
fn steps_of_a_test_that_passed_are_shown_and_many_are_counted() {
    let step = |name: &str, status| Step { name: name.into(), status, duration: 0.1, message: None };
    let steps = vec![step("one", TestStatus::Passed), step("two", TestStatus::Skipped)];
    let text = show(vec![test(TestDone { steps, ..done("a", "t", TestStatus::Passed, 1.0) })]);
    assert_eq!(text, "PASS a: t (1.00s)\n    step PASS one (0.10s)\n    step SKIP two (0.10s)\n");
    let mut steps = vec![step("ok", TestStatus::Passed); 21];
    steps.push(step("left", TestStatus::Skipped));
    let text = show(vec![test(TestDone { steps, ..done("a", "t", TestStatus::Passed, 1.0) })]);
    assert_eq!(text, "PASS a: t (1.00s)\n    21 steps PASS\n    step SKIP left (0.10s)\n");
}
