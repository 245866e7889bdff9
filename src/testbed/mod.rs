//! One test's machines and their teardown.
//!
//! A [`Testbed`] holds what all machines of a run share; a [`Vm`] is one machine; a [`Scope`] owns the machines of
//! one test or one file and takes them down, awaited, when it ends.

mod accelerator;
mod artifacts;
mod bed;
mod belongings;
mod boot;
mod call;
mod console;
mod disks;
mod error;
mod fixture_recorder;
mod fixture_shelf;
mod fixture_told;
mod guest;
mod guest_calls;
mod guest_files;
mod guest_modules;
mod handles;
mod host_files;
mod host_process;
mod images;
mod kernel_log;
mod launch;
pub mod network;
mod open_file;
mod options;
mod pool;
mod process;
mod ready;
mod running;
mod scope;
mod snapshot;
mod splat_desk;
mod splats;
mod stream;
mod vm;
mod vm_batch;
mod vm_console;
mod vm_disks;
mod vm_inspect;
mod vm_kernel;
mod vm_power;
mod vm_waits;
mod watch;
mod worker;

pub use crate::agent_client::{
    IoctlArgument, IoctlRequest, Nested, Program, RunOutcome, RunSpec, RunStatus, SyscallOutcome, SyscallRequest, Turn,
};
pub use crate::disks::{
    Cache, Chance, Content, CrashState, Disk, DiskError, Exploration, Explorer, Fault, Format, Kind, LARGEST_SIZE,
    Mode, Order, Recorded, SECTOR, Stats, files_of as files_of_image,
};
pub use crate::fixtures::{Built as FixtureBuild, Entry as FixtureEntry, Wish};
pub use crate::qemu::disks::Bus;
pub use crate::qemu::{AccelRequest, Candidates};
pub use crate::switch::{Impairment, Pair, Policy, Port};
pub use accelerator::MachineRequest;
pub use artifacts::Artifacts;
pub use bed::{ImageError, ImageSource, ProfileImages, Testbed, TestbedSettings};
pub use belongings::Belongings;
pub use call::Call;
pub use console::ConsolePort;
pub use disks::{AttachedDisk, ContentOption, DiskOptions, DiskSource};
pub use error::{Death, VmError};
pub use fixture_recorder::FixtureRecorder;
pub use fixture_shelf::{
    FixtureOrder, FixtureProblem, FixtureSettings, FixtureShelf, NixIdentities, NixIdentitySource,
};
pub use guest::Guest;
pub use handles::{HandleGuard, HandleKind, Handles, OpenHandle};
pub use host_process::{HostProcess, HostProcesses, Pipe, PipeEnd};
pub use images::check as check_images;
pub use open_file::OpenFile;
pub use options::{BootFile, VmOptions};
pub use pool::Pool;
pub use process::{Process, ProcessState};
pub use scope::Scope;
pub use snapshot::{
    After, LabRecord, MachineRecord, Manifest, MemberRecord, RestoreOptions, Snapshot, SnapshotKind, SnapshotPlace,
    VmRecord, restore_all, take as take_snapshot,
};
pub use splat_desk::{Expectation, FoundReport, SplatDesk};
pub use splats::{Report, SplatKind};
pub use stream::{ByteStream, StreamError};
pub use vm::{Down, Vm, VmState};
pub use vm_batch::{boot_all, pause_all, resume_all, shutdown_all};
pub use worker::Worker;
