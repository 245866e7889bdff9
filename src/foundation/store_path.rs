//! Nix store paths: `/nix/store/<32 characters of Nix's base 32>-<name>`.

use std::fmt;
use std::path::{Path, PathBuf};

const STORE: &str = "/nix/store/";
const BASE32: &str = "0123456789abcdfghijklmnpqrsvwxyz";

/// A path directly inside the Nix store, checked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StorePath(String);

impl StorePath {
    /// Parses a whole store path, with nothing behind its name.
    ///
    /// # Errors
    /// A fragment that says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let base = text.strip_prefix(STORE).ok_or_else(|| format!("`{text}` is not in `/nix/store`"))?;
        let (hash, name) = base.split_at_checked(32).ok_or_else(|| format!("`{text}` has no hash of 32 characters"))?;
        if let Some(bad) = hash.chars().find(|c| !BASE32.contains(*c)) {
            return Err(format!("`{text}` has `{bad}` in its hash"));
        }
        let name = name.strip_prefix('-').ok_or_else(|| format!("`{text}` has no `-` behind its hash"))?;
        if name.is_empty() || name.len() > 211 {
            return Err(format!("`{text}` has a name of {} characters, expected 1 to 211", name.len()));
        }
        match name.chars().find(|c| !(c.is_ascii_alphanumeric() || "+-._?=".contains(*c))) {
            Some(bad) => Err(format!("`{text}` has `{bad}` in its name")),
            None => Ok(Self(text.to_owned())),
        }
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path.
    pub fn to_path_buf(&self) -> PathBuf {
        Path::new(&self.0).to_owned()
    }
}

impl fmt::Display for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
