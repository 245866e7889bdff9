//! Locks on files (`flock`), waited for without polling. The system frees one when its holder ends, however that happens.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Instant;

use super::path_error::{PathContext, PathError};

/// Called by whoever wants a wait to end.
pub type GiveUp = Box<dyn Fn() + Send>;

/// Opens or makes a file to lock.
///
/// # Errors
/// It can't be opened.
pub fn open(path: &Path) -> Result<File, PathError> {
    OpenOptions::new().create(true).truncate(false).write(true).open(path).at("open", path)
}

/// Takes the lock if nobody holds it; closing the file frees it, so does the end of the process.
///
/// # Errors
/// The file can't be locked.
pub fn try_lock(file: &File, path: &Path) -> Result<bool, PathError> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error).at("lock", path),
    }
}

/// Waits until the lock on `file` is had. None once what `listen` is given is called, or at the `deadline`; what `listen` returns
/// is kept until then.
///
/// # Errors
/// The file can't be locked.
pub fn wait<L>(
    file: File,
    path: &Path,
    deadline: Option<Instant>,
    listen: impl FnOnce(GiveUp) -> L,
) -> Result<Option<File>, PathError> {
    let (tell, told) = mpsc::channel();
    let given_up = tell.clone();
    let _listening = listen(Box::new(move || drop(given_up.send(None))));
    // Locking can't be interrupted. Where nobody waits any more this thread ends when it gets the lock, which it then frees.
    let work = move || drop(tell.send(Some(file.lock().map(|()| file))));
    std::thread::Builder::new().name("lock".to_owned()).spawn(work).at("wait for", path)?;
    let answer = match deadline {
        None => told.recv().map_err(|_| RecvTimeoutError::Disconnected),
        Some(deadline) => told.recv_timeout(deadline.saturating_duration_since(Instant::now())),
    };
    match answer {
        Ok(Some(locked)) => locked.at("lock", path).map(Some),
        Ok(None) | Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn held(path: &Path) -> File {
        let file = open(path).unwrap();
        assert!(try_lock(&file, path).unwrap());
        file
    }

    #[test]
    fn waits_for_its_turn() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("lock");
        let first = held(&path);
        let (waits, told) = mpsc::channel();
        let second = {
            let path = path.clone();
            std::thread::spawn(move || wait(open(&path).unwrap(), &path, None, |_| waits.send(()).unwrap()))
        };
        told.recv().unwrap();
        assert!(!try_lock(&open(&path).unwrap(), &path).unwrap());
        drop(first);
        let second = second.join().unwrap().unwrap();
        assert!(second.is_some() && !try_lock(&open(&path).unwrap(), &path).unwrap());
    }

    #[test]
    fn gives_up_when_told_and_at_the_deadline() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("lock");
        let _held = held(&path);
        let told = wait(open(&path).unwrap(), &path, None, |give_up| give_up()).unwrap();
        assert!(told.is_none());
        let soon = Instant::now() + Duration::from_millis(1);
        assert!(wait(open(&path).unwrap(), &path, Some(soon), |_| ()).unwrap().is_none());
    }
}
