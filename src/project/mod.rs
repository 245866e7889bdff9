//! `provium.toml` in three passes (parse, check, resolve), which files are tests, and the effective command line.

mod check;
mod cmdline;
mod discover;
mod disks;
mod document;
mod error;
mod find;
mod profile;
mod reach;
mod resolve;

pub use cmdline::{CmdlineError, CmdlineRequest, EffectiveCmdline, RootWords, effective_cmdline};
pub use discover::{DiscoverError, TestFile, discover};
pub use disks::DiskSetting;
pub use error::{Diagnostic, ProjectError, UnknownProfile};
pub use find::find_config;
pub use profile::{Arch, GuestOs, KeyProfiles, Origin, Profile, Project, Setting, Splats};
pub use reach::{Reach, profiles_named_in};
pub use resolve::{FlakeProfiles, load};
