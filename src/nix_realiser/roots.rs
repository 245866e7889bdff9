//! The run's own directory of garbage-collector roots.
//!
//! nix registers each out-link as a root by its path, so links are never moved. A run's directory holds a locked file
//! for as long as the run lives; a directory whose lock is free belonged to a run that ended without tidying.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::cancel::Cancel;
use super::error::RealiseError;
use super::file_lock::lock as take_lock;
use crate::foundation::file_lock;
use crate::foundation::path_error::PathContext;

const LOCK: &str = "lock";

/// This run's roots; gone with this value.
#[derive(Debug)]
pub(super) struct RunRoots {
    directory: PathBuf,
    links: usize,
    _lock: File,
}

impl RunRoots {
    /// Makes a directory for this run in `state_dir/roots`, and prunes those of ended runs.
    pub(super) fn create(state_dir: &Path, cancel: &Cancel) -> Result<Self, RealiseError> {
        let roots = state_dir.join("roots");
        fs::create_dir_all(&roots).at("create", &roots)?;
        let _guard = guard(&roots, cancel)?;
        prune_guarded(&roots)?;
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        let directory = roots.join(format!("{}-{nanos}", std::process::id()));
        fs::create_dir(&directory).at("create", &directory)?;
        let path = directory.join(LOCK);
        let lock = file_lock::open(&path)?;
        // Nobody else can hold it: the directory is new, and looking into it takes the guard.
        lock.lock().at("lock", &path)?;
        Ok(Self { directory, links: 0, _lock: lock })
    }

    /// A path for the next out-link; nix appends numbers for further ones (`r`, `r-1`, …).
    pub(super) fn next_link(&mut self) -> PathBuf {
        let name = if self.links == 0 { "r".to_owned() } else { format!("r{}", self.links) };
        self.links += 1;
        self.directory.join(name)
    }
}

impl Drop for RunRoots {
    fn drop(&mut self) {
        // What can't be removed now is pruned by the next run.
        drop(fs::remove_dir_all(&self.directory));
    }
}

/// Removes the roots of runs that ended without doing so.
///
/// # Errors
/// The directory can't be read or changed.
pub(super) fn prune(state_dir: &Path, cancel: &Cancel) -> Result<(), RealiseError> {
    let roots = state_dir.join("roots");
    if !roots.is_dir() {
        return Ok(());
    }
    let _guard = guard(&roots, cancel)?;
    prune_guarded(&roots)
}

/// Held while a run's directory is made or judged, so that nobody sees one that is not locked yet.
fn guard(roots: &Path, cancel: &Cancel) -> Result<File, RealiseError> {
    take_lock(&roots.join(".guard"), || (), cancel)
}

fn prune_guarded(roots: &Path) -> Result<(), RealiseError> {
    for entry in fs::read_dir(roots).at("read", roots)? {
        let path = entry.at("read", roots)?.path();
        if !path.is_dir() {
            continue;
        }
        let lock = path.join(LOCK);
        let ended = match File::open(&lock) {
            Ok(file) => file_lock::try_lock(&file, &lock)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => Err(error).at("open", &lock)?,
        };
        if ended {
            match fs::remove_dir_all(&path) {
                // Its run may be tidying at this moment.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => result.at("remove", &path)?,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(state: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(state.join("roots")).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.is_dir()).collect()
    }

    #[test]
    fn keeps_the_living_and_prunes_the_dead() {
        let state = tempfile::tempdir().unwrap();
        let mut living = RunRoots::create(state.path(), &Cancel::new()).unwrap();
        let link = living.next_link();
        assert!(link.ends_with("r") && living.next_link().ends_with("r1"));
        let dead = state.path().join("roots/1-2");
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join(LOCK), "").unwrap();
        std::os::unix::fs::symlink("/nowhere", dead.join("r")).unwrap();
        fs::create_dir(state.path().join("roots/0-0")).unwrap();

        prune(state.path(), &Cancel::new()).unwrap();
        assert_eq!(runs(state.path()), [link.parent().unwrap()]);

        let second = RunRoots::create(state.path(), &Cancel::new()).unwrap();
        assert_eq!(runs(state.path()).len(), 2);
        drop(living);
        assert_eq!(runs(state.path()), std::slice::from_ref(&second.directory));
        drop(second);
        assert!(runs(state.path()).is_empty());
    }

    #[test]
    fn nothing_to_prune_is_fine() {
        let state = tempfile::tempdir().unwrap();
        prune(state.path(), &Cancel::new()).unwrap();
        assert!(!state.path().join("roots").exists());
    }
}
