use super::*;
use proptest::prelude::*;

/// The results as lines: `ok`, `FAILED` or `skip`, the name, the first line of the message.
fn shown(text: &str) -> Vec<String> {
    parse(text)
        .results
        .iter()
        .map(|result| {
            let word = match result.outcome {
                Outcome::Passed => "ok",
                Outcome::Failed => "FAILED",
                Outcome::Skipped => "skip",
            };
            let message = result.message.as_ref().map(|text| format!(": {}", text.lines().next().unwrap_or_default()));
            format!("{word} {}{}", result.name, message.unwrap_or_default())
        })
        .collect()
}

#[test]
fn kunit_in_the_kernel_log() {
    let text = include_str!("../../tests/ktap/kunit-dmesg.log");
    assert_eq!(
        shown(text),
        [
            "ok list-kunit > list_add_keeps_order",
            "FAILED list-kunit > list_del_empties: list_del_empties: EXPECTATION FAILED at lib/list-kunit.c:42",
            "skip list-kunit > list_rcu: needs CONFIG_RCU_TEST",
            "ok ring > sizes > size 1",
            "ok ring > sizes > size 4096",
            "ok ring > wraps",
            "skip offline: no hardware",
        ]
    );
    let failed = parse(text);
    let message = failed.of(Outcome::Failed).next().unwrap().message.clone().unwrap();
    assert!(message.contains("Expected list_empty(&head) to be true, but is false"), "{message}");
}

#[test]
fn kselftest_on_standard_output() {
    assert_eq!(
        shown(include_str!("../../tests/ktap/kselftest.log")),
        [
            "ok selftests: membarrier: single_thread > sys_membarrier available",
            "ok selftests: membarrier: single_thread > private expedited",
            "skip selftests: net: tls.sh: kernel has no TLS",
            "FAILED selftests: timers: posix_timers > check_itimer: timer fired 20 ms late",
            "ok selftests: timers: posix_timers > check_clock",
            "FAILED selftests: vm: run.sh: TIMEOUT 45 seconds",
            "ok selftests: cgroup: core > global.migrate",
            "skip selftests: cgroup: core > global.freezer: no freezer",
        ]
    );
}

#[test]
fn what_is_missing_is_a_failure() {
    assert_eq!(
        shown("TAP version 13\n1..3\nok 1 a\nok 2 b\n"),
        ["ok a", "ok b", "FAILED plan: 3 results were planned, found 2"]
    );
    assert_eq!(shown("1..1\nok 1 a\nok 2 b\n").last().unwrap(), "FAILED plan: 1 results were planned, found 2");
    let cut = "KTAP version 1\n1..1\n    KTAP version 1\n    # Subtest: s\n    1..2\n    ok 1 a\nBUG: unable to handle page fault\n";
    assert_eq!(
        shown(cut),
        [
            "ok s > a",
            "FAILED s > plan: 2 results were planned, found 1",
            "FAILED s: it began, and has no result",
            "FAILED plan: 1 results were planned, found 0"
        ]
    );
    assert_eq!(shown("TAP version 13\n1..2\nok 1 a\nBail out! disk full\n"), ["ok a", "FAILED bail out: disk full"]);
}

#[test]
fn parents_count_only_where_their_leaves_do_not_tell() {
    let text = "KTAP version 1\n1..1\n    KTAP version 1\n    # Subtest: s\n    1..1\n    ok 1 a\n# s: init failed\nnot ok 1 s\n";
    assert_eq!(shown(text), ["ok s > a", "FAILED s: s: init failed"]);
}

#[test]
fn forms_of_a_line() {
    let text = "TAP version 14\n1..8\nok 1 - dashed\nok 2 plain # time=3\nnot ok 3 known # TODO later\nnot ok 4 \\# hash # exit=1\n\
                ok 5\nok - unnumbered\nok also unnumbered # skip: why\nnot ok 8 yaml\n  ---\n  message: broken\n  ...\n";
    assert_eq!(
        shown(text),
        [
            "ok dashed",
            "ok plain",
            "ok known",
            "FAILED # hash: exit=1",
            "ok test 5",
            "ok unnumbered",
            "skip also unnumbered: why",
            "FAILED yaml: message: broken",
        ]
    );
    assert_eq!(shown("1..0 # SKIP not here"), ["skip all: not here"]);
    assert_eq!(shown("ok 1 without a version\nokay 2\nok then\n"), ["ok without a version"]);
    assert_eq!(shown("ok 1 before\nTAP version 13\n1..1\nok 1 after\n"), ["ok after"]);
    assert_eq!(shown("nothing at all"), Vec::<String>::new());
}

#[test]
fn several_runs_in_one_text() {
    let text = "KTAP version 1\n1..1\nok 1 a\nKTAP version 1\n1..2\nok 1 b\nKTAP version 1\n1..1\nok 1 c\n";
    assert_eq!(shown(text), ["ok a", "ok b", "FAILED plan: 2 results were planned, found 1", "ok c"]);
}

#[test]
fn stamps_of_the_kernel_log() {
    assert_eq!(without_stamp("[    0.060000][    T1] \tok 1 - a"), "\tok 1 - a");
    assert_eq!(without_stamp("<6>[   12.5] 1..3"), "1..3");
    assert_eq!(without_stamp("[x] ok 1"), "[x] ok 1");
    assert_eq!(without_stamp("[T1] ok 1"), "[T1] ok 1");
}

proptest! {
    #[test]
    fn any_text_is_survived(text in "([ \t#]{0,5}(ok|not ok|1\\.\\.[0-9]|KTAP version 1|# Subtest: x|Bail out!|---|\\.\\.\\.|[a-z#\\\\]{0,4}) ?[0-9]{0,2} ?[a-z#\\\\é]{0,5}\n){0,30}") {
        let _ = parse(&text);
    }

    #[test]
    fn every_numbered_result_is_counted(outcomes in proptest::collection::vec(any::<bool>(), 1..30)) {
        let mut text = format!("TAP version 13\n1..{}\n", outcomes.len());
        for (index, ok) in outcomes.iter().enumerate() {
            text.push_str(&format!("{} {} t{index}\n", if *ok { "ok" } else { "not ok" }, index + 1));
        }
        let report = parse(&text);
        prop_assert_eq!(report.results.len(), outcomes.len());
        prop_assert_eq!(report.of(Outcome::Passed).count(), outcomes.iter().filter(|ok| **ok).count());
    }
}
