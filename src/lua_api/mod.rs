//! The Lua skin over the test bed: one file per Lua module, tables decoded into typed options.

mod args;
mod barrier;
mod batch;
mod bindings;
mod bridge;
mod bridge_args;
mod bridge_cuts;
mod bridge_new;
mod bridge_rates;
mod call;
mod clock;
mod console;
mod disk;
mod disk_options;
mod disk_state;
mod error;
mod expect_splat;
mod file;
mod file_runner;
mod file_state;
mod fixture_chunk;
mod fixtures;
mod globals;
mod guest_object;
mod hook;
mod json;
mod ktap;
mod lab;
mod lab_batch;
mod lab_snapshot;
mod lab_tools;
mod lab_tree;
mod modules;
mod nic;
mod parallel;
mod place;
mod popen;
mod process;
mod read_formats;
mod register;
mod registration;
mod render;
mod run_result;
mod signal;
mod snapshot;
mod std_io;
mod steps;
mod stream;
mod syscalls;
mod test_context;
mod test_runner;
mod test_splats;
mod vm;
mod vm_calls;
mod vm_disks;
mod vm_files;
mod vm_inspect;
mod vm_kernel;
mod vm_power;
mod vm_run;
mod worker;

pub use bindings::{CallRecord, binding_names};
pub use file_runner::{FileRun, FileSettings, run_file};
pub use fixture_chunk::{FixtureRequest, obtain_fixture};

/// Type definitions of the API for the Lua language server: names of files and their texts. `tests/stubs.rs` holds them against
/// the bindings.
pub const STUBS: &[(&str, &str)] = &[
    ("disks.lua", include_str!("stubs/disks.lua")),
    ("globals.lua", include_str!("stubs/globals.lua")),
    ("bridge.lua", include_str!("stubs/bridge.lua")),
    ("guest.lua", include_str!("stubs/guest.lua")),
    ("handles.lua", include_str!("stubs/handles.lua")),
    ("lab.lua", include_str!("stubs/lab.lua")),
    ("test.lua", include_str!("stubs/test.lua")),
    ("vm.lua", include_str!("stubs/vm.lua")),
];
