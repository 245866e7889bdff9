//! The command itself, as far as it goes without a machine: bad input, exit codes, what stands on standard output.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::Path;
use std::process::Stdio;

const PLAIN: &str = "test('plain', function(t) end)\n";
/// Boots the profile `linux`.
const BOOT: &str = "test('b', function(t) provium:vm('v', 'linux'):boot() end)\n";

/// A project whose profile `linux` has these lines, and one test that boots it.
fn profile(lines: &str) -> tempfile::TempDir {
    common::directory(&[("provium.toml", &format!("[profiles.linux]\n{lines}\n")), ("tests/a.test.lua", BOOT)])
}

/// A file that looks like a bzImage and boots nowhere.
fn bzimage() -> Vec<u8> {
    let mut image = vec![0; 2048];
    image[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image
}

#[test]
fn json_alone_stands_on_standard_output() {
    let test = "test('loud', function(t) print('a') io.write('b') os.execute('echo child') io.stderr:write('c')\n  \
                io.popen('echo d >&1'):read('a') end)\n";
    let dir = common::directory(&[("a.test.lua", test)]);
    let run = common::provium(dir.path(), &["test", "--format", "json"]);
    run.expect(0);
    let events = run.events();
    assert_eq!(events.first().unwrap()["kind"], "run_started");
    assert_eq!(events.last().unwrap()["kind"], "run_done");
    assert_eq!(common::test_done(&events, "loud")["log"], "a\nbchild\nc");
}

#[test]
fn why_nothing_is_selected() {
    let dir = common::directory(&[("a.test.lua", PLAIN), ("b.test.lua", "test('s', {slow = true}, function() end)\n")]);
    common::provium(dir.path(), &["test", "--filter", "zzz"])
        .expect(4)
        .says(&["`--filter` leaves none of the 2 files"]);
    common::provium(dir.path(), &["test", "--tag", "zzz"]).expect(4).says(&["no test of 2 files", "--allow-empty"]);
    common::provium(dir.path(), &["test", "b.test.lua"]).expect(4).says(&["a slow one was left out", "--include-slow"]);
    common::provium(dir.path(), &["test", "--tag", "zzz", "--allow-empty"]).expect(0);
    let empty = common::directory(&[]);
    common::provium(empty.path(), &["test"]).expect(4).says(&["there is none", "*.test.lua"]);
}

#[test]
fn build_looks_at_the_files_as_a_boot_would() {
    let dir = profile("kernel = 'k'\ninitrd = 'i'\nmodules = 'm'\nvmlinux = 'v'\ncmdline_file = 'c'");
    std::fs::write(dir.path().join("i"), "no archive").unwrap();
    std::fs::create_dir_all(dir.path().join("m/kernel")).unwrap();
    let run = common::provium(dir.path(), &["build"]);
    run.expect(2).says(&["`kernel`: can't read", "`initrd`", "a text file", "`vmlinux`: can't open", "`cmdline_file`"]);
    std::fs::write(dir.path().join("k"), bzimage()).unwrap();
    common::provium(dir.path(), &["build"]).expect(2).says(&["`modules`", "found none of them"]);
    for (name, text) in [("i", "070701"), ("v", "x"), ("c", "x"), ("m/modules.dep", "")] {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let run = common::provium(dir.path(), &["build"]);
    run.expect(0);
    for key in ["kernel", "initrd", "modules", "vmlinux", "cmdline_file"] {
        assert!(run.stdout.contains(&format!("linux {key} {}", dir.path().display())), "{}", run.stdout);
    }
}

#[test]
fn a_build_command_runs_once_and_before_the_tests() {
    let dir = common::directory(&[
        (
            "provium.toml",
            "[profiles.linux]\nkernel = '{out}/k'\nbuild = 'echo ran >> log; echo told; touch {out}/k'\n\
             [profiles.other]\nkernel = 'k'\nbuild = 'touch other'\n",
        ),
        (
            "a.test.lua",
            &format!("test('first', function(t) io.open('log'):close() end)\n{BOOT}{BOOT}").replacen("'b'", "'c'", 1),
        ),
    ]);
    let missing = common::provium(dir.path(), &["test", "--no-build"]);
    missing.expect(3).says(&["--no-build", "not there yet", ".provium/build/linux/k", "provium build linux"]);
    assert!(!dir.path().join("log").exists());
    // The kernel that it makes is none.
    let run = common::provium(dir.path(), &["test", "-v"]);
    run.expect(1).says(&["running the build command", "| told", "PASS a.test.lua: first", "is not a kernel"]);
    assert_eq!(std::fs::read_to_string(dir.path().join("log")).unwrap(), "ran\n");
    assert!(!dir.path().join("other").exists());
    common::provium(dir.path(), &["test", "--no-build"]).expect(1).says(&["is not a kernel"]);
    assert_eq!(std::fs::read_to_string(dir.path().join("log")).unwrap(), "ran\n");
}

#[test]
fn a_build_command_that_fails() {
    let dir = profile("kernel = 'k'\nbuild = 'echo out; echo err >&2; exit 7'");
    for command in ["build", "test"] {
        let run = common::provium(dir.path(), &[command]);
        run.expect(3).says(&["profile `linux`, key `build`", "failed with exit code 7", "| out", "| err"]);
    }
    let json = common::provium(dir.path(), &["test", "--format", "json"]);
    let kinds: Vec<String> = json.events().iter().map(|event| event["kind"].as_str().unwrap().to_owned()).collect();
    assert!(kinds.contains(&"profile_realise_failed".to_owned()), "{kinds:?}");
}

#[test]
fn a_build_command_ends_with_provium() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGKILL] {
        let dir = profile("kernel = 'k'\nbuild = 'sleep 1000 & echo $! > pid; wait'");
        let mut child = common::command(dir.path(), &["build"]).stderr(Stdio::null()).spawn().unwrap();
        let pid = || std::fs::read_to_string(dir.path().join("pid")).ok()?.trim().parse::<u32>().ok();
        let pid = loop {
            assert!(child.try_wait().unwrap().is_none(), "ended too early");
            if let Some(pid) = pid() {
                break pid;
            }
            std::thread::yield_now();
        };
        // SAFETY: the child is ours and not reaped yet.
        unsafe { libc::kill(i32::try_from(child.id()).unwrap(), signal) };
        let status = child.wait().unwrap();
        assert_eq!(status.code(), (signal != libc::SIGKILL).then_some(130));
        common::wait_for_end_of(&pid.to_string());
    }
}

/// A project with a flake whose outputs need no builder's tools, and are nobody else's.
fn flake() -> tempfile::TempDir {
    let dir = profile("kernel = '.#words'\ncmdline_file = '.#words'\ncmdline = 'own=1'\ninitrd = '.#never'");
    let flake = format!(
        "{{ outputs = _: let drv = name: script: derivation {{ inherit name; system = \"x86_64-linux\"; \
         builder = \"/bin/sh\"; args = [ \"-c\" script ]; salt = \"{}\"; }}; in \
         {{ words = drv \"words\" \"echo from.nix=1 > $out\"; never = drv \"never\" \"exit 1\"; }}; }}\n",
        dir.path().display()
    );
    std::fs::write(dir.path().join("flake.nix"), flake).unwrap();
    dir
}

fn with_nix(dir: &Path, args: &[&str]) -> common::Run {
    let config = "substituters =\nsandbox = false\nbuild-users-group =\n";
    common::finish(common::command(dir, args).env("NIX_CONFIG", config))
}

#[test]
fn profile_show_knows_what_nix_knows_without_building() {
    let dir = flake();
    let run = with_nix(dir.path(), &["profile", "show", "linux"]);
    run.expect(0).says(&["-words (not built yet)", "-never (not built yet)", "own=1"]);
    run.says(&["without the text of `cmdline_file`: it is unknown until built"]);
    with_nix(dir.path(), &["build"]).expect(3).says(&["the derivation `never` did not build"]);
    let words = "[profiles.words]\nkernel = '.#words'\n";
    let text = std::fs::read_to_string(dir.path().join("provium.toml")).unwrap();
    std::fs::write(dir.path().join("provium.toml"), format!("{text}{words}")).unwrap();
    with_nix(dir.path(), &["build", "words"]).expect(3).says(&["is not a kernel"]);
    let run = with_nix(dir.path(), &["profile", "show", "linux"]);
    run.expect(0).says(&["from.nix=1 own=1"]);
    std::fs::write(dir.path().join("flake.nix"), "{ outputs = _: { }; }\n").unwrap();
    with_nix(dir.path(), &["profile", "show", "linux"]).expect(0).says(&["unknown: there is no `.#words`", "own=1"]);
}

#[test]
fn a_realised_value_that_can_not_be_used_is_the_environments_fault() {
    let dir = flake();
    let text = std::fs::read_to_string(dir.path().join("provium.toml")).unwrap();
    let without = text.lines().filter(|line| !line.contains("never")).collect::<Vec<_>>().join("\n");
    std::fs::write(dir.path().join("provium.toml"), without).unwrap();
    for command in ["test", "build"] {
        let run = with_nix(dir.path(), &[command]);
        run.expect(3).says(&["profile `linux`: `kernel`", "-words", "is not a kernel"]);
    }
}
