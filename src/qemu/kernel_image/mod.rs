//! Kernel files: what they are, and unpacking a bzImage for PVH.

mod elf;
mod extract;
mod inspect;
mod release;
mod setup_header;

#[cfg(test)]
mod tests;

pub use extract::{Extracted, extract_vmlinux};
pub(super) use inspect::looks_like;
pub use inspect::{KernelImage, KernelKind, inspect};
