//! Every binding of the Lua API must have been called by the test suite, and where it can fail, must have failed.
//!
//! `provium test` notes calls in the file that `PROVIUM_API_RECORD` names; `tests/run` sets it for the whole suite and then runs the
//! ignored test here on what was noted.

#![cfg(feature = "host")]

use std::collections::BTreeSet;

/// Bindings that can't fail, and why. To be called on something else than their object does not count as a failure.
const CANNOT_FAIL: &[(&str, &str)] = &[
    ("bridge:close", "a closed one stays closed"),
    ("bridge:name", "a value that is there"),
    ("console:close", "a closed one stays closed"),
    ("debug.gethook", "a value that is there"),
    ("disk:active_faults", "a value that is there"),
    ("disk:clear_faults", "there may be none"),
    ("disk:detach", "a disk that a guest keeps is no ordinary one"),
    ("disk:id", "a value that is there"),
    ("disk:is_detached", "a value that is there"),
    ("disk:requests", "a value that is there"),
    ("disk:size", "a value that is there"),
    ("disk:stats", "a value that is there"),
    ("file:close", "a closed one stays closed; the kernel refuses only on file systems that write late"),
    ("file:fd", "a value that is there"),
    ("io.stdout:close", "gives nil and why, as Lua's own files do"),
    ("io.stdout:read", "gives nil and why, as Lua's own files do"),
    ("io.stdout:seek", "gives nil and why, as Lua's own files do"),
    ("io.stdout:setvbuf", "nothing is buffered"),
    ("lab:shutdown", "a guest that does not go down is stopped"),
    ("nic:bridge", "a value that is there"),
    ("nic:counters", "a value that is there"),
    ("nic:mac", "a value that is there"),
    ("nic:vm_name", "a value that is there"),
    ("process:handle", "a value that is there"),
    ("process:pid", "a value that is there"),
    ("process:status", "a value that is there"),
    ("process:stderr_stream", "what was said can always be read"),
    ("process:stdout_stream", "what was said can always be read"),
    ("result.duration", "a value that is there"),
    ("result.exit_code", "a value that is there"),
    ("result.signal", "a value that is there"),
    ("result.status", "a value that is there"),
    ("result.stderr", "a value that is there"),
    ("result.stdout", "a value that is there"),
    ("result.timed_out", "a value that is there"),
    ("result:lines", "any output has lines"),
    ("result:ok", "a value that is there"),
    ("result:trim", "any output can be trimmed"),
    ("snapshot:path", "a value that is there"),
    ("state:point", "a value that is there"),
    ("state:size", "a value that is there"),
    ("stream:close", "a closed one stays closed"),
    ("stream:creation_site", "a value that is there"),
    ("stream:eof", "a value that is there"),
    ("stream:lines", "a closed or failed stream ends the loop"),
    ("t.meta", "a value that is there"),
    ("t.name", "a value that is there"),
    ("t.profile", "a value that is there"),
    ("t:log", "takes any value"),
    ("vm:cid", "a value that is there"),
    ("vm:clock", "a handle, whatever the machine's state"),
    ("vm:cpus", "a value that is there"),
    ("vm:is_quiescent", "a value that is there"),
    ("vm:memory", "a value that is there"),
    ("vm:name", "a value that is there"),
    ("vm:open_file_count", "a value that is there"),
    ("vm:open_stream_count", "a value that is there"),
    ("vm:pid", "a value that is there"),
    ("vm:profile", "a value that is there"),
    ("vm:shutdown", "a guest that does not go down is stopped"),
    ("vm:state", "a value that is there"),
    ("worker:close", "one that is gone stays gone"),
    ("worker:handle", "a value that is there"),
];

/// Bindings that never return, and why.
const NEVER_RETURNS: &[(&str, &str)] = &[
    ("io.stdout:lines", "it can only be written"),
    ("os.exit", "a test can't end the run"),
    ("t:fail", "it raises what fails the test"),
    ("t:skip", "it raises what ends the test"),
];

/// What `recorded` lacks, one line for each gap.
fn gaps(names: &BTreeSet<&str>, recorded: &str) -> Vec<String> {
    let lines: BTreeSet<&str> = recorded.lines().collect();
    let exempt = |list: &[(&str, &str)], name: &str| list.iter().any(|(exempt, _)| *exempt == name);
    let mut gaps = Vec::new();
    for name in names {
        if !lines.contains(format!("returned {name}").as_str()) && !exempt(NEVER_RETURNS, name) {
            gaps.push(format!("{name}: no call returned"));
        }
        if !lines.contains(format!("raised {name}").as_str()) && !exempt(CANNOT_FAIL, name) {
            gaps.push(format!("{name}: no call raised"));
        }
    }
    gaps
}

#[test]
#[ignore = "fed with the record of the whole suite by tests/run"]
fn the_suite_called_every_binding() {
    let path = std::env::var_os("PROVIUM_API_COVERAGE").expect("PROVIUM_API_COVERAGE names the record to check");
    let recorded = std::fs::read_to_string(path).unwrap();
    let names = provium::lua_api::binding_names().unwrap();
    let gaps = gaps(&names, &recorded);
    assert!(gaps.is_empty(), "{} gaps in the suite's calls of the Lua API:\n{}", gaps.len(), gaps.join("\n"));
}

#[test]
fn exemptions_are_of_bindings_that_exist() {
    let names = provium::lua_api::binding_names().unwrap();
    let stale: Vec<&str> =
        CANNOT_FAIL.iter().chain(NEVER_RETURNS).map(|(name, _)| *name).filter(|name| !names.contains(name)).collect();
    assert_eq!(stale, Vec::<&str>::new(), "no such bindings");
    for list in [CANNOT_FAIL, NEVER_RETURNS] {
        assert!(list.is_sorted_by_key(|(name, _)| *name), "sorted, so that one is found");
    }
}

#[test]
fn gaps_are_seen() {
    let names = BTreeSet::from(["t:fail", "vm:name", "vm:run"]);
    let all = "returned vm:run\nraised vm:run\nreturned vm:name\nraised t:fail\n";
    assert_eq!(gaps(&names, all), Vec::<String>::new());
    assert_eq!(gaps(&names, "raised vm:run\nreturned vm:name\nraised t:fail\n"), ["vm:run: no call returned"]);
    assert_eq!(
        gaps(&names, "returned vm:run\n"),
        ["t:fail: no call raised", "vm:name: no call returned", "vm:run: no call raised"]
    );
    assert_eq!(gaps(&names, "").len(), 4);
}

#[test]
fn a_run_notes_its_calls() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("a.test.lua"),
        "test('a', function(t)\n  t:assert_eq(json.encode({1}), '[1]')\n  t:assert_raises(function() json.decode('{') end)\nend)\n",
    )
    .unwrap();
    let run = |record: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_provium"));
        command.args(["test", "a.test.lua"]).current_dir(dir.path()).env("PROVIUM_API_RECORD", record);
        command.output().unwrap()
    };
    // Two runs add to one file.
    for _ in 0..2 {
        assert!(run("record").status.success());
    }
    let recorded = std::fs::read_to_string(dir.path().join("record")).unwrap();
    let count = |line: &str| recorded.lines().filter(|have| *have == line).count();
    assert_eq!(
        (count("returned json.encode"), count("raised json.decode"), count("returned t:assert_raises")),
        (2, 2, 2)
    );
    assert_eq!((count("raised json.encode"), count("returned json.decode"), count("raised t:assert_eq")), (0, 0, 0));
    let refused = run("no/such/directory/record");
    assert_eq!(refused.status.code(), Some(3), "{refused:?}");
}
