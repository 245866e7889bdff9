//! BLAKE3 digests.

use std::fmt;
use std::fs::File;
use std::path::Path;

use super::path_error::{PathContext, PathError};

/// A digest; displays as 64 lowercase hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(blake3::Hash);

impl Digest {
    /// Of bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes))
    }

    /// Of a file's content.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn of_file(path: &Path) -> Result<Self, PathError> {
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(File::open(path).at("open", path)?).at("read", path)?;
        Ok(Self(hasher.finalize()))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_hex())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_and_its_bytes_agree() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, "text").unwrap();
        assert_eq!(Digest::of_file(&path).unwrap(), Digest::of(b"text"));
        assert_eq!(Digest::of(b"").to_string().len(), 64);
    }
}
