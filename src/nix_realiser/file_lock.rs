//! Locks on files that a realisation waits for.

use std::fs::File;
use std::path::Path;

use super::cancel::Cancel;
use super::error::RealiseError;
use crate::foundation::file_lock;

/// Takes the lock, and calls `waiting` if that takes more than a moment.
///
/// # Errors
/// The file can't be locked, or somebody cancelled.
pub fn lock(path: &Path, waiting: impl FnOnce(), cancel: &Cancel) -> Result<File, RealiseError> {
    let file = file_lock::open(path)?;
    if file_lock::try_lock(&file, path)? {
        return Ok(file);
    }
    waiting();
    file_lock::wait(file, path, None, |give_up| cancel.listen(give_up))?.ok_or(RealiseError::Cancelled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

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
