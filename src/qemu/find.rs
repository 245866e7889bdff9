//! Which QEMU is used.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::error::QemuError;
use crate::foundation::process;

/// The oldest QEMU that works: `file:` migration and `rom=`.
const OLDEST: Version = Version { major: 8, minor: 2, micro: 0 };

/// A version of QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
    /// Third number.
    pub micro: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}

/// A QEMU that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QemuBinary {
    /// The program, absolute.
    pub path: PathBuf,
    /// What it is.
    pub version: Version,
    /// Who named it.
    pub origin: &'static str,
}

/// Who names a QEMU, in the order in which they are heard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Candidates {
    /// `--qemu`.
    pub flag: Option<PathBuf>,
    /// `PROVIUM_QEMU`.
    pub user: Option<PathBuf>,
    /// `[provium] qemu`, realised.
    pub config: Option<PathBuf>,
    /// `PROVIUM_DEFAULT_QEMU`.
    pub default: Option<PathBuf>,
    /// `PATH`.
    pub path: Option<OsString>,
}

/// Finds QEMU for `arch` (`x86_64`, `aarch64`) and asks its version.
///
/// # Errors
/// None is there, the one that was named can't be used, or it is too old.
pub fn find(candidates: &Candidates, arch: &str) -> Result<QemuBinary, QemuError> {
    let program = format!("qemu-system-{arch}");
    let named = [
        (&candidates.flag, "--qemu"),
        (&candidates.user, "PROVIUM_QEMU"),
        (&candidates.config, "`[provium] qemu`"),
        (&candidates.default, "PROVIUM_DEFAULT_QEMU"),
    ];
    let chosen = named.into_iter().find_map(|(path, origin)| Some((path.clone()?, origin)));
    let (path, origin) = match chosen {
        Some((path, origin)) => (check_named(&path, origin, &program)?, origin),
        None => match on_path(candidates.path.as_ref(), &program) {
            Some(path) => (path, "PATH"),
            None => return Err(QemuError::NotFound { program }),
        },
    };
    let version = version_of(&path, origin)?;
    if version < OLDEST {
        return Err(QemuError::TooOld { path, origin, found: version });
    }
    Ok(QemuBinary { path, version, origin })
}

fn is_program(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

fn check_named(path: &Path, origin: &'static str, program: &str) -> Result<PathBuf, QemuError> {
    let bad = |why: String| Err(QemuError::NoSuchProgram { path: path.to_owned(), origin, why });
    if path.is_dir() {
        let inside = [path.join("bin").join(program), path.join(program)];
        return match inside.into_iter().find(|path| is_program(path)) {
            Some(found) => Ok(found),
            None => bad(format!("the directory holds no `bin/{program}`")),
        };
    }
    match std::fs::metadata(path) {
        Err(error) => bad(crate::foundation::path_error::describe_io(&error)),
        Ok(_) if !is_program(path) => bad("it is not an executable file".to_owned()),
        Ok(_) => std::path::absolute(path).or_else(|_| Ok(path.to_owned())),
    }
}

fn on_path(path: Option<&OsString>, program: &str) -> Option<PathBuf> {
    std::env::split_paths(path?).map(|directory| directory.join(program)).find(|path| is_program(path))
}

fn version_of(path: &Path, origin: &'static str) -> Result<Version, QemuError> {
    let mut command = Command::new(path);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = process::spawn(command, Vec::new()).and_then(std::process::Child::wait_with_output);
    let output = output.map_err(|error| QemuError::NoSuchProgram {
        path: path.to_owned(),
        origin,
        why: crate::foundation::path_error::describe_io(&error),
    })?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    parse_version(&said).ok_or_else(|| {
        let said = if said.trim().is_empty() { String::from_utf8_lossy(&output.stderr).into_owned() } else { said };
        QemuError::NoVersion { path: path.to_owned(), said: said.trim().chars().take(200).collect() }
    })
}

/// The version in what `qemu-system-… --version` prints.
fn parse_version(text: &str) -> Option<Version> {
    let rest = text.split("QEMU emulator version ").nth(1)?;
    let number: String = rest.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
    let mut parts = number.split('.').map(|part| part.parse().ok());
    Some(Version { major: parts.next()??, minor: parts.next()??, micro: parts.next().flatten().unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        let text = "QEMU emulator version 10.0.13 (Debian 1:10.0.13+ds-0+deb13u1)\nCopyright";
        assert_eq!(parse_version(text).map(|version| version.to_string()), Some("10.0.13".to_owned()));
        assert_eq!(parse_version("QEMU emulator version 9.1\n").map(|v| v.to_string()), Some("9.1.0".to_owned()));
        assert_eq!(parse_version("bash 5.2"), None);
    }

    fn fake(directory: &Path, name: &str, version: &str) -> PathBuf {
        let path = directory.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, format!("#!/bin/sh\necho 'QEMU emulator version {version}'\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        // A program that another thread's child still holds open for writing can't be run; wait for that to pass.
        while std::process::Command::new(&path).output().is_err() {}
        path
    }

    #[test]
    fn who_names_it_first_is_heard() {
        let dir = tempfile::tempdir().unwrap();
        let flag = fake(dir.path(), "flag", "9.0.0");
        fake(dir.path(), "bin/qemu-system-x86_64", "10.1.2");
        let candidates = Candidates {
            flag: Some(flag),
            config: Some(dir.path().to_owned()),
            path: Some(dir.path().join("bin").into()),
            ..Candidates::default()
        };
        assert_eq!(find(&candidates, "x86_64").unwrap().origin, "--qemu");
        let candidates = Candidates { flag: None, ..candidates };
        let found = find(&candidates, "x86_64").unwrap();
        assert_eq!((found.origin, found.version.to_string()), ("`[provium] qemu`", "10.1.2".to_owned()));
        let candidates = Candidates { config: None, ..candidates };
        assert_eq!(find(&candidates, "x86_64").unwrap().origin, "PATH");
    }

    #[test]
    fn what_can_not_be_used_is_refused_with_its_origin() {
        let dir = tempfile::tempdir().unwrap();
        let old = Candidates { user: Some(fake(dir.path(), "old", "7.2.0")), ..Candidates::default() };
        let text = find(&old, "x86_64").unwrap_err().to_string();
        assert!(text.contains("7.2.0") && text.contains("PROVIUM_QEMU") && text.contains("8.2"), "{text}");
        let none = Candidates { path: Some("/nonexistent".into()), ..Candidates::default() };
        assert!(find(&none, "x86_64").unwrap_err().to_string().contains("apt install"));
        let missing = Candidates { flag: Some("/no/such".into()), ..Candidates::default() };
        assert!(find(&missing, "x86_64").unwrap_err().to_string().contains("no such file"));
        let other = Candidates { flag: Some("/bin/true".into()), ..Candidates::default() };
        assert!(find(&other, "x86_64").unwrap_err().to_string().contains("does not tell its version"));
    }
}
