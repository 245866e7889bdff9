//! The guest's end: launcher, then agent.

/// Entry of the `provium-agent` binary.
pub fn main() {}
