//! What a disk holds: an image that is never written, layers over it that no longer change, and one on top that takes the
//! writes. A snapshot is a look at the layers; nothing is copied.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::image::Base;
use super::layer::{Layer, Piece};

/// Bytes of a sector.
pub const SECTOR: u64 = 512;
/// Zeroes that are written where a hole can't be made.
const ZEROES: usize = 64 * 1024;

#[derive(Debug)]
enum Top {
    /// Takes the writes.
    Private(Layer),
    /// The user's image itself takes the writes.
    Image(Arc<File>),
}

/// The content of a disk.
#[derive(Debug)]
pub struct Store {
    sectors: u64,
    base: Base,
    frozen: Vec<Arc<Layer>>,
    top: Top,
    directory: Arc<Path>,
}

impl Store {
    /// `base` with nothing written yet; what is written lies in `directory`, in files without a name.
    ///
    /// # Errors
    /// No file can be made.
    pub fn over(base: Base, sectors: u64, directory: &Path) -> io::Result<Self> {
        let directory: Arc<Path> = Arc::from(directory);
        let top = Top::Private(Layer::new(&directory, u64::MAX)?);
        Ok(Self { sectors, base, frozen: Vec::new(), top, directory })
    }

    /// An image that is written itself.
    pub fn write_through(image: File, sectors: u64, directory: &Path) -> Self {
        let image = Arc::new(image);
        Self { sectors, base: Base::Blank, frozen: Vec::new(), top: Top::Image(image), directory: Arc::from(directory) }
    }

    /// How large it is.
    pub fn sectors(&self) -> u64 {
        self.sectors
    }

    /// Whether writes go to the user's image.
    pub fn is_write_through(&self) -> bool {
        matches!(self.top, Top::Image(_))
    }

    /// How many layers no longer change.
    pub fn depth(&self) -> usize {
        self.frozen.len()
    }

    /// Where its files lie.
    pub fn directory(&self) -> PathBuf {
        self.directory.to_path_buf()
    }

    /// Reads whole sectors that lie on the disk.
    ///
    /// # Errors
    /// A file of the host's that can't be read.
    pub fn read(&self, first: u64, buffer: &mut [u8]) -> io::Result<()> {
        match &self.top {
            Top::Private(layer) => fill_from(layer, &self.frozen, &self.base, first, buffer),
            Top::Image(file) => read_or_zero(file, first * SECTOR, buffer),
        }
    }

    /// What lies below the layers beyond `depth`.
    ///
    /// # Errors
    /// As `read`.
    pub fn read_below(&self, depth: usize, first: u64, buffer: &mut [u8]) -> io::Result<()> {
        // What the layer above hides of it, it hides here as well.
        let hidden = match (self.frozen.get(depth), &self.top) {
            (Some(layer), _) => layer.below,
            (None, Top::Private(layer)) => layer.below,
            (None, Top::Image(_)) => u64::MAX,
        };
        let (seen, rest) = split(first, buffer, hidden);
        rest.fill(0);
        fill(self.frozen.get(..depth).unwrap_or_default(), &self.base, first, seen)
    }

    /// Writes whole sectors that lie on the disk.
    ///
    /// # Errors
    /// A file of the host's that can't be written.
    pub fn write(&mut self, first: u64, bytes: &[u8]) -> io::Result<()> {
        match &mut self.top {
            Top::Private(layer) => {
                layer.file.write_all_at(bytes, first * SECTOR)?;
                layer.map.insert(first, bytes.len() as u64 / SECTOR);
                Ok(())
            }
            Top::Image(file) => file.write_all_at(bytes, first * SECTOR),
        }
    }

    /// Makes sectors zero.
    ///
    /// # Errors
    /// As `write`.
    pub fn write_zeroes(&mut self, first: u64, count: u64) -> io::Result<()> {
        match &mut self.top {
            Top::Private(layer) => {
                clear(&layer.file, first * SECTOR, count * SECTOR)?;
                layer.map.insert(first, count);
                Ok(())
            }
            Top::Image(file) => clear(file, first * SECTOR, count * SECTOR),
        }
    }

    /// Whether the top itself holds `first`, and how many sectors from there on are alike.
    pub fn run_of_top(&self, first: u64, count: u64) -> (bool, u64) {
        match &self.top {
            Top::Private(layer) => layer.map.run(first, count),
            Top::Image(_) => (true, count),
        }
    }

    /// Lets sectors of the top be those of below again.
    pub fn forget(&mut self, first: u64, count: u64) {
        if let Top::Private(layer) = &mut self.top {
            layer.map.remove(first, count);
        }
    }

    /// Brings what was written to the medium, where that is the user's image.
    ///
    /// # Errors
    /// As `write`.
    pub fn sync(&self) -> io::Result<()> {
        match &self.top {
            Top::Private(_) => Ok(()),
            Top::Image(file) => file.sync_data(),
        }
    }

    /// `base` below one layer that no longer changes.
    ///
    /// # Errors
    /// No file can be made.
    pub fn stored(base: Base, sectors: u64, layer: Layer, directory: &Path) -> io::Result<Self> {
        let mut store = Self::over(base, sectors, directory)?;
        store.frozen.push(Arc::new(layer));
        Ok(store)
    }

    /// What lies below everything that was written.
    pub fn base(&self) -> &Base {
        &self.base
    }

    /// The sectors that all layers together hold, in order, and from which sector on nothing of the base is seen. Zeroes count only
    /// where something else is below.
    ///
    /// # Errors
    /// A file of the host's that can't be looked at.
    pub fn overlay(&self) -> io::Result<(Vec<Piece>, u64)> {
        let top = if let Top::Private(layer) = &self.top { Some(layer) } else { None };
        let layers: Vec<&Layer> = self.frozen.iter().map(Arc::as_ref).chain(top).collect();
        let mut candidates: Vec<(u64, u64)> = layers.iter().flat_map(|layer| layer.map.ranges()).collect();
        candidates.sort_unstable();
        let mut held: Vec<Piece> = Vec::new();
        let mut at = 0;
        for (first, count) in candidates {
            let end = (first + count).min(self.sectors);
            at = first.max(at);
            while at < end {
                let (holder, mut count) = held_run(&layers, at, end - at);
                if let Some(layer) = holder {
                    let is_data;
                    (is_data, count) = layer.extent(at, count)?;
                    match held.last_mut() {
                        Some(last) if last.is_data == is_data && last.first + last.count == at => last.count += count,
                        _ if is_data || !matches!(self.base, Base::Blank) => {
                            held.push(Piece { first: at, count, is_data });
                        }
                        _ => {}
                    }
                }
                at += count;
            }
        }
        Ok((held, layers.iter().map(|layer| layer.below).min().unwrap_or(u64::MAX)))
    }

    /// Bytes that its layers take.
    pub fn allocated(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        let top = if let Top::Private(layer) = &self.top { Some(layer) } else { None };
        let layers = self.frozen.iter().map(Arc::as_ref).chain(top);
        layers.map(|layer| layer.file.metadata().map_or(0, |file| file.blocks() * 512)).sum()
    }

    /// Writes the content of some sectors to a place in a file; zeroes become holes.
    ///
    /// # Errors
    /// A file of the host's that can't be read or written.
    pub fn save_part(&self, to: &File, place: u64, first: u64, count: u64) -> io::Result<()> {
        const PIECE: u64 = 2048;
        let mut buffer = vec![0; bytes_of(PIECE.min(count))];
        let mut done = 0;
        while done < count {
            let piece = &mut buffer[..bytes_of(PIECE.min(count - done))];
            self.read(first + done, piece)?;
            for (number, page) in piece.chunks(4096).enumerate() {
                if page.iter().any(|byte| *byte != 0) {
                    to.write_all_at(page, place + done * SECTOR + number as u64 * 4096)?;
                }
            }
            done += piece.len() as u64 / SECTOR;
        }
        Ok(())
    }

    /// The same content in a store of its own: what is written to one of them from now on is not seen in the other. None
    /// where writes go to the user's image.
    ///
    /// # Errors
    /// No file can be made.
    pub fn fork(&mut self) -> io::Result<Option<Self>> {
        let Top::Private(layer) = &mut self.top else { return Ok(None) };
        if !layer.map.is_empty() || layer.below != u64::MAX {
            let fresh = Layer::new(&self.directory, u64::MAX)?;
            self.frozen.push(Arc::new(std::mem::replace(layer, fresh)));
        }
        Ok(Some(Self {
            sectors: self.sectors,
            base: self.base.clone(),
            frozen: self.frozen.clone(),
            top: Top::Private(Layer::new(&self.directory, u64::MAX)?),
            directory: Arc::clone(&self.directory),
        }))
    }

    /// Makes it larger, with zeroes, or smaller.
    ///
    /// # Errors
    /// The user's image can't be changed.
    pub fn resize(&mut self, sectors: u64) -> io::Result<()> {
        match &mut self.top {
            Top::Private(layer) => {
                let smaller = self.sectors.min(sectors);
                layer.map.cut(smaller);
                layer.below = layer.below.min(smaller);
            }
            Top::Image(file) => file.set_len(sectors * SECTOR)?,
        }
        self.sectors = sectors;
        Ok(())
    }

    /// Writes the whole content to a new file, sparse where nothing was ever written.
    ///
    /// # Errors
    /// A file of the host's that can't be read or written.
    pub fn save(&self, to: &File) -> io::Result<()> {
        to.set_len(self.sectors * SECTOR)?;
        self.save_part(to, 0, 0, self.sectors)
    }
}

/// The layer that holds the sector `first` and is seen there, if any, and for how many sectors from there on that is so.
fn held_run<'a>(layers: &[&'a Layer], first: u64, count: u64) -> (Option<&'a Layer>, u64) {
    let Some((layer, below)) = layers.split_last() else { return (None, count) };
    match layer.map.run(first, count) {
        (true, count) => (Some(layer), count),
        (false, count) if first >= layer.below => (None, count),
        (false, count) => held_run(below, first, count.min(layer.below - first)),
    }
}

fn bytes_of(sectors: u64) -> usize {
    usize::try_from(sectors * SECTOR).unwrap_or(usize::MAX)
}

/// The part of `buffer` before the sector `limit`, and the rest.
fn split(first: u64, buffer: &mut [u8], limit: u64) -> (&mut [u8], &mut [u8]) {
    let seen = bytes_of(limit.saturating_sub(first).min(buffer.len() as u64 / SECTOR));
    buffer.split_at_mut(seen)
}

fn fill(layers: &[Arc<Layer>], base: &Base, first: u64, buffer: &mut [u8]) -> io::Result<()> {
    match layers.split_last() {
        None => base.read(first * SECTOR, buffer),
        Some((layer, rest)) => fill_from(layer, rest, base, first, buffer),
    }
}

fn fill_from(layer: &Layer, rest: &[Arc<Layer>], base: &Base, first: u64, buffer: &mut [u8]) -> io::Result<()> {
    let mut at = first;
    let mut left = buffer;
    while !left.is_empty() {
        let (held, count) = layer.map.run(at, left.len() as u64 / SECTOR);
        let (piece, others) = left.split_at_mut(bytes_of(count));
        if held {
            layer.read(at, piece)?;
        } else {
            let (seen, hidden) = split(at, piece, layer.below);
            hidden.fill(0);
            if !seen.is_empty() {
                fill(rest, base, at, seen)?;
            }
        }
        at += count;
        left = others;
    }
    Ok(())
}

/// Reads at an offset; what lies behind the end of the file is zero.
pub fn read_or_zero(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer[done..].fill(0);
    Ok(())
}

/// Makes bytes zero: a hole where the file system can, else zeroes.
fn clear(file: &File, offset: u64, length: u64) -> io::Result<()> {
    let (Ok(from), Ok(count)) = (libc::off_t::try_from(offset), libc::off_t::try_from(length)) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let how = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: an open descriptor and numbers.
    if unsafe { libc::fallocate(file.as_raw_fd(), how, from, count) } == 0 {
        return Ok(());
    }
    let zeroes = vec![0; ZEROES];
    let mut at = 0;
    while at < length {
        let piece = usize::try_from(length - at).unwrap_or(ZEROES).min(ZEROES);
        file.write_all_at(&zeroes[..piece], offset + at)?;
        at += piece as u64;
    }
    Ok(())
}
