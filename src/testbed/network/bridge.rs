//! A bridge: its members, what is in force on it, where it leads.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::addressing::Plan;
use super::error::BridgeError;
use super::nic::Nic;
use super::uplink::Uplink;
use crate::agent_protocol::CardRoute;
use crate::foundation::path_error::describe_io;
use crate::switch::{Names, Net4, Policy, Port, Route, Settings, Switch};
use crate::testbed::stream::ByteStream;
use crate::testbed::vm::Vm;

/// The shortest frame that can be put on the wire: a header.
const SHORTEST_FRAME: usize = 14;

/// What a bridge is made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeOptions {
    /// The IPv4 network; chosen where none is given.
    pub subnet: Option<Net4>,
    /// Whether members have IPv6 addresses; `Some(true)` gives them names too.
    pub ipv6: Option<bool>,
    /// The largest packet.
    pub mtu: u16,
    /// Whether DHCP is served.
    pub dhcp: bool,
    /// Whether DNS is served.
    pub dns: bool,
    /// Whether the agent sets the guests' cards up.
    pub addresses: bool,
}

impl Default for BridgeOptions {
    fn default() -> Self {
        Self { subnet: None, ipv6: None, mtu: 1500, dhcp: true, dns: true, addresses: true }
    }
}

#[derive(Default)]
struct Inner {
    nics: Vec<Arc<Nic>>,
    /// Who was ever attached: a machine that comes back has its old number.
    numbers: Vec<String>,
    routes: Vec<Weak<Bridge>>,
}

/// A bridge.
pub struct Bridge {
    name: String,
    plan: Plan,
    options: BridgeOptions,
    switch: Switch,
    inner: Mutex<Inner>,
    closed: AtomicBool,
    pub(super) uplink: tokio::sync::Mutex<Option<Uplink>>,
}

impl Bridge {
    /// A bridge without members.
    ///
    /// # Errors
    /// No thread or descriptors can be had.
    pub fn new(name: &str, plan: Plan, options: BridgeOptions, seed: u64) -> Result<Arc<Self>, BridgeError> {
        let gateway = plan.gateway();
        let settings = Settings {
            mac: gateway.mac,
            net4: Net4 { address: gateway.ipv4, prefix: gateway.prefix },
            ipv6: gateway.ipv6,
            mtu: options.mtu,
            dhcp: options.dhcp,
            dns: options.dns,
            domain: name.to_owned(),
        };
        let switch = Switch::start(seed, settings).map_err(|error| {
            BridgeError::new(name, "bridge", format!("it can't be started: {}", describe_io(&error)))
        })?;
        Ok(Arc::new(Self {
            name: name.to_owned(),
            plan,
            options,
            switch,
            inner: Mutex::default(),
            closed: AtomicBool::new(false),
            uplink: tokio::sync::Mutex::new(None),
        }))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its networks.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What it was made with.
    pub fn options(&self) -> &BridgeOptions {
        &self.options
    }

    /// The switch itself.
    pub fn switch(&self) -> &Switch {
        &self.switch
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is over.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    pub(super) fn set_closed(&self) -> bool {
        self.closed.swap(true, Ordering::SeqCst)
    }

    /// Its members' cards, in the order in which they were attached.
    pub fn nics(&self) -> Vec<Arc<Nic>> {
        self.inner().nics.clone()
    }

    /// The card of `vm`.
    pub fn nic_of(&self, vm: &Vm) -> Option<Arc<Nic>> {
        self.inner().nics.iter().find(|nic| nic.vm().is_some_and(|other| std::ptr::eq(&raw const *other, vm))).cloned()
    }

    /// A new member's card; it is on the bridge from now on.
    ///
    /// # Errors
    /// A member of that name is there; there is no address left.
    pub(super) fn add(self: &Arc<Self>, vm: &Arc<Vm>, index: u32) -> Result<Arc<Nic>, BridgeError> {
        let mut inner = self.inner();
        let refuse = |why: String| BridgeError::new(&self.name, "attach", why);
        if inner.nics.iter().any(|nic| nic.vm_name() == vm.name()) {
            return Err(refuse(format!("there is another member `{}` already", vm.name())));
        }
        let number = match inner.numbers.iter().position(|name| name == vm.name()) {
            Some(number) => number,
            None => {
                inner.numbers.push(vm.name().to_owned());
                inner.numbers.len() - 1
            }
        };
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        if number >= self.plan.room() {
            let prefix = self.plan.net4.prefix;
            return Err(refuse(format!("the network `{}/{prefix}` has no address left", self.plan.net4.network())));
        }
        let nic = Arc::new(Nic::new(vm, self, index, self.switch.reserve(), self.plan.member(number)));
        inner.nics.push(Arc::clone(&nic));
        Ok(nic)
    }

    pub(super) fn remove(&self, nic: &Arc<Nic>) {
        self.inner().nics.retain(|other| !Arc::ptr_eq(other, nic));
        nic.set_detached();
        self.switch.remove(nic.port());
    }

    /// The bridges that packets are forwarded to.
    pub fn routes(&self) -> Vec<Arc<Self>> {
        self.inner().routes.iter().filter_map(Weak::upgrade).filter(|other| !other.is_closed()).collect()
    }

    /// Packets are forwarded to `other` from now on, or no more; the other side is `other`'s own affair.
    pub(super) fn set_route(&self, other: &Arc<Self>, there: bool) {
        let mut inner = self.inner();
        inner.routes.retain(|known| known.upgrade().is_some_and(|known| !Arc::ptr_eq(&known, other)));
        if there {
            inner.routes.push(Arc::downgrade(other));
        }
        drop(inner);
        self.tell_routes();
    }

    pub(super) fn tell_routes(&self) {
        let others = self.routes();
        let routes: Vec<(&Switch, Route)> = others
            .iter()
            .map(|other| {
                let (net4, net6) = (other.plan.net4, other.plan.net6);
                (&other.switch, Route { net4, net6, to: other.switch.neighbour() })
            })
            .collect();
        self.switch.set_routes(&routes);
    }

    /// The routes that its members need.
    pub(super) async fn card_routes(&self) -> Vec<CardRoute> {
        let gateway = self.plan.gateway();
        let mut routes = Vec::new();
        let mut add = |to: IpAddr, prefix: u8| {
            let (to, via) = match (to, gateway.ipv6) {
                (IpAddr::V4(to), _) => (to.octets().to_vec(), gateway.ipv4.octets().to_vec()),
                (IpAddr::V6(to), Some(via)) => (to.octets().to_vec(), via.octets().to_vec()),
                (IpAddr::V6(_), None) => return,
            };
            routes.push(CardRoute { to, prefix, via });
        };
        for other in self.routes() {
            add(other.plan.net4.network().into(), other.plan.net4.prefix);
            if let Some(net) = other.plan.net6 {
                add(net.into(), 64);
            }
        }
        if self.uplink.lock().await.is_some() {
            add(std::net::Ipv4Addr::UNSPECIFIED.into(), 0);
        }
        routes
    }

    /// The members' names with the bridge's, and what they stand for.
    pub(super) fn full_names(&self) -> Vec<(String, String, Vec<IpAddr>)> {
        let named6 = self.options.ipv6 == Some(true);
        let name = |nic: &Arc<Nic>| {
            let addresses = nic.addresses();
            let ipv6 = addresses.ipv6.filter(|_| named6).map(IpAddr::V6);
            let all = std::iter::once(IpAddr::V4(addresses.ipv4)).chain(ipv6).collect();
            (format!("{}.{}", nic.vm_name(), self.name), nic.vm_name().to_owned(), all)
        };
        self.nics().iter().map(name).collect()
    }

    /// Tells the bridge's services who is there.
    pub(super) fn tell_hosts(&self) {
        let hosts = self.nics().iter().map(|nic| nic.host()).collect();
        let here = std::iter::once(self.full_names());
        let all: Vec<_> = here.chain(self.routes().iter().map(|other| other.full_names())).collect();
        self.switch.set_hosts(hosts, names(&all));
    }

    /// What is in force.
    pub fn policy(&self) -> Policy {
        self.switch.policy()
    }

    /// Everything that can be cut off: the members and the gateway.
    pub fn ports(&self) -> Vec<Port> {
        std::iter::once(Port::GATEWAY).chain(self.nics().iter().map(|nic| nic.port())).collect()
    }

    /// Puts a frame on the wire.
    ///
    /// # Errors
    /// It is none.
    pub fn inject(&self, frame: &[u8]) -> Result<(), BridgeError> {
        if !(SHORTEST_FRAME..=crate::switch::LONGEST).contains(&frame.len()) {
            let why = format!(
                "expected an Ethernet frame of {SHORTEST_FRAME} to {} bytes, found {} bytes",
                crate::switch::LONGEST,
                frame.len()
            );
            return Err(BridgeError::new(&self.name, "inject", why));
        }
        self.switch.inject(frame);
        Ok(())
    }

    /// All frames that come in from now on, or those of one card, in the format of pcap.
    pub fn capture(&self, port: Option<Port>) -> Arc<ByteStream> {
        let stream = Arc::new(ByteStream::new());
        let pushed = EndsWithTap(Arc::clone(&stream));
        self.switch.capture(port, Box::new(move |bytes| pushed.0.push(bytes)));
        stream
    }

    /// As [`Self::capture`], into a file, which is complete at any moment; until the returned stream is closed.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn capture_file(&self, port: Option<Port>, path: &Path) -> Result<Arc<ByteStream>, BridgeError> {
        let refuse = |error: std::io::Error| {
            BridgeError::new(
                &self.name,
                "capture",
                format!("on the host: `{}`: {}", path.display(), describe_io(&error)),
            )
        };
        let mut file = std::fs::File::create(path).map_err(refuse)?;
        let stream = Arc::new(ByteStream::new());
        let ended = EndsWithTap(Arc::clone(&stream));
        let write = move |bytes: Vec<u8>| {
            !ended.0.is_closed()
                && std::io::Write::write_all(&mut file, &bytes)
                    .inspect_err(|error| {
                        ended.0.end(Err(format!("the file can't be written: {}", describe_io(error))));
                    })
                    .is_ok()
        };
        self.switch.capture(port, Box::new(write));
        Ok(stream)
    }
}

/// Ends the stream when the capture ends.
struct EndsWithTap(Arc<ByteStream>);

impl Drop for EndsWithTap {
    fn drop(&mut self) {
        self.0.end(Ok(()));
    }
}

/// What names stand for: those with a bridge's name, and short ones where only one machine has them.
pub(super) fn names(bridges: &[Vec<(String, String, Vec<IpAddr>)>]) -> Names {
    let mut all = Names::new();
    let mut short: BTreeMap<String, Option<Vec<IpAddr>>> = BTreeMap::new();
    for (full, alone, addresses) in bridges.iter().flatten() {
        all.insert(full.to_lowercase(), addresses.clone());
        short
            .entry(alone.to_lowercase())
            .and_modify(|known| {
                if known.as_ref() != Some(addresses) {
                    *known = None;
                }
            })
            .or_insert_with(|| Some(addresses.clone()));
    }
    for (name, addresses) in short {
        if let Some(addresses) = addresses {
            all.entry(name).or_insert(addresses);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_there_where_they_are_unambiguous() {
        let entry = |vm: &str, bridge: &str, address: &str| {
            (format!("{vm}.{bridge}"), vm.to_owned(), vec![address.parse::<IpAddr>().unwrap()])
        };
        let lan = vec![entry("A", "lan", "10.10.1.2"), entry("b", "lan", "10.10.1.3")];
        let wan = vec![entry("b", "wan", "10.10.2.2")];
        let names = names(&[lan, wan]);
        let keys: Vec<&str> = names.keys().map(String::as_str).collect();
        assert_eq!(keys, ["a", "a.lan", "b.lan", "b.wan"]);
    }
}
