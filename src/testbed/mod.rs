//! One test's machines and their teardown.
//!
//! A [`Testbed`] holds what all machines of a run share; a [`Vm`] is one machine; a [`Scope`] owns the machines of
//! one test or one file and takes them down, awaited, when it ends.

mod accelerator;
mod artifacts;
mod bed;
mod boot;
mod error;
mod guest;
mod guest_modules;
mod handles;
mod images;
mod options;
mod running;
mod scope;
mod stream;
mod vm;

pub use crate::agent_client::{Program, RunOutcome, RunSpec, RunStatus};
pub use crate::qemu::{AccelRequest, Candidates};
pub use accelerator::MachineRequest;
pub use artifacts::Artifacts;
pub use bed::{ImageError, ImageSource, ProfileImages, Testbed, TestbedSettings};
pub use error::{Death, VmError};
pub use guest::Guest;
pub use handles::{HandleGuard, HandleKind, Handles, OpenHandle};
pub use images::check as check_images;
pub use options::{BootFile, VmOptions};
pub use running::ConsolePort;
pub use scope::Scope;
pub use stream::{ByteStream, StreamError};
pub use vm::{Vm, VmState, boot_all, shutdown_all};
