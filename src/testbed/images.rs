//! What QEMU is given: the kernel, the overlay with the agent in front of the user's initrd, the command line.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use super::bed::ProfileImages;
use super::options::VmOptions;
use crate::agent_protocol::{BootFile, BootPlan, GuestInit, LAUNCHER_PATH, PLAN_PATH, PROVIUM_DIR};
use crate::foundation::path_error::PathContext;
use crate::qemu::{self, Extracted, KernelImage, LoadOrder, QemuError, Wanted, initrd, load_order, release_directory};

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
    recipes: Mutex<HashMap<blake3::Hash, Made>>,
}

/// An initrd that was made.
struct Made {
    /// The files that it was made from, as they were.
    inputs: Vec<FileState>,
    path: PathBuf,
}

impl ImageCache {
    /// No image yet; overlays are written to `directory`, unpacked kernels kept in `kernels`.
    pub fn new(directory: PathBuf, kernels: PathBuf) -> Self {
        Self { directory, kernels, unpacked: Mutex::default(), made: Mutex::default(), recipes: Mutex::default() }
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

    /// The file for `-initrd`. Blocks: reads modules and the user's initrd, unless they are those of an earlier call.
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
        let release = kernel.release.as_deref();
        let wanted = wanted(options, drivers, &guest_init);
        let directory = images.modules.as_deref().map(|directory| release_directory(directory, release));
        let directory = directory.transpose().map_err(|error| ("modules", error))?;
        let files = options.files.iter().flatten().map(|file| BootFile {
            path: file.path.clone(),
            content: file.content.clone(),
            mode: file.mode,
        });
        let plan = BootPlan {
            init: guest_init,
            modules: Vec::new(),
            required: options.load_modules.iter().flatten().map(|name| file_of(name)).collect(),
            initial_time: options.initial_time,
            files: files.collect(),
            hostname: options.hostname.clone(),
        };
        let recipe = recipe(&[Some(agent), images.initrd.as_deref(), directory.as_deref()], release, &wanted, &plan);
        if let Some(path) = self.recall(&recipe) {
            return Ok(path);
        }
        // Before they are read: what changes meanwhile is read again next time.
        let program = state_of(agent);
        let user = images.initrd.as_deref().map(state_of).transpose().map_err(|error| ("initrd", error))?;
        let order = modules(directory.as_deref(), release, &wanted).map_err(|error| ("modules", error))?;
        let sources: Result<Vec<_>, _> = order.sources.iter().map(|path| state_of(path)).collect();
        let overlay = overlay(agent, plan, order.modules)?;
        let path = self.file(&overlay, images.initrd.as_deref(), user.as_ref())?;
        let mut inputs = sources.map_err(|error| ("modules", error))?;
        inputs.extend(user.into_iter().chain([program.map_err(|error| ("agent", error))?]));
        let made = Made { inputs, path: path.clone() };
        self.recipes.lock().unwrap_or_else(PoisonError::into_inner).insert(recipe, made);
        Ok(path)
    }

    /// What was made from the same files before, where none of them has changed.
    fn recall(&self, recipe: &blake3::Hash) -> Option<PathBuf> {
        let recipes = self.recipes.lock().unwrap_or_else(PoisonError::into_inner);
        let made = recipes.get(recipe)?;
        let is_same = |input: &FileState| state_of(&input.0).is_ok_and(|state| state == *input);
        made.inputs.iter().all(is_same).then(|| made.path.clone())
    }

    /// The file that holds `overlay` and the user's initrd.
    fn file(&self, overlay: &[u8], initrd: Option<&Path>, state: Option<&FileState>) -> Result<PathBuf, Problem> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(overlay);
        if let Some((path, length, modified)) = state {
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
        initrd::write(overlay, initrd, &path).map_err(|error| ("initrd", error))?;
        made.insert(key, path.clone());
        Ok(path)
    }
}

/// The archive with the agent, its `plan` and the modules.
fn overlay(agent: &Path, mut plan: BootPlan, modules: Vec<qemu::Module>) -> Result<Vec<u8>, Problem> {
    plan.modules = modules.iter().map(|module| file_of(&module.name)).collect();
    let program = qemu::read_agent(agent).map_err(|error| ("agent", error))?;
    let entry =
        |path: &str, mode, content| initrd::Entry { path: path.trim_start_matches('/').to_owned(), mode, content };
    let mut entries = vec![entry(LAUNCHER_PATH, 0o755, program), entry(PLAN_PATH, 0o600, plan.encode())];
    entries.extend(
        modules
            .into_iter()
            .map(|module| entry(&format!("{PROVIUM_DIR}/modules/{}", file_of(&module.name)), 0o600, module.bytes)),
    );
    initrd::overlay(&entries).map_err(|error| ("initrd", QemuError::Image(error.to_string())))
}

/// What an overlay is made by, but for the content of the files.
fn recipe(paths: &[Option<&Path>], release: Option<&str>, wanted: &[Wanted], plan: &BootPlan) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    let mut add = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    paths.iter().for_each(|path| add(path.map_or(&[][..], |path| path.as_os_str().as_encoded_bytes())));
    add(release.unwrap_or_default().as_bytes());
    add(&plan.encode());
    for Wanted { name, required } in wanted {
        add(name.as_bytes());
        add(&[u8::from(*required)]);
    }
    hasher.finalize()
}

fn file_of(module: &str) -> String {
    format!("{}.ko", module.replace('-', "_"))
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

/// The modules of a boot.
fn wanted(options: &VmOptions, drivers: &[&str], init: &GuestInit) -> Vec<Wanted> {
    let network = NETWORK.into_iter().filter(|_| options.network);
    let harness =
        DRIVERS.into_iter().chain(WELCOME).chain(network).chain(drivers.iter().copied()).map(Wanted::optional);
    let of_root = drivers_of_root(init).into_iter().map(Wanted::optional);
    let asked = options.load_modules.iter().flatten().map(Wanted::required);
    harness.chain(of_root).chain(asked).collect()
}

fn modules(directory: Option<&Path>, release: Option<&str>, wanted: &[Wanted]) -> Result<LoadOrder, QemuError> {
    match (directory, wanted.iter().find(|module| module.required)) {
        (Some(directory), _) => load_order(directory, release, wanted),
        (None, None) => Ok(LoadOrder::default()),
        (None, Some(module)) => Err(no_modules(&module.name)),
    }
}

fn no_modules(name: &str) -> QemuError {
    QemuError::Image(format!(
        "`{name}` can't be loaded: the profile has no `modules`\nhint: name the directory that holds lib/modules"
    ))
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
        return Err(no_modules(name));
    };
    let directory = release_directory(directory, Some(release))?;
    let order = load_order(&directory, Some(release), &[Wanted::required(name)])?;
    Ok(order.modules.into_iter().map(|module| (module.name, module.bytes)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qemu::KernelKind;
    use std::fs;

    #[test]
    fn what_is_unchanged_is_not_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let mut program = b"\x7fELF\x02\x01\x01".to_vec();
        program.resize(64, 0);
        fs::write(at("agent"), &program).unwrap();
        fs::write(at("initrd"), b"070701").unwrap();
        fs::create_dir_all(at("modules/kernel/drivers")).unwrap();
        fs::write(at("modules/modules.order"), b"").unwrap();
        let cache = ImageCache::new(dir.path().to_owned(), at("kernels"));
        let kernel = KernelImage { path: at("kernel"), kind: KernelKind::Vmlinux, release: None };
        let images =
            ProfileImages { initrd: Some(at("initrd")), modules: Some(at("modules")), ..ProfileImages::default() };
        let make = |hostname: Option<&str>| {
            let options = VmOptions { hostname: hostname.map(str::to_owned), ..VmOptions::default() };
            cache.initrd(&at("agent"), &kernel, &images, &options, &[], GuestInit::Default)
        };
        let first = make(None).unwrap();
        assert_ne!(make(Some("other")).unwrap(), first);

        // Another content that looks the same can't be seen: had it been read, it would be no program.
        let modified = fs::metadata(at("agent")).unwrap().modified().unwrap();
        fs::write(at("agent"), [0; 64]).unwrap();
        fs::File::options().write(true).open(at("agent")).unwrap().set_modified(modified).unwrap();
        assert_eq!(make(None).unwrap(), first);

        program.push(0);
        fs::write(at("agent"), &program).unwrap();
        fs::write(at("initrd"), b"070701 and more").unwrap();
        let second = make(None).unwrap();
        assert_ne!(second, first);
        assert!(fs::read(&second).unwrap().ends_with(b"and more"));

        // A module that was not there before, in a tree without an index.
        fs::write(at("modules/kernel/drivers/virtio_pci.ko"), b"no module").unwrap();
        let (key, error) = make(None).unwrap_err();
        assert!(key == "modules" && error.to_string().contains("virtio_pci.ko"), "{error}");
    }
}
