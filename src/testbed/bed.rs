//! What all machines of a run share: QEMU, the accelerator, realised images, the place for runtime files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;

use super::accelerator::{Machine, MachineRequest};
use super::artifacts::Artifacts;
use super::error::VmError;
use super::fixture_shelf::{FixtureSettings, FixtureShelf};
use super::images::ImageCache;
use super::options::VmOptions;
use super::pool::Pool;
use super::ready::ReadyMachines;
use super::splat_desk::SplatDesk;
use super::vm::Vm;
use crate::project::{Profile, Project};
use crate::qemu::Accel;
use crate::run_events::{EventKind, EventSink, VmRef, Warning};

/// How much longer everything takes without hardware virtualisation.
const TCG_FACTOR: u32 = 4;

/// The files that a profile boots, after its Nix values were realised and its `build` command ran.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProfileImages {
    /// The kernel image.
    pub kernel: PathBuf,
    /// The store path that the kernel lies in, where it is a Nix value.
    pub kernel_store_path: Option<String>,
    /// The initrd.
    pub initrd: Option<PathBuf>,
    /// The directory of modules.
    pub modules: Option<PathBuf>,
    /// The kernel with symbols.
    pub vmlinux: Option<PathBuf>,
    /// The file whose text comes before `cmdline`.
    pub cmdline_file: Option<PathBuf>,
    /// The images of its disks, in the order of those that have one.
    pub disks: Vec<PathBuf>,
}

/// A value of a profile that can't be had: its key and why.
#[derive(Debug, Clone)]
pub struct ImageError {
    /// The profile's key.
    pub key: &'static str,
    /// Why.
    pub message: String,
    /// Whether it is the environment that fails (a realised value), not the test's own file.
    pub environment: bool,
}

/// Finds a profile's images; called on a thread that may block, at the first boot of each profile.
pub type ImageSource = Arc<dyn Fn(&Profile) -> Result<ProfileImages, ImageError> + Send + Sync>;

/// What a run's test bed is made of.
pub struct TestbedSettings {
    /// The runtime that all I/O happens on.
    pub runtime: tokio::runtime::Handle,
    /// The project; none where there is no provium.toml.
    pub project: Option<Arc<Project>>,
    /// Where profiles' files come from.
    pub images: ImageSource,
    /// Which QEMU and accelerator are asked for.
    pub machine: MachineRequest,
    /// The guest agent, a static program.
    pub agent: PathBuf,
    /// A private directory for this run's files.
    pub runtime_dir: PathBuf,
    /// Kept over runs: unpacked kernels.
    pub cache_dir: PathBuf,
    /// Where events go.
    pub sink: EventSink,
    /// The directory that shown paths are relative to.
    pub cwd: PathBuf,
    /// Where attachments and console logs are kept.
    pub artifacts: Artifacts,
    /// What all machines may use together.
    pub pool: Pool,
    /// Where fixtures are kept.
    pub fixtures: FixtureSettings,
}

pub(super) struct Shared {
    pub(super) settings: TestbedSettings,
    pub(super) images: ImageCache,
    machine: OnceCell<Result<Machine, String>>,
    profile_images: Mutex<BTreeMap<String, ProfileImages>>,
    broken: Mutex<Option<String>>,
    splats: SplatDesk,
    /// What the run was warned of: a profile, and what about it.
    warned: Mutex<BTreeSet<(String, String)>>,
    /// QEMUs that wait for the state of a snapshot.
    pub(super) ready: ReadyMachines,
    /// How many QEMUs were started.
    starts: AtomicU64,
    pub(super) fixtures: OnceLock<Result<FixtureShelf, String>>,
}

/// Wakes a thread that waits for a future.
struct Unpark {
    thread: std::thread::Thread,
    woken: AtomicBool,
}

impl std::task::Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

/// A run's test bed; clones share it.
#[derive(Clone)]
pub struct Testbed {
    pub(super) shared: Arc<Shared>,
}

impl Testbed {
    /// A test bed without machines.
    pub fn new(settings: TestbedSettings) -> Self {
        let images = ImageCache::new(settings.runtime_dir.clone(), settings.cache_dir.join("kernels"));
        Self {
            shared: Arc::new(Shared {
                settings,
                images,
                machine: OnceCell::new(),
                profile_images: Mutex::default(),
                broken: Mutex::default(),
                splats: SplatDesk::default(),
                warned: Mutex::default(),
                ready: ReadyMachines::default(),
                starts: AtomicU64::new(0),
                fixtures: OnceLock::new(),
            }),
        }
    }

    /// Waits for `future` on the calling thread, which is none of the runtime's. May be called again inside `future`:
    /// a Lua callback that can't yield waits in the middle of another wait, which the runtime's own `block_on` refuses.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        // What the future does (timers, sockets, tasks) belongs to the runtime.
        let _entered = self.shared.settings.runtime.enter();
        let unpark = Arc::new(Unpark { thread: std::thread::current(), woken: AtomicBool::new(false) });
        let waker = Arc::clone(&unpark).into();
        let mut context = std::task::Context::from_waker(&waker);
        let mut future = std::pin::pin!(future);
        loop {
            if let std::task::Poll::Ready(value) = future.as_mut().poll(&mut context) {
                return value;
            }
            // The flag, since an inner wait on this thread may have taken the wake-up that was meant for this one.
            while !unpark.woken.swap(false, Ordering::Acquire) {
                std::thread::park();
            }
        }
    }

    /// A new machine of `profile`, not booted.
    ///
    /// # Errors
    /// When there is no such profile.
    pub fn vm(
        &self,
        name: &str,
        profile: &str,
        options: VmOptions,
        file: &str,
        test: Option<&str>,
    ) -> Result<Arc<Vm>, VmError> {
        let project = self.shared.settings.project.as_ref().ok_or(VmError::NoConfig)?;
        let profile =
            project.profile(profile).map_err(|source| VmError::UnknownProfile { vm: name.to_owned(), source })?.clone();
        let reference = VmRef {
            vm_id: self.shared.settings.sink.next_vm_id(),
            vm: name.to_owned(),
            file: file.to_owned(),
            test: test.map(str::to_owned),
        };
        Ok(Arc::new(Vm::new(reference, Arc::new(profile), options, self.clone())))
    }

    /// Whether there is a profile of this name.
    ///
    /// # Errors
    /// A message that says what there is.
    pub fn check_profile(&self, name: &str) -> Result<(), String> {
        match &self.shared.settings.project {
            None => Err(VmError::NoConfig.to_string()),
            Some(project) => project.profile(name).map(drop).map_err(|error| error.to_string()),
        }
    }

    /// Ends what was started ahead: the run is over.
    pub async fn end(&self) {
        self.shared.ready.end().await;
    }

    /// A number that no other start of a QEMU has.
    pub(super) fn next_start(&self) -> u64 {
        self.shared.starts.fetch_add(1, Ordering::Relaxed)
    }

    /// Warns, unless the run has been warned of the same already.
    pub(super) fn warn_once(&self, of: (String, String), warning: Warning) {
        if self.shared.warned.lock().unwrap_or_else(PoisonError::into_inner).insert(of) {
            self.shared.settings.sink.emit(EventKind::Warning(warning));
        }
    }

    /// Lets `work` run on a thread that may block.
    ///
    /// # Errors
    /// It panicked.
    pub async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
        self.shared.settings.runtime.spawn_blocking(work).await.map_err(|error| error.to_string())
    }

    /// The kernel reports of the run.
    pub fn splats(&self) -> &SplatDesk {
        &self.shared.splats
    }

    /// What makes every boot of this run impossible, once that is known.
    pub fn broken(&self) -> Option<String> {
        self.shared.broken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn break_down(&self, message: String) -> VmError {
        let mut broken = self.shared.broken.lock().unwrap_or_else(PoisonError::into_inner);
        broken.get_or_insert_with(|| message.clone());
        VmError::Environment(message)
    }

    /// QEMU and the accelerator, chosen at the first boot.
    pub(super) async fn machine(&self) -> Result<&Machine, VmError> {
        let chosen = self
            .shared
            .machine
            .get_or_init(|| async { Machine::choose(&self.shared.settings.machine, &self.shared.settings.sink) })
            .await;
        chosen.as_ref().map_err(|message| self.break_down(message.clone()))
    }

    /// The files of `profile`, found once in a run.
    pub(super) async fn profile_images(&self, vm: &str, profile: &Arc<Profile>) -> Result<ProfileImages, VmError> {
        let known =
            self.shared.profile_images.lock().unwrap_or_else(PoisonError::into_inner).get(&profile.name).cloned();
        if let Some(images) = known {
            return Ok(images);
        }
        let (source, wanted) = (Arc::clone(&self.shared.settings.images), Arc::clone(profile));
        let found = tokio::task::spawn_blocking(move || source(&wanted)).await;
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                let message = format!("the search for its files failed: {error}");
                Err(ImageError { key: "kernel", message, environment: true })
            }
        };
        match found {
            Ok(images) => {
                let mut all = self.shared.profile_images.lock().unwrap_or_else(PoisonError::into_inner);
                all.insert(profile.name.clone(), images.clone());
                Ok(images)
            }
            Err(error) if error.environment => Err(self.break_down(error.message)),
            Err(ImageError { key, message, .. }) => {
                Err(VmError::Image { vm: vm.to_owned(), profile: profile.name.clone(), key, message })
            }
        }
    }

    /// `time`, longer where the accelerator or the profile is slower.
    pub fn scaled(&self, time: Duration, profile: &Profile) -> Duration {
        let factor = match self.shared.machine.get() {
            Some(Ok(machine)) if machine.accel() == Accel::Kvm => 1,
            _ => TCG_FACTOR,
        };
        (time * factor).mul_f64(profile.timeout_scale)
    }

    /// What all machines may use together.
    pub fn pool(&self) -> Pool {
        self.shared.settings.pool
    }

    /// The files that are kept with the report.
    pub fn artifacts(&self) -> &Artifacts {
        &self.shared.settings.artifacts
    }

    /// A path as it is shown: relative to the working directory where it lies below it.
    pub fn display(&self, path: &Path) -> String {
        path.strip_prefix(&self.shared.settings.cwd).unwrap_or(path).display().to_string()
    }

    /// A shown path, absolute again.
    pub fn absolute(&self, shown: &str) -> PathBuf {
        self.shared.settings.cwd.join(shown)
    }
}
