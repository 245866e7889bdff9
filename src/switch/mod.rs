//! A layer-2 switch inside this process. `forwarding`, `gateway` and what they use are pure: frames and moments in, frames
//! out; `io` moves the bytes.

mod capture;
mod dhcp;
mod dns;
mod forwarding;
mod frame;
mod gateway;
mod gateway6;
mod handle;
mod impairments;
mod io;
mod line;
mod port;
mod random;
mod shaper;
#[cfg(test)]
mod tests;
mod wire;

pub use forwarding::{Bridge, Moment, Output, Queued};
pub use frame::{Frame, LONGEST, Mac};
pub use gateway::{Gateway, Host, Names, Neighbour, Net4, Reaction, Route, Settings, arp_request};
pub use handle::Switch;
pub use impairments::{Impairment, Pair, Policy};
pub use io::Sink;
pub use port::{Counters, Port};
