//! A private directory for the files of one run, gone with it.
//!
//! Each directory holds a locked file. A run that was killed leaves its directory unlocked: the next start removes it.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::path_error::{PathContext, PathError};

/// The file that is locked while the owner lives.
const LOCK: &str = "lock";

/// A directory (mode 0700) that is removed when this is dropped.
#[derive(Debug)]
pub struct RuntimeDir {
    path: PathBuf,
    _lock: File,
}

impl RuntimeDir {
    /// Makes a new directory below `base`, and removes those there whose owner is gone.
    ///
    /// # Errors
    /// When `base` belongs to somebody else, or nothing can be written there.
    pub fn create(base: &Path) -> Result<Self, PathError> {
        private_dir(base)?;
        remove_abandoned(base)?;
        let mut number = 0_u32;
        loop {
            let path = base.join(format!("run-{}-{number}", std::process::id()));
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {
                    let lock_path = path.join(LOCK);
                    let lock = File::create_new(&lock_path).at("create", &lock_path)?;
                    lock.lock().at("lock", &lock_path)?;
                    return Ok(Self { path, _lock: lock });
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists && number < 1000 => number += 1,
                Err(error) => return Err(error).at("create", &path),
            }
        }
    }

    /// Where runtime files go when nobody says otherwise: below the build directory inside a Nix build, else
    /// `$XDG_RUNTIME_DIR`, else a directory of this user's in the system's temporary directory.
    pub fn default_base() -> PathBuf {
        let given = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        if let Some(build) = given("NIX_BUILD_TOP") {
            return build.join("provium-run");
        }
        if let Some(runtime) = given("XDG_RUNTIME_DIR").filter(|path| path.is_dir()) {
            return runtime.join("provium");
        }
        // SAFETY: geteuid has no preconditions and can't fail.
        let user = unsafe { libc::geteuid() };
        std::env::temp_dir().join(format!("provium-{user}"))
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for RuntimeDir {
    fn drop(&mut self) {
        // What can't be removed now is removed by the next start.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Makes `base`, or checks that it is this user's and nobody else's.
fn private_dir(base: &Path) -> Result<(), PathError> {
    match fs::DirBuilder::new().mode(0o700).recursive(true).create(base) {
        Ok(()) => {}
        Err(error) => return Err(error).at("create", base),
    }
    let metadata = fs::symlink_metadata(base).at("look at", base)?;
    // SAFETY: geteuid has no preconditions and can't fail.
    let user = unsafe { libc::geteuid() };
    if !metadata.is_dir() || metadata.uid() != user || metadata.mode() & 0o022 != 0 {
        let why = std::io::Error::new(
            ErrorKind::PermissionDenied,
            "it is not a directory of this user's that only this user can write to",
        );
        return Err(why).at("use", base);
    }
    Ok(())
}

fn remove_abandoned(base: &Path) -> Result<(), PathError> {
    for entry in fs::read_dir(base).at("list", base)?.flatten() {
        let path = entry.path();
        if !entry.file_name().to_string_lossy().starts_with("run-") {
            continue;
        }
        // Without a lock file its owner is just being born, or died before it made one: then it is empty.
        let abandoned = match File::open(path.join(LOCK)) {
            Ok(lock) => lock.try_lock().is_ok(),
            Err(_) => false,
        };
        if abandoned {
            let _ = fs::remove_dir_all(&path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_with_its_owner() {
        let base = tempfile::tempdir().unwrap();
        let base = base.path().join("provium");
        let first = RuntimeDir::create(&base).unwrap();
        let second = RuntimeDir::create(&base).unwrap();
        assert_ne!(first.path(), second.path());
        assert_eq!(fs::metadata(first.path()).unwrap().mode() & 0o777, 0o700);
        let path = first.path().to_owned();
        drop(first);
        assert!(!path.exists());
        assert!(second.path().exists());
    }

    #[test]
    fn what_a_killed_run_left_is_removed() {
        let base = tempfile::tempdir().unwrap();
        let base = base.path().join("provium");
        let live = RuntimeDir::create(&base).unwrap();
        let dead = base.join("run-1-0");
        fs::create_dir_all(dead.join("inner")).unwrap();
        fs::write(dead.join(LOCK), "").unwrap();
        let next = RuntimeDir::create(&base).unwrap();
        assert!(!dead.exists());
        assert!(live.path().exists() && next.path().exists());
    }

    #[test]
    fn a_directory_that_others_can_write_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let base = tempfile::tempdir().unwrap();
        fs::set_permissions(base.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let error = RuntimeDir::create(base.path()).unwrap_err().to_string();
        assert!(error.contains("only this user"), "{error}");
    }
}
