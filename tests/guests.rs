//! Guests of many kinds under the real command: a Debian userland with systemd, guests that lack what others have, and
//! modules and reports of the kernel itself.

mod common;

/// Runs one file of `tests/vm` with the profiles of the suite, and expects it to pass and to leave nothing.
#[track_caller]
fn passes(name: &str) {
    let dir = common::suite(&[name]);
    // All three run at once, beside whatever else the machine does.
    let mut command = common::command(dir.path(), &["test", "--timeout", "15m"]);
    common::finish(command.env("PROVIUM_TEST_IMAGES", common::images())).expect(0);
    assert_eq!(common::qemu_processes(&dir.path().to_string_lossy()), Vec::<String>::new());
}

#[test]
fn odd_guests() {
    passes("odd_guests.test.lua");
}

#[test]
fn workers_in_odd_guests() {
    passes("odd_workers.test.lua");
}

#[test]
fn systemd() {
    passes("systemd.test.lua");
}

#[test]
fn modules_and_kernel_reports() {
    passes("modules.test.lua");
}

#[test]
fn the_machine() {
    passes("machine.test.lua");
}

#[test]
fn consoles() {
    passes("console.test.lua");
}

#[test]
fn the_kernel_s_log_modules_clock_and_waits() {
    passes("kernel.test.lua");
}

#[test]
fn kernel_reports_are_expected() {
    passes("splats.test.lua");
}

#[test]
fn a_kernel_report_fails_the_test_that_wants_it_so_and_is_never_silent() {
    let guest = common::guest();
    let profile = |name: &str, more: &str| {
        format!(
            "[profiles.{name}]\nkernel = {:?}\ninitrd = {:?}\nmodules = {:?}\ncmdline = \"quiet\"\n{more}\n",
            guest.kernel, guest.initrd, guest.modules
        )
    };
    let profiles = profile("lenient", "") + &profile("strict", "splats = \"fail\"");
    let test = "local lenient = provium:vm('l', 'lenient', {load_modules = {'provoke'}}):boot()\n\
                local strict = provium:vm('s', 'strict', {load_modules = {'provoke'}}):boot()\n\
                local function warn(vm, number) vm:run('echo warn ' .. number .. ' > /proc/provoke'):assert_ok() end\n\
                test('logged', function(t) warn(lenient, 1) end)\n\
                test('fails', {splats = 'fail'}, function(t) warn(lenient, 2) end)\n\
                test('fails by profile', function(t) warn(strict, 3) end)\n\
                test('spared', {splats = 'log'}, function(t) warn(strict, 4) end)\n\
                test('fails twice', {splats = 'fail'}, function(t) warn(lenient, 5) t:fail('own') end)\n\
                test('nothing of it is left', {splats = 'fail'}, function(t) end)\n";
    let dir = common::directory(&[("provium.toml", &profiles), ("tests/a.test.lua", test)]);
    let run = common::provium(dir.path(), &["test", "--format", "json", "--artifacts", "out"]);
    run.expect(1);
    let events = run.events();
    for (name, status, number) in [
        ("logged", "passed", Some(1)),
        ("fails", "failed", Some(2)),
        ("fails by profile", "failed", Some(3)),
        ("spared", "passed", Some(4)),
        ("fails twice", "failed", Some(5)),
        ("nothing of it is left", "passed", None),
    ] {
        let done = common::test_done(&events, name);
        assert_eq!(done["status"], status, "{done}");
        let splats: Vec<_> = events.iter().filter(|e| e["kind"] == "guest_splat" && e["test"] == name).collect();
        let Some(number) = number else {
            assert!(splats.is_empty() && done["attachments"].as_array().unwrap().is_empty(), "{done}");
            continue;
        };
        assert_eq!(splats.len(), 1, "{name}");
        let (title, report) = (splats[0]["title"].as_str().unwrap(), splats[0]["report"].as_str().unwrap());
        assert_eq!(splats[0]["splat"], "warning");
        assert!(report.starts_with("------------[ cut here ]") && report.ends_with("]---\n"), "{report}");
        assert!(report.contains(&format!("provoked warning {number}\n")) && report.contains(title), "{report}");
        let kept = dir.path().join(done["attachments"][0]["path"].as_str().unwrap());
        assert_eq!(std::fs::read_to_string(kept).unwrap(), report);
        let message = done["message"].as_str().unwrap_or_default();
        assert_eq!(message.contains(title) && message.contains("Call Trace:"), status == "failed", "{message}");
        assert_eq!(done["kernel_reports"][0].as_str().is_some(), status == "failed", "{done}");
    }
    assert!(common::test_done(&events, "fails twice")["message"].as_str().unwrap().starts_with("own"));
}

#[test]
fn a_bad_word_on_kernel_reports_is_an_error() {
    let dir = common::directory(&[("tests/a.test.lua", "test('x', {splats = 'sometimes'}, function(t) end)\n")]);
    common::provium(dir.path(), &["test", "tests"]).expect(1).says(&[
        "meta.splats",
        "\"log\" or \"fail\"",
        "sometimes",
    ]);
}

/// A report in the guest's last moment: the agent can't pass it on any more, the console has it.
#[test]
fn a_report_of_a_dying_guest_is_read_from_its_console() {
    let guest = common::guest();
    let profile = format!(
        "[profiles.linux]\nkernel = {:?}\ninitrd = {:?}\nmodules = {:?}\ncmdline = \"quiet oops=panic panic_on_oops=1\"\n",
        guest.kernel, guest.initrd, guest.modules
    );
    let test = "test('dies', {splats = 'fail'}, function(t)\n\
                local vm = provium:vm('v', 'linux', {load_modules = {'provoke'}}):boot()\n\
                pcall(vm.run, vm, 'echo oops > /proc/provoke; sleep 1000')\nend)\n";
    let dir = common::directory(&[("provium.toml", &profile), ("tests/a.test.lua", test)]);
    let run = common::provium(dir.path(), &["test", "--format", "json"]);
    run.expect(1);
    let events = run.events();
    let splats: Vec<_> = events.iter().filter(|event| event["kind"] == "guest_splat").collect();
    assert_eq!(splats.len(), 1, "{splats:?}");
    assert_eq!(splats[0]["splat"], "oops");
    assert!(splats[0]["report"].as_str().unwrap().contains("provoke_oops"), "{}", splats[0]);
    assert_eq!(events.iter().filter(|event| event["kind"] == "guest_panic").count(), 1);
    let message = common::test_done(&events, "dies")["message"].as_str().unwrap();
    assert!(message.contains("BUG: kernel NULL pointer dereference"), "{message}");
}
