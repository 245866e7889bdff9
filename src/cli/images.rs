//! Where profiles' files come from: paths as they are, `build` commands, and Nix values through the realiser.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::{build_hook, session};
use crate::foundation::digest::Digest;
use crate::foundation::nix_value::{NixValue, Value};
use crate::foundation::path_error::describe_io;
use crate::foundation::store_path::StorePath;
use crate::nix_realiser::{self, Cancel, Known, Progress, RealiseError, Realised, Realiser, Role, Wanted};
use crate::project::{Profile, Project, Setting};
use crate::run_events::{
    EventKind, EventSink, ProfileRealiseDone, ProfileRealiseFailed, ProfileRealiseProgress, ProfileRealiseStarted,
    RealiseStep, RealisedPath, Warning,
};
use crate::testbed::{FixtureSettings, ImageError, NixIdentities, ProfileImages};

/// Finds the files of profiles, each value and each command once in a run.
pub struct ImageFinder {
    sink: EventSink,
    directory: PathBuf,
    no_build: bool,
    cancel: Cancel,
    state_dir: PathBuf,
    state: Mutex<State>,
    /// Each `build` command with the place that it fills, and how it ended.
    built: Mutex<BTreeMap<(String, PathBuf), Result<(), String>>>,
}

struct State {
    options: nix_realiser::Options,
    /// Made with the first Nix value.
    realiser: Option<Realiser>,
    realised: BTreeMap<(NixValue, &'static str), Realised>,
}

impl ImageFinder {
    /// Nothing is found yet. `cancel` ends a realisation under way.
    pub fn new(directory: PathBuf, options: nix_realiser::Options, sink: EventSink, cancel: Cancel) -> Self {
        let no_build = options.no_build;
        let state_dir = options.state_dir.clone();
        let state = Mutex::new(State { options, realiser: None, realised: BTreeMap::new() });
        Self { sink, directory, no_build, cancel, state_dir, state, built: Mutex::default() }
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
                "vmlinux" => images.vmlinux = Some(path),
                "cmdline_file" => images.cmdline_file = Some(path),
                "disks" => images.disks.push(path),
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
        let wanted: Vec<Wanted> = missing.iter().map(|asked| asked.wanted()).collect();
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
        let realiser = realiser(state)?;
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

    /// The store paths of what `project`'s profiles boot, with the file inside where one is named. What is not realised in this run
    /// is evaluated by one dry run.
    ///
    /// # Errors
    /// The realiser's message.
    pub fn nix_identities(&self, project: &Project) -> Result<NixIdentities, String> {
        let boots = |asked: &Asked| matches!(asked.key, "kernel" | "initrd" | "modules" | "disks");
        let asked: Vec<Asked> = project.profiles.values().flat_map(wanted_by).filter(boots).collect();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, missing): (Vec<Asked>, Vec<Asked>) =
            asked.into_iter().partition(|asked| state.realised.contains_key(&(asked.value.clone(), asked.key)));
        let mut found = NixIdentities::new();
        // The file only where it is named: which one a role finds is not known before it is built.
        let identity = |asked: &Asked, path: &StorePath| match &asked.value.file {
            Some(file) => format!("{path}/{file}"),
            None => path.to_string(),
        };
        for asked in known {
            if let Some(realised) = state.realised.get(&(asked.value.clone(), asked.key)) {
                found.insert((asked.value.to_string(), asked.key), identity(&asked, &realised.store_path));
            }
        }
        if missing.is_empty() {
            return Ok(found);
        }
        let wanted: Vec<Wanted> = missing.iter().map(Asked::wanted).collect();
        let paths = realiser(&mut state)?.paths_without_building(&wanted).map_err(|error| error.to_string())?;
        for (asked, path) in missing.iter().zip(paths) {
            if let Some(path) = path {
                found.insert((asked.value.to_string(), asked.key), identity(asked, &path));
            }
        }
        Ok(found)
    }

    /// Runs the `build` commands of `profiles`, so that no test's time goes by meanwhile. What fails is told by the first
    /// boot that needs it.
    pub fn build_ahead<'a>(&self, profiles: impl IntoIterator<Item = &'a Profile>) {
        for profile in profiles {
            // Kept for `find`.
            let _ = self.build(profile);
        }
    }

    /// Runs a profile's `build` command, once in a run.
    fn build(&self, profile: &Profile) -> Result<(), String> {
        let Some(line) = &profile.build else { return Ok(()) };
        if self.no_build {
            return self.is_built(profile, line);
        }
        let mut built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (line.clone(), profile.build_out.clone());
        if let Some(known) = built.get(&key) {
            return known.clone();
        }
        let begun = Instant::now();
        self.sink.emit(EventKind::ProfileRealiseStarted(ProfileRealiseStarted {
            profiles: vec![profile.name.clone()],
            values: vec![line.clone()],
        }));
        self.progress(RealiseStep::Hook, line.clone());
        let result = self
            .run_hook(line, &profile.build_out)
            .map_err(|why| format!("profile `{}`, key `build`: `{line}` {why}", profile.name));
        let duration = begun.elapsed().as_secs_f64();
        self.sink.emit(match &result {
            Ok(()) => EventKind::ProfileRealiseDone(ProfileRealiseDone { duration, paths: built_paths(profile) }),
            Err(message) => {
                EventKind::ProfileRealiseFailed(ProfileRealiseFailed { duration, message: message.clone() })
            }
        });
        built.insert(key, result.clone());
        result
    }

    /// Without building: whether all is there that the command would have made.
    fn is_built(&self, profile: &Profile, line: &str) -> Result<(), String> {
        let missing: Vec<String> = built_paths(profile)
            .into_iter()
            .filter(|made| !Path::new(&made.path).exists())
            .map(|made| format!("\n  `{}`: `{}`", made.key, made.path))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(format!(
            "profile `{}`, key `build`: `{line}` was not run because of --no-build, and these are not there yet:{}\n\
             hint: `provium build {}` makes them",
            profile.name,
            missing.concat(),
            profile.name
        ))
    }

    fn run_hook(&self, line: &str, out: &Path) -> Result<(), String> {
        std::fs::create_dir_all(out)
            .map_err(|error| format!("can't create `{}`: {}", out.display(), describe_io(&error)))?;
        // Another run that builds the same would write the same files at the same time.
        let name = format!("build-{}.lock", Digest::of(out.as_os_str().as_encoded_bytes()));
        std::fs::create_dir_all(&self.state_dir)
            .map_err(|error| format!("can't create `{}`: {}", self.state_dir.display(), describe_io(&error)))?;
        let waiting = || self.progress(RealiseStep::Log, "waiting for another provium that is building".to_owned());
        let _turn = nix_realiser::lock_file(&self.state_dir.join(name), waiting, &self.cancel)
            .map_err(|error| error.to_string())?;
        let mut told = |text: &str| self.progress(RealiseStep::Log, text.to_owned());
        build_hook::run(line, &self.directory, out, &mut told, &self.cancel)
    }

    fn progress(&self, step: RealiseStep, text: String) {
        let progress = ProfileRealiseProgress { step, text, done: None, expected: None };
        self.sink.emit(EventKind::ProfileRealiseProgress(progress));
    }
}

/// The realiser, made with the first Nix value.
fn realiser(state: &mut State) -> Result<&mut Realiser, String> {
    Ok(match &mut state.realiser {
        Some(realiser) => realiser,
        none => none.insert(Realiser::new(state.options.clone()).map_err(|error| error.to_string())?),
    })
}

/// The profile's files below the place that its `build` command fills.
fn built_paths(profile: &Profile) -> Vec<RealisedPath> {
    let built = |(key, setting): (&'static str, &Setting<Value>)| match &setting.value {
        Value::Path(path) if path.starts_with(&profile.build_out) => {
            let path = path.display().to_string();
            Some(RealisedPath { profile: profile.name.clone(), key: key.to_owned(), value: path.clone(), path })
        }
        _ => None,
    };
    profile.values().into_iter().filter_map(built).collect()
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
    fn wanted(&self) -> Wanted {
        Wanted { value: self.value.clone(), role: self.role.clone(), asked_by: self.by() }
    }

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
        "disks" => Role::DiskImage,
        _ => Role::CmdlineFile,
    };
    let asked = |(key, value): (&'static str, &Value)| match value {
        Value::Nix(value) => Some(Asked { profile: profile.name.clone(), key, role: role(key), value: value.clone() }),
        Value::Path(_) => None,
    };
    profile.values().into_iter().map(|(key, setting)| (key, &setting.value)).filter_map(asked).collect()
}

/// What is known of a profile's Nix values, by key, without building: one dry run.
///
/// # Errors
/// Nix is not there, or can't evaluate one of them.
pub fn known_values(
    profile: &Profile,
    options: nix_realiser::Options,
) -> Result<BTreeMap<&'static str, Option<Known>>, RealiseError> {
    let asked = wanted_by(profile);
    if asked.is_empty() {
        return Ok(BTreeMap::new());
    }
    let wanted: Vec<Wanted> = asked.iter().map(Asked::wanted).collect();
    let known = Realiser::new(options)?.known_without_building(&wanted)?;
    Ok(asked.iter().map(|asked| asked.key).zip(known).collect())
}

/// The finder as the test bed calls it.
pub fn as_source(finder: &Arc<ImageFinder>) -> crate::testbed::ImageSource {
    let finder = Arc::clone(finder);
    Arc::new(move |profile| finder.find(profile))
}

/// Where fixtures are kept.
pub fn fixture_settings(finder: &Arc<ImageFinder>, project: Option<&Project>, runtime_dir: &Path) -> FixtureSettings {
    let cache = session::base_directory("XDG_CACHE_HOME", ".cache").join("provium");
    let finder = Arc::clone(finder);
    FixtureSettings {
        cache_dir: project.and_then(|project| project.cache_dir.clone()).unwrap_or_else(|| cache.join("fixtures")),
        spare_dir: runtime_dir.join("fixtures"),
        stores: fixture_stores(project),
        memo: cache.join("identifiers.json"),
        nix: Arc::new(move |project| finder.nix_identities(project)),
    }
}

/// `PROVIUM_FIXTURE_PATH`, then those of the project.
fn fixture_stores(project: Option<&Project>) -> Vec<PathBuf> {
    let given = std::env::var_os("PROVIUM_FIXTURE_PATH").unwrap_or_default();
    let given = std::env::split_paths(&given).filter(|place| !place.as_os_str().is_empty());
    given.chain(project.iter().flat_map(|project| project.fixture_stores.clone())).collect()
}
