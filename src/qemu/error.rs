//! What can go wrong with QEMU and what it boots.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::find::Version;
use crate::foundation::path_error::PathError;

/// A failed act around QEMU.
#[derive(Debug)]
pub enum QemuError {
    /// No QEMU anywhere.
    NotFound {
        /// The program that was looked for.
        program: String,
    },
    /// A QEMU that somebody named is not there.
    NoSuchProgram {
        /// Where.
        path: PathBuf,
        /// Who named it.
        origin: &'static str,
        /// What is wrong.
        why: String,
    },
    /// Its version can't be told.
    NoVersion {
        /// The program.
        path: PathBuf,
        /// What it said.
        said: String,
    },
    /// It is too old.
    TooOld {
        /// The program.
        path: PathBuf,
        /// Who named it.
        origin: &'static str,
        /// What it is.
        found: Version,
    },
    /// KVM was asked for and can't be used.
    NoKvm(String),
    /// A kernel, module or initrd that can't be used.
    Image(String),
    /// A file that can't be read or written.
    File(PathError),
    /// QEMU could not be started.
    Start(String),
    /// QEMU ended before it could be talked to.
    Ended(String),
    /// A machine's state could not be written or read.
    Transfer(String),
    /// The control channel.
    Qmp(QmpError),
}

/// A command over QMP that came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QmpError {
    /// QEMU refused the command.
    Refused {
        /// The command.
        command: String,
        /// QEMU's error class.
        class: String,
        /// QEMU's words.
        description: String,
    },
    /// No answer in time.
    Deadline {
        /// What was awaited: a command's name, or the greeting.
        awaited: String,
        /// The deadline.
        after: Duration,
        /// What came last.
        last: String,
    },
    /// The channel ended: QEMU is gone, or sent what no QEMU sends.
    Closed {
        /// What was awaited.
        awaited: String,
        /// Why it ended.
        reason: String,
    },
}

impl fmt::Display for QmpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { command, description, .. } => write!(f, "QEMU refused `{command}`: {description}"),
            Self::Deadline { awaited, after, last } => {
                write!(f, "QEMU did not answer {awaited} within {} s; last came {last}", after.as_secs_f64())
            }
            Self::Closed { awaited, reason } => {
                write!(f, "QEMU's control channel ended while waiting for {awaited}: {reason}")
            }
        }
    }
}

impl std::error::Error for QmpError {}

impl From<QmpError> for QemuError {
    fn from(error: QmpError) -> Self {
        Self::Qmp(error)
    }
}

impl fmt::Display for QemuError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound { program } => write!(
                f,
                "`{program}` is not there: looked at --qemu, PROVIUM_QEMU, `[provium] qemu`, PROVIUM_DEFAULT_QEMU and PATH\n\
                 hint: install QEMU 8.2 or newer (Debian and Ubuntu: `apt install qemu-system-x86`), or name one with --qemu"
            ),
            Self::NoSuchProgram { path, origin, why } => {
                write!(f, "`{}` (named by {origin}) can't be used as QEMU: {why}", path.display())
            }
            Self::NoVersion { path, said } => {
                write!(f, "`{}` does not tell its version as QEMU does; it said: {said}", path.display())
            }
            Self::TooOld { path, origin, found } => write!(
                f,
                "`{}` (from {origin}) is QEMU {found}, expected 8.2 or newer\nhint: Debian 12 has a newer one in its backports, \
                 Debian 13 and Ubuntu 24.04 have one; or name another with --qemu",
                path.display()
            ),
            Self::NoKvm(why) => write!(f, "KVM can't be used: {why}\nhint: `--accel tcg` works everywhere"),
            Self::Image(message) => f.write_str(message),
            Self::File(error) => error.fmt(f),
            Self::Start(why) => write!(f, "QEMU could not be started: {why}"),
            Self::Transfer(why) => write!(f, "the machine's state could not be moved: {why}"),
            Self::Ended(how) => write!(f, "QEMU ended: {how}"),
            Self::Qmp(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for QemuError {}

impl From<PathError> for QemuError {
    fn from(error: PathError) -> Self {
        Self::File(error)
    }
}
