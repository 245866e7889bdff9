//! The Lua skin over the test bed: one file per Lua module, tables decoded into typed options.

mod args;
mod barrier;
mod bindings;
mod console;
mod error;
mod file_runner;
mod file_state;
mod globals;
mod json;
mod ktap;
mod lab;
mod lab_batch;
mod lab_tools;
mod lab_tree;
mod modules;
mod parallel;
mod place;
mod popen;
mod read_formats;
mod register;
mod registration;
mod render;
mod run_result;
mod std_io;
mod steps;
mod stream;
mod test_context;
mod test_runner;
mod vm;
mod vm_kernel;
mod vm_run;

pub use bindings::{CallRecord, binding_names};
pub use file_runner::{FileRun, FileSettings, run_file};
