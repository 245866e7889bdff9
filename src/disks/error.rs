//! What can go wrong with a disk.

use std::fmt;
use std::path::PathBuf;

use crate::foundation::path_error::{PathError, describe_io};

/// A failed act on a disk.
#[derive(Debug)]
pub enum DiskError {
    /// A file can't be read, written or made.
    File(PathError),
    /// An image that can't be used: which, and why.
    Image {
        /// The image.
        path: PathBuf,
        /// What is wrong, and what to do about it.
        why: String,
    },
    /// A request that the disk refused, with the errno that a guest would see.
    Refused {
        /// The errno.
        errno: i32,
        /// Why.
        why: String,
    },
    /// What is asked makes no sense for this disk.
    Unfit(String),
    /// The disk's own files failed.
    Storage(std::io::Error),
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(source) => source.fmt(f),
            Self::Image { path, why } => write!(f, "`{}`: {why}", path.display()),
            Self::Refused { why, .. } | Self::Unfit(why) => f.write_str(why),
            Self::Storage(source) => write!(f, "the disk's own files failed: {}", describe_io(source)),
        }
    }
}

impl std::error::Error for DiskError {}

impl From<PathError> for DiskError {
    fn from(error: PathError) -> Self {
        Self::File(error)
    }
}

impl From<std::io::Error> for DiskError {
    fn from(error: std::io::Error) -> Self {
        Self::Storage(error)
    }
}
