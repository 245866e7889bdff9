//! Values of provium.toml that Nix makes.

use std::path::PathBuf;

use super::store_path::StorePath;

/// What Nix is asked for, and the file inside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NixValue {
    /// What is realised.
    pub source: NixSource,
    /// A path inside the output; without it the role decides.
    pub file: Option<String>,
}

/// What is realised.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum NixSource {
    /// A flake installable, or `/nix/store/….drv^out`.
    Installable(String),
    /// A store path as it is.
    Store(StorePath),
    /// An attribute of a file, without flakes.
    Attr {
        /// The Nix file.
        file: PathBuf,
        /// The attribute path in it.
        attr: String,
    },
}
