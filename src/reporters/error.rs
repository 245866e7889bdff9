//! What can go wrong before a reporter reads its first event.

use std::fmt;
use std::path::PathBuf;

use crate::foundation::path_error::PathError;

/// A reporter that can't start; always the fault of what was asked for. `what` is what it would save.
#[derive(Debug)]
pub enum ReporterError {
    /// The file's directory can't be written to, or is none.
    Directory {
        /// `events`, `the JUnit report`.
        what: &'static str,
        /// The cause.
        error: PathError,
    },
    /// The file's path is a directory or ends without a file name.
    FileName {
        /// As above.
        what: &'static str,
        /// The path.
        path: PathBuf,
    },
}

impl ReporterError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Directory { .. } => "the directory of the file must exist and be writable",
            Self::FileName { .. } => "name a file, such as `run.out`",
        }
    }
}

impl fmt::Display for ReporterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory { what, error } => write!(f, "can't save {what}: {error}"),
            Self::FileName { what, path } => {
                write!(f, "can't save {what}: expected a file, found `{}`", path.display())
            }
        }
    }
}

impl std::error::Error for ReporterError {}
