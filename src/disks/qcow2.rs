//! Reading qcow2 images (QEMU `docs/interop/qcow2.txt`), versions 2 and 3, with backing files.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::error::DiskError;
use super::image::{self, Base, bad};
use crate::foundation::path_error::PathContext;

const MAGIC: &[u8] = b"QFI\xfb";
/// How long a chain of backing files may be.
const LONGEST_CHAIN: usize = 32;
/// How many tables of the second level are kept.
const KEPT_TABLES: usize = 64;
/// The bits of a table entry that are an offset.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const COMPRESSED: u64 = 1 << 62;
const ZERO: u64 = 1;

/// A qcow2 image.
#[derive(Debug)]
pub struct Qcow2 {
    path: PathBuf,
    file: File,
    size: u64,
    cluster_bits: u32,
    zstd: bool,
    l1: Vec<u64>,
    tables: Mutex<HashMap<u64, Arc<Vec<u64>>>>,
    /// The cluster that was unpacked last.
    unpacked: Mutex<Option<(u64, Arc<Vec<u8>>)>>,
    backing: Option<(Base, u64)>,
}

/// Whether a file begins like a qcow2 image.
pub fn is_one(file: &File) -> bool {
    let mut magic = [0; 4];
    file.read_exact_at(&mut magic, 0).is_ok() && magic == MAGIC
}

struct Header([u8; 112]);

impl Header {
    fn word(&self, at: usize) -> u32 {
        u32::from_be_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]])
    }

    fn long(&self, at: usize) -> u64 {
        u64::from(self.word(at)) << 32 | u64::from(self.word(at + 4))
    }
}

impl Qcow2 {
    /// Opens an image and those behind it.
    ///
    /// # Errors
    /// A broken header, a feature that is not known here, a backing file that can't be used.
    pub fn open(file: File, path: &Path) -> Result<Self, DiskError> {
        Self::open_in_chain(file, path, 0)
    }

    fn open_in_chain(file: File, path: &Path, depth: usize) -> Result<Self, DiskError> {
        let mut header = Header([0; 112]);
        file.read_exact_at(&mut header.0[..72], 0).at("read", path)?;
        let version = header.word(4);
        if version >= 3 {
            let length = usize::try_from(file.metadata().at("read", path)?.len()).unwrap_or(112).min(112);
            file.read_exact_at(&mut header.0[..length], 0).at("read", path)?;
        }
        let zstd = check(&header, version).map_err(|why| bad(path, why))?;
        let (size, cluster_bits) = (header.long(24), header.word(20));
        let entries = size.div_ceil(1 << (2 * cluster_bits - 3));
        if u64::from(header.word(36)) < entries || entries > 4 << 20 {
            return Err(bad(path, "the qcow2 image is broken: its first table is too small, or too large".to_owned()));
        }
        let l1 = read_table(&file, header.long(40), usize::try_from(entries).unwrap_or_default()).at("read", path)?;
        let backing = match (header.long(8), header.word(16)) {
            (0, _) | (_, 0) => None,
            (offset, length) => Some(open_backing(&file, path, offset, length, depth)?),
        };
        let (tables, unpacked) = (Mutex::default(), Mutex::default());
        Ok(Self { path: path.to_owned(), file, size, cluster_bits, zstd, l1, tables, unpacked, backing })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is behind it.
    pub fn backing(&self) -> Option<&Base> {
        self.backing.as_ref().map(|(base, _)| base)
    }

    /// Bytes of the disk.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Reads at an offset; zeroes behind the end.
    ///
    /// # Errors
    /// The file can't be read, or is broken there.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let cluster = 1_u64 << self.cluster_bits;
        let (mut at, mut left) = (offset, buffer);
        while !left.is_empty() {
            if at >= self.size {
                left.fill(0);
                return Ok(());
            }
            let within = at % cluster;
            let count = (cluster - within).min(self.size - at).min(left.len() as u64);
            let (piece, rest) = left.split_at_mut(usize::try_from(count).unwrap_or_default());
            self.read_in_cluster(at, within, piece)?;
            at += count;
            left = rest;
        }
        Ok(())
    }

    fn read_in_cluster(&self, at: u64, within: u64, piece: &mut [u8]) -> io::Result<()> {
        let entry = self.entry(at >> self.cluster_bits)?;
        if entry & COMPRESSED != 0 {
            let cluster = self.unpack(entry)?;
            let from = usize::try_from(within).unwrap_or_default();
            piece.copy_from_slice(&cluster[from..from + piece.len()]);
            return Ok(());
        }
        match (entry & ZERO, entry & OFFSET, &self.backing) {
            (0, 0, Some((base, size))) => {
                // What is behind the end of a shorter backing file is zero.
                let seen = usize::try_from(size.saturating_sub(at)).unwrap_or(usize::MAX).min(piece.len());
                piece[seen..].fill(0);
                base.read(at, &mut piece[..seen])
            }
            (0, place, _) if place != 0 => self.file.read_exact_at(piece, place + within),
            _ => {
                piece.fill(0);
                Ok(())
            }
        }
    }

    fn entry(&self, cluster: u64) -> io::Result<u64> {
        let bits = self.cluster_bits - 3;
        let table = usize::try_from(cluster >> bits).ok().and_then(|at| self.l1.get(at)).copied().unwrap_or(0) & OFFSET;
        if table == 0 {
            return Ok(0);
        }
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let entries = match tables.get(&table) {
            Some(entries) => Arc::clone(entries),
            None => {
                if tables.len() >= KEPT_TABLES {
                    tables.clear();
                }
                let entries = Arc::new(read_table(&self.file, table, 1 << bits)?);
                tables.insert(table, Arc::clone(&entries));
                entries
            }
        };
        Ok(entries[usize::try_from(cluster & ((1 << bits) - 1)).unwrap_or_default()])
    }

    fn unpack(&self, entry: u64) -> io::Result<Arc<Vec<u8>>> {
        let mut unpacked = self.unpacked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, bytes)) = &*unpacked
            && *known == entry
        {
            return Ok(Arc::clone(bytes));
        }
        let split = 62 - (self.cluster_bits - 8);
        let place = entry & ((1 << split) - 1);
        let sectors = (entry & !COMPRESSED & !(1 << 63)) >> split;
        let length = (sectors + 1) * 512 - place % 512;
        let mut packed = Vec::new();
        let limit = usize::try_from(length).unwrap_or_default();
        packed.resize(limit, 0);
        super::store::read_or_zero(&self.file, place, &mut packed)?;
        let mut bytes = vec![0; 1 << self.cluster_bits];
        if self.zstd {
            zstd::stream::read::Decoder::with_buffer(&*packed)?.read_exact(&mut bytes)?;
        } else {
            flate2::read::DeflateDecoder::new(&*packed).read_exact(&mut bytes)?;
        }
        let bytes = Arc::new(bytes);
        *unpacked = Some((entry, Arc::clone(&bytes)));
        Ok(bytes)
    }
}

/// Checks a header; whether its clusters are compressed with zstd.
fn check(header: &Header, version: u32) -> Result<bool, String> {
    /// Refcounts and corruption do not concern a reader; the compression type is looked at.
    const KNOWN: u64 = 1 | 2 | 8;
    if !(2..=3).contains(&version) {
        return Err(format!("the version {version} of qcow2 is not known here, expected 2 or 3"));
    }
    let cluster_bits = header.word(20);
    if !(9..=21).contains(&cluster_bits) {
        return Err(format!("the qcow2 image is broken: clusters of 2^{cluster_bits} bytes"));
    }
    if header.long(24) > 1 << 56 {
        return Err("the qcow2 image is broken: it is too large".to_owned());
    }
    if header.word(32) != 0 {
        return Err("encrypted qcow2 images can't be used\nhint: `qemu-img convert` makes a plain one".to_owned());
    }
    if version == 2 {
        return Ok(false);
    }
    let features = header.long(72);
    if features & !KNOWN != 0 {
        return Err(format!(
            "the qcow2 image has features that are not known here (bits {:#x}: an external data file, or subclusters)\n\
             hint: `qemu-img convert -O qcow2` makes one without",
            features & !KNOWN
        ));
    }
    match (features & 8, header.0[104]) {
        (0, _) | (_, 0) => Ok(false),
        (_, 1) => Ok(true),
        (_, other) => Err(format!("the qcow2 image has the compression {other}, which is not known here")),
    }
}

fn read_table(file: &File, offset: u64, entries: usize) -> io::Result<Vec<u64>> {
    let mut bytes = vec![0; entries * 8];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes.as_chunks::<8>().0.iter().map(|entry| u64::from_be_bytes(*entry)).collect())
}

fn open_backing(file: &File, path: &Path, offset: u64, length: u32, depth: usize) -> Result<(Base, u64), DiskError> {
    let mut name = vec![0; usize::try_from(length).unwrap_or(usize::MAX).min(1024)];
    file.read_exact_at(&mut name, offset).at("read", path)?;
    let name = Path::new(std::ffi::OsStr::from_bytes(&name));
    if depth >= LONGEST_CHAIN {
        return Err(bad(path, format!("its chain of backing files is longer than {LONGEST_CHAIN}, or a circle")));
    }
    if name.to_string_lossy().starts_with("json:") {
        return Err(bad(path, format!("its backing file is `{}`: only paths can be used", name.display())));
    }
    let full = path.parent().unwrap_or(Path::new(".")).join(name);
    let backing = File::open(&full).at("open the backing file", &full)?;
    if is_one(&backing) {
        let image = Qcow2::open_in_chain(backing, &full, depth + 1)?;
        let size = image.size();
        return Ok((Base::Qcow2(Arc::new(image)), size));
    }
    let (base, _) = image::open(&full, Some(image::Format::Raw))?;
    let size = backing.metadata().at("read", &full)?.len();
    Ok((base, size))
}
