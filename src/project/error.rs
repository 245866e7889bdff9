//! What is wrong with a configuration, all of it, each at its place.

use std::fmt;
use std::path::PathBuf;

use super::profile::Origin;
use crate::foundation::path_error::PathError;
use crate::foundation::suggest;

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Where.
    pub at: Origin,
    /// What is wrong, with the value that is.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

/// A configuration that can't be used.
#[derive(Debug)]
pub enum ProjectError {
    /// A file can't be read.
    File(PathError),
    /// It has mistakes, in the order of the files and lines.
    Mistakes(Vec<Diagnostic>),
    /// The flake of `from_flake` can't be asked for its profiles.
    Flake(String),
}

impl fmt::Display for ProjectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => error.fmt(f),
            Self::Flake(message) => f.write_str(message),
            Self::Mistakes(mistakes) => {
                for (index, mistake) in mistakes.iter().enumerate() {
                    if index > 0 {
                        f.write_str("\n")?;
                    }
                    mistake.fmt(f)?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for ProjectError {}

impl From<PathError> for ProjectError {
    fn from(error: PathError) -> Self {
        Self::File(error)
    }
}

/// A profile that is not in provium.toml.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownProfile {
    /// The name that was asked for.
    pub name: String,
    /// The names that there are.
    pub known: Vec<String>,
    /// The file that has them.
    pub config: PathBuf,
}

impl fmt::Display for UnknownProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known: Vec<String> = self.known.iter().map(|name| format!("`{name}`")).collect();
        write!(f, "there is no profile `{}` in `{}`, it has {}", self.name, self.config.display(), known.join(", "))?;
        match suggest::nearest(&self.name, &self.known) {
            Some(name) => write!(f, "\nhint: did you mean `{name}`?"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for UnknownProfile {}
