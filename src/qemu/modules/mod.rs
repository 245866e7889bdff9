//! Drivers the kernel has as modules: which files, in which order.

mod decompress;
mod directory;
mod index;
mod modinfo;
mod order;

#[cfg(test)]
mod tests;

pub use decompress::read_module;
pub use directory::release_directory;
pub use modinfo::{ModInfo, modinfo};
pub use order::{LoadOrder, Module, Wanted, load_order};
