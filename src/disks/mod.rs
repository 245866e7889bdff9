//! Disks: what they hold, the faults that requests meet, and the block server that QEMU reads and writes them through.
//!
//! [`Disk`] is one disk. `faults` and `crash` are pure: which requests are struck, what a power cut may leave. `store` holds the
//! content in layers over an image that is never written; `write_log` remembers writes that are not durable yet. `server`
//! speaks NBD.

mod content;
mod crash;
mod delayed;
mod disk;
mod error;
mod faults;
mod image;
mod layer;
mod protocol;
mod qcow2;
mod random;
mod sector_map;
mod server;
mod snapshot;
#[cfg(test)]
mod snapshot_tests;
mod state;
mod store;
mod stored;
#[cfg(test)]
mod tests;
mod write_log;

pub use content::Content;
pub use crash::Chance;
pub use disk::{
    Cache, CrashState, DEFAULT_SIZE, Disk, DiskSpec, Exploration, Explorer, LARGEST_SIZE, Order, Source, Stats, refusal,
};
pub use error::DiskError;
pub use faults::{Fault, Kind, Mode, SLOW};
pub use image::{Format, files_of};
pub use server::serve;
pub use snapshot::DiskSnapshot;
pub use store::SECTOR;
pub use stored::StoredDisk;
pub use write_log::Recorded;
