//! Snapshots: what machines are at one moment, stored so that any number of others can go on from there.
//!
//! A snapshot is a directory: `snapshot.json` says what is in it, `vms/<n>/` holds a machine: `machine.json`, `device` (the
//! state of its devices), `ram`, which machines that are restored map copy-on-write, and `disk<n>` with what was written to its
//! disks. Nothing in it is ever written again.

mod disks;
mod format;
mod restore;
mod store;
mod take;
mod twin;

pub use format::{LabRecord, MachineRecord, Manifest, MemberRecord, SnapshotKind, VmRecord};
pub use restore::{RestoreOptions, restore_all};
pub use store::{Snapshot, SnapshotPlace};
pub use take::{After, take};
