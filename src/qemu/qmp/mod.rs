//! QMP, QEMU's control channel (QEMU `docs/interop/qmp-spec.rst`): one JSON object a line.

mod client;
mod condition;
mod passing;
mod wire;

#[cfg(test)]
mod tests;

pub use client::{Qmp, QmpEvent};
pub use condition::{GuestCondition, GuestEnd};
