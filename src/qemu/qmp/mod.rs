//! QMP, QEMU's control channel (QEMU `docs/interop/qmp-spec.rst`): one JSON object a line.

mod client;
mod condition;
mod wire;

#[cfg(test)]
mod tests;

pub use client::Qmp;
pub use condition::{GuestCondition, GuestEnd};
