//! Where profiles' files come from: paths as they are, `build` commands, and Nix values through the realiser.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::foundation::nix_value::{NixValue, Value};
use crate::foundation::path_error::describe_io;
use crate::foundation::process;
use crate::nix_realiser::{self, Cancel, Progress, Realised, Realiser, Role, Wanted};
use crate::project::{Profile, Project};
use crate::run_events::{
    EventKind, EventSink, ProfileRealiseDone, ProfileRealiseFailed, ProfileRealiseProgress, ProfileRealiseStarted,
    RealiseStep, RealisedPath, Warning,
};
use crate::testbed::{ImageError, ProfileImages};

/// How much of a failed `build` command's output an error shows, in lines.
const SHOWN_LINES: usize = 40;

/// Finds the files of profiles, each value and each command once in a run.
pub struct ImageFinder {
    sink: EventSink,
    directory: PathBuf,
    no_build: bool,
    cancel: Cancel,
    state: Mutex<State>,
}

struct State {
    options: nix_realiser::Options,
    /// Made with the first Nix value.
    realiser: Option<Realiser>,
    realised: BTreeMap<(NixValue, &'static str), Realised>,
    built: BTreeSet<String>,
}

impl ImageFinder {
    /// Nothing is found yet. `cancel` ends a realisation under way.
    pub fn new(directory: PathBuf, options: nix_realiser::Options, sink: EventSink, cancel: Cancel) -> Self {
        let no_build = options.no_build;
        let state = State { options, realiser: None, realised: BTreeMap::new(), built: BTreeSet::new() };
        Self { sink, directory, no_build, cancel, state: Mutex::new(state) }
    }

    /// Realises the Nix values of `profiles`, and QEMU's, all at once.
    ///
    /// # Errors
    /// The realiser's message.
    pub fn realise(&self, project: &Project, profiles: &BTreeSet<String>) -> Result<(), String> {
        let mut wanted = Vec::new();
        for profile in project.profiles.values().filter(|profile| profiles.contains(&profile.name)) {
            wanted.extend(wanted_by(profile));
        }
        if let Some(qemu) = &project.qemu
            && let Value::Nix(value) = &qemu.value
        {
            let role = Role::Qemu { arch: std::env::consts::ARCH.to_owned() };
            wanted.push(Asked { profile: String::new(), key: "qemu", role, value: value.clone() });
        }
        self.realise_all(&wanted)
    }

    /// QEMU, where provium.toml names one.
    pub fn qemu(&self, project: &Project) -> Option<PathBuf> {
        match &project.qemu.as_ref()?.value {
            Value::Path(path) => Some(path.clone()),
            Value::Nix(value) => {
                let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                state.realised.get(&(value.clone(), "qemu")).map(|realised| realised.path.clone())
            }
        }
    }

    /// The files of one profile: runs its `build` command, and realises what is not realised yet.
    ///
    /// # Errors
    /// What can't be had, with its key.
    pub fn find(&self, profile: &Profile) -> Result<ProfileImages, ImageError> {
        let environment = |message: String| ImageError { key: "kernel", message, environment: true };
        self.build(profile).map_err(environment)?;
        self.realise_all(&wanted_by(profile)).map_err(environment)?;
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut images = ProfileImages::default();
        for (key, setting) in profile.values() {
            let (path, store_path) = match &setting.value {
                Value::Path(path) => (path.clone(), None),
                Value::Nix(value) => match state.realised.get(&(value.clone(), key)) {
                    Some(realised) => (realised.path.clone(), Some(realised.store_path.to_string())),
                    None => return Err(environment(format!("`{value}` was not realised"))),
                },
            };
            match key {
                "kernel" => {
                    images.kernel = path;
                    images.kernel_store_path = store_path;
                }
                "initrd" => images.initrd = Some(path),
                "modules" => images.modules = Some(path),
                "cmdline_file" => images.cmdline_file = Some(path),
                _ => {}
            }
        }
        Ok(images)
    }

    fn realise_all(&self, asked: &[Asked]) -> Result<(), String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let missing: Vec<&Asked> =
            asked.iter().filter(|asked| !state.realised.contains_key(&(asked.value.clone(), asked.key))).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let begun = Instant::now();
        let profiles: BTreeSet<String> =
            missing.iter().map(|asked| asked.profile.clone()).filter(|name| !name.is_empty()).collect();
        let values: BTreeSet<String> = missing.iter().map(|asked| asked.value.to_string()).collect();
        self.sink.emit(EventKind::ProfileRealiseStarted(ProfileRealiseStarted {
            profiles: profiles.into_iter().collect(),
            values: values.into_iter().collect(),
        }));
        self.warn_of_unlocked(&missing);
        let wanted: Vec<Wanted> = missing
            .iter()
            .map(|asked| Wanted { value: asked.value.clone(), role: asked.role.clone(), asked_by: asked.by() })
            .collect();
        let result = self.call(&mut state, &wanted);
        let duration = begun.elapsed().as_secs_f64();
        match result {
            Ok(realised) => {
                let mut paths = Vec::new();
                for (asked, realised) in missing.iter().zip(realised) {
                    paths.push(RealisedPath {
                        profile: asked.profile.clone(),
                        key: asked.key.to_owned(),
                        value: asked.value.to_string(),
                        path: realised.path.display().to_string(),
                    });
                    state.realised.insert((asked.value.clone(), asked.key), realised);
                }
                self.sink.emit(EventKind::ProfileRealiseDone(ProfileRealiseDone { duration, paths }));
                Ok(())
            }
            Err(message) => {
                let event = ProfileRealiseFailed { duration, message: message.clone() };
                self.sink.emit(EventKind::ProfileRealiseFailed(event));
                Err(message)
            }
        }
    }

    fn call(&self, state: &mut State, wanted: &[Wanted]) -> Result<Vec<Realised>, String> {
        let realiser = match &mut state.realiser {
            Some(realiser) => realiser,
            none => none.insert(Realiser::new(state.options.clone()).map_err(|error| error.to_string())?),
        };
        let sink = self.sink.clone();
        let mut counts = (None, None);
        let mut progress = |progress: Progress| {
            let (step, text) = match progress {
                Progress::Building { derivation } => (RealiseStep::Building, derivation),
                Progress::LogLine { line, .. } => (RealiseStep::Log, line),
                Progress::Downloading { what, .. } => (RealiseStep::Fetching, what),
                Progress::Counts { done, expected, .. } => {
                    counts = (Some(done), Some(expected));
                    return;
                }
                Progress::Waiting => (RealiseStep::Log, "waiting for another provium that is calling nix".to_owned()),
                Progress::Warning(message) => {
                    return sink.emit(EventKind::Warning(Warning { message, hint: None }));
                }
                Progress::Started { .. } | Progress::Phase { .. } | Progress::Ended { .. } => return,
            };
            let (done, expected) = counts;
            sink.emit(EventKind::ProfileRealiseProgress(ProfileRealiseProgress { step, text, done, expected }));
        };
        realiser.realise(wanted, &mut progress, &self.cancel).map_err(|error| error.to_string())
    }

    fn warn_of_unlocked(&self, asked: &[&Asked]) {
        let unlocked: BTreeSet<(String, String)> = asked
            .iter()
            .filter(|asked| asked.value.is_unlocked_remote())
            .map(|asked| (asked.value.to_string(), asked.by()))
            .collect();
        for (value, by) in unlocked {
            self.sink.emit(EventKind::Warning(Warning {
                message: format!("{by}: `{value}` names no revision, so it may be something else tomorrow"),
                hint: Some("make it an input of the flake, whose lock file holds the revision".to_owned()),
            }));
        }
    }

    /// Runs a profile's `build` command, once in a run.
    fn build(&self, profile: &Profile) -> Result<(), String> {
        let Some(line) = &profile.build else { return Ok(()) };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.built.insert(profile.name.clone()) {
            return Ok(());
        }
        let failed = |why: String| format!("profile `{}`, key `build`: `{line}`: {why}", profile.name);
        if self.no_build {
            return Err(failed("not run because of --no-build".to_owned()));
        }
        self.sink.emit(EventKind::ProfileRealiseProgress(ProfileRealiseProgress {
            step: RealiseStep::Hook,
            text: line.clone(),
            done: None,
            expected: None,
        }));
        std::fs::create_dir_all(&profile.build_out).map_err(|error| {
            failed(format!("can't create `{}`: {}", profile.build_out.display(), describe_io(&error)))
        })?;
        run_hook(line, &self.directory, &profile.build_out, &self.cancel).map_err(failed)
    }
}

/// Runs the command in a process group of its own, which `cancel` ends.
fn run_hook(line: &str, directory: &Path, out: &Path, cancel: &Cancel) -> Result<(), String> {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new("/bin/sh");
    command
        .arg("-c")
        .arg(format!("exec 2>&1; {}", line.replace("{out}", &out.to_string_lossy())))
        .current_dir(directory)
        .env("out", out)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0);
    let child = process::spawn(command, Vec::new()).map_err(|error| describe_io(&error))?;
    let group = i32::try_from(child.id()).map_err(|_| "its process number is too large".to_owned())?;
    let listening = cancel.listen(Box::new(move || {
        // SAFETY: a signal to a group of ours; it is not collected while this listens.
        unsafe { libc::kill(-group, libc::SIGTERM) };
    }));
    let output = child.wait_with_output().map_err(|error| describe_io(&error))?;
    drop(listening);
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    let shown = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
    let code = output.status.code().map_or_else(|| "ended by a signal".to_owned(), |code| format!("exit {code}"));
    Err(format!("{code}\n  {}", shown.join("\n  ")))
}

/// A Nix value, and what asked for it.
struct Asked {
    /// Empty for `[provium]`.
    profile: String,
    key: &'static str,
    role: Role,
    value: NixValue,
}

impl Asked {
    fn by(&self) -> String {
        match self.profile.as_str() {
            "" => format!("`[provium]`, key `{}`", self.key),
            profile => format!("profile `{profile}`, key `{}`", self.key),
        }
    }
}

/// The Nix values of a profile that a boot needs.
fn wanted_by(profile: &Profile) -> Vec<Asked> {
    let role = |key: &str| match key {
        "kernel" => Role::Kernel,
        "initrd" => Role::Initrd,
        "modules" => Role::Modules,
        "vmlinux" => Role::Vmlinux,
        _ => Role::CmdlineFile,
    };
    let asked = |(key, value): (&'static str, &Value)| match value {
        Value::Nix(value) => Some(Asked { profile: profile.name.clone(), key, role: role(key), value: value.clone() }),
        Value::Path(_) => None,
    };
    profile.values().into_iter().map(|(key, setting)| (key, &setting.value)).filter_map(asked).collect()
}

/// The finder as the test bed calls it.
pub fn as_source(finder: &Arc<ImageFinder>) -> crate::testbed::ImageSource {
    let finder = Arc::clone(finder);
    Arc::new(move |profile| finder.find(profile))
}
