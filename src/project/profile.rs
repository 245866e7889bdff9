//! The resolved configuration.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disks::DiskSetting;
use super::error::UnknownProfile;
use crate::foundation::nix_value::Value;

/// A place in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The file.
    pub file: Arc<PathBuf>,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

/// A value and where it was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting<T> {
    /// The value.
    pub value: T,
    /// Where it was set.
    pub origin: Origin,
}

/// The guest's operating system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GuestOs {
    /// Linux.
    #[default]
    Linux,
    /// Peios.
    Peios,
}

impl GuestOs {
    /// All names.
    pub const NAMES: [&str; 2] = ["linux", "peios"];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Linux => "linux",
            Self::Peios => "peios",
        }
    }
}

/// The guest's architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    /// 64-bit x86.
    X86_64,
    /// 64-bit Arm.
    Aarch64,
}

impl Arch {
    /// All names.
    pub const NAMES: [&str; 2] = ["x86_64", "aarch64"];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// The host's.
    pub fn host() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Aarch64 } else { Self::X86_64 }
    }

    /// What the kernel calls the first serial console.
    pub fn serial(self) -> &'static str {
        match self {
            Self::X86_64 => "ttyS0",
            Self::Aarch64 => "ttyAMA0",
        }
    }
}

/// What a kernel report does to the running test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Splats {
    /// It is logged.
    #[default]
    Log,
    /// The test fails.
    Fail,
}

impl Splats {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Fail => "fail",
        }
    }
}

/// Which profiles a fixture's key folds in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyProfiles {
    /// Every profile.
    #[default]
    All,
    /// Those that the fixture boots.
    Used,
}

/// One named kernel, initrd, command line and guest OS. Paths are absolute.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// The kernel.
    pub kernel: Setting<Value>,
    /// The initrd.
    pub initrd: Option<Setting<Value>>,
    /// The modules.
    pub modules: Option<Setting<Value>>,
    /// The kernel with symbols.
    pub vmlinux: Option<Setting<Value>>,
    /// The kernel's words.
    pub cmdline: String,
    /// A file whose text comes before `cmdline`.
    pub cmdline_file: Option<Setting<Value>>,
    /// Whether the kernel is booted unpacked, with a few words that make it quicker.
    pub fast_boot: bool,
    /// The guest's operating system.
    pub guest_os: GuestOs,
    /// Its architecture.
    pub arch: Arch,
    /// Bytes of RAM by default.
    pub memory: u64,
    /// CPUs by default.
    pub cpus: u32,
    /// Multiplies default time-outs; above 0.
    pub timeout_scale: f64,
    /// What a kernel report does.
    pub splats: Splats,
    /// QEMU's machine.
    pub machine: Option<String>,
    /// QEMU's CPU model.
    pub cpu: Option<String>,
    /// Further arguments of QEMU.
    pub qemu_args: Vec<String>,
    /// Disks that its machines boot with.
    pub disks: Vec<DiskSetting>,
    /// Whether the agent is brought into the guest.
    pub inject_agent: bool,
    /// A shell command run before the first boot.
    pub build: Option<String>,
    /// What `{out}` in the profile's paths stands for.
    pub build_out: PathBuf,
    /// Where each key that is set was set, sorted by key.
    pub origins: BTreeMap<String, Origin>,
}

impl Profile {
    /// The keys whose values are paths or Nix values, with those that are set; `disks` once for each image.
    pub fn values(&self) -> Vec<(&'static str, &Setting<Value>)> {
        let optional = [
            ("initrd", &self.initrd),
            ("modules", &self.modules),
            ("vmlinux", &self.vmlinux),
            ("cmdline_file", &self.cmdline_file),
        ];
        let optional = optional.into_iter().filter_map(|(key, value)| Some((key, value.as_ref()?)));
        let images = self.disks.iter().filter_map(|disk| Some(("disks", disk.image.as_ref()?)));
        std::iter::once(("kernel", &self.kernel)).chain(optional).chain(images).collect()
    }
}

/// A project: one provium.toml.
#[derive(Debug, Clone, PartialEq)]
pub struct Project {
    /// The file, absolute.
    pub config: PathBuf,
    /// The directory it stands in.
    pub directory: PathBuf,
    /// Where tests are, absolute.
    pub roots: Vec<PathBuf>,
    /// Where fixtures are kept; none: the default place.
    pub cache_dir: Option<PathBuf>,
    /// Bytes that fixtures may take.
    pub cache_max_size: u64,
    /// QEMU.
    pub qemu: Option<Setting<Value>>,
    /// Read-only caches of fixtures.
    pub fixture_stores: Vec<PathBuf>,
    /// Which profiles a fixture's key folds in.
    pub key_profiles: KeyProfiles,
    /// The profiles by name; at least one.
    pub profiles: BTreeMap<String, Profile>,
}

impl Project {
    /// The profile `name`.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn profile(&self, name: &str) -> Result<&Profile, UnknownProfile> {
        self.profiles.get(name).ok_or_else(|| UnknownProfile {
            name: name.to_owned(),
            known: self.profiles.keys().cloned().collect(),
            config: self.config.clone(),
        })
    }

    /// The first profile by sorted name, which stands in where none is named.
    pub fn first_profile(&self) -> Option<&Profile> {
        self.profiles.values().next()
    }
}

/// `path` relative to `base`, unless it is absolute.
pub(super) fn join(base: &Path, path: impl AsRef<Path>) -> PathBuf {
    let joined = base.join(path);
    // Without `.` parts, which only make messages longer.
    joined.components().collect()
}
