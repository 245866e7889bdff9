//! Snapshots, clones and resets of real guests under the real command.

mod common;

#[test]
fn snapshots_and_clones() {
    let dir = common::suite(&["snapshots.test.lua"]);
    let run = common::provium(dir.path(), &["test", "--timeout", "20m", "--save-events", "events.jsonl"]);
    run.expect(0);
    let text = std::fs::read_to_string(dir.path().join("events.jsonl")).unwrap();
    let events: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let count = |kind: &str| events.iter().filter(|event| event["kind"] == kind).count();
    assert_eq!(count("vm_started"), count("vm_stopped"));
    let restored: Vec<_> = events.iter().filter(|event| event["how"] == "restore").collect();
    assert!(restored.len() > 10);
    for event in restored {
        for phase in ["prepare", "qemu", "load", "agent"] {
            assert!(event["phases"][phase].as_f64().unwrap() > 0.0, "{event}");
        }
    }
    assert_eq!(common::qemu_processes(dir.path().to_str().unwrap()), Vec::<String>::new());
}

#[test]
fn the_file_s_machines_are_reset_between_tests() {
    let test = "provium.reset_between_tests = true\n\
        local vm = provium:vm('v', 'linux', {memory = '192M'}):boot()\n\
        local other = provium:vm('o', 'linux')\n\
        vm:write_file('/kept', 'file')\n\
        test('first', function(t)\n  t:assert_eq(vm:read_file('/kept'), 'file')\n  vm:write_file('/kept', 'first')\n\
        \n  pcall(vm.run, vm, 'echo c > /proc/sysrq-trigger')\n  wait_until(function() return vm:state() == 'dead' end, {timeout = '60s'})\nend)\n\
        test('skipped', {skip = true}, function() end)\n\
        test('second', function(t)\n  t:assert_eq(provium.reset_between_tests, true)\n\
        \n  t:assert_eq(vm:read_file('/kept'), 'file')\n  vm:unlink('/kept')\n  vm:shutdown()\n  other:restore(vm:name() and snap)\nend)\n\
        test('third', function(t)\n  t:assert_eq({vm:read_file('/kept'), other:state()}, {'file', 'shutdown'})\nend)\n";
    let test = test
        .replace("vm:write_file('/kept', 'file')\n", "vm:write_file('/kept', 'file')\nlocal snap = vm:snapshot()\n");
    let test = test.replace("other:restore(vm:name() and snap)", "other:restore(snap)");
    let broken = "provium.reset_between_tests = true\n\
        local vm = provium:vm('v', 'linux', {memory = '192M'}):boot()\n\
        local file = vm:open_file('/etc/passwd', {read = true})\n\
        test('never runs', function(t) t:fail() end)\n";
    let dir = common::project(&[("tests/a.test.lua", &test)]);
    common::provium(dir.path(), &["test"]).expect(0).says(&["3 passed, 0 failed, 1 skipped"]);
    let dir = common::project(&[("tests/b.test.lua", broken)]);
    common::provium(dir.path(), &["test"]).expect(1).says(&[
        "provium.reset_between_tests: the file's VMs can't be kept as they are",
        "file `/etc/passwd`, opened at tests/b.test.lua:3",
    ]);
}

/// How often a snapshot is restored: a few times here, 1,000 times by `tests/soak`.
fn rounds() -> u32 {
    std::env::var("PROVIUM_RESTORE_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(12)
}

#[test]
fn restores_leave_the_stored_bytes_as_they_are() {
    let test = format!(
        "local dir = require('place')\n\
         local function sums() return io.popen('cd ' .. dir .. ' && find . | sort && find . -type f | sort | xargs sha256sum'):read('a') end\n\
         provium:vm('source', 'linux', {{memory = '128M'}}):boot():snapshot(dir)\n\
         os.execute('chmod -R a-w ' .. dir)\n\
         local before = sums()\n\
         local random = {{}}\n\
         for round = 1, {} do\n  test('round ' .. round, function(t)\n    local vm = provium:vm('v', 'linux'):restore(dir)\n    \
         vm:write_file('/round', tostring(round))\n    \
         local bytes = vm:run('head -c 16 /dev/urandom | od -An -tx1'):trim()\n    t:assert_eq(random[bytes], nil)\n    \
         random[bytes] = true\n  end)\nend\n\
         test('unchanged', function(t)
  t:assert_eq(sums(), before)
  os.execute('chmod -R u+w ' .. dir)
end)\n",
        rounds()
    );
    let dir = common::suite(&[]);
    std::fs::create_dir_all(dir.path().join("tests")).unwrap();
    let kept = dir.path().join("kept");
    std::fs::write(dir.path().join("tests/place.lua"), format!("return {:?}", kept.display().to_string())).unwrap();
    std::fs::write(dir.path().join("tests/a.test.lua"), test).unwrap();
    common::provium(dir.path(), &["test", "--timeout", "2h"]).expect(0);
    assert_eq!(common::qemu_processes(dir.path().to_str().unwrap()), Vec::<String>::new());
    // What the run needed beside the snapshot has gone with it.
    let mut left = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
    left.sort();
    assert!(left.iter().all(|name| !name.to_string_lossy().ends_with(".part")), "{left:?}");
}
