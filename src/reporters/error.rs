//! What can go wrong before a reporter reads its first event.

use std::fmt;
use std::path::PathBuf;

use crate::foundation::path_error::PathError;

/// A reporter that can't start; always the fault of what was asked for.
#[derive(Debug)]
pub enum ReporterError {
    /// The event file's directory can't be written to, or is none.
    EventFileDirectory(PathError),
    /// The event file's path is a directory or ends without a file name.
    EventFileName(PathBuf),
}

impl ReporterError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::EventFileDirectory(_) => "the directory of the event file must exist and be writable",
            Self::EventFileName(_) => "name a file, such as `events.jsonl`",
        }
    }
}

impl fmt::Display for ReporterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EventFileDirectory(error) => write!(f, "can't save events: {error}"),
            Self::EventFileName(path) => write!(f, "can't save events: expected a file, found `{}`", path.display()),
        }
    }
}

impl std::error::Error for ReporterError {}
