//! Provium boots real virtual machines and runs Lua tests against them.
//!
//! Each module below is a room with a layer; a room imports only from lower layers (`docs/architecture.md`, checked
//! by `tests/import_direction.rs`). Without the feature `host` only what the guest agent needs is built.

pub mod agent_protocol;
pub mod foundation;
pub mod guest_agent;

#[cfg(feature = "host")]
pub mod agent_client;
#[cfg(feature = "host")]
pub mod cli;
#[cfg(feature = "host")]
pub mod disks;
#[cfg(feature = "host")]
pub mod fixtures;
#[cfg(feature = "host")]
pub mod lua_api;
#[cfg(feature = "host")]
pub mod nix_realiser;
#[cfg(feature = "host")]
pub mod project;
#[cfg(feature = "host")]
pub mod qemu;
#[cfg(feature = "host")]
pub mod reporters;
#[cfg(feature = "host")]
pub mod run_events;
#[cfg(feature = "host")]
pub mod scheduler;
#[cfg(feature = "host")]
pub mod switch;
#[cfg(feature = "host")]
pub mod testbed;
