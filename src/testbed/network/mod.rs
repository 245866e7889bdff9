//! Bridges and cards: what machines are attached to, before and after boot.

mod addressing;
mod attach;
mod bridge;
mod error;
mod nic;
mod uplink;

pub use addressing::{Addresses, BRIDGES, Plan, parse_subnet};
pub use attach::{VmNetwork, attach, close, connect, detach, route, set_uplink};
pub(super) use attach::{bring_up_all, leave_all};
pub use bridge::{Bridge, BridgeOptions};
pub use error::BridgeError;
pub use nic::Nic;
