//! The kernel's log of a machine, followed from its first record to the machine's end, and the reports in it.

mod follower;
mod ledger;
mod record;

pub use follower::{KernelLog, Teller};
pub use record::Decoder;
