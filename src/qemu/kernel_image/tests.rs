//! Kernel files made up here, and whatever bytes proptest finds.

use std::io::Write;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::elf::{ElfKind, classify};
use super::extract::unpack;
use super::setup_header::{HEADER_BYTES, SetupHeader};
use super::*;

const X86: &str = "x86_64";
const ARM: &str = "aarch64";

/// An ELF64 file with one note segment that holds one note.
pub(super) fn elf_with_note(machine: u16, name: &[u8; 4], kind: u32) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend_from_slice(&2_u16.to_le_bytes());
    file.extend_from_slice(&machine.to_le_bytes());
    file.extend_from_slice(&1_u32.to_le_bytes());
    file.extend_from_slice(&0_u64.to_le_bytes());
    // Program headers at 64, no section headers.
    file.extend_from_slice(&64_u64.to_le_bytes());
    file.extend_from_slice(&0_u64.to_le_bytes());
    file.extend_from_slice(&0_u32.to_le_bytes());
    for half in [64_u16, 56, 1, 64, 0, 0] {
        file.extend_from_slice(&half.to_le_bytes());
    }
    file.extend_from_slice(&4_u32.to_le_bytes());
    file.extend_from_slice(&4_u32.to_le_bytes());
    for word in [120_u64, 0, 0, 20, 20, 4] {
        file.extend_from_slice(&word.to_le_bytes());
    }
    for word in [4_u32, 4, kind] {
        file.extend_from_slice(&word.to_le_bytes());
    }
    file.extend_from_slice(name);
    file.extend_from_slice(&[0; 4]);
    file
}

fn vmlinux() -> Vec<u8> {
    let mut file = elf_with_note(62, b"Xen\0", 18);
    file.extend_from_slice(b"Linux version %s (%s)\0Linux version 6.12.0-made-up (me) #1\0");
    file
}

fn bzimage(payload: &[u8]) -> Vec<u8> {
    let mut file = vec![0; 1024];
    file[0x1f1] = 1;
    file[0x1fe..0x200].copy_from_slice(&[0x55, 0xAA]);
    file[0x202..0x206].copy_from_slice(b"HdrS");
    file[0x206..0x208].copy_from_slice(&0x020f_u16.to_le_bytes());
    file[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
    file[0x300..0x310].copy_from_slice(b"6.1.0-bz (me) #1");
    file[0x248..0x24c].copy_from_slice(&16_u32.to_le_bytes());
    file[0x24c..0x250].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
    file.extend_from_slice(&[0; 16]);
    file.extend_from_slice(payload);
    file.extend_from_slice(b"and more behind it");
    file
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn tells_the_forms_apart() {
    let dir = tempfile::tempdir().unwrap();
    let bz = inspect(&write(dir.path(), "bz", &bzimage(b"x")), X86).unwrap();
    assert!(matches!(bz.kind, KernelKind::BzImage(_)));
    assert_eq!(bz.release.as_deref(), Some("6.1.0-bz"));
    let vm = inspect(&write(dir.path(), "vm", &vmlinux()), X86).unwrap();
    assert_eq!(vm.kind, KernelKind::Vmlinux);
    assert_eq!(vm.release.as_deref(), Some("6.12.0-made-up"));
    let mut image = vec![0; 64];
    image[56..60].copy_from_slice(b"ARM\x64");
    let arm = inspect(&write(dir.path(), "arm", &image), ARM).unwrap();
    assert_eq!((arm.kind, arm.release), (KernelKind::Arm64Image, None));
    let packed = inspect(&write(dir.path(), "zboot", b"MZ\0\0zimg and more"), ARM).unwrap();
    assert_eq!(packed.kind, KernelKind::Arm64Image);
}

#[test]
fn a_build_tree_is_searched() {
    let dir = tempfile::tempdir().unwrap();
    let vmlinux = write(dir.path(), "vmlinux", &vmlinux());
    assert_eq!(inspect(dir.path(), X86).unwrap().path, vmlinux);
    let bz = write(dir.path(), "arch/x86/boot/bzImage", &bzimage(b"x"));
    assert_eq!(inspect(dir.path(), X86).unwrap().path, bz);
    let text = inspect(dir.path(), ARM).unwrap_err().to_string();
    assert!(text.contains("a directory without `arch/arm64/boot/Image`"), "{text}");
}

#[test]
fn says_what_it_found_instead() {
    let dir = tempfile::tempdir().unwrap();
    let mut image = vec![0; 64];
    image[56..60].copy_from_slice(b"ARM\x64");
    let cases: [(&[u8], &str); 11] = [
        (b"", "an empty file"),
        (b"\x1f\x8b\x08rest", "a gzip file"),
        (b"#!/bin/sh\n", "a script"),
        (b"hello\n", "a text file"),
        (b"\0\x01\x02", "data of an unknown kind"),
        (b"070701000", "a cpio archive (an initrd?)"),
        (b"\x7fELF", "a damaged ELF file"),
        (&elf_with_note(62, b"GNU\0", 18), "an ELF file without a PVH note"),
        (&elf_with_note(62, b"Xen\0", 1), "an ELF file without a PVH note"),
        (&elf_with_note(183, b"Xen\0", 18), "an ELF file for another architecture"),
        (&image, "an arm64 Image"),
    ];
    for (bytes, words) in cases {
        let path = write(dir.path(), "kernel", bytes);
        let text = inspect(&path, X86).unwrap_err().to_string();
        let start = format!("`{}` is not a kernel: found {words}; expected a bzImage, ", path.display());
        assert!(text.starts_with(&start), "{text}");
    }
    let text = inspect(Path::new("/nonexistent/bzImage"), X86).unwrap_err().to_string();
    assert_eq!(text, "can't read the kernel `/nonexistent/bzImage`: no such file or directory");
    let text = inspect(dir.path(), X86).unwrap_err().to_string();
    assert!(text.contains("found a directory without"), "{text}");
    let text = inspect(Path::new("/bin/sh"), X86).unwrap_err().to_string();
    assert!(text.contains("found an ELF program"), "{text}");
    let text = inspect(Path::new("/dev/null"), X86).unwrap_err().to_string();
    assert!(text.contains("no regular file"), "{text}");
}

fn compressed(vmlinux: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(vmlinux).unwrap();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(vmlinux).unwrap();
    let block = lz4_flex::block::compress(vmlinux);
    let mut lz4 = b"\x02\x21\x4c\x18".to_vec();
    for _ in 0..2 {
        lz4.extend_from_slice(&u32::try_from(block.len()).unwrap().to_le_bytes());
        lz4.extend_from_slice(&block);
    }
    let mut all = vec![
        ("gzip", gzip.finish().unwrap()),
        ("xz", xz.finish().unwrap()),
        ("zstd", zstd::stream::encode_all(vmlinux, 1).unwrap()),
        ("lz4", lz4),
        ("none", vmlinux.to_vec()),
    ];
    // The build appends the unpacked length.
    all.iter_mut().for_each(|(_, bytes)| bytes.extend_from_slice(&0x0123_4567_u32.to_le_bytes()));
    all
}

#[test]
fn unpacks_every_compression_once() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    let vmlinux = vmlinux();
    for (name, payload) in compressed(&vmlinux) {
        let image = inspect(&write(dir.path(), name, &bzimage(&payload)), X86).unwrap();
        let Extracted::Vmlinux(first) = extract_vmlinux(&image, &cache).unwrap() else { panic!("{name}") };
        let bytes = std::fs::read(&first).unwrap();
        assert!(bytes.starts_with(&vmlinux), "{name}");
        std::fs::write(&first, b"still there").unwrap();
        assert_eq!(extract_vmlinux(&image, &cache).unwrap(), Extracted::Vmlinux(first.clone()));
        assert_eq!(std::fs::read(first).unwrap(), b"still there", "{name} was unpacked twice");
    }
    assert_eq!(std::fs::read_dir(cache).unwrap().count(), 5);
}

#[test]
fn what_is_old_or_unfinished_goes() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    let aged = |name: &str, hours: u64| {
        let path = write(&cache, name, b"");
        let at = std::time::SystemTime::now() - std::time::Duration::from_secs(hours * 3600);
        std::fs::File::options().append(true).open(&path).unwrap().set_modified(at).unwrap();
        path
    };
    let old: Vec<PathBuf> = (0..10).map(|number| aged(&format!("vmlinux-old-{number}"), 10 + number)).collect();
    let (dead, young) = (aged(".unfinished-dead", 1), aged(".unfinished-young", 0));
    let held = aged(".unfinished-held", 1);
    let holder = std::fs::File::open(&held).unwrap();
    holder.lock().unwrap();
    let image = inspect(&write(dir.path(), "bz", &bzimage(&vmlinux())), X86).unwrap();
    let Extracted::Vmlinux(new) = extract_vmlinux(&image, &cache).unwrap() else { panic!("not unpacked") };
    let there = |path: &PathBuf| path.exists();
    assert!(there(&new) && there(&held) && there(&young) && !there(&dead));
    let kept: Vec<bool> = old.iter().map(there).collect();
    assert_eq!(kept, [true, true, true, true, true, true, true, false, false, false]);
}

#[test]
fn says_why_it_boots_as_given() {
    let dir = tempfile::tempdir().unwrap();
    let without_note = zstd::stream::encode_all(&elf_with_note(62, b"GNU\0", 1)[..], 1).unwrap();
    let cases: [(&[u8], &str); 4] = [
        (b"BZh9", "a bzip2 file"),
        (&[0x1f, 0x8b, 8, 0, 0], "can't be unpacked"),
        (&without_note, "no PVH note"),
        (b"", "older than 2.08"),
    ];
    for (payload, words) in cases {
        let image = inspect(&write(dir.path(), "k", &bzimage(payload)), X86).unwrap();
        let Extracted::AsGiven { reason } = extract_vmlinux(&image, &dir.path().join("cache")).unwrap() else {
            panic!("{words}")
        };
        assert!(reason.contains(words), "{reason}");
    }
    assert!(!dir.path().join("cache").exists());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_panic(head in 0_usize..8, mut bytes: Vec<u8>, position in 0_usize..0x300, patch: [u8; 8]) {
        let prefix: &[&[u8]] = &[
            b"", b"\x7fELF\x02\x01\x01", b"\x1f\x8b\x08", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"\x02\x21\x4c\x18", b"MZ", b"#!",
        ];
        bytes.splice(0..0, prefix[head].iter().copied());
        let _ = unpack(&bytes);
        let mut elf = elf_with_note(62, b"Xen\0", 18);
        for (at, byte) in (position % elf.len()..elf.len()).zip(patch) {
            elf[at] = byte;
        }
        let _ = classify(elf.as_slice());
        let mut bz = bzimage(&bytes);
        bz[position..position + 8].copy_from_slice(&patch);
        let _ = SetupHeader::parse(&bz);
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in [("raw", &bytes), ("elf", &elf), ("bz", &bz)] {
            for arch in [X86, ARM] {
                if let Ok(image) = inspect(&write(dir.path(), name, content), arch) {
                    let _ = extract_vmlinux(&image, &dir.path().join("cache"));
                }
            }
        }
    }
}

#[test]
fn the_header_lies_within_what_is_read() {
    const { assert!(HEADER_BYTES >= 0x250) };
    assert_eq!(classify(&b""[..]), ElfKind::Damaged);
}
