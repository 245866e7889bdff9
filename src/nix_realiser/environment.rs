//! What the process environment says about nix.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

/// The environment variables that matter here, read once.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// `PROVIUM_NIX`: the nix program; without it `nix` on `PATH`.
    pub nix: Option<PathBuf>,
    /// This process runs inside a Nix build, where nix is never called.
    pub inside_build: bool,
    /// `PROVIUM_NIX_MAP`: a JSON file, installable to store path.
    pub map: Option<PathBuf>,
    /// Variables set for nix beyond the inherited ones.
    pub child_variables: Vec<(OsString, OsString)>,
}

impl Environment {
    /// Reads this process's environment.
    ///
    /// `NIX_BUILD_TOP` marks a Nix build. The shells of `nix develop` and `nix-shell` set it as well, with `IN_NIX_SHELL`
    /// beside it; there nix is called as anywhere, unless a map is given.
    pub fn of_this_process() -> Self {
        let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        let map = set("PROVIUM_NIX_MAP").map(PathBuf::from);
        let shell = set("IN_NIX_SHELL").is_some() && map.is_none();
        Self {
            nix: set("PROVIUM_NIX").map(PathBuf::from),
            inside_build: set("NIX_BUILD_TOP").is_some() && !shell,
            map,
            child_variables: Vec::new(),
        }
    }
}
