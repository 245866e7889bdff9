//! Fixtures with real guests: the cache, its key row by row, and what happens when things go wrong.

#![cfg(feature = "host")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

const BASE: &str = "local vm = provium:vm('base', provium.profile):boot()\n\
    vm:write_file('/tmp/prepared', 'prepared for ' .. provium.profile)\n\
    vm:write_file('/tmp/helper', (require('lib.helper')))\n\
    local which = io.open('tests/fixtures/which')\n\
    if which then\n  provium:depends_on_file('which')\n  vm:push_file(which:read('l'), '/tmp/data')\nelse\n  \
    vm:push_file('data', '/tmp/data')\nend\n\
    vm:push_file('base.fixture.lua', '/tmp/self', {auto_dep = false})\n\
    return vm:snapshot()\n";
const NESTED: &str =
    "local vm = provium.vm_fixture('fixtures/base')\nvm:write_file('/tmp/more', 'more')\nreturn vm:snapshot()\n";
const PAIR: &str = "local pair = provium:lab('pair')\n\
    for _, name in ipairs({'left', 'right'}) do pair:vm(name, provium.profile) end\npair:boot()\n\
    for _, name in ipairs(pair:vm_names()) do pair[name]:write_file('/tmp/who', name) end\nreturn pair:snapshot()\n";

/// A profile of the prepared guest.
fn profile(name: &str, kernel: &Path, more: &str) -> String {
    let guest = common::guest();
    format!(
        "[profiles.{name}]\nkernel = {kernel:?}\ninitrd = {:?}\nmodules = {:?}\ncmdline = 'quiet'\nmemory = '192M'\n{more}",
        guest.initrd, guest.modules
    )
}

/// A project with the fixtures above and one profile.
fn project(files: &[(&str, &str)]) -> tempfile::TempDir {
    let toml = profile("linux", &common::guest().kernel, "");
    let fixed = [
        ("provium.toml", toml.as_str()),
        ("tests/fixtures/base.fixture.lua", BASE),
        ("tests/fixtures/data", "some data\n"),
        ("tests/lib/helper.lua", "return 'from the helper'\n"),
    ];
    common::directory(&[&fixed[..], files].concat())
}

fn provium(dir: &Path, args: &[&str]) -> common::Run {
    common::provium(dir, args)
}

/// What lies in the cache beside entries.
fn left(cache: &Path) -> Vec<String> {
    let names = |directory: PathBuf| fs::read_dir(directory).into_iter().flatten().flatten();
    names(cache.to_owned())
        .chain(names(cache.join(".locks")))
        .map(|entry| entry.file_name().into_string().unwrap())
        .filter(|name| name != ".locks" && name.len() != 64)
        .collect()
}

fn cache(dir: &Path) -> PathBuf {
    dir.join(".xdg/cache/provium/fixtures")
}

fn entries(cache: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(cache).into_iter().flatten().flatten();
    all.filter(|entry| entry.file_name().len() == 64).map(|entry| entry.path()).collect()
}

#[test]
fn the_lua_file_passes() {
    let lua = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vm/fixtures.test.lua");
    let text = fs::read_to_string(lua).unwrap();
    let dir = project(&[
        ("tests/fixtures.test.lua", &text),
        ("tests/fixtures/nested.fixture.lua", NESTED),
        ("tests/fixtures/pair.fixture.lua", PAIR),
        ("tests/bad/nothing.fixture.lua", "local vm = 1\n"),
        ("tests/bad/raises.fixture.lua", "\nerror('on purpose')\n"),
        ("tests/bad/syntax.fixture.lua", "return return\n"),
        ("tests/bad/tests.fixture.lua", "test('x', function() end)\n"),
        ("tests/bad/one.fixture.lua", "return provium.vm_fixture('bad/other'):snapshot()\n"),
        ("tests/bad/other.fixture.lua", "return provium.vm_fixture('bad/one'):snapshot()\n"),
    ]);
    let run = provium(dir.path(), &["test", "--format", "json"]);
    run.expect(0);
    let events = run.events();
    let of = |kind: &str| events.iter().filter(|event| event["kind"] == kind).collect::<Vec<_>>();
    let done = of("fixture_build_done");
    let built: Vec<&str> =
        done.iter().filter(|e| e["error"].is_null()).map(|e| e["fixture"].as_str().unwrap()).collect();
    assert_eq!(built, ["fixtures/base", "fixtures/nested", "fixtures/pair"]);
    assert_eq!(of("fixture_build_started").len(), done.len(), "each that was begun has ended");
    assert!(of("fixture_hit").len() >= 10);
    let restored = of("vm_ready").iter().filter(|event| event["how"] == "restore").count();
    assert!(restored >= 12, "{restored}");
    assert_eq!(left(&cache(dir.path())), Vec::<String>::new());
    // Another run builds nothing of what succeeded.
    let again = provium(dir.path(), &["test", "--format", "json"]);
    again.expect(0);
    let built = |event: &&Value| event["kind"] == "fixture_build_done" && event["error"].is_null();
    assert_eq!(again.events().iter().filter(built).count(), 0);
}

/// What `explain` says of a fixture: whether its entry is valid, and each change.
fn explain(dir: &Path, name: &str, args: &[&str]) -> (bool, Vec<String>) {
    let run = provium(dir, &[&["fixture", "explain", name, "--format", "json"], args].concat());
    run.expect(0);
    let told: Value = serde_json::from_str(&run.stdout).unwrap();
    let changes = told["changes"].as_array().unwrap().iter().map(|change| {
        let what = change["ingredient"].as_str().or(change["before"].as_str()).unwrap();
        format!("{} {what}", change["change"].as_str().unwrap())
    });
    (told["valid"].as_bool().unwrap(), changes.collect())
}

/// Rows of the tables of the seed and the specification. After each one everything is as before, and so is the key.
struct Rows {
    dir: tempfile::TempDir,
}

impl Rows {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// With `name` changed to `text`, exactly `expected` has changed of the fixture's key.
    #[track_caller]
    fn row(&self, fixture: &str, name: &str, text: &str, expected: &[&str]) {
        let before = fs::read(self.path(name)).ok();
        fs::write(self.path(name), text).unwrap();
        let told = explain(self.dir.path(), fixture, &[]);
        assert_eq!(told, (expected.is_empty(), expected.iter().map(|change| (*change).to_owned()).collect()));
        let stale = provium(self.dir.path(), &["fixture", "stale"]);
        stale.expect(0);
        assert_eq!(stale.stdout.lines().any(|line| line == fixture), !expected.is_empty(), "{}", stale.all());
        match before {
            Some(before) => fs::write(self.path(name), before).unwrap(),
            None => fs::remove_file(self.path(name)).unwrap(),
        }
        assert_eq!(explain(self.dir.path(), fixture, &[]), (true, Vec::new()), "back to the old content");
    }
}

/// The store path of `attr` is another one for each `salt`; nothing is ever built of it.
fn nix_file(salt: &str) -> String {
    let derivation = |name: &str, salt: &str| {
        format!(
            "derivation {{ name = \"{name}\"; system = builtins.currentSystem; builder = \"/bin/sh\"; args = [ \"-c\" \
             \"exit 1\" ]; salt = \"{salt}\"; }}"
        )
    };
    format!("{{ kernel = {}; initrd = {}; }}\n", derivation("kernel", salt), derivation("initrd", "same"))
}

#[test]
fn the_tables_row_by_row() {
    let guest = common::guest();
    let dir = project(&[("tests/fixtures/nested.fixture.lua", NESTED), ("default.nix", &nix_file("one"))]);
    let kernel = dir.path().join("bzImage");
    fs::copy(&guest.kernel, &kernel).unwrap();
    fs::write(dir.path().join("other-kernel"), "one").unwrap();
    fs::create_dir_all(dir.path().join("drivers/lib/modules/1")).unwrap();
    fs::write(dir.path().join("drivers/lib/modules/1/a.ko"), "a").unwrap();
    let other = "[profiles.other]\nkernel = 'other-kernel'\nmodules = 'drivers'\n";
    let nix = "[profiles.nix]\nkernel = { file = 'default.nix', attr = 'kernel' }\ninitrd = { file = 'default.nix', attr = \
               'initrd' }\n";
    let linux = profile("linux", &kernel, "");
    let toml = |parts: &[&str]| format!("[provium]\n{}", parts.concat());
    let whole = toml(&[&linux, other, nix]);
    fs::write(dir.path().join("provium.toml"), &whole).unwrap();
    let rows = Rows { dir };
    let base = "fixtures/base";
    let dir = rows.dir.path();
    let never = explain(dir, base, &["--profile", "linux"]);
    assert_eq!(never, (false, Vec::new()));
    provium(dir, &["fixture", "build", "fixtures/nested", "--profile", "linux"]).expect(0);
    // `linux` is the first by name from here on, as it is where nothing is asked for.
    assert_eq!(explain(dir, base, &[]), (true, Vec::new()));
    let row = |name: &str, text: &str, expected: &[&str]| rows.row(base, name, text, expected);

    // Images of a profile that the fixture never boots.
    row("other-kernel", "two", &["changed profile `other` kernel"]);
    row("other-kernel", "one", &[]);
    row("drivers/lib/modules/1/a.ko", "b", &["changed profile `other` modules"]);
    row("drivers/lib/modules/1/b.ko", "b", &["changed profile `other` modules"]);
    row("default.nix", &nix_file("two"), &["changed profile `nix` kernel"]);
    row("default.nix", &format!("# the same store paths\n{}", nix_file("one")), &[]);
    // Of the one that it boots.
    let mut bytes = fs::read(&kernel).unwrap();
    bytes.push(0);
    let (valid, changes) = {
        fs::write(&kernel, &bytes).unwrap();
        let told = explain(dir, base, &[]);
        bytes.pop();
        fs::write(&kernel, &bytes).unwrap();
        told
    };
    assert_eq!((valid, changes), (false, vec!["changed profile `linux` kernel".to_owned()]));

    // Profiles come, go, and change their names.
    row("provium.toml", &toml(&[&linux, other, nix, "[profiles.zzz]\nkernel = 'k'\n"]), &["added profile `zzz`"]);
    row("provium.toml", &toml(&[&linux, nix]), &["removed profile `other`"]);
    row("provium.toml", &whole.replace("[profiles.other]", "[profiles.renamed]"), &["renamed profile `other`"]);
    row("provium.toml", &whole.replace("memory = '192M'", "memory = '200M'"), &["changed profile `linux` memory"]);
    row("provium.toml", &toml(&[&linux, other, "memory = '1G'\n", nix]), &[]);
    row("provium.toml", &whole.replace("cmdline = 'quiet'", "cmdline = 'loglevel=7'"), &[]);
    // What is not there.
    row("provium.toml", &whole.replace("'other-kernel'", "'missing'"), &["changed profile `other` kernel"]);

    // What the fixture uses.
    row("tests/fixtures/base.fixture.lua", &format!("-- edited\n{BASE}"), &["changed fixture file `fixtures/base`"]);
    row("tests/lib/helper.lua", "return 'other'\n", &["changed module `tests/lib/helper.lua`"]);
    row("tests/fixtures/data", "other\n", &["changed host file `tests/fixtures/data`"]);
    row("tests/fixtures/unused", "other\n", &[]);
    let nested = "changed fixture `fixtures/base` for the profile `linux`";
    rows.row("fixtures/nested", "tests/fixtures/data", "other\n", &[nested]);
    rows.row("fixtures/nested", "tests/fixtures/base.fixture.lua", &format!("-- edited\n{BASE}"), &[nested]);

    // Another cache is just empty.
    let elsewhere = whole.replacen("[provium]\n", "[provium]\ncache_dir = 'elsewhere'\n", 1);
    fs::write(rows.path("provium.toml"), elsewhere).unwrap();
    assert_eq!(explain(dir, base, &[]), (false, Vec::new()));
    fs::write(rows.path("provium.toml"), &whole).unwrap();
    assert_eq!(explain(dir, base, &[]), (true, Vec::new()));

    after_the_rows(dir, &whole, &nix_file("two"));
}

/// What is tried with restores and builds: the hit itself, a warning, `key_profiles`, `export`, damage.
fn after_the_rows(dir: &Path, whole: &str, other_nix: &str) {
    let test = "test('t', function(t) for _ = 1, 2 do t:assert_eq(provium.vm_fixture('fixtures/base'):read_file(\
                '/tmp/prepared'), 'prepared for linux') end end)\n";
    fs::write(dir.join("tests/a.test.lua"), test).unwrap();
    let config = |text: &str| fs::write(dir.join("provium.toml"), text).unwrap();
    config(&whole.replace("cmdline = 'quiet'", "cmdline = 'loglevel=7'"));
    let run = provium(dir, &["test", "-v"]);
    run.expect(0).says(&["fixture `fixtures/base` (profile `linux`) is in the cache", "loglevel=7 console=ttyS0` now"]);
    assert_eq!(
        run.all().matches("another command line").count(),
        1,
        "once in a run, however many restores: {}",
        run.all()
    );
    // A key with an ingredient that is not there does not travel.
    config(&whole.replace("'other-kernel'", "'missing'"));
    provium(dir, &["fixture", "build", "fixtures/base"]).expect(0);
    let told = provium(dir, &["fixture", "explain", "fixtures/base"]);
    told.expect(0).says(&["profile `other` kernel  absent"]);
    let export = provium(dir, &["fixture", "export", "fixtures/base", "out"]);
    export.expect(2).says(&["profile `other` kernel", "hint:"]);
    // Only what is booted.
    config(&whole.replacen("[provium]\n", "[provium]\nkey_profiles = 'used'\n", 1));
    provium(dir, &["fixture", "build", "fixtures/base"]).expect(0);
    fs::write(dir.join("default.nix"), other_nix).unwrap();
    fs::write(dir.join("other-kernel"), "three").unwrap();
    assert_eq!(explain(dir, "fixtures/base", &[]), (true, Vec::new()));
    // Out and in again.
    provium(dir, &["fixture", "export", "tests/fixtures/base.fixture.lua", "out"]).expect(0);
    provium(dir, &["fixture", "clean"]).expect(0).says(&["removed "]);
    assert!(entries(&cache(dir)).is_empty());
    let listed = provium(dir, &["fixture", "list"]);
    listed.expect(0).says(&["fixtures/base    linux  not built"]);
    provium(dir, &["fixture", "import", "out"]).expect(0).says(&["imported `fixtures/base`"]);
    provium(dir, &["test", "-v"]).expect(0).says(&["is in the cache"]);
    in_use(dir);
    // Damage: set aside, told, built again.
    let entry = entries(&cache(dir)).pop().unwrap();
    let ram = entry.join("vms/0/ram");
    fs::set_permissions(&ram, fs::Permissions::from_mode(0o644)).unwrap();
    fs::File::options().write(true).open(&ram).unwrap().set_len(1 << 20).unwrap();
    let run = provium(dir, &["test"]);
    run.expect(0).says(&[
        "warning: fixture `fixtures/base`: the entry",
        "has 1048576 bytes instead of",
        "built fixture",
    ]);
    assert_eq!(left(&cache(dir)), [format!(".damaged-{}", entry.file_name().unwrap().to_str().unwrap())]);
    provium(dir, &["fixture", "import", "provium.toml"]).expect(2).says(&["is not an exported fixture"]);
}

/// What a running guest came from stays, whoever cleans.
fn in_use(dir: &Path) {
    let program = env!("CARGO_BIN_EXE_provium");
    let test = format!(
        "test('t', function(t)\n  local vm = provium.vm_fixture('fixtures/base')\n  local said = \
         io.popen('{program} fixture clean'):read('a')\n  t:assert_contains(said, 'kept 1 entry that running guests use')\n  \
         t:assert_eq(vm:read_file('/tmp/helper'), 'from the helper')\nend)\n"
    );
    let file = dir.join("tests/in_use.test.lua");
    fs::write(&file, test).unwrap();
    provium(dir, &["test", "tests/in_use.test.lua"]).expect(0);
    fs::remove_file(file).unwrap();
    assert_eq!(entries(&cache(dir)).len(), 1);
}

#[test]
fn a_path_that_is_computed_and_an_old_content() {
    let dir = project(&[("tests/fixtures/which", "one\n"), ("tests/fixtures/one", "1"), ("tests/fixtures/two", "2")]);
    let dir = dir.path();
    let file = |name: &str, text: &str| fs::write(dir.join("tests/fixtures").join(name), text).unwrap();
    let build = || {
        let run = provium(dir, &["fixture", "build", "fixtures/base", "--format", "json"]);
        run.expect(0);
        let told: Value = serde_json::from_str(&run.stdout).unwrap();
        (told["key"].as_str().unwrap().to_owned(), run.stderr.contains("building fixture"))
    };
    let (first, built) = build();
    assert!(built);
    file("two", "of no interest");
    assert_eq!(build(), (first.clone(), false));
    file("which", "two\n");
    assert_eq!(explain(dir, "fixtures/base", &[]).1, ["changed host file `tests/fixtures/which`"]);
    let (second, built) = build();
    assert!(built && second != first);
    file("one", "of no interest now");
    assert_eq!(build(), (second.clone(), false));
    file("two", "changed");
    assert_eq!(explain(dir, "fixtures/base", &[]).1, ["changed host file `tests/fixtures/two`"]);
    // Back to what it was: the oldest entry is still there.
    file("which", "one\n");
    file("one", "1");
    assert_eq!(build(), (first, false));
    assert_eq!(entries(&cache(dir)).len(), 2);

    // The image of a disk counts as a file that is pushed.
    fs::write(dir.join("tests/disk.img"), vec![1; 1 << 20]).unwrap();
    let attaches = "local vm = provium:vm('v', provium.profile):boot()\n\
                    vm:attach_disk({id = 'data', image = 'disk.img'}):detach()\nreturn vm:snapshot()\n";
    fs::write(dir.join("tests/disk.fixture.lua"), attaches).unwrap();
    provium(dir, &["fixture", "build", "disk"]).expect(0);
    assert_eq!(explain(dir, "disk", &[]), (true, Vec::new()));
    fs::write(dir.join("tests/disk.img"), vec![2; 1 << 20]).unwrap();
    assert_eq!(explain(dir, "disk", &[]), (false, vec!["changed host file `tests/disk.img`".to_owned()]));
}

const TEST: &str = "test('t', function(t)\n  local vm = provium.vm_fixture('fixtures/base')\n  \
                    t:assert_eq(vm:read_file('/tmp/helper'), 'from the helper')\nend)\n";

#[test]
fn of_two_runs_one_builds_and_one_that_is_killed_leaves_nothing() {
    let none = "test('t', function() end)\n";
    let dir = project(&[("tests/a.test.lua", TEST), ("tests/b.test.lua", TEST), ("tests/c.test.lua", none)]);
    let path = dir.path();
    let start = |file: &str| {
        common::command(path, &["test", file, "--format", "json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    // Killed while it builds.
    let mut killed = start("tests/a.test.lua");
    common::wait_for("the builder's directory", || !left(&cache(path)).is_empty());
    killed.kill().unwrap();
    killed.wait().unwrap();
    // The next start clears up, whatever it is for.
    provium(path, &["test", "tests/c.test.lua"]).expect(0);
    assert_eq!(left(&cache(path)), Vec::<String>::new());
    // Two at once.
    let runs = [start("tests/a.test.lua"), start("tests/b.test.lua")].map(|child| child.wait_with_output().unwrap());
    let mut built = 0;
    for run in &runs {
        assert!(run.status.success());
        let text = String::from_utf8_lossy(&run.stdout);
        built += usize::from(text.contains("\"kind\":\"fixture_build_done\""));
        if !text.contains("\"kind\":\"fixture_build_started\"") {
            assert!(text.contains("\"kind\":\"fixture_hit\""), "{text}");
        }
    }
    assert_eq!(built, 1, "one builds, the other restores");
    assert_eq!(left(&cache(path)), Vec::<String>::new());
    assert_eq!(entries(&cache(path)).len(), 1);
}

#[test]
fn a_full_disk_during_a_build() {
    let dir = project(&[("tests/a.test.lua", TEST)]);
    let toml = fs::read_to_string(dir.path().join("provium.toml")).unwrap();
    fs::write(dir.path().join("provium.toml"), format!("[provium]\ncache_dir = 'small'\n{toml}")).unwrap();
    fs::create_dir(dir.path().join("small")).unwrap();
    // A name space of its own, in which an ordinary user may mount as well.
    let script = "mount -t tmpfs -o size=20m none small && \"$1\" test; code=$?; ls -A small small/.locks; exit $code";
    let mut command = common::command(dir.path(), &[]);
    let mut inside = std::process::Command::new("unshare");
    inside.args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]).arg(command.get_program());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            inside.env(name, value);
        }
    }
    command = inside;
    command.current_dir(dir.path()).stdin(Stdio::null());
    let run = common::finish(&mut command);
    run.expect(1).says(&["FAIL tests/a.test.lua: t", "no space left on device", "provium fixture clean"]);
    let listed = run.stdout.split("\nsmall:\n").nth(1).unwrap_or_else(|| unreachable!("{}", run.all()));
    assert_eq!(listed.trim(), ".locks\n\nsmall/.locks:", "nothing is half there");
}

#[test]
fn a_cache_of_somebody_else_is_read() {
    let dir = project(&[("tests/a.test.lua", TEST)]);
    let path = dir.path();
    provium(path, &["fixture", "build", "fixtures/base"]).expect(0);
    let run = |test: &str| {
        let home = path.join("home");
        fs::create_dir_all(&home).unwrap();
        // SAFETY: it can't fail.
        let is_root = unsafe { libc::geteuid() } == 0;
        let mut command = common::command(path, &[]);
        let program = command.get_program().to_owned();
        command = if is_root {
            // An ordinary user, who sees the project and the programs, but owns neither.
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
            std::os::unix::fs::chown(&home, Some(65534), Some(65534)).unwrap();
            let mut command = std::process::Command::new("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program);
            command
        } else {
            std::process::Command::new(program)
        };
        command
            .args(["test", test, "-v"])
            .current_dir(path)
            .stdin(Stdio::null())
            .env("NO_COLOR", "1")
            // The suite's record of calls is the other user's.
            .env_remove("PROVIUM_API_RECORD")
            .env("HOME", &home)
            .env("TMPDIR", &home)
            .env("XDG_RUNTIME_DIR", home.join("run"))
            .env("XDG_STATE_HOME", home.join("state"))
            .env("XDG_CACHE_HOME", home.join("cache"));
        common::finish(&mut command)
    };
    let toml = fs::read_to_string(path.join("provium.toml")).unwrap();
    let cache = cache(path);
    fs::write(path.join("provium.toml"), format!("[provium]\ncache_dir = {cache:?}\n{toml}")).unwrap();
    for below in [&cache, &cache.join(".locks")] {
        fs::set_permissions(below, fs::Permissions::from_mode(0o555)).unwrap();
    }
    let before = fs::read_dir(&cache).unwrap().count();
    run("tests/a.test.lua").expect(0).says(&["is in the cache", "1 passed"]);
    // What it lacks is built for the run alone.
    fs::write(path.join("tests/fixtures/data"), "other\n").unwrap();
    run("tests/a.test.lua").expect(0).says(&["building fixture", "1 passed"]);
    assert_eq!(fs::read_dir(&cache).unwrap().count(), before);
    for below in [&cache, &cache.join(".locks")] {
        fs::set_permissions(below, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn a_store_has_what_the_cache_lacks() {
    let dir = project(&[("tests/a.test.lua", TEST)]);
    let path = dir.path();
    provium(path, &["fixture", "build", "fixtures/base"]).expect(0);
    fs::create_dir(path.join("store")).unwrap();
    provium(path, &["fixture", "export", "fixtures/base", "store/base.fixture"]).expect(0);
    fs::rename(cache(path), path.join("shelf")).unwrap();
    let run = |stores: &str| {
        let mut command = common::command(path, &["test", "-v"]);
        common::finish(command.env("PROVIUM_FIXTURE_PATH", stores))
    };
    let is_built = |run: &common::Run| run.all().contains("building fixture");
    // An exported file is unpacked into the cache; the next run needs no store.
    let first = run("store");
    first.expect(0).says(&[
        "unpacked fixture `fixtures/base` (profile `linux`) from",
        "store/base.fixture",
        "1 passed",
    ]);
    assert!(!is_built(&first), "{}", first.all());
    assert_eq!((entries(&cache(path)).len(), left(&cache(path))), (1, Vec::new()));
    let second = run("");
    second.expect(0).says(&["is in the cache", "1 passed"]);
    assert!(!is_built(&second), "{}", second.all());
    // A cache that is a store is restored from where it lies, and nothing of it changes.
    fs::remove_dir_all(cache(path)).unwrap();
    let toml = fs::read_to_string(path.join("provium.toml")).unwrap();
    fs::write(path.join("provium.toml"), format!("[provium]\nfixture_stores = ['shelf']\n{toml}")).unwrap();
    let shelf = path.join("shelf");
    fs::remove_dir_all(shelf.join(".locks")).unwrap();
    let third = run("");
    third.expect(0).says(&["is in the cache", "1 passed"]);
    assert!(!is_built(&third) && entries(&cache(path)).is_empty(), "{}", third.all());
    assert_eq!((entries(&shelf).len(), shelf.join(".locks").exists()), (1, false));
    // What was made on another CPU is named; so is a store that is not there. Neither keeps a test from running.
    fs::write(path.join("provium.toml"), format!("{toml}cpu = 'Nehalem'\n")).unwrap();
    let fourth = run("store:missing");
    fourth.expect(0).says(&[
        "store/base.fixture` was made on another machine: profile `linux` cpu: was none, is Nehalem",
        "missing",
        "`[provium] fixture_stores` or `PROVIUM_FIXTURE_PATH` names it",
        "1 passed",
    ]);
    assert!(is_built(&fourth), "{}", fourth.all());
}

const DISKS: &str = "local vm = provium:vm('disks', provium.profile)\n\
    vm:attach_disk({id = 'data', image = '../image'})\n\
    local scratch = vm:attach_disk({id = 'scratch', size = '1T', bus = 'scsi'})\nvm:boot()\n\
    scratch:write_sectors(1 << 30, ('made'):rep(128))\n\
    vm:run('mkdir -p /mnt; mount -t ext4 ' .. vm:disk('data'):device() .. ' /mnt && echo built > /mnt/file'):assert_ok()\n\
    return vm:snapshot()\n";
const MORE_DISKS: &str = "local vm = provium.vm_fixture('fixtures/disks')\n\
    vm:run('echo nested > /mnt/more'):assert_ok()\n\
    vm:attach_disk({id = 'late', size = '1M'}):fault_inject({mode = 'eio_read', first = 8, count = 1})\n\
    vm:disk('late'):write_sectors(0, ('late'):rep(128))\nreturn vm:snapshot()\n";
const DISKS_LAB: &str = "local lab = provium:lab('stores')\n\
    for _, name in ipairs({'on', 'off'}) do\n  \
    lab:vm(name, provium.profile):attach_disk({id = 'd', size = '1M'}):write_sectors(0, (name .. ' '):rep(512):sub(1, 512))\nend\n\
    lab.on:boot()\nreturn lab:snapshot()\n";
const WHOLE: &str = r"
return function(t, vm, files)
  for name, text in pairs(files) do t:assert_eq(vm:read_file('/mnt/' .. name), text .. '\n') end
  vm:run('umount /mnt'):assert_ok()
  local path = os.tmpname()
  vm:disk('data'):state():save(path)
  local _, _, code = os.execute('PATH=$PATH:/usr/sbin:/sbin; e2fsck -fn ' .. path .. ' > /dev/null 2>&1')
  t:assert_eq(code, 0)
  os.remove(path)
end
";
const NESTED_DISKS_TEST: &str = r"
local whole = require('lib.whole')
test('nested', function(t)
  local vm = provium.vm_fixture('fixtures/nested')
  t:assert_eq({vm:disk('late'):read_sectors(0, 1), vm:disk('late'):active_faults()}, {('late'):rep(128), {'eio_read'}})
  t:assert_eq(vm:run('head -c 4 ' .. vm:disk('late'):device()).stdout, 'late')
  whole(t, vm, {file = 'built', more = 'nested'})
end)
";
const DISKS_TEST: &str = r"
local whole = require('lib.whole')
test('clones have disks of their own', function(t)
  local one, two = provium.vm_fixture('fixtures/disks'), provium.vm_fixture('fixtures/disks')
  for _, vm in ipairs({one, two}) do t:assert_eq(vm:disk('scratch'):read_sectors(1 << 30, 1), ('made'):rep(128)) end
  one:run('echo one > /mnt/file; sync'):assert_ok()
  one:disk('scratch'):write_sectors(1 << 30, ('mine'):rep(128))
  t:assert_eq(two:disk('scratch'):read_sectors(1 << 30, 1), ('made'):rep(128))
  whole(t, one, {file = 'one'})
  whole(t, two, {file = 'built'})
end)
test('a lab', function(t)
  local lab = provium.lab_fixture('fixtures/lab')
  t:assert_eq(lab.on:run('head -c 3 ' .. lab.on:disk('d'):device()).stdout, 'on ')
  t:assert_eq({lab.off:state(), lab.off:disk('d'):read_sectors(0, 1):sub(1, 4)}, {'created', 'off '})
  lab.off:boot()
  t:assert_eq(lab.off:run('head -c 4 ' .. lab.off:disk('d'):device()).stdout, 'off ')
end)
";

/// All files of entries, with their checksums.
fn sums(cache: &Path) -> String {
    let script = "find . -type f -path './????????????????*' | sort | xargs -d '\\n' sha256sum";
    let output = std::process::Command::new("sh").args(["-c", script]).current_dir(cache).output().unwrap();
    assert!(output.status.success() && !output.stdout.is_empty());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn disks_belong_to_a_fixture() {
    let dir = project(&[
        ("tests/fixtures/disks.fixture.lua", DISKS),
        ("tests/fixtures/nested.fixture.lua", MORE_DISKS),
        ("tests/fixtures/lab.fixture.lua", DISKS_LAB),
        ("tests/lib/whole.lua", WHOLE),
        ("tests/a.test.lua", DISKS_TEST),
        ("tests/nested.test.lua", NESTED_DISKS_TEST),
    ]);
    let path = dir.path();
    let image = path.join("tests/image");
    let make = |label: &str| {
        let script = "PATH=$PATH:/usr/sbin:/sbin; rm -f tests/image; truncate -s 64M tests/image && \
                      mke2fs -q -F -t ext4 -b 1024 -L \"$0\" tests/image";
        let made = std::process::Command::new("sh").args(["-c", script, label]).current_dir(path).status().unwrap();
        assert!(made.success());
        // Much that no snapshot need hold.
        let mut file = fs::File::options().append(true).open(&image).unwrap();
        let noise: Vec<u8> =
            (0_u64..1 << 21).flat_map(|word| word.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).collect();
        std::io::Write::write_all(&mut file, &noise).unwrap();
    };
    make("first");
    let before = fs::read(&image).unwrap();
    provium(path, &["test"]).expect(0).says(&["3 passed"]);
    let (cache, allocated) = (cache(path), |path: &Path| {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(path).unwrap().blocks() * 512
    });
    let stored = sums(&cache);
    for entry in entries(&cache) {
        for name in ["disk0", "disk1", "disk2"].map(|name| entry.join("vms/0").join(name)) {
            assert!(!name.exists() || allocated(&name) < 4 << 20, "{name:?}");
        }
    }
    let again = provium(path, &["test", "-v"]);
    again.expect(0).says(&["is in the cache", "3 passed"]);
    assert!(!again.all().contains("building fixture"), "{}", again.all());
    assert!(sums(&cache) == stored && fs::read(&image).unwrap() == before, "nothing that is shared was written");
    // Out and in again.
    provium(path, &["fixture", "export", "fixtures/nested", "out"]).expect(0);
    provium(path, &["fixture", "clean"]).expect(0);
    provium(path, &["fixture", "import", "out"]).expect(0).says(&["imported `fixtures/nested`"]);
    let run = provium(path, &["test", "-v", "tests/nested.test.lua"]);
    run.expect(0).says(&["fixture `fixtures/nested` (profile `linux`) is in the cache", "1 passed"]);
    // Damage: set aside, told, built again.
    let disk = entries(&cache).pop().unwrap().join("vms/0/disk0");
    fs::set_permissions(&disk, fs::Permissions::from_mode(0o644)).unwrap();
    let length = fs::metadata(&disk).unwrap().len();
    fs::File::options().write(true).open(&disk).unwrap().set_len(length - 512).unwrap();
    let run = provium(path, &["test", "tests/nested.test.lua"]);
    run.expect(0).says(&["warning: fixture `fixtures/nested`: the entry", "instead of", "built fixture", "1 passed"]);
    // Another image is another fixture.
    make("second");
    let stale = provium(path, &["fixture", "stale"]);
    stale.expect(0).says(&["fixtures/disks", "fixtures/nested"]);
    let told = provium(path, &["fixture", "explain", "fixtures/disks"]);
    told.expect(0).says(&["file `tests/image`"]);
}
