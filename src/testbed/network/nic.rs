//! One machine's card on one bridge.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::addressing::Addresses;
use super::bridge::Bridge;
use crate::agent_protocol::{Card, CardRoute};
use crate::qemu::CardSpec;
use crate::switch::{Counters, Host, Port};
use crate::testbed::vm::Vm;

/// A card.
pub struct Nic {
    vm: Weak<Vm>,
    vm_name: String,
    bridge: Weak<Bridge>,
    bridge_name: String,
    /// Its number among the machine's cards, from 0.
    index: u32,
    port: Port,
    addresses: Addresses,
    mtu: u16,
    connected: AtomicBool,
    attached: AtomicBool,
    /// Routes that were set up in the guest.
    routes: Mutex<Vec<CardRoute>>,
}

impl Nic {
    /// The card of `vm` on `bridge`.
    pub(super) fn new(vm: &Arc<Vm>, bridge: &Arc<Bridge>, index: u32, port: Port, addresses: Addresses) -> Self {
        Self {
            vm: Arc::downgrade(vm),
            vm_name: vm.name().to_owned(),
            bridge: Arc::downgrade(bridge),
            bridge_name: bridge.name().to_owned(),
            index,
            port,
            addresses,
            mtu: bridge.options().mtu,
            connected: AtomicBool::new(true),
            attached: AtomicBool::new(true),
            routes: Mutex::default(),
        }
    }

    /// The machine, while there is one.
    pub fn vm(&self) -> Option<Arc<Vm>> {
        self.vm.upgrade()
    }

    /// The machine's name.
    pub fn vm_name(&self) -> &str {
        &self.vm_name
    }

    /// The bridge, while there is one.
    pub fn bridge(&self) -> Option<Arc<Bridge>> {
        self.bridge.upgrade()
    }

    /// The bridge's name.
    pub fn bridge_name(&self) -> &str {
        &self.bridge_name
    }

    /// Its number among the machine's cards, from 0: `ethN`.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Its addresses.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Its port of the switch.
    pub fn port(&self) -> Port {
        self.port
    }

    /// What went through it, as the guest sees it.
    pub fn counters(&self) -> Counters {
        self.bridge().map(|bridge| bridge.switch().counters(self.port)).unwrap_or_default()
    }

    /// Whether it has a carrier.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::SeqCst)
    }

    pub(super) fn set_connected(&self, connected: bool) {
        self.connected.store(connected, Ordering::SeqCst);
    }

    /// Whether it is still on its bridge.
    pub fn is_attached(&self) -> bool {
        self.attached.load(Ordering::SeqCst)
    }

    pub(super) fn set_detached(&self) {
        self.attached.store(false, Ordering::SeqCst);
    }

    /// What QEMU calls it.
    pub(super) fn id(&self) -> String {
        format!("nic{}", self.index)
    }

    /// As QEMU is told of it.
    pub(super) fn spec(&self) -> CardSpec {
        CardSpec { id: self.id(), mac: self.addresses.mac.to_string(), mtu: self.mtu }
    }

    /// As the bridge's services know it.
    pub(super) fn host(&self) -> Host {
        Host {
            mac: self.addresses.mac,
            ipv4: self.addresses.ipv4,
            ipv6: self.addresses.ipv6,
            name: self.vm_name.clone(),
        }
    }

    /// As the agent is to set it up, with these routes; `old_mac` is the hardware address that it has so far.
    pub(super) fn card(&self, routes: &[CardRoute], old_mac: Option<[u8; 6]>) -> Card {
        let address = |bytes: &[u8], prefix| (bytes.to_vec(), prefix);
        let ipv4 = address(&self.addresses.ipv4.octets(), self.addresses.prefix);
        let ipv6 = self.addresses.ipv6.map(|ipv6| address(&ipv6.octets(), 64));
        let mut known = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = known.iter().filter(|route| !routes.contains(route)).cloned().collect();
        *known = routes.to_vec();
        let mac = self.addresses.mac.0;
        Card {
            mac: old_mac.unwrap_or(mac),
            new_mac: old_mac.map(|_| mac),
            mtu: self.mtu.into(),
            addresses: std::iter::once(ipv4).chain(ipv6).collect(),
            routes: routes.to_vec(),
            ended_routes: ended,
        }
    }
}
