//! Fixtures of a run: profiles as keys see them, the cache, and what is told of both.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Instant;

use super::bed::{Shared, Testbed};
use super::fixture_told;
use crate::disks;
use crate::fixtures::{
    self, ABSENT, Ask, Built, Entry, Explanation, Exported, Failure, Files, FixtureError, Memo, ProfileIdentity, Shelf,
    ShelfParts, Step, Store, Summary, Surroundings, Wish,
};
use crate::foundation::cancel::CancelToken;
use crate::foundation::nix_value::Value;
use crate::project::{DiskSetting, KeyProfiles, Profile, Project, Setting};
use crate::qemu::{self, Accel};
use crate::run_events::{EventKind, EventSink, FixtureBuildDone, Warning};

/// The identifier of what a profile does not have.
const NONE: &str = "none";

/// Store paths of profiles' Nix values, by the value as it is written and the key it stands for.
pub type NixIdentities = BTreeMap<(String, &'static str), String>;
/// Finds them, without building what is not built yet; a message where that fails.
pub type NixIdentitySource = Arc<dyn Fn(&Project) -> Result<NixIdentities, String> + Send + Sync>;

/// Where a run's fixtures are kept.
#[derive(Clone)]
pub struct FixtureSettings {
    /// The cache.
    pub cache_dir: PathBuf,
    /// Used in its place, for this run, where it can't be written.
    pub spare_dir: PathBuf,
    /// Where fixtures are looked for before they are built: caches and exported fixtures, none of which is ever written.
    pub stores: Vec<PathBuf>,
    /// Where identifiers of files are remembered.
    pub memo: PathBuf,
    /// Where store paths come from.
    pub nix: NixIdentitySource,
}

/// Why there is no fixture.
#[derive(Debug)]
pub enum FixtureProblem {
    /// The build failed, or the cache can't be used: a message.
    Failed(String),
    /// It was given up.
    Cancelled,
}

impl fmt::Display for FixtureProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(message) => f.write_str(message),
            Self::Cancelled => f.write_str("cancelled"),
        }
    }
}

/// The fixtures of a run.
pub struct FixtureShelf {
    shelf: Shelf,
    /// The cache, where it can't be written and another directory is used in its place.
    unwritable: Option<PathBuf>,
    files: Files,
}

/// Who wants a fixture, and how.
pub struct FixtureOrder<'a> {
    /// Which.
    pub wish: &'a Wish,
    /// The file that wants it, as it is shown.
    pub holder: &'a str,
    /// Whether it is built although it is there.
    pub rebuild: bool,
    /// Ends the wait.
    pub token: &'a CancelToken,
    /// Runs the fixture's chunk, with the snapshot going to this directory.
    pub build: &'a mut dyn FnMut(&Path) -> Result<Built, String>,
}

impl Testbed {
    /// The fixtures of the run; the cache is opened at the first call.
    ///
    /// # Errors
    /// A message: there is no project, or the cache can't be used.
    pub fn fixtures(&self) -> Result<&FixtureShelf, String> {
        let open = || FixtureShelf::open(&self.shared);
        self.shared.fixtures.get_or_init(open).as_ref().map_err(Clone::clone)
    }

    /// Removes what killed builders left in the cache, and what it has too much of. Where it can't be used, the first test that needs
    /// it says so.
    pub fn tidy_fixtures(&self) {
        let settings = &self.shared.settings;
        if settings.project.is_some() && settings.fixtures.cache_dir.is_dir() {
            let _ = self.fixtures();
        }
    }

    /// The fixture that is ordered, from the cache or built. Blocks.
    ///
    /// # Errors
    /// See [`FixtureProblem`].
    pub fn fixture(&self, order: FixtureOrder<'_>) -> Result<Entry, FixtureProblem> {
        let shelf = self.fixtures().map_err(FixtureProblem::Failed)?;
        let (wish, holder) = (order.wish, order.holder.to_owned());
        let sink = &self.shared.settings.sink;
        let mut begun: Option<Instant> = None;
        let mut tell = |step: Step| {
            if matches!(step, Step::Started) {
                begun.get_or_insert_with(Instant::now);
            }
            sink.emit(fixture_told::event(wish, &holder, step));
        };
        let result = shelf.shelf.obtain(Ask {
            wish,
            holder: order.holder,
            rebuild: order.rebuild,
            token: order.token,
            tell: &mut tell,
            build: order.build,
        });
        let result = result.map_err(|failure| self.problem(failure, order.token));
        if let (Err(problem), Some(begun)) = (&result, begun) {
            sink.emit(EventKind::FixtureBuildDone(FixtureBuildDone {
                fixture: wish.name.clone(),
                profile: wish.profile.clone(),
                file: holder.clone(),
                key: None,
                error: Some(problem.to_string()),
                duration: begun.elapsed().as_secs_f64(),
            }));
        }
        result
    }

    fn problem(&self, failure: Failure, token: &CancelToken) -> FixtureProblem {
        match failure {
            Failure::Cache(FixtureError::Cancelled) => FixtureProblem::Cancelled,
            _ if token.is_cancelled() => FixtureProblem::Cancelled,
            // Nix, or QEMU: no other test would fare better.
            Failure::Surroundings(message) => FixtureProblem::Failed(self.break_down(message).to_string()),
            other => FixtureProblem::Failed(other.to_string()),
        }
    }

    /// The profile that is meant where none is named: the first by sorted name.
    ///
    /// # Errors
    /// A message: there is no project.
    pub fn first_profile(&self) -> Result<String, String> {
        let project = self.shared.settings.project.as_ref();
        let profile = project.and_then(|project| project.first_profile());
        profile.map(|profile| profile.name.clone()).ok_or_else(|| super::error::VmError::NoConfig.to_string())
    }
}

impl FixtureShelf {
    fn open(shared: &Arc<Shared>) -> Result<Self, String> {
        let no_config = || super::error::VmError::NoConfig.to_string();
        let project = shared.settings.project.clone().ok_or_else(no_config)?;
        let FixtureSettings { cache_dir, spare_dir, stores, memo, nix } = shared.settings.fixtures.clone();
        let memo = Arc::new(Memo::load(memo));
        let files =
            Files { directory: project.directory.clone(), roots: project.roots.clone(), memo: Arc::clone(&memo) };
        let opened = Store::open(&cache_dir).map_err(|error| FixtureError::File(error).to_string())?;
        let (mut others, exported) = stored(&stores, &shared.settings.sink);
        let unwritable = (!opened.is_writable()).then(|| cache_dir.clone());
        let store = if opened.is_writable() {
            opened
        } else {
            // What is there is used; what is not is built for this run alone.
            others.push(opened);
            Store::open(&spare_dir).map_err(|error| FixtureError::File(error).to_string())?
        };
        let (around, of) = (Arc::downgrade(shared), Arc::clone(&memo));
        let shelf = Shelf::new(ShelfParts {
            store,
            others,
            exported,
            most: project.cache_max_size,
            project: project.directory.clone(),
            memo: Arc::clone(&memo),
            world: Box::new(files.clone()),
            surroundings: Box::new(move || surroundings(&around, &project, &of, &nix)),
        });
        let shelf = shelf.map_err(|error| FixtureError::File(error).to_string())?;
        Ok(Self { shelf, unwritable, files })
    }

    /// The project's files.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// The cache, where it can only be read.
    pub fn unwritable(&self) -> Option<&Path> {
        self.unwritable.as_deref()
    }

    /// The cache that fixtures are built into.
    pub fn store(&self) -> &Store {
        self.shelf.store()
    }

    /// All entries of all caches.
    ///
    /// # Errors
    /// A message: a cache can't be listed.
    pub fn entries(&self) -> Result<Vec<Summary>, String> {
        self.shelf.entries().map_err(|error| error.to_string())
    }

    /// What files were.
    pub fn memo(&self) -> &Memo {
        self.shelf.memo()
    }

    /// A whole entry for the present key.
    ///
    /// # Errors
    /// A message: the cache can't be read, or profiles can't be identified.
    pub fn look_up(&self, wish: &Wish) -> Result<Option<Entry>, String> {
        self.shelf.look_up(wish, &mut |_, _, _| ()).map_err(|failure| failure.to_string())
    }

    /// Every ingredient of the present key, and what changed.
    ///
    /// # Errors
    /// As [`look_up`](Self::look_up).
    pub fn explain(&self, wish: &Wish) -> Result<Explanation, String> {
        self.shelf.explain(wish).map_err(|failure| failure.to_string())
    }
}

/// The caches and the exported fixtures in `stores`. One that can't be used keeps no test from running: a warning names it.
fn stored(stores: &[PathBuf], sink: &EventSink) -> (Vec<Store>, Vec<Exported>) {
    let (mut caches, mut exported) = (Vec::new(), Vec::new());
    let warn = |error: &FixtureError| {
        sink.emit(EventKind::Warning(Warning {
            message: format!("fixture store: {error}"),
            hint: Some("`[provium] fixture_stores` or `PROVIUM_FIXTURE_PATH` names it".to_owned()),
        }));
    };
    for place in stores {
        match Exported::all_of(place, &mut |error| warn(error)) {
            Ok(found) => exported.extend(found),
            Err(error) => {
                warn(&error);
                continue;
            }
        }
        if place.is_dir() {
            caches.push(Store::read_only(place));
        }
    }
    (caches, exported)
}

/// What is the same for all fixtures of a run.
fn surroundings(
    shared: &Weak<Shared>,
    project: &Project,
    memo: &Memo,
    nix: &NixIdentitySource,
) -> Result<Surroundings, String> {
    let Some(shared) = shared.upgrade() else { return Err("the run is over".to_owned()) };
    let bed = Testbed { shared };
    let machine = bed.block_on(bed.machine()).map_err(|error| error.to_string())?;
    let binary = machine.qemu();
    let on_kvm = machine.accel() == Accel::Kvm;
    let machine = fixtures::Machine {
        qemu: format!("{} {}", binary.version, memo.identify(&binary.path)),
        accelerator: machine.accel().name().to_owned(),
        cpu_model: qemu::CPU_MODEL.to_owned(),
        cpu_vendor: on_kvm.then(cpu_vendor),
    };
    let store_paths = nix(project)?;
    let identity = |profile: &Profile| (profile.name.clone(), identity(profile, memo, &store_paths));
    Ok(Surroundings {
        profiles: project.profiles.values().map(identity).collect(),
        only_used: project.key_profiles == KeyProfiles::Used,
        agent: memo.identify(&bed.shared.settings.agent),
        machine,
    })
}

fn identity(profile: &Profile, memo: &Memo, store_paths: &NixIdentities) -> ProfileIdentity {
    let of = |key: &'static str, setting: Option<&Setting<Value>>| match setting {
        None => NONE.to_owned(),
        Some(setting) => identifier(key, &setting.value, profile, memo, store_paths),
    };
    let mut details = details(profile);
    if !profile.disks.is_empty() {
        let disk = |disk: &DiskSetting| {
            let image = match &disk.image {
                // One that guests write to is another one after each.
                Some(setting) if disk.write_through => setting.value.to_string(),
                image => of("disks", image.as_ref()),
            };
            let DiskSetting { id, size, format, readonly, serial, bus, cache, .. } = disk;
            format!("{id:?} {size:?} {image} {format:?} {readonly} {serial:?} {bus:?} {cache:?}")
        };
        details.push(("disks", profile.disks.iter().map(disk).collect::<Vec<_>>().join(", ")));
    }
    ProfileIdentity {
        images: vec![
            ("kernel", of("kernel", Some(&profile.kernel))),
            ("initrd", of("initrd", profile.initrd.as_ref())),
            ("modules", of("modules", profile.modules.as_ref())),
        ],
        details,
    }
}

fn identifier(key: &'static str, value: &Value, profile: &Profile, memo: &Memo, store_paths: &NixIdentities) -> String {
    match value {
        Value::Path(path) => identify(key, path, profile.arch.name(), memo),
        Value::Nix(value) => {
            let path = store_paths.get(&(value.to_string(), key));
            path.cloned().unwrap_or_else(|| format!("unknown ({value})"))
        }
    }
}

/// The identifier of a file; of a directory only what guests get of it.
fn identify(key: &str, path: &Path, arch: &str, memo: &Memo) -> String {
    if key == "disks" && path.is_file() {
        // A qcow2 image is nothing without those behind it.
        let files = disks::files_of(path);
        return files.iter().map(|file| memo.identify(file)).collect::<Vec<_>>().join(" over ");
    }
    if !path.is_dir() {
        return memo.identify(path);
    }
    if key == "kernel" {
        // A build tree.
        return qemu::inspect(path, arch).map_or_else(|_| ABSENT.to_owned(), |image| memo.identify(&image.path));
    }
    let inside = ["lib/modules", "usr/lib/modules"].map(|below| path.join(below));
    memo.identify(inside.iter().find(|directory| directory.is_dir()).map_or(path, PathBuf::as_path))
}

/// The settings that count of a profile that is booted.
fn details(profile: &Profile) -> fixtures::Details {
    let or_none = |value: &Option<String>| value.clone().unwrap_or_else(|| NONE.to_owned());
    vec![
        ("arch", profile.arch.name().to_owned()),
        ("guest_os", profile.guest_os.name().to_owned()),
        ("memory", profile.memory.to_string()),
        ("cpus", profile.cpus.to_string()),
        ("machine", or_none(&profile.machine)),
        ("cpu", or_none(&profile.cpu)),
        ("qemu_args", format!("{:?}", profile.qemu_args)),
        ("fast_boot", profile.fast_boot.to_string()),
    ]
}

/// Who made the host's CPU.
fn cpu_vendor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let vendor = text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        matches!(key.trim(), "vendor_id" | "CPU implementer").then(|| value.trim().to_owned())
    });
    vendor.unwrap_or_else(|| "unknown".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_as_keys_see_them() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        file("k", "kernel");
        file("m/usr/lib/modules/1/a.ko", "a");
        file("disk", "one");
        file("written", "one");
        file("tree/Makefile", "");
        file(
            "provium.toml",
            "[profiles.a]\nkernel = 'k'\nmodules = 'm'\nmemory = '1G'\nqemu_args = ['-x']\n\
             [profiles.b]\nkernel = '.#k'\ninitrd = '.#i'\n[profiles.c]\nkernel = 'none'\n[profiles.d]\nkernel = 'tree'\n\
             [profiles.e]\nkernel = 'k'\ndisks = [{ image = 'disk' }, { image = '.#d' }, { path = 'written' }]\n",
        );
        let project = crate::project::load(&dir.path().join("provium.toml"), &mut |_, _| Err(String::new())).unwrap();
        let memo = Memo::default();
        let store_paths = NixIdentities::from([
            ((".#k".to_owned(), "kernel"), "/nix/store/x-k".to_owned()),
            ((".#d".to_owned(), "disks"), "/nix/store/x-d".to_owned()),
        ]);
        let of = |name: &str| {
            let found = identity(&project.profiles[name], &memo, &store_paths);
            found.images.into_iter().map(|(_, value)| value).collect::<Vec<_>>()
        };
        let kernel = memo.identify(&dir.path().join("k"));
        let modules = memo.identify(&dir.path().join("m/usr/lib/modules"));
        assert_eq!(of("a"), [kernel, NONE.to_owned(), modules.clone()]);
        assert_eq!(of("b"), ["/nix/store/x-k", "unknown (.#i)", NONE]);
        assert_eq!(of("c"), [ABSENT, NONE, NONE]);
        assert_eq!(of("d"), [ABSENT, NONE, NONE], "a build tree without an image");
        // What lies beside the modules is of no interest: `modules` may name a whole file system.
        file("m/etc/passwd", "x");
        assert_eq!(of("a")[2], modules);
        file("m/usr/lib/modules/1/b.ko", "b");
        assert_ne!(of("a")[2], modules);
        let disks = || {
            let found = identity(&project.profiles["e"], &memo, &store_paths).details;
            found.into_iter().find(|(name, _)| *name == "disks").unwrap().1
        };
        let before = disks();
        assert!(before.contains("/nix/store/x-d") && before.contains("blake3:"), "{before}");
        file("written", "by a guest");
        assert_eq!(disks(), before);
        file("disk", "two");
        assert_ne!(disks(), before);
        let details = details(&project.profiles["a"]);
        let text: Vec<String> = details.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert!(text.contains(&format!("memory={}", 1 << 30)) && text.contains(&"qemu_args=[\"-x\"]".to_owned()));
    }
}
