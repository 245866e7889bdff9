//! The bridge's own address: it answers ARP, neighbour discovery and pings, serves DHCP and DNS, and forwards IP packets to
//! other bridges and to the world.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpHardware, ArpOperation, ArpPacket, ArpRepr, EthernetAddress, Icmpv4DstUnreachable, Icmpv4Message, Icmpv4Packet,
    Icmpv4Repr, Icmpv4TimeExceeded, IpProtocol, Ipv4Packet, Ipv4Repr, UdpPacket, UdpRepr,
};

use super::frame::{Frame, Mac, build};
use super::{dhcp, dns, gateway6};

/// Ethertypes.
pub(super) const IPV4: u16 = 0x0800;
pub(super) const ARP: u16 = 0x0806;
pub(super) const IPV6: u16 = 0x86dd;
/// How many addresses that nobody told of are remembered.
const NEIGHBOURS: usize = 1024;
/// How many packets wait for an address to be found out.
const PATIENCE: usize = 64;

/// Another bridge that packets are forwarded to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Neighbour(pub u64);

/// An IPv4 network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Net4 {
    /// Any address in it.
    pub address: Ipv4Addr,
    /// Bits of the network's part.
    pub prefix: u8,
}

impl Net4 {
    /// Whether an address is in it.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        (self.address.to_bits() ^ address.to_bits()) & self.mask().to_bits() == 0
    }

    /// Its mask.
    pub fn mask(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(u32::MAX.checked_shl(32 - u32::from(self.prefix.min(32))).unwrap_or_default())
    }

    /// Its first address.
    pub fn network(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address.to_bits() & self.mask().to_bits())
    }

    /// Its last address.
    pub fn broadcast(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address.to_bits() | !self.mask().to_bits())
    }
}

/// A guest's card, as the services know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its hardware address.
    pub mac: Mac,
    /// Its IPv4 address.
    pub ipv4: Ipv4Addr,
    /// Its IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
    /// Its name without the bridge's.
    pub name: String,
}

/// What can be reached over another bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Its IPv4 network.
    pub net4: Net4,
    /// The first 64 bits of its IPv6 network.
    pub net6: Option<Ipv6Addr>,
    /// Who takes the packets.
    pub to: Neighbour,
}

/// What a gateway is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Its hardware address.
    pub mac: Mac,
    /// Its IPv4 address and network.
    pub net4: Net4,
    /// Its IPv6 address; the network has 64 bits.
    pub ipv6: Option<Ipv6Addr>,
    /// The largest packet.
    pub mtu: u16,
    /// Whether it serves DHCP.
    pub dhcp: bool,
    /// Whether it serves DNS.
    pub dns: bool,
    /// The name of the network.
    pub domain: String,
}

/// What names stand for, in small letters.
pub type Names = BTreeMap<String, Vec<IpAddr>>;

/// What a gateway wants done.
#[derive(Debug, PartialEq, Eq)]
pub enum Reaction {
    /// A frame for the bridge.
    Send(Vec<u8>),
    /// A frame for the world.
    Uplink(Vec<u8>),
    /// A packet for another bridge.
    Route(Neighbour, Vec<u8>),
}

/// A gateway.
#[derive(Debug)]
pub struct Gateway {
    pub(super) settings: Settings,
    pub(super) hosts: Vec<Host>,
    names: Names,
    routes: Vec<Route>,
    has_uplink: bool,
    /// The next hop in the world.
    uplink_mac: Mac,
    neighbours: HashMap<IpAddr, Mac>,
    waiting: Vec<(IpAddr, Vec<u8>)>,
}

impl Gateway {
    /// A gateway that knows nobody.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            hosts: Vec::new(),
            names: Names::new(),
            routes: Vec::new(),
            has_uplink: false,
            uplink_mac: Mac::BROADCAST,
            neighbours: HashMap::new(),
            waiting: Vec::new(),
        }
    }

    /// Its hardware address.
    pub fn mac(&self) -> Mac {
        self.settings.mac
    }

    /// Who is on the bridge, and what names stand for.
    pub fn set_hosts(&mut self, hosts: Vec<Host>, names: Names) {
        self.hosts = hosts;
        self.names = names;
    }

    /// What can be reached over other bridges.
    pub fn set_routes(&mut self, routes: Vec<Route>) {
        self.routes = routes;
    }

    /// Whether the world can be reached.
    pub(super) fn set_uplink(&mut self, is_there: bool) {
        self.has_uplink = is_there;
        self.uplink_mac = Mac::BROADCAST;
    }

    /// A frame for it, or for all; `from_uplink` where it comes from the world.
    pub fn receive(&mut self, frame: Frame<'_>, from_uplink: bool) -> Vec<Reaction> {
        if from_uplink {
            self.uplink_mac = frame.source();
        }
        let reactions = match frame.ethertype() {
            ARP => self.arp(frame, from_uplink),
            IPV4 => self.ipv4(frame, from_uplink),
            IPV6 => gateway6::receive(self, frame, from_uplink),
            _ => None,
        };
        reactions.unwrap_or_default()
    }

    /// A packet from another bridge, for somebody on this one.
    pub fn routed(&mut self, packet: &[u8]) -> Vec<Reaction> {
        let to = match packet.first().map(|first| first >> 4) {
            Some(4) => Ipv4Packet::new_checked(packet).ok().map(|packet| IpAddr::V4(packet.dst_addr())),
            Some(6) => smoltcp::wire::Ipv6Packet::new_checked(packet).ok().map(|packet| IpAddr::V6(packet.dst_addr())),
            _ => None,
        };
        let Some(to) = to.filter(|to| self.is_local(*to)) else { return Vec::new() };
        self.towards(to, packet)
    }

    fn is_local(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.settings.net4.contains(address) && address != self.settings.net4.address,
            IpAddr::V6(address) => {
                self.settings.ipv6.is_some_and(|own| gateway6::same_net(own, address) && own != address)
            }
        }
    }

    /// Sends a packet to somebody on the bridge, whose hardware address is found out where it is not known.
    fn towards(&mut self, to: IpAddr, packet: &[u8]) -> Vec<Reaction> {
        let ethertype = if to.is_ipv4() { IPV4 } else { IPV6 };
        if let Some(mac) = self.mac_of(to) {
            return vec![Reaction::Send(build(mac, self.settings.mac, ethertype, packet))];
        }
        if self.waiting.len() >= PATIENCE {
            self.waiting.remove(0);
        }
        self.waiting.push((to, packet.to_vec()));
        match to {
            IpAddr::V4(to) => vec![Reaction::Send(self.arp_request(to))],
            IpAddr::V6(to) => gateway6::solicit(&self.settings, to).into_iter().map(Reaction::Send).collect(),
        }
    }

    fn mac_of(&self, address: IpAddr) -> Option<Mac> {
        if let Some(mac) = self.neighbours.get(&address) {
            return Some(*mac);
        }
        let is_it = |host: &&Host| match address {
            IpAddr::V4(address) => host.ipv4 == address,
            IpAddr::V6(address) => host.ipv6 == Some(address),
        };
        self.hosts.iter().find(is_it).map(|host| host.mac)
    }

    /// Remembers who has an address, and sends what waited for that.
    pub(super) fn learn(&mut self, address: IpAddr, mac: Mac) -> Vec<Reaction> {
        if !self.is_local(address) || mac.is_group() {
            return Vec::new();
        }
        if self.neighbours.len() < NEIGHBOURS || self.neighbours.contains_key(&address) {
            self.neighbours.insert(address, mac);
        }
        let (ready, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|(to, _)| *to == address);
        self.waiting = waiting;
        ready.into_iter().flat_map(|(to, packet)| self.towards(to, &packet)).collect()
    }

    fn arp_request(&self, to: Ipv4Addr) -> Vec<u8> {
        arp_request(self.settings.mac, self.settings.net4.address, to)
    }

    fn arp(&mut self, frame: Frame<'_>, from_uplink: bool) -> Option<Vec<Reaction>> {
        let packet = ArpPacket::new_checked(frame.payload()).ok()?;
        if packet.hardware_type() != ArpHardware::Ethernet {
            return None;
        }
        let ArpRepr::EthernetIpv4 {
            operation, source_hardware_addr, source_protocol_addr, target_protocol_addr, ..
        } = ArpRepr::parse(&packet).ok()?
        else {
            return None;
        };
        let sender = Mac(source_hardware_addr.0);
        let mut reactions = if from_uplink { Vec::new() } else { self.learn(IpAddr::V4(source_protocol_addr), sender) };
        // Towards the world the gateway stands for all that is behind it.
        let asked_for = target_protocol_addr == self.settings.net4.address
            || (from_uplink && self.settings.net4.contains(target_protocol_addr));
        if operation == ArpOperation::Request && asked_for && source_protocol_addr != target_protocol_addr {
            let reply = ArpRepr::EthernetIpv4 {
                operation: ArpOperation::Reply,
                source_hardware_addr: EthernetAddress(self.settings.mac.0),
                source_protocol_addr: target_protocol_addr,
                target_hardware_addr: source_hardware_addr,
                target_protocol_addr: source_protocol_addr,
            };
            let mut payload = vec![0; reply.buffer_len()];
            reply.emit(&mut ArpPacket::new_unchecked(&mut payload));
            let frame = build(sender, self.settings.mac, ARP, &payload);
            reactions.push(if from_uplink { Reaction::Uplink(frame) } else { Reaction::Send(frame) });
        }
        Some(reactions)
    }

    fn ipv4(&mut self, frame: Frame<'_>, from_uplink: bool) -> Option<Vec<Reaction>> {
        let packet = Ipv4Packet::new_checked(frame.payload()).ok()?;
        let bytes = frame.payload().get(..usize::from(packet.total_len()))?;
        let (source, to) = (packet.src_addr(), packet.dst_addr());
        let net = self.settings.net4;
        if from_uplink {
            return Some(if self.is_local(IpAddr::V4(to)) { self.towards(IpAddr::V4(to), bytes) } else { Vec::new() });
        }
        if to == net.address || to.is_broadcast() || to == net.broadcast() {
            return self.for_us(frame, &packet);
        }
        // What merely came to all is not to be forwarded.
        if frame.destination() != self.settings.mac || to.is_multicast() || self.is_local(IpAddr::V4(to)) {
            return None;
        }
        let mut reactions = self.learn(IpAddr::V4(source), frame.source());
        let way = self.routes.iter().find(|route| route.net4.contains(to)).map(|route| route.to);
        if packet.hop_limit() <= 1 {
            let expired =
                |header, data| Icmpv4Repr::TimeExceeded { reason: Icmpv4TimeExceeded::TtlExpired, header, data };
            reactions.extend(self.complain(frame.source(), &packet, expired));
            return Some(reactions);
        }
        let mut onward = bytes.to_vec();
        let mut header = Ipv4Packet::new_unchecked(&mut onward);
        header.set_hop_limit(packet.hop_limit() - 1);
        header.fill_checksum();
        match way {
            Some(to) => reactions.push(Reaction::Route(to, onward)),
            None if self.has_uplink => {
                reactions.push(Reaction::Uplink(build(self.uplink_mac, self.settings.mac, IPV4, &onward)));
            }
            None => {
                let reason = Icmpv4DstUnreachable::NetUnreachable;
                let nowhere = |header, data| Icmpv4Repr::DstUnreachable { reason, header, data };
                reactions.extend(self.complain(frame.source(), &packet, nowhere));
            }
        }
        Some(reactions)
    }

    /// Tells the sender of a packet why it goes nowhere; never about an error message itself.
    fn complain<'a>(
        &self,
        to: Mac,
        packet: &Ipv4Packet<&'a [u8]>,
        message: impl FnOnce(Ipv4Repr, &'a [u8]) -> Icmpv4Repr<'a>,
    ) -> Option<Reaction> {
        let payload = packet.payload();
        if packet.next_header() == IpProtocol::Icmp
            && !matches!(Icmpv4Packet::new_checked(payload).ok()?.msg_type(), Icmpv4Message::EchoRequest)
        {
            return None;
        }
        let header = Ipv4Repr {
            src_addr: packet.src_addr(),
            dst_addr: packet.dst_addr(),
            next_header: packet.next_header(),
            payload_len: payload.len(),
            hop_limit: packet.hop_limit(),
        };
        let message = message(header, &payload[..payload.len().min(8)]);
        self.icmp(to, packet.src_addr(), &message)
    }

    fn icmp(&self, mac: Mac, to: Ipv4Addr, message: &Icmpv4Repr<'_>) -> Option<Reaction> {
        let mut payload = vec![0; message.buffer_len()];
        let checksums = ChecksumCapabilities::default();
        message.emit(&mut Icmpv4Packet::new_unchecked(&mut payload), &checksums);
        self.packet(mac, to, IpProtocol::Icmp, &payload)
    }

    fn packet(&self, mac: Mac, to: Ipv4Addr, protocol: IpProtocol, payload: &[u8]) -> Option<Reaction> {
        let header = Ipv4Repr {
            src_addr: self.settings.net4.address,
            dst_addr: to,
            next_header: protocol,
            payload_len: payload.len(),
            hop_limit: 64,
        };
        let mut packet = vec![0; header.buffer_len() + payload.len()];
        // The length field has 16 bits.
        u16::try_from(packet.len()).ok()?;
        packet[header.buffer_len()..].copy_from_slice(payload);
        header.emit(&mut Ipv4Packet::new_unchecked(&mut packet), &ChecksumCapabilities::default());
        Some(Reaction::Send(build(mac, self.settings.mac, IPV4, &packet)))
    }

    fn for_us(&mut self, frame: Frame<'_>, packet: &Ipv4Packet<&[u8]>) -> Option<Vec<Reaction>> {
        let checksums = ChecksumCapabilities::default();
        let own = self.settings.net4.address;
        match packet.next_header() {
            IpProtocol::Icmp if packet.dst_addr() == own => {
                let message = Icmpv4Packet::new_checked(packet.payload()).ok()?;
                let Icmpv4Repr::EchoRequest { ident, seq_no, data } = Icmpv4Repr::parse(&message, &checksums).ok()?
                else {
                    return None;
                };
                let reply = Icmpv4Repr::EchoReply { ident, seq_no, data };
                Some(self.icmp(frame.source(), packet.src_addr(), &reply).into_iter().collect())
            }
            IpProtocol::Udp => {
                let datagram = UdpPacket::new_checked(packet.payload()).ok()?;
                let addresses = (packet.src_addr().into(), packet.dst_addr().into());
                UdpRepr::parse(&datagram, &addresses.0, &addresses.1, &checksums).ok()?;
                self.datagram(frame, packet, &datagram).map(|reaction| vec![reaction])
            }
            _ => None,
        }
    }

    fn datagram(
        &mut self,
        frame: Frame<'_>,
        packet: &Ipv4Packet<&[u8]>,
        datagram: &UdpPacket<&[u8]>,
    ) -> Option<Reaction> {
        match datagram.dst_port() {
            dhcp::SERVER_PORT if self.settings.dhcp => {
                let routed = self.has_uplink || !self.routes.is_empty();
                let answer = dhcp::answer(&self.settings, &self.hosts, routed, datagram.payload())?;
                self.udp(answer.mac, answer.to, (dhcp::SERVER_PORT, dhcp::CLIENT_PORT), &answer.payload)
            }
            dns::PORT if self.settings.dns && packet.dst_addr() == self.settings.net4.address => {
                let answer = dns::answer(&self.names, &self.settings.domain, datagram.payload())?;
                self.udp(frame.source(), packet.src_addr(), (dns::PORT, datagram.src_port()), &answer)
            }
            _ => None,
        }
    }

    fn udp(&self, mac: Mac, to: Ipv4Addr, (from_port, to_port): (u16, u16), payload: &[u8]) -> Option<Reaction> {
        let header = UdpRepr { src_port: from_port, dst_port: to_port };
        let mut datagram = vec![0; header.header_len() + payload.len()];
        header.emit(
            &mut UdpPacket::new_unchecked(&mut datagram),
            &self.settings.net4.address.into(),
            &to.into(),
            payload.len(),
            |buffer| buffer.copy_from_slice(payload),
            &ChecksumCapabilities::default(),
        );
        self.packet(mac, to, IpProtocol::Udp, &datagram)
    }

    /// The bridge that an IPv6 address lies behind.
    pub(super) fn way6(&self, to: Ipv6Addr) -> Option<Neighbour> {
        let is_there = |route: &&Route| route.net6.is_some_and(|net| gateway6::same_net(net, to));
        self.routes.iter().find(is_there).map(|route| route.to)
    }

    /// Sends on, over IPv6, what came for the world or for another bridge.
    pub(super) fn onward6(&mut self, to: Ipv6Addr, packet: Vec<u8>) -> Option<Reaction> {
        match self.way6(to) {
            Some(to) => Some(Reaction::Route(to, packet)),
            None if self.has_uplink => Some(Reaction::Uplink(build(self.uplink_mac, self.settings.mac, IPV6, &packet))),
            None => None,
        }
    }

    /// Delivers a packet from the world.
    pub(super) fn inward6(&mut self, to: Ipv6Addr, packet: &[u8]) -> Vec<Reaction> {
        if self.is_local(IpAddr::V6(to)) { self.towards(IpAddr::V6(to), packet) } else { Vec::new() }
    }
}

/// A frame to all, in which the host with `mac` and the address `own` asks who has the address `to`.
pub fn arp_request(mac: Mac, own: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    let request = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: EthernetAddress(mac.0),
        source_protocol_addr: own,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: to,
    };
    let mut payload = vec![0; request.buffer_len()];
    request.emit(&mut ArpPacket::new_unchecked(&mut payload));
    build(Mac::BROADCAST, mac, ARP, &payload)
}
