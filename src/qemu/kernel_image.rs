//! What a kernel file is, and which release it says it is.
//!
//! bzImage: `Documentation/arch/x86/boot.rst`. arm64 Image: `Documentation/arch/arm64/booting.rst`. PVH: the ELF note
//! `XEN_ELFNOTE_PHYS32_ENTRY` of Xen's `include/public/elfnote.h`.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::error::QemuError;
use crate::foundation::path_error::describe_io;

/// Where a bzImage says that it is one.
const BOOT_FLAG: usize = 0x1fe;
const HEADER_MAGIC: usize = 0x202;
/// Where it points to its release, from 0x200 on.
const KERNEL_VERSION: usize = 0x20e;
/// Where an arm64 Image says that it is one.
const ARM64_MAGIC: usize = 0x38;
/// What is read of a file to tell what it is, in bytes.
const HEAD: usize = 64 * 1024;
/// Kernels inside a build tree, best first.
const IN_TREE: [&str; 3] = ["arch/x86/boot/bzImage", "arch/arm64/boot/Image", "vmlinux"];

/// The kinds of kernel that QEMU boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelKind {
    /// Linux on x86, compressed, with its own loader.
    BzImage,
    /// An ELF file, entered through PVH.
    Elf,
    /// Linux on arm64.
    Arm64Image,
}

/// A kernel that can be booted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelImage {
    /// The file.
    pub path: PathBuf,
    /// What it is.
    pub kind: KernelKind,
    /// Its release (`uname -r`), where the file tells.
    pub release: Option<String>,
}

/// Looks at a kernel file, or at the kernel in a build tree.
///
/// # Errors
/// Nothing there, or something that is no kernel: the message says what it looks like.
pub fn inspect(path: &Path) -> Result<KernelImage, QemuError> {
    let bad = |why: String| QemuError::Image(why);
    let file = std::fs::metadata(path)
        .map_err(|error| bad(format!("can't use `{}`: {}", path.display(), describe_io(&error))))?;
    if file.is_dir() {
        let inside = IN_TREE.iter().map(|name| path.join(name)).find(|candidate| candidate.is_file());
        return match inside {
            Some(found) => inspect(&found),
            None => Err(bad(format!(
                "`{}` is a directory without a kernel: expected one of {} in it",
                path.display(),
                IN_TREE.join(", ")
            ))),
        };
    }
    let (head, release_at) =
        read_head(path).map_err(|error| bad(format!("can't read `{}`: {}", path.display(), describe_io(&error))))?;
    match kind_of(&head) {
        Some(kind) => Ok(KernelImage { path: path.to_owned(), kind, release: release_at }),
        None => Err(bad(format!(
            "`{}` is not a kernel: found {}, expected a bzImage, a PVH/ELF vmlinux or an arm64 Image",
            path.display(),
            looks_like(&head)
        ))),
    }
}

fn read_head(path: &Path) -> std::io::Result<(Vec<u8>, Option<String>)> {
    let mut file = File::open(path)?;
    let mut head = Vec::new();
    Read::by_ref(&mut file).take(HEAD as u64).read_to_end(&mut head)?;
    let release = match release_offset(&head) {
        Some(offset) => {
            let mut text = vec![0; 256];
            file.seek(SeekFrom::Start(offset))?;
            let count = file.read(&mut text)?;
            release_in(&text[..count])
        }
        None => None,
    };
    Ok((head, release))
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

fn kind_of(head: &[u8]) -> Option<KernelKind> {
    if word(head, BOOT_FLAG) == Some(0xaa55) && head.get(HEADER_MAGIC..HEADER_MAGIC + 4) == Some(b"HdrS") {
        return Some(KernelKind::BzImage);
    }
    if head.get(ARM64_MAGIC..ARM64_MAGIC + 4) == Some(b"ARM\x64") {
        return Some(KernelKind::Arm64Image);
    }
    // A kernel is linked to an address; a program or a shared library is something else.
    let executable = word(head, 16) == Some(2);
    let machine = matches!(word(head, 18), Some(3 | 62 | 183));
    let interpreted = has_interpreter(head);
    (head.starts_with(b"\x7fELF") && executable && machine && !interpreted).then_some(KernelKind::Elf)
}

/// Whether the program headers (64-bit) name an interpreter: then it is a program for an operating system.
fn has_interpreter(head: &[u8]) -> bool {
    let Some(offset) = head.get(32..40).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes) else {
        return false;
    };
    let (Some(size), Some(count)) = (word(head, 54), word(head, 56)) else { return false };
    let Ok(offset) = usize::try_from(offset) else { return false };
    (0..usize::from(count)).any(|index| {
        let at = index.checked_mul(usize::from(size)).and_then(|step| offset.checked_add(step));
        at.and_then(|at| head.get(at..at.checked_add(4)?)) == Some(&[3, 0, 0, 0])
    })
}

fn release_offset(head: &[u8]) -> Option<u64> {
    if kind_of(head) != Some(KernelKind::BzImage) {
        return None;
    }
    match word(head, KERNEL_VERSION)? {
        0 => None,
        offset => Some(u64::from(offset) + 0x200),
    }
}

/// The release in a text such as `6.1.0-56-cloud-amd64 (debian-kernel@…) #1 SMP …`.
fn release_in(text: &[u8]) -> Option<String> {
    let end = text.iter().position(|byte| *byte == 0)?;
    let text = std::str::from_utf8(&text[..end]).ok()?;
    text.split_whitespace().next().map(str::to_owned)
}

fn looks_like(head: &[u8]) -> &'static str {
    match head {
        [] => "an empty file",
        [0x7f, b'E', b'L', b'F', ..] => "an ELF program or library",
        [0x1f, 0x8b, ..] => "a gzip file",
        [0xfd, b'7', b'z', b'X', b'Z', ..] => "an xz file",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "a zstd file",
        [b'0', b'7', b'0', b'7', b'0', ..] => "a cpio archive (an initrd?)",
        [b'#', b'!', ..] => "a script",
        text if std::str::from_utf8(text).is_ok_and(|text| !text.contains('\0')) => "a text file",
        _ => "data of an unknown kind",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bz_image() -> Vec<u8> {
        let mut image = vec![0; 0x1000];
        image[BOOT_FLAG..BOOT_FLAG + 2].copy_from_slice(&[0x55, 0xaa]);
        image[HEADER_MAGIC..HEADER_MAGIC + 4].copy_from_slice(b"HdrS");
        image[KERNEL_VERSION..KERNEL_VERSION + 2].copy_from_slice(&0x400_u16.to_le_bytes());
        image[0x600..0x600 + 18].copy_from_slice(b"6.1.0-test (me) #1");
        image
    }

    fn look(content: &[u8]) -> Result<KernelImage, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kernel");
        std::fs::write(&path, content).unwrap();
        inspect(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn a_bz_image_tells_its_release() {
        let image = look(&bz_image()).unwrap();
        assert_eq!((image.kind, image.release.as_deref()), (KernelKind::BzImage, Some("6.1.0-test")));
    }

    #[test]
    fn what_is_no_kernel_is_told_apart() {
        let program = std::fs::read("/bin/true").unwrap();
        let cases: [(&[u8], &str); 5] = [
            (b"", "an empty file"),
            (b"hello\n", "a text file"),
            (b"070701", "a cpio archive"),
            (&[0x1f, 0x8b, 8], "a gzip file"),
            (&program, "an ELF program"),
        ];
        for (content, what) in cases {
            let text = look(content).unwrap_err();
            assert!(text.contains(what) && text.contains("is not a kernel"), "{text}");
        }
        let text = inspect(Path::new("/no/such/kernel")).unwrap_err().to_string();
        assert!(text.contains("/no/such/kernel") && text.contains("no such file"), "{text}");
    }

    #[test]
    fn a_build_tree_holds_its_kernel() {
        let dir = tempfile::tempdir().unwrap();
        assert!(inspect(dir.path()).unwrap_err().to_string().contains("a directory without a kernel"));
        let path = dir.path().join("arch/x86/boot/bzImage");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bz_image()).unwrap();
        assert_eq!(inspect(dir.path()).unwrap().path, path);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(mut bytes in prop::collection::vec(any::<u8>(), 0..2048), elf in any::<bool>()) {
            if elf && bytes.len() > 4 {
                bytes[..4].copy_from_slice(b"\x7fELF");
            }
            let _ = kind_of(&bytes);
            let _ = release_offset(&bytes);
            let _ = release_in(&bytes);
            let _ = looks_like(&bytes);
        }
    }
}
