//! What QEMU is given: the kernel, the overlay with the agent in front of the user's initrd, the command line.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use super::bed::ProfileImages;
use super::options::VmOptions;
use crate::agent_protocol::{BootFile, BootPlan, GuestInit, LAUNCHER_PATH, PLAN_PATH, PROVIUM_DIR};
use crate::foundation::path_error::PathContext;
use crate::qemu::{self, Extracted, KernelImage, QemuError, Wanted, initrd, load_order, release_directory};

/// The drivers of the agent's channel, where the kernel has them as modules.
const DRIVERS: [&str; 2] = ["virtio_pci", "virtio_console"];
/// The driver of network cards, for machines that have some from the start.
const NETWORK: [&str; 1] = ["virtio_net"];
/// Loaded where they are there; the guest is worse off without them, but works.
const WELCOME: [&str; 1] = ["virtio_rng"];

/// A problem with one of a profile's files: the profile's key, and what is wrong.
pub type Problem = (&'static str, QemuError);

/// What QEMU is told to boot, and what is known of it.
#[derive(Debug, Clone)]
pub struct BootKernel {
    /// The kernel as the profile gives it.
    pub image: KernelImage,
    /// The file that QEMU boots.
    pub path: PathBuf,
    /// Why `fast_boot` boots the kernel as it was given after all, the first time that this is found.
    pub notice: Option<String>,
}

/// A file as it was when it was read.
type FileState = (PathBuf, u64, SystemTime);

/// The kernels and overlays of a run: machines that ask for the same share one file.
pub struct ImageCache {
    directory: PathBuf,
    kernels: PathBuf,
    unpacked: Mutex<HashMap<FileState, Option<PathBuf>>>,
    made: Mutex<HashMap<blake3::Hash, PathBuf>>,
}

impl ImageCache {
    /// No image yet; overlays are written to `directory`, unpacked kernels kept in `kernels`.
    pub fn new(directory: PathBuf, kernels: PathBuf) -> Self {
        Self { directory, kernels, unpacked: Mutex::default(), made: Mutex::default() }
    }

    /// Looks at the kernel; with `fast` unpacks it, so that it boots through PVH. Blocks.
    ///
    /// # Errors
    /// It is none; the cache can't be written.
    pub fn kernel(&self, images: &ProfileImages, fast: bool) -> Result<BootKernel, Problem> {
        let bad = |error| ("kernel", error);
        let image = qemu::inspect(&images.kernel, std::env::consts::ARCH).map_err(bad)?;
        if !fast {
            return Ok(BootKernel { path: image.path.clone(), image, notice: None });
        }
        let state = state_of(&image.path).map_err(bad)?;
        // Held while it is unpacked: the second machine that wants it finds it whole.
        let mut unpacked = self.unpacked.lock().unwrap_or_else(PoisonError::into_inner);
        match unpacked.get(&state) {
            Some(None) => return Ok(BootKernel { path: image.path.clone(), image, notice: None }),
            Some(Some(path)) if path.is_file() => return Ok(BootKernel { path: path.clone(), image, notice: None }),
            _ => {}
        }
        let (path, notice) = match qemu::extract_vmlinux(&image, &self.kernels).map_err(bad)? {
            Extracted::Vmlinux(path) => (Some(path), None),
            Extracted::AsGiven { reason } => (None, Some(reason)),
        };
        unpacked.insert(state, path.clone());
        Ok(BootKernel { path: path.unwrap_or_else(|| image.path.clone()), image, notice })
    }

    /// The file for `-initrd` of a guest whose image brings the agent itself: the user's, untouched.
    ///
    /// # Errors
    /// An option that only our launcher can fulfil; a disk that is full.
    pub fn plain_initrd(&self, images: &ProfileImages, options: &VmOptions) -> Result<PathBuf, Problem> {
        let asked = [
            ("files", options.files.is_some()),
            ("hostname", options.hostname.is_some()),
            ("load_modules", options.load_modules.is_some()),
        ];
        if let Some((name, _)) = asked.iter().find(|(_, given)| *given) {
            let message = format!("the option `{name}` needs the agent to be brought in, and the profile says `false`");
            return Err(("inject_agent", QemuError::Image(message)));
        }
        if let Some(initrd) = &images.initrd {
            std::fs::metadata(initrd).at("read", initrd).map_err(|error| ("initrd", error.into()))?;
            return Ok(initrd.clone());
        }
        // An archive of nothing: as if there were none.
        let path = self.directory.join("initrd-none");
        let nothing = initrd::overlay(&[]).map_err(|error| ("initrd", QemuError::Image(error.to_string())))?;
        initrd::write(&nothing, None, &path).map_err(|error| ("initrd", error))?;
        Ok(path)
    }

    /// The file for `-initrd`. Blocks: reads modules and the user's initrd.
    ///
    /// # Errors
    /// A module that is missing, an initrd or agent that can't be used, a disk that is full.
    pub fn initrd(
        &self,
        agent: &Path,
        kernel: &KernelImage,
        images: &ProfileImages,
        options: &VmOptions,
        drivers: &[&str],
        guest_init: GuestInit,
    ) -> Result<PathBuf, Problem> {
        let mut drivers: Vec<String> = drivers.iter().map(|name| (*name).to_owned()).collect();
        drivers.extend(drivers_of_root(&guest_init));
        let modules = modules(kernel, images, options, &drivers).map_err(|error| ("modules", error))?;
        let files = options.files.iter().flatten().map(|file| BootFile {
            path: file.path.clone(),
            content: file.content.clone(),
            mode: file.mode,
        });
        let file_of = |name: &str| format!("{}.ko", name.replace('-', "_"));
        let plan = BootPlan {
            init: guest_init,
            modules: modules.iter().map(|module| file_of(&module.name)).collect(),
            required: options.load_modules.iter().flatten().map(|name| file_of(name)).collect(),
            initial_time: options.initial_time,
            files: files.collect(),
            hostname: options.hostname.clone(),
        };
        let program = qemu::read_agent(agent).map_err(|error| ("agent", error))?;
        let entry =
            |path: &str, mode, content| initrd::Entry { path: path.trim_start_matches('/').to_owned(), mode, content };
        let mut entries = vec![entry(LAUNCHER_PATH, 0o755, program), entry(PLAN_PATH, 0o600, plan.encode())];
        entries.extend(
            modules
                .into_iter()
                .map(|module| entry(&format!("{PROVIUM_DIR}/modules/{}", file_of(&module.name)), 0o600, module.bytes)),
        );
        let overlay = initrd::overlay(&entries).map_err(|error| ("initrd", QemuError::Image(error.to_string())))?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&overlay);
        if let Some(user) = &images.initrd {
            let (path, length, modified) = state_of(user).map_err(|error| ("initrd", error))?;
            hasher.update(path.as_os_str().as_encoded_bytes());
            hasher.update(&length.to_le_bytes());
            let since = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            hasher.update(&since.as_nanos().to_le_bytes());
        }
        let key = hasher.finalize();
        // Held while the file is written: the second machine that wants it finds it whole.
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = made.get(&key) {
            return Ok(path.clone());
        }
        let path = self.directory.join(format!("initrd-{}", made.len()));
        initrd::write(&overlay, images.initrd.as_deref(), &path).map_err(|error| ("initrd", error))?;
        made.insert(key, path.clone());
        Ok(path)
    }
}

/// Looks at all files of a profile for guests of `arch`, as a boot would.
pub fn check(images: &ProfileImages, arch: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut note = |key, result: Result<(), QemuError>| problems.extend(result.err().map(|error| (key, error)));
    let kernel = qemu::inspect(&images.kernel, arch);
    let release = kernel.as_ref().ok().and_then(|kernel| kernel.release.clone());
    let is_kernel = kernel.is_ok();
    note("kernel", kernel.map(drop));
    if let Some(path) = &images.initrd {
        note("initrd", initrd::open(path).map(drop));
    }
    // Without a kernel there is no telling which modules are its own.
    if let (Some(path), true) = (&images.modules, is_kernel) {
        let wanted: Vec<Wanted> = DRIVERS.into_iter().chain(WELCOME).map(Wanted::optional).collect();
        let found = release_directory(path, release.as_deref());
        note("modules", found.and_then(|directory| load_order(&directory, release.as_deref(), &wanted)).map(drop));
    }
    if let Some(path) = &images.vmlinux {
        note("vmlinux", std::fs::File::open(path).at("open", path).map(drop).map_err(QemuError::from));
    }
    if let Some(path) = &images.cmdline_file {
        note("cmdline_file", std::fs::read_to_string(path).at("read", path).map(drop).map_err(QemuError::from));
    }
    problems
}

fn state_of(path: &Path) -> Result<FileState, QemuError> {
    let file = std::fs::metadata(path).at("read", path)?;
    Ok((path.to_owned(), file.len(), file.modified().at("read", path)?))
}

/// The drivers that the launcher needs to mount a root device itself, where the kernel has them as modules.
fn drivers_of_root(init: &GuestInit) -> Vec<String> {
    let GuestInit::Root(root) = init else { return Vec::new() };
    let disks = ["virtio_blk", "virtio_scsi", "sd_mod", "nvme", "ext4"].map(str::to_owned);
    let of_kind = |kind: &String| {
        if kind == "9p" { vec!["9pnet_virtio".to_owned(), "9p".to_owned()] } else { vec![kind.clone()] }
    };
    disks.into_iter().chain(root.fs_types.iter().flat_map(of_kind)).collect()
}

fn modules(
    kernel: &KernelImage,
    images: &ProfileImages,
    options: &VmOptions,
    of_root: &[String],
) -> Result<Vec<qemu::Module>, QemuError> {
    let asked: Vec<&str> = options.load_modules.iter().flatten().map(String::as_str).collect();
    let Some(directory) = &images.modules else {
        return match asked.first() {
            None => Ok(Vec::new()),
            Some(name) => Err(QemuError::Image(format!(
                "`{name}` can't be loaded: the profile has no `modules`\nhint: name the directory that holds lib/modules"
            ))),
        };
    };
    let release = kernel.release.as_deref();
    let directory = release_directory(directory, release)?;
    let harness = DRIVERS
        .into_iter()
        .chain(WELCOME)
        .chain(NETWORK.into_iter().filter(|_| options.network))
        .chain(of_root.iter().map(String::as_str))
        .map(Wanted::optional);
    let wanted: Vec<Wanted> = harness.chain(asked.into_iter().map(Wanted::required)).collect();
    load_order(&directory, release, &wanted)
}

/// A module by its kernel name, unpacked.
pub type NamedModule = (String, Vec<u8>);

/// The module `name` and all it needs, in the order to load them, from a profile's `modules`; empty where it is built in.
/// `release` is the guest's. Blocks: reads and unpacks files.
///
/// # Errors
/// The profile has no `modules`, or none of that name.
pub fn named_modules(images: &ProfileImages, release: &str, name: &str) -> Result<Vec<NamedModule>, QemuError> {
    let Some(directory) = &images.modules else {
        return Err(QemuError::Image(format!(
            "`{name}` can't be loaded: the profile has no `modules`\nhint: name the directory that holds lib/modules"
        )));
    };
    let directory = release_directory(directory, Some(release))?;
    let modules = load_order(&directory, Some(release), &[Wanted::required(name)])?;
    Ok(modules.into_iter().map(|module| (module.name, module.bytes)).collect())
}
