//! Locks on files, waited for without polling.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::sync::mpsc;

use super::cancel::Cancel;
use super::error::RealiseError;
use crate::foundation::path_error::PathContext;

/// Opens or makes a file to lock.
pub(super) fn open(path: &Path) -> Result<File, RealiseError> {
    Ok(OpenOptions::new().create(true).truncate(false).write(true).open(path).at("open", path)?)
}

/// Takes the lock if nobody holds it; closing the file frees it, so does the end of the process.
pub(super) fn try_lock(file: &File, path: &Path) -> Result<bool, RealiseError> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Ok(Err(error).at("lock", path)?),
    }
}

/// Takes the lock, and calls `waiting` if that takes more than a moment.
///
/// # Errors
/// The file can't be locked, or somebody cancelled.
pub fn lock(path: &Path, waiting: impl FnOnce(), cancel: &Cancel) -> Result<File, RealiseError> {
    let file = open(path)?;
    if try_lock(&file, path)? {
        return Ok(file);
    }
    waiting();
    let (tell, told) = mpsc::channel();
    let cancelled = tell.clone();
    let _listening = cancel.listen(Box::new(move || drop(cancelled.send(None))));
    // Locking can't be interrupted. After a cancellation this thread ends when it gets the lock, which it then frees.
    std::thread::spawn(move || drop(tell.send(Some(file.lock().map(|()| file)))));
    match told.recv() {
        Ok(Some(locked)) => Ok(locked.at("lock", path)?),
        Ok(None) | Err(_) => Err(RealiseError::Cancelled),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_for_its_turn() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("lock");
        let first = lock(&path, || panic!(), &Cancel::new()).unwrap();
        let (told, waits) = mpsc::channel();
        let second = {
            let path = path.clone();
            std::thread::spawn(move || lock(&path, || told.send(()).unwrap(), &Cancel::new()).map(drop))
        };
        waits.recv().unwrap();
        drop(first);
        second.join().unwrap().unwrap();
    }

    #[test]
    fn gives_up_when_cancelled() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("lock");
        let _held = lock(&path, || (), &Cancel::new()).unwrap();
        let cancel = Cancel::new();
        let result = lock(&path, || cancel.cancel(), &cancel);
        assert!(matches!(result, Err(RealiseError::Cancelled)));
    }
}
