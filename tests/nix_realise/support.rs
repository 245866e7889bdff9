//! A project directory with a flake of its own, and homes for nix that nobody else uses.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Once;

use provium::foundation::nix_value::{NixSource, NixValue};
use provium::foundation::store_path::StorePath;
use provium::nix_realiser::{Cancel, Environment, Options, Progress, RealiseError, Realised, Realiser, Role, Wanted};

/// What a test needs around a realiser.
pub struct World {
    pub top: tempfile::TempDir,
    /// Makes every derivation of this test its own, so that tests can build and delete at the same time.
    pub salt: String,
}

impl World {
    /// An empty project in a git work tree.
    pub fn new() -> Self {
        let top = tempfile::Builder::new().prefix("provium-nix-").tempdir().unwrap();
        let salt = top.path().file_name().unwrap().to_string_lossy().replace('.', "");
        prepare_store();
        let world = Self { top, salt };
        for directory in ["project", "home", "cache", "state", "provium"] {
            fs::create_dir(world.path(directory)).unwrap();
        }
        world
    }

    /// A project with `flake.nix`, known to git.
    pub fn with_flake(outputs: &str) -> Self {
        Self::with_flake_and_inputs("", outputs)
    }

    /// The same, with inputs. `drv name script` and `more name script { … }` make derivations.
    pub fn with_flake_and_inputs(inputs: &str, outputs: &str) -> Self {
        let world = Self::new();
        world.write("project/flake.nix", &world.flake(inputs, outputs));
        world.git(&["init", "-q"]);
        world.git(&["add", "flake.nix"]);
        world
    }

    pub fn flake(&self, inputs: &str, outputs: &str) -> String {
        format!("{{ {inputs} outputs = inputs: let {} in {{ {outputs} }}; }}", self.functions())
    }

    /// The Nix functions that the tests' expressions use; nothing of nixpkgs.
    pub fn functions(&self) -> String {
        format!(
            r#"system = "{}-linux";
            more = name: script: extra: derivation ({{ inherit name system; builder = "/bin/sh"; args = [ "-c" script ];
                PATH = "/bin:/usr/bin"; salt = "{}"; }} // extra);
            drv = name: script: more name script {{ }};"#,
            std::env::consts::ARCH,
            self.salt
        )
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.top.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), text).unwrap();
    }

    pub fn git(&self, args: &[&str]) {
        let status = Command::new("git")
            .args(args)
            .current_dir(self.path("project"))
            .env("HOME", self.path("home"))
            .stdin(Stdio::null())
            .status();
        assert!(status.unwrap().success(), "git {args:?}");
    }

    pub fn variables(&self) -> Vec<(OsString, OsString)> {
        // SAFETY: no arguments, no failure.
        let root = unsafe { libc::getuid() } == 0;
        let users = if root { "build-users-group =\n" } else { "" };
        let config = format!("{users}substituters =\nsandbox = false\nconnect-timeout = 1\ndownload-attempts = 1\n");
        let set = |name: &str, value: OsString| (OsString::from(name), value);
        vec![
            set("NIX_CONFIG", config.into()),
            set("HOME", self.path("home").into()),
            set("XDG_CACHE_HOME", self.path("cache").into()),
            set("XDG_STATE_HOME", self.path("state").into()),
        ]
    }

    pub fn options(&self) -> Options {
        Options { directory: self.path("project"), state_dir: self.path("provium"), ..Options::default() }
    }

    pub fn environment(&self) -> Environment {
        Environment { child_variables: self.variables(), ..Environment::default() }
    }

    pub fn realiser(&self) -> Realiser {
        self.realiser_with(|_| ())
    }

    pub fn realiser_with(&self, change: impl FnOnce(&mut Options)) -> Realiser {
        let mut options = self.options();
        change(&mut options);
        Realiser::with_environment(options, self.environment()).unwrap()
    }

    /// A program of nix's, run in this world.
    pub fn nix_program(&self, program: &str, args: &[&str]) -> std::process::Output {
        let mut command = Command::new(program);
        command.args(args).envs(self.variables()).current_dir(self.path("project")).stdin(Stdio::null());
        command.output().unwrap()
    }

    /// The directories of roots that there are.
    pub fn run_roots(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.path("provium/roots")) else { return Vec::new() };
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect()
    }
}

/// The first nix processes of a machine must not be many: they get into each other's way while they make the store's
/// directories.
fn prepare_store() {
    static READY: Once = Once::new();
    READY.call_once(|| {
        let mut command = Command::new("nix-store");
        command.args(["--gc", "--print-roots"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // Where there is no nix, the tests that need one say so.
        let _ = command.status();
    });
}

/// A value as provium.toml writes it: `INSTALLABLE` or `INSTALLABLE//FILE`.
pub fn value(text: &str) -> NixValue {
    let (source, file) = match text.split_once("//") {
        Some((source, file)) => (source, Some(file.to_owned())),
        None => (text, None),
    };
    let source = match StorePath::parse(source) {
        Ok(path) if !source.ends_with(".drv") => NixSource::Store(path),
        _ => NixSource::Installable(source.to_owned()),
    };
    NixValue { source, file }
}

/// A value that profile `p` asks for under `key`.
pub fn wanted_as(text: &str, role: Role, key: &str) -> Wanted {
    Wanted { value: value(text), role, asked_by: format!("profile `p`, key `{key}`") }
}

pub fn kernel(text: &str) -> Wanted {
    wanted_as(text, Role::Kernel, "kernel")
}

pub fn attr(file: &str, attr: &str) -> Wanted {
    let source = NixSource::Attr { file: file.into(), attr: attr.to_owned() };
    Wanted {
        value: NixValue { source, file: None },
        role: Role::Kernel,
        asked_by: "profile `q`, key `kernel`".to_owned(),
    }
}

/// Realises, and collects what was told.
pub fn realise(realiser: &mut Realiser, wanted: &[Wanted]) -> (Result<Vec<Realised>, RealiseError>, Vec<Progress>) {
    let mut told = Vec::new();
    let result = realiser.realise(wanted, &mut |progress| told.push(progress), &Cancel::new());
    (result, told)
}

/// The error's text of realising one world's values.
pub fn failure(realiser: &mut Realiser, wanted: &[Wanted]) -> String {
    let text = realise(realiser, wanted).0.unwrap_err().to_string();
    assert!(!text.contains('\u{1b}'), "{text}");
    assert!(text.starts_with(|c: char| c.is_lowercase() || c == '`'), "{text}");
    text
}

pub fn warnings(told: &[Progress]) -> Vec<&str> {
    let warnings = told.iter().filter_map(|progress| match progress {
        Progress::Warning(text) => Some(text.as_str()),
        _ => None,
    });
    warnings.collect()
}

pub fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}
