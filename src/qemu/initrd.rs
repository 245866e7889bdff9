//! The archive that stands in front of the user's initrd, and the file that QEMU is given.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::Path;

use super::error::QemuError;
use super::kernel_image::looks_like;
use crate::foundation::path_error::PathContext;

/// File types of `st_mode`.
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;

/// A file of the overlay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the root, without a leading slash.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Content.
    pub content: Vec<u8>,
}

/// The overlay as an uncompressed cpio archive ("newc", `Documentation/driver-api/early-userspace/buffer-format.rst`):
/// sorted, with all directories, owned by root, without times, so that the same entries give the same bytes.
///
/// # Errors
/// None that can happen in memory.
pub fn overlay(entries: &[Entry]) -> std::io::Result<Vec<u8>> {
    let mut all: BTreeMap<&str, Option<&Entry>> = BTreeMap::new();
    for entry in entries {
        for (at, _) in entry.path.match_indices('/') {
            all.entry(&entry.path[..at]).or_default();
        }
        all.insert(&entry.path, Some(entry));
    }
    let mut archive = Vec::new();
    for (number, (path, entry)) in (1..).zip(all) {
        let (mode, content): (u32, &[u8]) = match entry {
            Some(entry) => (REGULAR | entry.mode, &entry.content),
            None => (DIRECTORY | 0o755, &[]),
        };
        let header = cpio::newc::Builder::new(path).ino(number).mode(mode).nlink(1).mtime(0);
        let size = u32::try_from(content.len()).map_err(|_| std::io::Error::other("a file is larger than 4 GiB"))?;
        let mut writer = header.write(&mut archive, size);
        writer.write_all(content)?;
        writer.finish()?;
    }
    cpio::newc::trailer(&mut archive)?;
    // The kernel skips zeroes between archives; a compressed one must begin at a multiple of four.
    archive.resize(archive.len().next_multiple_of(512), 0);
    Ok(archive)
}

/// How archives and the compressions that kernels take begin (Linux `lib/decompress.c`).
const MAGICS: [&[u8]; 10] = [
    b"070701",
    b"070702",
    b"\x1f\x8b",
    b"\x1f\x9e",
    b"BZh",
    b"\x5d\x00",
    b"\xfd7",
    b"\x89\x4c",
    b"\x02\x21",
    b"\x28\xb5",
];

/// Opens an initrd and checks that it begins like one.
///
/// # Errors
/// Not there, or something else: the message says what it looks like.
pub fn open(path: &Path) -> Result<File, QemuError> {
    let bad = |found: &str| {
        QemuError::Image(format!(
            "`{}` is not an initrd: found {found}; expected a cpio archive, as it is or compressed (gzip, bzip2, lzma, xz, \
             lzo, lz4, zstd)",
            path.display()
        ))
    };
    let mut file = File::open(path).at("open", path)?;
    if !file.metadata().at("look at", path)?.is_file() {
        return Err(bad("something that is no regular file"));
    }
    let mut head = Vec::new();
    Read::by_ref(&mut file).take(4096).read_to_end(&mut head).at("read", path)?;
    // The kernel skips zeroes in front of an archive.
    let begin = head.iter().position(|byte| *byte != 0).unwrap_or(0);
    let fine = head.get(begin) == Some(&0) || MAGICS.iter().any(|magic| head[begin..].starts_with(magic));
    if !fine {
        return Err(bad(looks_like(&head)));
    }
    file.rewind().at("read", path)?;
    Ok(file)
}

/// Writes the overlay, then the user's initrd, to `to`.
///
/// # Errors
/// An initrd that can't be read or is none, a file that can't be written.
pub fn write(overlay: &[u8], user: Option<&Path>, to: &Path) -> Result<(), QemuError> {
    let user = user.map(open).transpose()?;
    let mut file = File::create(to).at("create", to)?;
    file.write_all(overlay).at("write", to)?;
    if let Some(mut user) = user {
        std::io::copy(&mut user, &mut file).at("copy the initrd to", to)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_overlay_holds_directories_and_is_reproducible() {
        let entry = |path: &str| Entry { path: path.to_owned(), mode: 0o755, content: path.into() };
        let (one, two) = (entry(".provium/modules/a.ko"), entry(".provium/boot"));
        let archive = overlay(&[one.clone(), two.clone()]).unwrap();
        assert_eq!(archive, overlay(&[two, one]).unwrap());
        assert_eq!(archive.len() % 4, 0);
        let mut reader = std::io::Cursor::new(archive);
        let mut names = Vec::new();
        loop {
            let entry = cpio::newc::Reader::new(reader).unwrap();
            if entry.entry().is_trailer() {
                break;
            }
            names.push((entry.entry().name().to_owned(), entry.entry().mode()));
            reader = entry.finish().unwrap();
        }
        let expected = [
            (".provium", DIRECTORY | 0o755),
            (".provium/boot", REGULAR | 0o755),
            (".provium/modules", DIRECTORY | 0o755),
            (".provium/modules/a.ko", REGULAR | 0o755),
        ];
        assert_eq!(names, expected.map(|(name, mode)| (name.to_owned(), mode)));
    }

    #[test]
    fn what_is_no_initrd_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (file, to) = (dir.path().join("file"), dir.path().join("to"));
        let refused = |content: &[u8]| {
            std::fs::write(&file, content).unwrap();
            write(b"x", Some(&file), &to).unwrap_err().to_string()
        };
        assert!(refused(b"").contains("found an empty file"));
        assert!(refused(b"root:x:0").contains("found a text file; expected a cpio archive"));
        assert!(refused(b"\x7fELF").contains("found an ELF file"));
        assert!(write(b"x", Some(dir.path()), &to).unwrap_err().to_string().contains("no regular file"));
        assert!(write(b"x", Some(Path::new("/no/initrd")), &to).unwrap_err().to_string().contains("/no/initrd"));
        assert!(!to.exists());
    }

    #[test]
    fn an_initrd_follows_the_overlay_byte_for_byte() {
        let dir = tempfile::tempdir().unwrap();
        let (file, to) = (dir.path().join("file"), dir.path().join("to"));
        for begin in MAGICS.into_iter().chain([&[0_u8; 8192] as &[u8], b"\0\0\0\0\x30\x37\x30\x37\x30\x31"]) {
            std::fs::write(&file, [begin, b"rest"].concat()).unwrap();
            write(b"overlay", Some(&file), &to).unwrap();
            assert_eq!(std::fs::read(&to).unwrap(), [b"overlay", begin, b"rest"].concat());
        }
    }
}
