//! Files of the host on their way to a guest and back. The blocking calls are made on threads that may block.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::foundation::path_error::{PathContext, PathError};

/// How much is read at once, in bytes.
const READ: usize = 1024 * 1024;

/// Does what blocks.
async fn blocking<T: Send + 'static>(
    act: impl FnOnce() -> Result<T, PathError> + Send + 'static,
) -> Result<T, PathError> {
    match tokio::task::spawn_blocking(act).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// A file that is being read.
pub struct HostFile {
    path: PathBuf,
    file: Option<File>,
    /// Its permission bits.
    pub mode: u32,
}

impl HostFile {
    /// Opens it.
    ///
    /// # Errors
    /// A file that can't be read, a directory.
    pub async fn open(path: PathBuf) -> Result<Self, PathError> {
        blocking(move || {
            let file = File::open(&path).at("read", &path)?;
            let found = file.metadata().at("read", &path)?;
            if found.is_dir() {
                return Err(io::Error::from_raw_os_error(libc::EISDIR)).at("read", &path);
            }
            Ok(Self { file: Some(file), mode: found.mode() & 0o7777, path })
        })
        .await
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// A file that can't be read.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, PathError> {
        let Some(mut file) = self.file.take() else { return Ok(None) };
        let path = self.path.clone();
        let (file, bytes) = blocking(move || {
            let mut bytes = Vec::with_capacity(READ);
            let limit = u64::try_from(READ).unwrap_or(u64::MAX);
            Read::by_ref(&mut file).take(limit).read_to_end(&mut bytes).at("read", &path)?;
            Ok((file, bytes))
        })
        .await?;
        if bytes.is_empty() {
            return Ok(None);
        }
        self.file = Some(file);
        Ok(Some(bytes))
    }
}

/// A file that is being written under another name.
pub struct NewFile {
    path: PathBuf,
    file: tempfile::NamedTempFile,
}

impl NewFile {
    /// Begins it; the directories above it are made.
    ///
    /// # Errors
    /// A place that can't be written to.
    pub async fn create(path: PathBuf, mode: u32) -> Result<Self, PathError> {
        blocking(move || {
            let directory = path.parent().unwrap_or(Path::new("."));
            std::fs::create_dir_all(directory).at("create", directory)?;
            match std::fs::metadata(&path) {
                Ok(found) if found.is_dir() => {
                    return Err(io::Error::from_raw_os_error(libc::EISDIR)).at("write", &path);
                }
                // A new file in the place of a device would be no help to anybody.
                Ok(found) if !found.is_file() => return Err(io::Error::other("not a regular file")).at("write", &path),
                _ => {}
            }
            let permissions = std::fs::Permissions::from_mode(mode);
            let file = tempfile::Builder::new().permissions(permissions).tempfile_in(directory).at("write", &path)?;
            Ok(Self { path, file })
        })
        .await
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// A full disk, for example.
    pub async fn add(mut self, bytes: Vec<u8>) -> Result<Self, PathError> {
        blocking(move || {
            self.file.write_all(&bytes).at("write", &self.path)?;
            Ok(self)
        })
        .await
    }

    /// Puts it in its place.
    ///
    /// # Errors
    /// A place that can't be written to.
    pub async fn finish(self) -> Result<(), PathError> {
        blocking(move || self.file.persist(&self.path).map(drop).map_err(|error| error.error).at("write", &self.path))
            .await
    }
}

/// One thing in a directory tree; `below` is its path below the tree's root.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry {
    /// A directory; it comes before what is in it.
    Directory {
        /// Where.
        below: PathBuf,
        /// Permission bits.
        mode: u32,
    },
    /// A symbolic link.
    Link {
        /// Where.
        below: PathBuf,
        /// What it says.
        target: Vec<u8>,
    },
    /// A regular file.
    File {
        /// The file.
        host: PathBuf,
        /// Where.
        below: PathBuf,
    },
}

/// Everything in a directory, the directory itself first.
///
/// # Errors
/// What can't be read; something that is neither file, directory nor link.
pub async fn walk(root: PathBuf) -> Result<Vec<Entry>, PathError> {
    blocking(move || {
        let found = std::fs::metadata(&root).at("read", &root)?;
        if !found.is_dir() {
            return Err(io::Error::from_raw_os_error(libc::ENOTDIR)).at("read", &root);
        }
        let mut entries = vec![Entry::Directory { below: PathBuf::new(), mode: found.mode() & 0o7777 }];
        walk_below(&root, Path::new(""), &mut entries)?;
        Ok(entries)
    })
    .await
}

fn walk_below(root: &Path, below: &Path, entries: &mut Vec<Entry>) -> Result<(), PathError> {
    let directory = root.join(below);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&directory).at("read", &directory)? {
        names.push(entry.at("read", &directory)?.file_name());
    }
    names.sort();
    for name in names {
        let (host, below) = (directory.join(&name), below.join(&name));
        let found = std::fs::symlink_metadata(&host).at("read", &host)?;
        if found.is_dir() {
            entries.push(Entry::Directory { below: below.clone(), mode: found.mode() & 0o7777 });
            walk_below(root, &below, entries)?;
        } else if found.is_symlink() {
            let target = std::fs::read_link(&host).at("read", &host)?.into_os_string().into_vec();
            entries.push(Entry::Link { below, target });
        } else if found.is_file() {
            entries.push(Entry::File { host, below });
        } else {
            let why = io::Error::other("neither a file, a directory nor a symbolic link");
            return Err(why).at("copy", &host);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_tree_comes_in_order_and_without_sockets() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("b/c")).unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o750)).unwrap();
        std::fs::set_permissions(at("b"), std::fs::Permissions::from_mode(0o2711)).unwrap();
        std::fs::set_permissions(at("b/c"), std::fs::Permissions::from_mode(0o700)).unwrap();
        std::fs::write(at("b/file"), "x").unwrap();
        std::os::unix::fs::symlink("../nowhere", at("a")).unwrap();
        let entries = walk(dir.path().to_owned()).await.unwrap();
        assert_eq!(
            entries,
            [
                Entry::Directory { below: PathBuf::new(), mode: 0o750 },
                Entry::Link { below: "a".into(), target: b"../nowhere".to_vec() },
                Entry::Directory { below: "b".into(), mode: 0o2711 },
                Entry::Directory { below: "b/c".into(), mode: 0o700 },
                Entry::File { host: at("b/file"), below: "b/file".into() },
            ]
        );
        let _socket = std::os::unix::net::UnixListener::bind(at("b/c/socket")).unwrap();
        let error = walk(dir.path().to_owned()).await.unwrap_err();
        assert!(error.to_string().contains("b/c/socket"), "{error}");
        assert!(walk(at("b/file")).await.unwrap_err().to_string().contains("not a directory"));
    }

    #[tokio::test]
    async fn a_new_file_appears_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/er/file");
        let file = NewFile::create(path.clone(), 0o640).await.unwrap();
        let file = file.add(b"one".to_vec()).await.unwrap();
        assert!(!path.exists());
        file.add(b"two".to_vec()).await.unwrap().finish().await.unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"onetwo");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777 | 0o022, 0o640 | 0o022);
        let mut reading = HostFile::open(path.clone()).await.unwrap();
        assert_eq!(reading.next().await.unwrap().unwrap(), b"onetwo");
        assert_eq!(reading.next().await.unwrap(), None);
        assert!(NewFile::create(dir.path().join("deep"), 0o600).await.is_err());
        assert!(HostFile::open(dir.path().to_owned()).await.is_err());
    }
}
