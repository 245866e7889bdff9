//! A disk's part of a snapshot as files: one with the sectors that were written over the image, which itself is only named, and one with what unflushed writes replaced, where there are any.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::content::Content;
use super::disk::Cache;
use super::error::DiskError;
use super::faults::Faults;
use super::image::{self, Base, Format};
use super::layer::{Layer, Piece};
use super::snapshot::DiskSnapshot;
use super::store::{SECTOR, Store};
use super::write_log::{FrozenWrites, PendingWrite};
use crate::foundation::path_error::PathContext;

/// What the files of a stored disk mean.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StoredDisk {
    /// How large the disk is.
    sectors: u64,
    /// The sectors over the image. Those that are data stand in the file, one piece behind the other.
    held: Vec<Piece>,
    /// From this sector on nothing of the image is seen.
    below: u64,
    /// The format of the image that the rest comes from.
    format: Option<Format>,
    readonly: bool,
    cache: Cache,
    powered: bool,
    faults: Faults,
    pending: Vec<PendingWrite>,
    /// Bytes of what they replaced.
    replaced: u64,
}

impl StoredDisk {
    /// Whether the disk lies over an image.
    pub fn has_image(&self) -> bool {
        self.format.is_some()
    }

    /// Whether there is a file with what unflushed writes replaced.
    pub fn has_replaced(&self) -> bool {
        !self.pending.is_empty()
    }

    fn length(&self) -> u64 {
        let data = self.held.iter().filter(|piece| piece.is_data);
        data.map(|piece| piece.count.saturating_mul(SECTOR)).fold(0, u64::saturating_add)
    }

    /// Why it can't be right, where it can't.
    fn problem(&self) -> Option<&'static str> {
        let mut end = 0;
        for Piece { first, count, .. } in &self.held {
            if *first < end || *count == 0 || first.checked_add(*count).is_none_or(|end| end > self.sectors) {
                return Some("it names sectors that can't be");
            }
            end = first + count;
        }
        let outside = self.pending.iter().any(|write| !write.is_within(self.sectors, self.replaced));
        outside.then_some("it names writes that can't be")
    }
}

/// Others may read the same file.
fn copy(from: &File, length: u64, to: &Path) -> Result<(), DiskError> {
    let file = File::create_new(to).at("create", to)?;
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while at < length {
        let count = usize::try_from(length - at).unwrap_or(usize::MAX).min(buffer.len());
        from.read_exact_at(&mut buffer[..count], at).at("write", to)?;
        file.write_all_at(&buffer[..count], at).at("write", to)?;
        at += count as u64;
    }
    Ok(())
}

impl DiskSnapshot {
    /// The files of the image that the disk lies over, the one itself first; none where it began blank.
    pub fn image(&self) -> Vec<PathBuf> {
        self.content.store().base().image().map(|(_, files)| files).unwrap_or_default()
    }

    /// Writes what is the disk's own to `data`, and what unflushed writes replaced to `replaced`, where there are any. Blocks.
    ///
    /// # Errors
    /// A file of the host's that can't be read or written.
    pub fn save(&self, data: &Path, replaced: &Path) -> Result<StoredDisk, DiskError> {
        let store = self.content.store();
        let (held, below) = store.overlay()?;
        let mut stored = StoredDisk {
            sectors: store.sectors(),
            held,
            below,
            format: store.base().image().map(|(format, _)| format),
            readonly: self.readonly,
            cache: self.cache,
            powered: self.powered,
            faults: self.faults.clone(),
            pending: Vec::new(),
            replaced: 0,
        };
        let file = File::create_new(data).at("create", data)?;
        file.set_len(stored.length()).at("write", data)?;
        let mut place = 0;
        for Piece { first, count, .. } in stored.held.iter().filter(|piece| piece.is_data) {
            store.save_part(&file, place, *first, *count).at("write", data)?;
            place += count * SECTOR;
        }
        if let Some(pending) = &self.pending {
            copy(&pending.saved, pending.length, replaced)?;
            stored.pending.clone_from(&pending.writes);
            stored.replaced = pending.length;
        }
        Ok(stored)
    }

    /// What was saved; nothing is copied. What is written to the disks made of it lies in `directory`, in files without a name.
    /// Blocks.
    ///
    /// # Errors
    /// A file is missing or was cut short; the image can't be used any more.
    pub fn open(
        stored: &StoredDisk,
        data: &Path,
        replaced: &Path,
        image: Option<&Path>,
        directory: &Path,
    ) -> Result<Self, DiskError> {
        let broken = |path: &Path, why: &str| DiskError::Image { path: path.to_owned(), why: why.to_owned() };
        if let Some(why) = stored.problem() {
            return Err(broken(data, why));
        }
        let open = |path: &Path, length: u64| {
            let file = File::open(path).at("open", path)?;
            match file.metadata().at("look at", path)?.len() == length {
                true => Ok(file),
                false => Err(broken(path, &format!("expected {length} bytes: it was cut short, or is another file"))),
            }
        };
        let file = open(data, stored.length())?;
        let base = match (stored.format, image) {
            (Some(format), Some(path)) => image::open(path, Some(format))?.0,
            _ => Base::Blank,
        };
        let layer = Layer::stored(file, &stored.held, stored.below);
        let store = Store::stored(base, stored.sectors, layer, directory)?;
        let pending = match stored.has_replaced() {
            false => None,
            true => {
                let saved = Arc::new(open(replaced, stored.replaced)?);
                Some(FrozenWrites { writes: stored.pending.clone(), saved, length: stored.replaced })
            }
        };
        Ok(Self {
            content: Content::new(store),
            pending,
            faults: stored.faults.clone(),
            readonly: stored.readonly,
            cache: stored.cache,
            powered: stored.powered,
        })
    }
}
