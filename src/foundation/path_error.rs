//! I/O errors that know their path and what was attempted.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// An I/O error with the path it happened at and the act that failed (`read`, `create`, …).
#[derive(Debug)]
pub struct PathError {
    /// What was attempted, as a verb: `read`, `create`, `remove`.
    pub act: &'static str,
    /// Where.
    pub path: PathBuf,
    /// The cause.
    pub source: io::Error,
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "can't {} `{}`: {}", self.act, self.path.display(), describe_io(&self.source))
    }
}

impl std::error::Error for PathError {}

/// An I/O error as a lowercase fragment without Rust's "(os error N)".
pub fn describe_io(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    match chars.next() {
        // "No such file" becomes "no such file", but "I/O error" and "EOF" keep their capitals.
        Some(first) if chars.clone().next().is_some_and(char::is_lowercase) => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => text.to_owned(),
    }
}

/// Adds act and path to an `io::Result`.
pub trait PathContext<T> {
    /// `fs::read(p).at("read", p)`.
    fn at(self, act: &'static str, path: impl AsRef<Path>) -> Result<T, PathError>;
}

impl<T> PathContext<T> for io::Result<T> {
    fn at(self, act: &'static str, path: impl AsRef<Path>) -> Result<T, PathError> {
        self.map_err(|source| PathError { act, path: path.as_ref().to_owned(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_and_where() {
        let error = std::fs::read("/nonexistent/x").at("read", "/nonexistent/x").unwrap_err();
        assert_eq!(error.to_string(), "can't read `/nonexistent/x`: no such file or directory");
    }
}
