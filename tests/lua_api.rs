//! The Lua API without machines: the files of `tests/lua` are run by the real command.

mod common;

use std::path::Path;

fn lua_dir() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lua")
}

#[test]
fn assertions_and_globals() {
    let run = common::provium(&lua_dir(), &["test", "assertions.test.lua", "--format", "json"]);
    run.expect(0);
    let events = run.events();
    assert_eq!(common::test_done(&events, "print goes to the log")["log"], "seen\t1\tnil\nwritten 2\n");
    let meta = &common::test_done(&events, "metadata is kept")["meta"];
    assert_eq!((meta["spec"].as_str(), meta["subsystems"][0].as_str()), (Some("A-1"), Some("lua")));
    for name in ["skipped by itself", "skipped by metadata"] {
        let done = common::test_done(&events, name);
        assert_eq!(done["status"], "skipped", "{done}");
        assert!(done["message"].as_str().unwrap().starts_with("not "), "{done}");
    }
}

#[test]
fn failures_say_what_and_where() {
    let run = common::provium(&lua_dir(), &["test", "failures.test.lua", "--format", "json"]);
    run.expect(1);
    let events = run.events();
    let check = |name: &str, status: &str, parts: &[&str], place: &str| {
        let done = common::test_done(&events, name);
        assert_eq!(done["status"], status, "{done}");
        let message = done["message"].as_str().unwrap();
        for part in parts {
            assert!(message.contains(part), "`{part}` is missing in {message}");
        }
        let trace = done["trace"][0].as_str().unwrap_or_default();
        assert!(trace.ends_with(place), "{name}: {trace} is not {place}");
    };
    check("a difference is shown", "failed", &["tables", "-     2,", "+     3,"], "failures.test.lua:4");
    check("a swallowed assertion still fails the test", "failed", &["swallowed"], "failures.test.lua:8");
    check("an error of the test's own", "failed", &["attempt to index a nil value"], "failures.test.lua:13");
    check("an error that is a table", "failed", &["code = 1"], "failures.test.lua:16");
    check("an endless loop is stopped", "timed_out", &["timed out after 300ms"], "failures.test.lua:19");
    check("a blocked call is stopped", "timed_out", &["timed out after 200ms"], ":23");
    check("an endless coroutine is stopped", "timed_out", &["timed out after 200ms"], ":29");
    assert_eq!(common::test_done(&events, "the file goes on after that")["status"], "passed");
}

#[test]
fn a_file_that_does_not_load_is_a_failure() {
    let dir = common::directory(&[
        ("syntax.test.lua", "test('x', function(t)\n  t:assert(\nend)\n"),
        ("scope.test.lua", "local x = nil\nx.y = 1\n"),
        ("twice.test.lua", "test('a', function(t) end)\ntest('a', function(t) end)\n"),
    ]);
    let run = common::provium(dir.path(), &["test", "."]);
    run.expect(1).says(&[
        "syntax.test.lua:3:",
        "scope.test.lua:2",
        "attempt to index a nil value",
        "there are two tests `a` in this file, first at twice.test.lua:1",
    ]);
}

#[test]
fn selection() {
    let dir = common::directory(&[(
        "tags.test.lua",
        "test('quick', function(t) end)\n\
         test('slow one', {slow = true}, function(t) end)\n\
         test('tagged', {tags = {'net', 'cross'}, spec = 'A-1'}, function(t) end)\n\
         test('lone', {tags = 'disk', spec = {'B-2', 'A-1'}}, function(t) end)\n",
    )]);
    let names = |args: &[&str]| -> Vec<String> {
        let run = common::provium(dir.path(), &[&["test", "--format", "json"], args].concat());
        run.expect(0);
        let done = run.events().into_iter().filter(|event| event["kind"] == "test_done");
        done.map(|event| event["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&[]), ["quick", "tagged", "lone"]);
    assert_eq!(names(&["--include-slow"]), ["quick", "slow one", "tagged", "lone"]);
    assert_eq!(names(&["--tag", "net", "--tag", "disk"]), ["tagged", "lone"]);
    assert_eq!(names(&["--tag", "net", "--no-tag", "cross", "--allow-empty"]), Vec::<String>::new());
    assert_eq!(names(&["--tag-meta", "spec=A-1"]), ["tagged", "lone"]);
    assert_eq!(names(&["--tag-meta", "spec=B-2", "--filter", "tags"]), ["lone"]);
    common::provium(dir.path(), &["test", "--tag", "nothing"]).expect(4);
    common::provium(dir.path(), &["test", "--filter", "nothing"]).expect(4);
}

#[test]
fn the_file_timeout_ends_the_file() {
    let dir = common::directory(&[
        ("a.test.lua", "test('hangs', function(t) sleep(100) end)\ntest('never begun', function(t) end)\n"),
        ("b.test.lua", "test('next file', function(t) end)\n"),
    ]);
    let run = common::provium(dir.path(), &["test", "--timeout", "300ms", "--format", "json"]);
    run.expect(1);
    let events = run.events();
    assert_eq!(common::test_done(&events, "hangs")["status"], "timed_out");
    assert_eq!(common::test_done(&events, "next file")["status"], "passed");
    assert!(!events.iter().any(|event| event["name"] == "never begun" && event["kind"] == "test_done"));
}

#[test]
fn an_interrupt_ends_the_run_with_130() {
    let dir = common::directory(&[(
        "a.test.lua",
        "test('waits', function(t) io.open('started', 'w'):close() sleep(100) end)\n",
    )]);
    let mut child = common::command(dir.path(), &["test"]).spawn().unwrap();
    let started = dir.path().join("started");
    while !started.exists() {
        assert!(child.try_wait().unwrap().is_none(), "ended before the test began");
        std::thread::yield_now();
    }
    // SAFETY: the child is ours and not reaped yet.
    unsafe { libc::kill(i32::try_from(child.id()).unwrap(), libc::SIGINT) };
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn branches_of_parallel() {
    common::provium(&lua_dir(), &["test", "parallel.test.lua"]).expect(0);
}

#[test]
fn attachments_are_kept_with_the_report() {
    let dir = common::directory(&[(
        "a.test.lua",
        "test('keeps', function(t)\n  t:attach('bytes.bin', 'a\\0b')\n  t:attach('bytes.bin', 'second')\n  \
         local err = t:assert_raises(function() t:attach('', 'x') end)\n  t:assert_match(err, '^a.test.lua:4: t:attach: `name`')\n  \
         t:assert_contains(t:assert_raises(function() t:attach('x') end), '`bytes`')\nend)\n\
         test('fails', function(t) t:attach('why.txt', 'because') t:fail() end)\n",
    )]);
    let run = common::provium(dir.path(), &["test", "--artifacts", "out", "--format", "json"]);
    run.expect(1);
    assert!(run.stderr.contains("attached `why.txt` (7 bytes): out/a.test.lua/fails/why.txt"), "{}", run.stderr);
    let events = run.events();
    let keeps = common::test_done(&events, "keeps");
    assert_eq!(
        keeps["attachments"][0],
        serde_json::json!({"name": "bytes.bin", "size": 3, "path": "out/a.test.lua/keeps/bytes.bin"})
    );
    assert_eq!(keeps["attachments"][1]["path"], "out/a.test.lua/keeps/bytes-2.bin");
    assert_eq!(std::fs::read(dir.path().join("out/a.test.lua/keeps/bytes.bin")).unwrap(), b"a\0b");
    assert_eq!(std::fs::read(dir.path().join("out/a.test.lua/fails/why.txt")).unwrap(), b"because");

    let run = common::provium(dir.path(), &["test", "--format", "json"]);
    let events = run.expect(1).events();
    assert_eq!(common::test_done(&events, "keeps")["attachments"][0]["path"], serde_json::Value::Null);
    let run = common::provium(dir.path(), &["test", "--artifacts", "a.test.lua/out"]);
    run.expect(2).says(&["can't create `a.test.lua/out`"]);
}

fn steps(done: &serde_json::Value) -> Vec<(String, String)> {
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    done["steps"].as_array().into_iter().flatten().map(|step| (text(&step["name"]), text(&step["status"]))).collect()
}

#[test]
fn steps_and_ktap() {
    let run = common::provium(&lua_dir(), &["test", "steps.test.lua", "--format", "json"]);
    let events = run.expect(0).events();
    let names = |test: &str| -> Vec<String> {
        steps(common::test_done(&events, test)).into_iter().map(|(name, _)| name).collect()
    };
    assert_eq!(names("a step gives the results of its function, and nests"), ["outer", "outer > inner", "after"]);
    assert_eq!(
        names("steps in branches belong to their branch"),
        ["both", "both > left", "both > right", "both > left > in left", "slow", "alone"]
    );
    assert_eq!(names("the results of KTAP text"), ["s > a", "s > b", "lone", "in a step", "in a step > c"]);
}

#[test]
fn steps_that_fail() {
    let run = common::provium(&lua_dir(), &["test", "step_failures.test.lua", "--format", "json"]);
    let events = run.expect(1).events();
    let check = |test: &str, status: &str, message: &str, line: &str, expected: &[(&str, &str)]| {
        let done = common::test_done(&events, test);
        assert_eq!(done["status"], status, "{done}");
        assert!(done["message"].as_str().unwrap().contains(message), "{done}");
        assert!(done["trace"][0].as_str().unwrap_or_default().ends_with(line), "{done}");
        let found = steps(done);
        let found: Vec<(&str, &str)> = found.iter().map(|(name, status)| (name.as_str(), status.as_str())).collect();
        assert_eq!(found, expected, "{done}");
    };
    let failed = [("one", "passed"), ("two", "failed"), ("two > inner", "failed")];
    check("the first failing step ends the test", "failed", "not equal", ".lua:7", &failed);
    check("an error in a step", "failed", "attempt to index a nil value", ".lua:16", &[("breaks", "failed")]);
    check("a swallowed step still fails the test", "failed", "kept", ".lua:21", &[("swallowed", "failed")]);
    check("a swallowed assertion fails its step", "failed", "sloppy words", ".lua:25", &[("sloppy", "failed")]);
    check("skipped in a step", "skipped", "not here", "", &[("asks", "skipped")]);
    let stopped = [("quick", "passed"), ("hangs", "timed_out")];
    check("stopped in a step", "timed_out", "200ms", ".lua:35", &stopped);
    check("given up in a branch", "failed", "attempt to index a nil value", ".lua:41", &[("waits", "skipped")]);
    let lines = [("a", "passed"), ("b", "failed"), ("plan", "failed")];
    check("a failing line of TAP", "failed", "b: because", ".lua:45", &lines);
    check("one branch fails while another is in assert_raises", "failed", "counts", ".lua:51", &[]);
    check("passes the call on", "failed", "without a line", ".lua:54", &[]);
    let text = run.stderr;
    for part in ["step PASS one", "step FAIL two > inner", "      step_failures.test.lua:7: not equal"] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
}

#[test]
fn a_test_runs_once_per_profile() {
    let config = "[profiles.a]\nkernel = 'k'\n[profiles.b]\nkernel = 'k'\n";
    let dir = common::directory(&[
        ("provium.toml", config),
        (
            "a.test.lua",
            "test('v', {profiles = {'a', 'b'}, tags = 'both'}, function(t) t:log(t.name .. ' ' .. t.profile) end)\n\
             test('w', function(t) t:assert_eq(t.profile, nil) end)\n",
        ),
    ]);
    let run = common::provium(dir.path(), &["test", ".", "--format", "json"]);
    let events = run.expect(0).events();
    for name in ["a", "b"] {
        let full = format!("v [{name}]");
        let done = common::test_done(&events, &full);
        assert_eq!((&done["profile"], &done["log"]), (&name.into(), &format!("{full} {name}\n").into()));
        let started = |event: &&serde_json::Value| event["kind"] == "test_started" && event["name"] == full.as_str();
        assert_eq!(events.iter().find(started).unwrap()["profile"], name);
    }
    assert_eq!(common::test_done(&events, "w")["profile"], serde_json::Value::Null);
    let run = common::provium(dir.path(), &["test", ".", "--format", "json", "--tag-meta", "profile=b"]);
    let names: Vec<_> = run.expect(0).events().into_iter().filter(|event| event["kind"] == "test_done").collect();
    assert_eq!((names.len(), &names[0]["name"]), (1, &"v [b]".into()));

    let wrong = [
        ("{profiles = {'a', 'nope'}}", "there is no profile `nope`", 1),
        ("{profiles = 'a'}", "`meta.profiles`: expected an array of profiles' names, found \"a\"", 1),
        ("{profiles = {}}", "`meta.profiles`: expected an array", 1),
        ("{profiles = {'a', 'a'}}", "`a` is there twice", 1),
        ("{splats = 'yes'}", "`meta.splats`: expected \"log\" or \"fail\", found \"yes\"", 1),
        ("{timeout = '5 years'}", "`meta.timeout`: ", 1),
        ("{tags = {1, {}}}", "`meta.tags`: ", 1),
        ("{skip = 3}", "`meta.skip`: ", 1),
    ];
    for (meta, message, code) in wrong {
        let text = format!("test('v', {meta}, function(t) end)\n");
        std::fs::write(dir.path().join("a.test.lua"), text).unwrap();
        common::provium(dir.path(), &["test", "."]).expect(code).says(&[message, "a.test.lua:1"]);
    }
    let twice = "test('v [a]', function(t) end)\ntest('v', {profiles = {'a'}}, function(t) end)\n";
    std::fs::write(dir.path().join("a.test.lua"), twice).unwrap();
    common::provium(dir.path(), &["test", "."])
        .expect(1)
        .says(&["there are two tests `v [a]`", "first at a.test.lua:1"]);
}

#[test]
fn todo_skips_the_whole_file() {
    let dir = common::directory(&[
        ("a.test.lua", "test('x', function(t) t:fail() end)\ntodo('not yet')\ntest('y', function(t) t:fail() end)\n"),
        ("b.test.lua", "todo()\ntest('z', function(t) t:fail() end)\n"),
    ]);
    let events = common::provium(dir.path(), &["test", ".", "--format", "json"]).expect(0).events();
    for (name, reason) in [("x", "not yet"), ("y", "not yet"), ("z", "todo")] {
        let done = common::test_done(&events, name);
        assert_eq!((&done["status"], &done["message"]), (&"skipped".into(), &reason.into()));
    }
}

#[test]
fn labs() {
    let text = std::fs::read_to_string(lua_dir().join("labs.test.lua")).unwrap();
    let dir =
        common::directory(&[("provium.toml", "[profiles.p]\nkernel = 'no/such/kernel'\n"), ("labs.test.lua", &text)]);
    common::provium(dir.path(), &["test", "labs.test.lua"]).expect(0);
}

#[test]
fn what_breaks_a_file_at_its_own_scope() {
    let cases = [
        ("provium:claim{memory = '1024T'}", "needs 1024 TiB, the pool has "),
        ("provium:vm('v', 'p')", "there is no provium.toml"),
        ("require('broken')", "broken.lua:2: "),
        ("require('fails')", "fails.lua:1: no luck"),
        ("require('one')", "two.lua:1: require: modules that need each other: one → two → one"),
        ("require('missing.module')", "a.test.lua:1: module 'missing.module' not found"),
        ("test('x', function() end)\nos.exit(0)", "a.test.lua:2: os.exit: "),
        ("parallel(function() error('inside', 0) end)", "inside"),
        ("local t = setmetatable({}, {__index = function() error('deep') end})\nlocal x = t.y", "a.test.lua:1: deep"),
    ];
    for (text, message) in cases {
        let dir = common::directory(&[
            ("a.test.lua", text),
            ("broken.lua", "local x = 1\nlocal = 2\n"),
            ("fails.lua", "error('no luck')\n"),
            ("one.lua", "return require('two')\n"),
            ("two.lua", "return require('one')\n"),
        ]);
        let run = common::provium(dir.path(), &["test", "."]);
        run.expect(1).says(&["FAIL a.test.lua: could not load", message]);
    }
}

#[test]
fn the_file_s_own_default_time_of_tests() {
    let text = "provium.timeout = '200ms'\ntest('hangs', function(t) sleep(100) end)\n\
                test('own', {timeout = '20s'}, function(t) sleep('300ms') end)\n";
    let dir = common::directory(&[("a.test.lua", text)]);
    let events = common::provium(dir.path(), &["test", ".", "--format", "json"]).expect(1).events();
    let hangs = common::test_done(&events, "hangs");
    assert_eq!((&hangs["status"], &hangs["limit"]), (&"timed_out".into(), &0.2.into()));
    assert_eq!(common::test_done(&events, "own")["status"], "passed");
}

#[test]
fn the_standard_library() {
    let run = common::provium(&lua_dir(), &["test", "library.test.lua", "--format", "json"]);
    let events = run.expect(0).events();
    let log = |name: &str| common::test_done(&events, name)["log"].as_str().unwrap_or_default().to_owned();
    assert_eq!(
        log("what programs write goes to the log"),
        "before\nout\nerr\ndirect 1\nerr 1.5\ncomplaint\nthrough cat\n"
    );
    assert_eq!(log("io.write, io.output, io.close, io.type"), "chain of writes\n");
}

#[test]
fn a_time_out_ends_its_test_wherever_it_is() {
    let run = common::provium(&lua_dir(), &["test", "timeouts.test.lua", "--timeout", "4m", "--format", "json"]);
    let events = run.expect(1).events();
    let done: Vec<_> = events.iter().filter(|event| event["kind"] == "test_done").collect();
    assert!(done.len() > 50);
    for test in done {
        let name = test["name"].as_str().unwrap_or_default();
        let after = name.starts_with("after: ");
        assert_eq!(test["status"], if after { "passed" } else { "timed_out" }, "{test}");
        // The machine may be busy, but no test lasts as long as what it waits for.
        assert!(test["duration"].as_f64().unwrap_or(99.0) < 20.0, "{test}");
        if !after {
            assert!(test["trace"][0].as_str().unwrap_or_default().contains(".lua:"), "{test}");
        }
    }
    let told = common::test_done(&events, "an assertion before the end is told");
    assert_eq!(told["message"], "timed out after 300ms\nbefore that: told");
    assert!(events.last().is_some_and(|event| event["kind"] == "run_done"));
}
