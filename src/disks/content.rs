//! What a disk holds or would hold, apart from any machine: to be read, saved, or to begin another disk with.

use std::fmt;
use std::fs::File;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::error::DiskError;
use super::store::{SECTOR, Store};
use crate::foundation::path_error::PathContext;

/// The content of a disk at some moment; it does not change any more.
pub struct Content {
    store: Mutex<Store>,
    sectors: u64,
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Content of {} sectors", self.sectors)
    }
}

impl Content {
    pub(super) fn new(store: Store) -> Self {
        Self { sectors: store.sectors(), store: Mutex::new(store) }
    }

    /// How many sectors it has.
    pub fn sectors(&self) -> u64 {
        self.sectors
    }

    /// Reads sectors.
    ///
    /// # Errors
    /// They are not all on the disk, or a file of the host's can't be read.
    pub fn read(&self, first: u64, count: u64) -> Result<Vec<u8>, DiskError> {
        if first.checked_add(count).is_none_or(|end| end > self.sectors) {
            return Err(outside(first, count, self.sectors));
        }
        let mut bytes = vec![0; usize::try_from(count * SECTOR).unwrap_or_default()];
        self.store.lock().unwrap_or_else(PoisonError::into_inner).read(first, &mut bytes)?;
        Ok(bytes)
    }

    /// Writes it to a file, as a raw image.
    ///
    /// # Errors
    /// The file can't be made or written.
    pub fn save(&self, path: &Path) -> Result<(), DiskError> {
        let file = File::create(path).at("create", path)?;
        self.store.lock().unwrap_or_else(PoisonError::into_inner).save(&file).at("write", path)?;
        Ok(())
    }

    /// Its store.
    pub(super) fn store(&self) -> std::sync::MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A store of its own with this content.
    pub(super) fn fork(&self) -> Result<Store, DiskError> {
        let fork = self.store.lock().unwrap_or_else(PoisonError::into_inner).fork()?;
        fork.ok_or_else(|| DiskError::Unfit("the content of an image that is written through can't be kept".to_owned()))
    }
}

/// The error for sectors that are not on a disk.
pub(super) fn outside(first: u64, count: u64, sectors: u64) -> DiskError {
    let last = first.saturating_add(count).saturating_sub(1);
    DiskError::Refused {
        errno: libc::EINVAL,
        why: format!(
            "sectors {first} to {last} are not on the disk, which has {sectors} (0 to {})",
            sectors.saturating_sub(1)
        ),
    }
}
