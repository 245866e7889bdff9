//! A file that appears whole or not at all.
//!
//! Its content collects in a nameless file in the same directory, which vanishes with the process however that ends. At the
//! end it is copied into a named one that is moved into place.

use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::error::ReporterError;
use crate::foundation::path_error::{PathContext, PathError};

/// What will be the file.
pub(super) struct Spool {
    target: PathBuf,
    content: BufWriter<File>,
}

impl Spool {
    /// Prepares to write `path`, the file of `what`; an old file there stays until the end.
    ///
    /// # Errors
    /// When the directory does not exist or is not writable, or when `path` can't be a file.
    pub(super) fn create(what: &'static str, path: &Path) -> Result<Self, ReporterError> {
        // Through a link, so that the file it points to is replaced and not the link.
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        if target.file_name().is_none() || target.is_dir() || path.as_os_str().to_string_lossy().ends_with('/') {
            return Err(ReporterError::FileName { what, path: path.to_owned() });
        }
        let directory = if is_special(&target) { std::env::temp_dir() } else { directory_of(&target) };
        let content = tempfile::tempfile_in(&directory)
            .at("write to", &directory)
            .map_err(|error| ReporterError::Directory { what, error })?;
        Ok(Self { target, content: BufWriter::new(content) })
    }

    /// The file's path.
    pub(super) fn target(&self) -> &Path {
        &self.target
    }

    /// Makes it the file.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn put_in_place(&mut self) -> Result<(), PathError> {
        self.content.flush().at("write", &self.target)?;
        let content = self.content.get_mut();
        content.rewind().at("write", &self.target)?;
        if is_special(&self.target) {
            let mut target = File::options().write(true).open(&self.target).at("open", &self.target)?;
            return io::copy(content, &mut target).map(|_| ()).at("write", &self.target);
        }
        let mut whole = tempfile::Builder::new()
            .prefix(".provium-")
            // Less the umask, as for any file that a program writes.
            .permissions(fs::Permissions::from_mode(0o666))
            .tempfile_in(directory_of(&self.target))
            .at("create", &self.target)?;
        io::copy(content, whole.as_file_mut()).at("write", &self.target)?;
        whole.as_file().sync_all().at("write", &self.target)?;
        whole.persist(&self.target).map(|_| ()).map_err(|error| error.error).at("create", &self.target)
    }
}

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.content.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.content.flush()
    }
}

/// A pipe or device, which can't be replaced.
fn is_special(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| !found.is_file())
}

fn directory_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}
