//! Module files as they lie on disk, compressed or not.

use std::io::{self, Read};
use std::path::Path;

use crate::foundation::path_error::{PathContext, describe_io};
use crate::qemu::error::QemuError;

/// No module is larger, even with debug information.
const MOST_BYTES: u64 = 512 << 20;

/// Reads a module file and unpacks it by its magic (`.ko`, `.ko.gz`, `.ko.xz`, `.ko.zst`).
///
/// # Errors
/// It can't be read or unpacked.
pub fn read_module(path: &Path) -> Result<Vec<u8>, QemuError> {
    let raw = std::fs::read(path).at("read the kernel module", path)?;
    unpack(raw).map_err(|error| {
        QemuError::Image(format!("kernel module `{}`: can't be unpacked: {}", path.display(), describe_io(&error)))
    })
}

fn unpack(raw: Vec<u8>) -> io::Result<Vec<u8>> {
    match raw.as_slice() {
        [0x1f, 0x8b, ..] => read_most(flate2::read::MultiGzDecoder::new(raw.as_slice())),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => read_most(liblzma::read::XzDecoder::new_multi_decoder(raw.as_slice())),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => read_most(zstd::stream::read::Decoder::with_buffer(raw.as_slice())?),
        _ => Ok(raw),
    }
}

fn read_most(from: impl Read) -> io::Result<Vec<u8>> {
    let mut unpacked = Vec::new();
    from.take(MOST_BYTES + 1).read_to_end(&mut unpacked)?;
    if unpacked.len() as u64 > MOST_BYTES {
        return Err(io::Error::other(format!("it is larger than {} MiB", MOST_BYTES >> 20)));
    }
    Ok(unpacked)
}
