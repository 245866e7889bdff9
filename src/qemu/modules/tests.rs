//! Release directories made up here.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::*;

const RELEASE: &str = "6.1.0-test";

/// A relocatable ELF64 file whose only content is `.modinfo`.
fn module(depends: &str, release: &str) -> Vec<u8> {
    let names = b"\0.modinfo\0.shstrtab\0";
    let info = format!("license=GPL\0depends={depends}\0vermagic={release} SMP preempt \0");
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    for half in [1_u16, 62] {
        file.extend_from_slice(&half.to_le_bytes());
    }
    file.extend_from_slice(&1_u32.to_le_bytes());
    let sections_at = 64 + names.len() + info.len();
    for word in [0, 0, sections_at as u64] {
        file.extend_from_slice(&word.to_le_bytes());
    }
    file.extend_from_slice(&0_u32.to_le_bytes());
    for half in [64_u16, 56, 0, 64, 3, 2] {
        file.extend_from_slice(&half.to_le_bytes());
    }
    file.extend_from_slice(names);
    file.extend_from_slice(info.as_bytes());
    for (name, kind, at, length) in
        [(0_u32, 0_u32, 0, 0), (1, 1, 64 + names.len(), info.len()), (10, 3, 64, names.len())]
    {
        file.extend_from_slice(&name.to_le_bytes());
        file.extend_from_slice(&kind.to_le_bytes());
        // flags, address, offset, size, link and info, alignment, entry size
        for word in [0, 0, at as u64, length as u64, 0, 1, 0] {
            file.extend_from_slice(&u64::to_le_bytes(word));
        }
    }
    file
}

fn write(directory: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = directory.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, bytes).unwrap();
    path
}

/// virtio_console needs virtio and virtio-ring; virtio-ring is built in; virtio is compressed.
fn release(root: &Path) -> PathBuf {
    let directory = root.join("lib/modules").join(RELEASE);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&module("", RELEASE)).unwrap();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(&module("virtio", RELEASE)).unwrap();
    let zstd = zstd::stream::encode_all(&module("virtio,virtio_pci_modern_dev", RELEASE)[..], 1).unwrap();
    write(&directory, "kernel/drivers/virtio/virtio.ko.gz", &gzip.finish().unwrap());
    write(&directory, "kernel/drivers/virtio/virtio_pci_modern_dev.ko.xz", &xz.finish().unwrap());
    write(&directory, "kernel/drivers/virtio/virtio_pci.ko.zst", &zstd);
    write(&directory, "kernel/drivers/char/virtio_console.ko", &module("virtio_ring,virtio", RELEASE));
    write(&directory, "kernel/drivers/char/hw_random/virtio-rng.ko", &module("virtio", RELEASE));
    write(&directory, "modules.builtin", b"kernel/drivers/virtio/virtio-ring.ko\n");
    directory
}

fn wanted() -> Vec<Wanted> {
    vec![
        Wanted::required("virtio_pci"),
        Wanted::required("virtio-console"),
        Wanted::required("virtio_ring"),
        Wanted::optional("virtio_rng"),
        Wanted::optional("pvpanic_mmio"),
    ]
}

fn names(directory: &Path) -> Vec<String> {
    let modules = load_order(directory, Some(RELEASE), &wanted()).unwrap().modules;
    assert!(modules.iter().all(|module| module.bytes.starts_with(b"\x7fELF")));
    modules.into_iter().map(|module| module.name).collect()
}

#[test]
fn dependencies_come_first_whoever_tells_them() {
    let dir = tempfile::tempdir().unwrap();
    let directory = release(dir.path());
    let expected = ["virtio", "virtio_pci_modern_dev", "virtio_pci", "virtio_console", "virtio_rng"];
    assert_eq!(names(&directory), expected);
    // depmod lists all of a module's dependencies, the nearest first.
    let listed = "kernel/drivers/virtio/virtio.ko.gz:\n\
        kernel/drivers/virtio/virtio_pci_modern_dev.ko.xz: kernel/drivers/virtio/virtio.ko.gz\n\
        kernel/drivers/virtio/virtio_pci.ko.zst: kernel/drivers/virtio/virtio_pci_modern_dev.ko.xz kernel/drivers/virtio/virtio.ko.gz\n\
        kernel/drivers/char/virtio_console.ko: kernel/drivers/virtio/virtio.ko.gz\n\
        kernel/drivers/char/hw_random/virtio-rng.ko: kernel/drivers/virtio/virtio.ko.gz\n";
    write(&directory, "modules.dep", listed.as_bytes());
    assert_eq!(names(&directory), expected);
}

#[test]
fn a_cycle_ends() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "kernel/a.ko", &module("b", RELEASE));
    write(dir.path(), "kernel/b.ko", &module("a", RELEASE));
    let modules = load_order(dir.path(), None, &[Wanted::required("a")]).unwrap().modules;
    assert_eq!(modules.len(), 2);
}

#[test]
fn what_is_missing_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let directory = release(dir.path());
    let text = load_order(&directory, None, &[Wanted::required("9pnet-virtio")]).unwrap_err().to_string();
    assert_eq!(text, format!("kernel module `9pnet_virtio` is neither built in nor in `{}`", directory.display()));
    write(&directory, "kernel/x.ko", &module("y", RELEASE));
    let text = load_order(&directory, None, &[Wanted::optional("x")]).unwrap_err().to_string();
    assert!(text.starts_with("kernel module `y`, which `x` needs, is neither"), "{text}");
    write(&directory, "kernel/z.ko", b"no module");
    let text = load_order(&directory, None, &[Wanted::required("z")]).unwrap_err().to_string();
    assert!(text.contains("/kernel/z.ko`: not an ELF file"), "{text}");
    write(&directory, "kernel/c.ko.xz", b"\xfd7zXZ\0cut");
    let text = load_order(&directory, None, &[Wanted::required("c")]).unwrap_err().to_string();
    assert!(text.contains("can't be unpacked"), "{text}");
}

#[test]
fn a_module_of_another_release_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let directory = release(dir.path());
    let text = load_order(&directory, Some("6.12"), &wanted()).unwrap_err().to_string();
    assert!(text.contains("expected one for `6.12`, which the kernel is, found one for `6.1.0-test`"), "{text}");
}

#[test]
fn finds_the_release_directory() {
    let dir = tempfile::tempdir().unwrap();
    let directory = release(dir.path());
    assert_eq!(release_directory(dir.path(), Some(RELEASE)).unwrap(), directory);
    assert_eq!(release_directory(dir.path(), None).unwrap(), directory);
    assert_eq!(release_directory(&directory, Some("whatever")).unwrap(), directory);
    write(dir.path(), "usr/lib/modules/6.12.0/modules.order", b"");
    assert_eq!(release_directory(dir.path(), Some("6.12.0")).unwrap(), dir.path().join("usr/lib/modules/6.12.0"));
    let text = release_directory(dir.path(), Some("5.10")).unwrap_err().to_string();
    assert!(text.contains("expected release `5.10`") && text.contains("found `6.1.0-test`, `6.12.0`"), "{text}");
    let text = release_directory(dir.path(), None).unwrap_err().to_string();
    assert!(text.contains("several releases"), "{text}");
    let text = release_directory(&dir.path().join("lib"), None).unwrap_err().to_string();
    assert!(text.contains("found none of them"), "{text}");
    let other = dir.path().join("other");
    write(&other, "kernel/readme", b"no modules");
    let text = release_directory(&other, None).unwrap_err().to_string();
    assert!(text.contains("found none of them"), "{text}");
    write(&other, "kernel/x.ko", &module("", RELEASE));
    assert_eq!(release_directory(&other, None).unwrap(), other);
    let text = release_directory(Path::new("/nonexistent/m"), None).unwrap_err().to_string();
    assert_eq!(text, "can't read the modules in `/nonexistent/m`: no such file or directory");
}
