//! The ELF kernel inside a bzImage, for a start through PVH without the decompressor.
//!
//! The payload carries its compression's magic. Unpacked kernels are kept by the bzImage's hash.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::elf::{self, ElfKind};
use super::inspect::{KernelImage, KernelKind, looks_like};
use crate::foundation::path_error::{PathContext, PathError, describe_io};
use crate::qemu::error::QemuError;

/// No kernel is larger; what unpacks to more is not one.
const MOST_BYTES: u64 = 1 << 30;
/// How the names of unpacked kernels begin.
const UNPACKED: &str = "vmlinux-";
/// How many of them are kept, and how long one that was just used is safe: whoever rebuilds a kernel all day must not
/// fill the disk, and nobody must lose one between finding it and starting QEMU.
const KEPT: usize = 8;
const SAFE: Duration = Duration::from_secs(3600);
/// How the names of files begin that are being written.
const UNFINISHED: &str = ".unfinished-";
/// The largest block of lz4's legacy format (lz4 `doc/lz4_Frame_format.md`, "Legacy frame").
const LZ4_LEGACY_BLOCK: usize = 8 << 20;

/// What to boot through PVH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extracted {
    /// This ELF kernel.
    Vmlinux(PathBuf),
    /// The image as it was given.
    AsGiven {
        /// Why it can't be unpacked, a fragment.
        reason: String,
    },
}

/// Unpacks a bzImage into `cache` (made if missing) once; later calls find it there. Two processes may do it at the
/// same time: the file appears whole or not at all.
///
/// # Errors
/// `Path`, where the image can't be read or the cache can't be written.
pub fn extract_vmlinux(image: &KernelImage, cache: &Path) -> Result<Extracted, QemuError> {
    let header = match image.kind {
        KernelKind::Vmlinux => return Ok(Extracted::Vmlinux(image.path.clone())),
        KernelKind::Arm64Image => return Ok(as_given("an arm64 Image has no PVH entry")),
        KernelKind::BzImage(header) => header,
    };
    let Some((offset, length)) = header.payload else {
        return Ok(as_given("its boot protocol is older than 2.08 and does not say where the kernel is"));
    };
    let mut file = File::open(&image.path).at("read the kernel", &image.path)?;
    let hash = hash(&mut file).at("read the kernel", &image.path)?;
    let kept = cache.join(format!("{UNPACKED}{hash}"));
    if let Ok(file) = File::options().append(true).open(&kept) {
        // Says when it was used last; where that can't be written it is merely removed earlier.
        let _ = file.set_modified(SystemTime::now());
        return Ok(Extracted::Vmlinux(kept));
    }
    file.seek(SeekFrom::Start(offset)).at("read the kernel", &image.path)?;
    let mut payload = Vec::new();
    file.take(length).read_to_end(&mut payload).at("read the kernel", &image.path)?;
    let vmlinux = match unpack(&payload) {
        Ok(vmlinux) => vmlinux,
        Err(reason) => return Ok(as_given(&reason)),
    };
    if elf::classify(vmlinux.as_slice()) != ElfKind::PvhKernel {
        return Ok(as_given("the kernel in it has no PVH note (CONFIG_PVH)"));
    }
    write_whole(&kept, &vmlinux)?;
    remove_unused(cache);
    Ok(Extracted::Vmlinux(kept))
}

fn as_given(reason: &str) -> Extracted {
    Extracted::AsGiven { reason: reason.to_owned() }
}

fn hash(file: &mut File) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file)?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// Unpacks by magic. Bytes behind the stream (the kernel's build appends the unpacked length) are ignored.
pub(super) fn unpack(payload: &[u8]) -> Result<Vec<u8>, String> {
    let mut unpacked = Vec::new();
    let done = match payload {
        [0x1f, 0x8b, ..] => read_most(flate2::read::GzDecoder::new(payload), &mut unpacked),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => read_most(liblzma::read::XzDecoder::new(payload), &mut unpacked),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => zstd::stream::read::Decoder::with_buffer(payload)
            .and_then(|decoder| read_most(decoder.single_frame(), &mut unpacked)),
        [0x02, 0x21, 0x4c, 0x18, blocks @ ..] => unpack_lz4_legacy(blocks, &mut unpacked),
        [0x7f, b'E', b'L', b'F', ..] => {
            unpacked.extend_from_slice(payload);
            Ok(())
        }
        other => return Err(format!("its payload is {}, which can't be unpacked", looks_like(other))),
    };
    done.map_err(|error| format!("its payload can't be unpacked: {}", describe_io(&error)))?;
    Ok(unpacked)
}

fn read_most(from: impl Read, to: &mut Vec<u8>) -> io::Result<()> {
    from.take(MOST_BYTES + 1).read_to_end(to)?;
    within_bounds(to)
}

fn within_bounds(unpacked: &[u8]) -> io::Result<()> {
    if unpacked.len() as u64 > MOST_BYTES {
        return Err(io::Error::other(format!("it is larger than {} MiB", MOST_BYTES >> 20)));
    }
    Ok(())
}

/// Blocks of a length (32 bits, little-endian) and as many bytes, until the end or a length that can't be one.
fn unpack_lz4_legacy(mut rest: &[u8], to: &mut Vec<u8>) -> io::Result<()> {
    let mut block = vec![0_u8; LZ4_LEGACY_BLOCK];
    while let Some((length, behind)) = rest.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let Some((packed, behind)) = behind.split_at_checked(length) else { break };
        if packed.is_empty() {
            break;
        }
        let count = lz4_flex::block::decompress_into(packed, &mut block).map_err(io::Error::other)?;
        to.extend_from_slice(&block[..count]);
        within_bounds(to)?;
        rest = behind;
    }
    Ok(())
}

/// Writes a file that appears whole or not at all, also when this process or the machine dies meanwhile.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), PathError> {
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory).at("create", directory)?;
    remove_abandoned(directory);
    let mut file =
        tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(directory).at("create a file in", directory)?;
    // Held until this ends, however it ends: what nobody holds is garbage.
    file.as_file().lock().at("lock", path)?;
    file.write_all(bytes).at("write", path)?;
    file.as_file().sync_all().at("write", path)?;
    file.persist(path).map_err(|error| error.error).at("write", path)?;
    Ok(())
}

/// The files in `directory` whose names begin with `prefix`, each with the time since it was last written or used.
fn ages(directory: &Path, prefix: &str) -> Vec<(Duration, PathBuf)> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let age = |entry: &fs::DirEntry| entry.metadata()?.modified().map(|at| at.elapsed().unwrap_or_default());
    entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .filter_map(|entry| Some((age(&entry).ok()?, entry.path())))
        .collect()
}

/// Removes what a writer that was killed left.
fn remove_abandoned(directory: &Path) {
    // One that its writer has made and not locked yet looks abandoned: it must have had time for that.
    for (_, path) in ages(directory, UNFINISHED).into_iter().filter(|(age, _)| *age > Duration::from_secs(60)) {
        if File::open(&path).is_ok_and(|file| file.try_lock().is_ok()) {
            // Another run may be removing it too.
            let _ = fs::remove_file(path);
        }
    }
}

/// Removes unpacked kernels that are neither among the newest nor just in use.
fn remove_unused(cache: &Path) {
    let mut unpacked = ages(cache, UNPACKED);
    unpacked.sort();
    for (_, path) in unpacked.into_iter().skip(KEPT).filter(|(age, _)| *age > SAFE) {
        // As above.
        let _ = fs::remove_file(path);
    }
}
