//! A bridge as its owner holds it.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::forwarding::Bridge;
use super::gateway::{Gateway, Host, Names, Neighbour, Route, Settings};
use super::impairments::Policy;
use super::io::{Shared, Sink};
use super::port::{Counters, Port};
use super::wire::Wire;

/// No two bridges of this process have the same name for each other.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// A bridge and its thread, which ends with it.
pub struct Switch {
    shared: Arc<Shared>,
    neighbour: Neighbour,
    next_port: AtomicU32,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Switch {
    /// Starts a bridge without ports.
    ///
    /// # Errors
    /// errno: no descriptors or no thread can be had.
    pub fn start(seed: u64, settings: Settings) -> io::Result<Self> {
        let (shared, thread) = Shared::start(Bridge::new(seed, Gateway::new(settings)))?;
        Ok(Self {
            shared,
            neighbour: Neighbour(NEXT.fetch_add(1, Ordering::Relaxed)),
            next_port: AtomicU32::new(1),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// A port for a guest that is plugged in later, or again.
    pub fn reserve(&self) -> Port {
        Port(self.next_port.fetch_add(1, Ordering::Relaxed))
    }

    /// Plugs a guest in; counts its port's frames anew.
    ///
    /// # Errors
    /// errno.
    pub fn plug(&self, port: Port, stream: UnixStream) -> io::Result<()> {
        self.shared.add_wire(port, Wire::new(stream)?)
    }

    /// Takes a port away, and what is in force for it.
    pub fn remove(&self, port: Port) {
        self.shared.remove_wire(port);
    }

    /// What went through a port.
    pub fn counters(&self, port: Port) -> Counters {
        self.shared.lock().bridge.counters(port)
    }

    /// What is in force.
    pub fn policy(&self) -> Policy {
        self.shared.lock().bridge.policy().clone()
    }

    /// Changes what is in force.
    pub fn change<T>(&self, act: impl FnOnce(&mut Policy) -> T) -> T {
        let mut state = self.shared.lock();
        let result = state.bridge.change(self.shared.now(), act);
        let policy = state.bridge.policy().clone();
        let back = state.io.take_back(|pair| policy.is_cut(pair));
        state.bridge.lost(&back);
        drop(state);
        self.shared.wake();
        result
    }

    /// Makes random decisions those of `seed`.
    pub fn reseed(&self, seed: u64) {
        self.shared.lock().bridge.reseed(seed);
    }

    /// The seed of random decisions.
    pub fn seed(&self) -> u64 {
        self.shared.lock().bridge.seed()
    }

    /// Who is there, and what names stand for.
    pub fn set_hosts(&self, hosts: Vec<Host>, names: Names) {
        self.shared.lock().bridge.gateway().set_hosts(hosts, names);
    }

    /// Which bridges packets are forwarded to: each with what lies behind it.
    pub fn set_routes(&self, others: &[(&Self, Route)]) {
        let mut state = self.shared.lock();
        for (other, _) in others {
            state.io.set_neighbour(other.neighbour, Some(Arc::downgrade(&other.shared)));
        }
        let routes = others.iter().map(|(other, route)| Route { to: other.neighbour, ..route.clone() });
        state.bridge.gateway().set_routes(routes.collect());
    }

    /// Its name among bridges.
    pub fn neighbour(&self) -> Neighbour {
        self.neighbour
    }

    /// The port behind which the world is.
    pub fn set_uplink(&self, port: Option<Port>) {
        self.shared.lock().bridge.set_uplink(port);
    }

    /// Puts a frame on the wire, from nobody.
    pub fn inject(&self, frame: &[u8]) {
        let mut state = self.shared.lock();
        let state = &mut *state;
        state.bridge.receive(self.shared.now(), Port::INJECTED, frame, &mut state.io);
        self.shared.wake();
    }

    /// Gives `sink` all frames that come in from now on, or those of one port, in the format of pcap.
    pub fn capture(&self, port: Option<Port>, sink: Sink) {
        self.shared.lock().io.add_tap(port, sink);
    }

    /// Ends the bridge; all cables are cut.
    pub fn stop(&self) {
        self.shared.stop();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // It does not panic; where it did, it has ended too.
            let _ = thread.join();
        }
        self.shared.lock().io.end_taps(None);
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.stop();
    }
}
