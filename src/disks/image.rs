//! Images that a disk begins with: raw files and qcow2, only ever read.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::error::DiskError;
use super::qcow2::{self, Qcow2};
use super::store::{SECTOR, read_or_zero};
use crate::foundation::path_error::PathContext;

/// How an image is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// The bytes of the disk.
    Raw,
    /// QEMU's format.
    Qcow2,
}

impl Format {
    /// All names.
    pub const NAMES: [&str; 2] = ["raw", "qcow2"];

    /// The format of this name.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "raw" => Some(Self::Raw),
            "qcow2" => Some(Self::Qcow2),
            _ => None,
        }
    }
}

/// What lies below everything that was written.
#[derive(Debug, Clone)]
pub enum Base {
    /// Zeroes.
    Blank,
    /// A file with the bytes of the disk, and where it lies.
    Raw(Arc<File>, Arc<Path>),
    /// A qcow2 image.
    Qcow2(Arc<Qcow2>),
}

impl Base {
    /// Reads at an offset in bytes; zeroes behind the end.
    ///
    /// # Errors
    /// The file can't be read, or is broken there.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        match self {
            Self::Blank => {
                buffer.fill(0);
                Ok(())
            }
            Self::Raw(file, _) => read_or_zero(file, offset, buffer),
            Self::Qcow2(image) => image.read(offset, buffer),
        }
    }

    /// The format of the image, and its files: those behind it follow. None where there is no image.
    pub fn image(&self) -> Option<(Format, Vec<PathBuf>)> {
        match self {
            Self::Blank => None,
            Self::Raw(_, path) => Some((Format::Raw, vec![path.to_path_buf()])),
            Self::Qcow2(image) => {
                let behind = image.backing().and_then(Self::image).map(|(_, files)| files);
                let files = std::iter::once(image.path().to_owned()).chain(behind.into_iter().flatten());
                Some((Format::Qcow2, files.collect()))
            }
        }
    }
}

/// Opens an image for reading; without a format it is looked at. Also tells how many sectors it has.
///
/// # Errors
/// It is not there, or can't be used.
pub fn open(path: &Path, format: Option<Format>) -> Result<(Base, u64), DiskError> {
    let (file, size) = open_file(path, false)?;
    let looks_like_qcow2 = qcow2::is_one(&file);
    let format = format.unwrap_or(if looks_like_qcow2 { Format::Qcow2 } else { Format::Raw });
    match format {
        Format::Raw => Ok((Base::Raw(Arc::new(file), Arc::from(path)), size.div_ceil(SECTOR))),
        Format::Qcow2 if !looks_like_qcow2 => Err(bad(path, "it is no qcow2 image".to_owned())),
        Format::Qcow2 => {
            let image = Qcow2::open(file, path)?;
            let sectors = image.size().div_ceil(SECTOR);
            Ok((Base::Qcow2(Arc::new(image)), sectors))
        }
    }
}

/// The files that an image is made of: itself, and those behind it as far as they can be read.
pub fn files_of(path: &Path) -> Vec<PathBuf> {
    let opened = open(path, None).ok();
    opened.and_then(|(base, _)| base.image()).map_or_else(|| vec![path.to_owned()], |(_, files)| files)
}

/// Opens an image to be written itself.
///
/// # Errors
/// It is not there, can't be written, or is no raw image of whole sectors.
pub fn open_for_writing(path: &Path, format: Option<Format>) -> Result<(File, u64), DiskError> {
    let (file, size) = open_file(path, true)?;
    if format == Some(Format::Qcow2) || format.is_none() && qcow2::is_one(&file) {
        let why = "a qcow2 image can't be written through\nhint: without `write_through` (or as `image=`) writes go to a private \
                   overlay; `qemu-img convert -O raw` makes a raw image";
        return Err(bad(path, why.to_owned()));
    }
    if !size.is_multiple_of(SECTOR) {
        return Err(bad(path, format!("it has {size} bytes, which is no multiple of {SECTOR}")));
    }
    Ok((file, size / SECTOR))
}

fn open_file(path: &Path, write: bool) -> Result<(File, u64), DiskError> {
    // A FIFO would block, and a directory tells only when it is read.
    let kind = std::fs::metadata(path).at("open", path)?.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        return Err(bad(path, "it is neither a regular file nor a block device".to_owned()));
    }
    let mut file = File::options().read(true).write(write).open(path).at("open", path)?;
    let size = io::Seek::seek(&mut file, io::SeekFrom::End(0)).at("look at", path)?;
    if size == 0 {
        return Err(bad(path, "it is empty".to_owned()));
    }
    Ok((file, size))
}

pub(super) fn bad(path: &Path, why: String) -> DiskError {
    DiskError::Image { path: path.to_owned(), why }
}
