//! QEMU: which one, its command line, its process, QMP, and what it boots.

mod accelerator;
mod agent_program;
mod arguments;
pub mod console;
pub mod disks;
mod error;
mod find;
pub mod hotplug;
pub mod initrd;
mod kernel_image;
mod modules;
mod process;
mod qmp;
mod ram;
mod transfer;

pub use accelerator::{Accel, AccelRequest, ChosenAccel, choose};
pub use agent_program::read_agent;
pub use arguments::{AGENT_PORT_ID, CARD_DRIVER, CPU_MODEL, CardSpec, Channels, MachineSpec, RamKind, arguments};
pub use error::{QemuError, QmpError};
pub use find::{Candidates, QemuBinary, Version, find};
pub use kernel_image::{Extracted, KernelImage, KernelKind, extract_vmlinux, inspect};
pub use modules::{LoadOrder, ModInfo, Module, Wanted, load_order, modinfo, read_module, release_directory};
pub use process::{HostEnds, QemuExit, QemuProcess};
pub use qmp::{GuestCondition, GuestEnd, Qmp, QmpEvent};
pub use ram::RamFile;
