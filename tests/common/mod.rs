//! Helpers of the tests that run the real `provium` command.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests: a failure here is a failed test")]
#![allow(dead_code, clippy::allow_attributes, reason = "each test file uses a part of these helpers")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// What a run of `provium` left.
pub struct Run {
    /// The exit code; 128 + N where a signal ended it.
    pub code: i32,
    /// Standard output as text.
    pub stdout: String,
    /// Standard error as text.
    pub stderr: String,
}

impl Run {
    /// Both outputs, for searching and for messages.
    pub fn all(&self) -> String {
        format!("{}\n{}", self.stdout, self.stderr)
    }

    /// Asserts the exit code, and shows everything where it is another.
    #[track_caller]
    pub fn expect(&self, code: i32) -> &Self {
        assert_eq!(self.code, code, "unexpected exit code\n{}", self.all());
        self
    }

    /// Asserts that the output holds each of `parts`, and no Rust debug dump.
    #[track_caller]
    pub fn says(&self, parts: &[&str]) -> &Self {
        let all = self.all();
        for part in parts {
            assert!(all.contains(part), "missing `{part}` in:\n{all}");
        }
        for dump in ["Error {", "Err(", "Os {", "panicked at", "RuntimeError("] {
            assert!(!all.contains(dump), "debug dump `{dump}` in:\n{all}");
        }
        self
    }

    /// The events of a `--format json` run.
    pub fn events(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
    }
}

/// Runs the real command in `dir`, with a private state, cache and runtime directory.
pub fn provium(dir: &Path, args: &[&str]) -> Run {
    finish(&mut command(dir, args))
}

/// The command before it is started.
pub fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_provium"));
    command
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::null())
        .env("NO_COLOR", "1")
        .env("XDG_CACHE_HOME", dir.join(".xdg/cache"))
        .env("XDG_STATE_HOME", dir.join(".xdg/state"))
        .env_remove("NIX_BUILD_TOP")
        .env_remove("PROVIUM_QEMU");
    command
}

/// Runs `command` to its end.
pub fn finish(command: &mut Command) -> Run {
    let output: Output = command.output().unwrap();
    let signal = std::os::unix::process::ExitStatusExt::signal(&output.status);
    Run {
        code: output.status.code().unwrap_or_else(|| 128 + signal.unwrap_or_default()),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The kernel, modules and initrd that the tests boot; told loudly where they are missing.
pub struct Guest {
    /// A Debian cloud kernel.
    pub kernel: PathBuf,
    /// The directory that holds its `lib/modules`.
    pub modules: PathBuf,
    /// A busybox initrd.
    pub initrd: PathBuf,
}

/// The guest that `tests/run` prepared.
///
/// # Panics
/// Where it is not there: these tests are no use without one, and a silent skip would hide that.
#[track_caller]
pub fn guest() -> Guest {
    let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/examples/.images");
    let from = |name: &str, otherwise: PathBuf| std::env::var_os(name).map_or(otherwise, PathBuf::from);
    let guest = Guest {
        kernel: from("PROVIUM_TEST_KERNEL", images.join("stable/bzImage")),
        modules: from("PROVIUM_TEST_MODULES", images.join("stable")),
        initrd: from("PROVIUM_TEST_INITRD", images.join("guest/initrd.cpio.gz")),
    };
    assert!(
        guest.kernel.is_file(),
        "`{}` is missing: tests/setup prepares what the tests boot (or set PROVIUM_TEST_KERNEL, _MODULES, _INITRD)",
        guest.kernel.display()
    );
    guest
}

/// Another kernel than the guest's, and the directory that holds its `lib/modules`.
///
/// # Panics
/// Where it is not there.
#[track_caller]
pub fn newer_kernel() -> (PathBuf, PathBuf) {
    let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/examples/.images/mainline");
    let from = |name: &str, otherwise: PathBuf| std::env::var_os(name).map_or(otherwise, PathBuf::from);
    let found = (from("PROVIUM_TEST_KERNEL2", images.join("bzImage")), from("PROVIUM_TEST_MODULES2", images));
    assert!(found.0.is_file(), "`{}` is missing: tests/setup prepares it", found.0.display());
    found
}

/// A project directory with one profile `linux` of the prepared guest, and `files` (name, text) beside it.
pub fn project(files: &[(&str, &str)]) -> tempfile::TempDir {
    let guest = guest();
    let text = format!(
        "[profiles.linux]\nkernel = {:?}\ninitrd = {:?}\nmodules = {:?}\ncmdline = \"quiet\"\n",
        guest.kernel, guest.initrd, guest.modules
    );
    directory(&[&[("provium.toml", text.as_str())], files].concat())
}

/// Where `tests/setup` puts kernels, modules and initrds.
pub fn images() -> PathBuf {
    let usual = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/examples/.images");
    std::env::var_os("PROVIUM_TEST_IMAGES").map_or(usual, PathBuf::from)
}

/// A project directory with the profiles of `tests/vm/provium.toml`, and the files `names` of `tests/vm` beside it.
///
/// # Panics
/// Where the images are not there: `tests/setup` makes them.
pub fn suite(names: &[&str]) -> tempfile::TempDir {
    let (vm, images) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vm"), images());
    for image in ["debian/initrd.cpio.zst", "odd/parts.img"] {
        assert!(images.join(image).is_file(), "`{image}` is missing in `{}`: run tests/setup", images.display());
    }
    let read = |name: &str| std::fs::read_to_string(vm.join(name)).unwrap();
    let profiles = read("provium.toml").replace("../examples/.images", images.to_str().unwrap());
    let files: Vec<(String, String)> = names.iter().map(|name| (format!("tests/{name}"), read(name))).collect();
    let mut all = vec![("provium.toml", profiles.as_str())];
    all.extend(files.iter().map(|(name, text)| (name.as_str(), text.as_str())));
    directory(&all)
}

/// A directory with `files` (name, text).
pub fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    dir
}

/// The `test_done` event of the test `name`.
#[track_caller]
pub fn test_done<'a>(events: &'a [Value], name: &str) -> &'a Value {
    events
        .iter()
        .find(|event| event["kind"] == "test_done" && event["name"] == name)
        .unwrap_or_else(|| panic!("no test_done of `{name}`"))
}

/// Waits until process `id` has ended, be it collected or not: a killed process is not gone at once.
#[track_caller]
pub fn wait_for_end_of(id: &str) {
    let begun = std::time::Instant::now();
    let state = || std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let ended = |state: &str| state.is_empty() || state.contains(") Z") || state.contains(") X");
    while !ended(&state()) {
        assert!(begun.elapsed() < std::time::Duration::from_secs(60), "process {id} lives on: {}", state());
        std::thread::yield_now();
    }
}

/// QEMU processes that hold `needle` in their command line.
pub fn qemu_processes(needle: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(text) = std::fs::read(entry.path().join("cmdline")) else { continue };
        let line = String::from_utf8_lossy(&text).replace('\0', " ");
        if line.contains("qemu-system") && line.contains(needle) {
            found.push(line);
        }
    }
    found
}

/// Waits until `is_so`, at most a minute.
///
/// # Panics
/// When it is not so by then.
#[track_caller]
pub fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let begun = std::time::Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < std::time::Duration::from_secs(60), "{what}: waited for in vain");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}
