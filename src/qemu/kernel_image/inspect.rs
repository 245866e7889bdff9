//! What a profile's `kernel` is.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::elf::{self, ElfKind};
use super::release;
use super::setup_header::{HEADER_BYTES, SetupHeader};
use crate::foundation::path_error::PathContext;
use crate::qemu::error::QemuError;

/// Where a build tree has its kernel, in the order of preference.
const IN_X86_TREE: [&str; 3] = ["arch/x86/boot/bzImage", "arch/x86_64/boot/bzImage", "vmlinux"];
const IN_ARM64_TREE: [&str; 2] = ["arch/arm64/boot/Image", "arch/arm64/boot/vmlinuz.efi"];
/// Where an arm64 Image has its magic (Linux `Documentation/arch/arm64/booting.rst`).
const ARM64_MAGIC: usize = 56;
/// Where a compressed arm64 image (`vmlinuz.efi`) has its own (Linux `drivers/firmware/efi/libstub/zboot-header.S`).
const ZBOOT_MAGIC: usize = 4;

/// A kernel that QEMU can boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelImage {
    /// The file itself, also where a build tree was given.
    pub path: PathBuf,
    /// Its form.
    pub kind: KernelKind,
    /// What `uname -r` says, where it can be told.
    pub release: Option<String>,
}

/// The forms of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelKind {
    /// An x86 bzImage.
    BzImage(SetupHeader),
    /// An uncompressed x86-64 ELF kernel with a PVH note.
    Vmlinux,
    /// An uncompressed arm64 Image.
    Arm64Image,
}

/// What a kernel is looked for to run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arch {
    X86_64,
    Aarch64,
}

impl Arch {
    fn in_tree(self) -> &'static [&'static str] {
        match self {
            Self::X86_64 => &IN_X86_TREE,
            Self::Aarch64 => &IN_ARM64_TREE,
        }
    }

    fn expected(self) -> &'static str {
        match self {
            Self::X86_64 => "a bzImage, an ELF vmlinux with a PVH note (CONFIG_PVH), or a kernel build tree",
            Self::Aarch64 => "an arm64 Image or a kernel build tree",
        }
    }
}

fn not_a_kernel(path: &Path, found: &str, arch: Arch) -> QemuError {
    QemuError::Image(format!("`{}` is not a kernel: found {found}; expected {}", path.display(), arch.expected()))
}

/// Says what kernel `path` is, a file or a build tree, for guests of `arch` (`x86_64`, `aarch64`). Reads headers, and
/// of an uncompressed kernel as much as it takes to meet its banner.
///
/// # Errors
/// Nothing there, or something that is no kernel for `arch`: the message says what it looks like.
pub fn inspect(path: &Path, arch: &str) -> Result<KernelImage, QemuError> {
    let arch = if arch == "aarch64" { Arch::Aarch64 } else { Arch::X86_64 };
    let metadata = std::fs::metadata(path).at("read the kernel", path)?;
    let path = if metadata.is_dir() { in_build_tree(path, arch)? } else { path.to_owned() };
    let refuse = |found: &str| not_a_kernel(&path, found, arch);
    if !std::fs::metadata(&path).at("read the kernel", &path)?.is_file() {
        return Err(refuse("something that is no regular file"));
    }
    let mut file = File::open(&path).at("read the kernel", &path)?;
    let mut head = Vec::with_capacity(HEADER_BYTES);
    file.by_ref().take(HEADER_BYTES as u64).read_to_end(&mut head).at("read the kernel", &path)?;
    let kind = classify(&head, &file, arch).map_err(refuse)?;
    let release = match kind {
        KernelKind::BzImage(header) => bzimage_release(&mut file, header),
        KernelKind::Vmlinux | KernelKind::Arm64Image => {
            file.rewind().and_then(|()| release::from_banner(&file)).at("read the kernel", &path)?
        }
    };
    Ok(KernelImage { path, kind, release })
}

fn in_build_tree(directory: &Path, arch: Arch) -> Result<PathBuf, QemuError> {
    let places = arch.in_tree();
    places
        .iter()
        .map(|place| directory.join(place))
        .find(|path| path.is_file())
        .ok_or_else(|| not_a_kernel(directory, &format!("a directory without `{}`", places.join("` or `")), arch))
}

fn classify(head: &[u8], file: &File, arch: Arch) -> Result<KernelKind, &'static str> {
    let has = |at: usize, magic: &[u8]| head.get(at..at + magic.len()) == Some(magic);
    let is_arm64 = has(ARM64_MAGIC, b"ARM\x64") || (head.starts_with(b"MZ") && has(ZBOOT_MAGIC, b"zimg"));
    match arch {
        Arch::Aarch64 if is_arm64 => return Ok(KernelKind::Arm64Image),
        Arch::Aarch64 if SetupHeader::parse(head).is_some() => return Err("an x86 bzImage"),
        Arch::X86_64 if is_arm64 => return Err("an arm64 Image"),
        Arch::X86_64 => {
            if let Some(header) = SetupHeader::parse(head) {
                return Ok(KernelKind::BzImage(header));
            }
        }
        Arch::Aarch64 => {}
    }
    if !head.starts_with(b"\x7fELF") {
        return Err(looks_like(head));
    }
    let Ok(file) = file.try_clone() else { return Err("an ELF file") };
    match (elf::classify_file(file), arch) {
        (ElfKind::PvhKernel, Arch::X86_64) => Ok(KernelKind::Vmlinux),
        (ElfKind::PvhKernel | ElfKind::WithoutNote, Arch::Aarch64) => Err("an ELF file for x86-64"),
        (ElfKind::Program, _) => Err("an ELF program or library"),
        (ElfKind::WithoutNote, Arch::X86_64) => Err("an ELF file without a PVH note"),
        (ElfKind::Foreign, Arch::X86_64) => Err("an ELF file for another architecture"),
        (ElfKind::Foreign, Arch::Aarch64) => Err("an ELF file"),
        (ElfKind::Damaged, _) => Err("a damaged ELF file"),
    }
}

fn bzimage_release(file: &mut File, header: SetupHeader) -> Option<String> {
    // A bzImage without a readable release still boots; only modules can't be matched then.
    file.seek(SeekFrom::Start(header.release_offset?)).ok()?;
    let mut text = Vec::new();
    file.take(512).read_to_end(&mut text).ok()?;
    release::first_word(&text)
}

/// Names what a file's first bytes look like.
pub(in crate::qemu) fn looks_like(head: &[u8]) -> &'static str {
    const MAGICS: [(&[u8], &str); 10] = [
        (b"\x7fELF", "an ELF file"),
        (b"\x1f\x8b", "a gzip file"),
        (b"\xfd7zXZ\0", "an xz file"),
        (b"\x28\xb5\x2f\xfd", "a zstd file"),
        (b"\x02\x21\x4c\x18", "an lz4 file"),
        (b"BZh", "a bzip2 file"),
        (b"0707", "a cpio archive (an initrd?)"),
        (b"\x27\x05\x19\x56", "a U-Boot image"),
        (b"!<arch>\n", "an `ar` archive"),
        (b"MZ", "an EFI or DOS program"),
    ];
    if head.is_empty() {
        return "an empty file";
    }
    if let Some((_, name)) = MAGICS.iter().find(|(magic, _)| head.starts_with(magic)) {
        return name;
    }
    let sample = &head[..head.len().min(512)];
    let is_text = |byte: &u8| matches!(byte, b'\t' | b'\n' | b'\r' | 0x20..=0x7e);
    if sample.starts_with(b"#!") {
        "a script"
    } else if sample.iter().all(is_text) {
        "a text file"
    } else {
        "data of an unknown kind"
    }
}
