//! Subcommands, wiring, exit codes.

pub mod args;
pub mod build;
pub mod build_hook;
pub mod completions;
pub mod error;
pub mod exit_code;
pub mod fixture;
pub mod host_info;
pub mod images;
pub mod logging;
pub mod lsp_setup;
pub mod man;
pub mod output;
pub mod profile;
pub mod session;
pub mod test;
pub mod time_limit;

mod entry;
mod panic_hook;

pub use entry::main;
