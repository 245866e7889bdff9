//! The gateway's IPv6: neighbour discovery, pings, and forwarding.

use std::net::{IpAddr, Ipv6Addr};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetAddress, Icmpv6DstUnreachable, Icmpv6Packet, Icmpv6Repr, Icmpv6TimeExceeded, IpProtocol, Ipv6Packet,
    Ipv6Repr, NdiscNeighborFlags, NdiscRepr,
};

use super::frame::{Frame, Mac, build};
use super::gateway::{Gateway, IPV6, Reaction, Settings};

/// Whether two addresses have the first 64 bits in common.
pub fn same_net(one: Ipv6Addr, other: Ipv6Addr) -> bool {
    one.to_bits() >> 64 == other.to_bits() >> 64
}

/// The address on the link alone that a hardware address gives (RFC 4291, appendix A).
pub fn link_local(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    let word = |high, low| u16::from_be_bytes([high, low]);
    Ipv6Addr::new(0xfe80, 0, 0, 0, word(a ^ 2, b), word(c, 0xff), word(0xfe, d), word(e, f))
}

/// A frame that has come.
pub fn receive(gateway: &mut Gateway, frame: Frame<'_>, from_uplink: bool) -> Option<Vec<Reaction>> {
    let own = gateway.settings.ipv6?;
    let packet = Ipv6Packet::new_checked(frame.payload()).ok()?;
    let bytes = frame.payload().get(..packet.total_len())?;
    let (source, to) = (packet.src_addr(), packet.dst_addr());
    let link = link_local(gateway.settings.mac);
    if to.is_multicast() || to == own || to == link {
        if packet.next_header() != IpProtocol::Icmpv6 {
            return None;
        }
        let message = Icmpv6Packet::new_checked(packet.payload()).ok()?;
        let message = Icmpv6Repr::parse(&source, &to, &message, &ChecksumCapabilities::default()).ok()?;
        return message_for_us(gateway, frame, (source, to), message, from_uplink);
    }
    if from_uplink {
        return Some(gateway.inward6(to, bytes));
    }
    if frame.destination() != gateway.settings.mac || to.is_unicast_link_local() || same_net(own, to) {
        return None;
    }
    let mut reactions = gateway.learn(IpAddr::V6(source), frame.source());
    let header = header_of(&packet);
    let quoted = &packet.payload()[..packet.payload().len().min(1000)];
    if packet.hop_limit() <= 1 {
        let reason = Icmpv6TimeExceeded::HopLimitExceeded;
        let message = Icmpv6Repr::TimeExceeded { reason, header, data: quoted };
        reactions.extend(say(&gateway.settings, frame.source(), own, source, message, 64));
        return Some(reactions);
    }
    let mut onward = bytes.to_vec();
    Ipv6Packet::new_unchecked(&mut onward).set_hop_limit(packet.hop_limit() - 1);
    match gateway.onward6(to, onward) {
        Some(reaction) => reactions.push(reaction),
        None => {
            let reason = Icmpv6DstUnreachable::NoRoute;
            let message = Icmpv6Repr::DstUnreachable { reason, header, data: quoted };
            reactions.extend(say(&gateway.settings, frame.source(), own, source, message, 64));
        }
    }
    Some(reactions)
}

fn header_of(packet: &Ipv6Packet<&[u8]>) -> Ipv6Repr {
    Ipv6Repr {
        src_addr: packet.src_addr(),
        dst_addr: packet.dst_addr(),
        next_header: packet.next_header(),
        payload_len: packet.payload().len(),
        hop_limit: packet.hop_limit(),
    }
}

fn message_for_us(
    gateway: &mut Gateway,
    frame: Frame<'_>,
    (source, to): (Ipv6Addr, Ipv6Addr),
    message: Icmpv6Repr<'_>,
    from_uplink: bool,
) -> Option<Vec<Reaction>> {
    let own = gateway.settings.ipv6?;
    let link = link_local(gateway.settings.mac);
    let wrap = |frame| if from_uplink { Reaction::Uplink(frame) } else { Reaction::Send(frame) };
    match message {
        Icmpv6Repr::EchoRequest { ident, seq_no, data } if !to.is_multicast() => {
            let reply = Icmpv6Repr::EchoReply { ident, seq_no, data };
            Some(frame_of(&gateway.settings, frame.source(), to, source, reply, 64).map(wrap).into_iter().collect())
        }
        Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit { target_addr, .. }) => {
            let mut reactions =
                if from_uplink { Vec::new() } else { gateway.learn(IpAddr::V6(source), frame.source()) };
            let asked_for = target_addr == own || target_addr == link || (from_uplink && same_net(own, target_addr));
            // Somebody who asks without an address wants to know whether one is free.
            if asked_for && !source.is_unspecified() {
                let reply = Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert {
                    flags: NdiscNeighborFlags::ROUTER | NdiscNeighborFlags::SOLICITED | NdiscNeighborFlags::OVERRIDE,
                    target_addr,
                    lladdr: Some(EthernetAddress(gateway.settings.mac.0).into()),
                });
                let mac = frame.source();
                reactions.extend(frame_of(&gateway.settings, mac, target_addr, source, reply, 255).map(wrap));
            }
            Some(reactions)
        }
        Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert { target_addr, .. }) if !from_uplink => {
            Some(gateway.learn(IpAddr::V6(target_addr), frame.source()))
        }
        _ => None,
    }
}

/// Asks who has an address.
pub fn solicit(settings: &Settings, to: Ipv6Addr) -> Option<Vec<u8>> {
    let [.., a, b, c] = to.octets();
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, u16::from_be_bytes([0xff, a]), u16::from_be_bytes([b, c]));
    let message = Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit {
        target_addr: to,
        lladdr: Some(EthernetAddress(settings.mac.0).into()),
    });
    frame_of(settings, Mac([0x33, 0x33, 0xff, a, b, c]), settings.ipv6?, group, message, 255)
}

fn say(
    settings: &Settings,
    mac: Mac,
    from: Ipv6Addr,
    to: Ipv6Addr,
    message: Icmpv6Repr<'_>,
    hops: u8,
) -> Option<Reaction> {
    frame_of(settings, mac, from, to, message, hops).map(Reaction::Send)
}

fn frame_of(
    settings: &Settings,
    mac: Mac,
    from: Ipv6Addr,
    to: Ipv6Addr,
    message: Icmpv6Repr<'_>,
    hop_limit: u8,
) -> Option<Vec<u8>> {
    let length = message.buffer_len();
    u16::try_from(length).ok()?;
    let header =
        Ipv6Repr { src_addr: from, dst_addr: to, next_header: IpProtocol::Icmpv6, payload_len: length, hop_limit };
    let mut packet = vec![0; header.buffer_len() + length];
    header.emit(&mut Ipv6Packet::new_unchecked(&mut packet[..]));
    let body = &mut packet[header.buffer_len()..];
    message.emit(&from, &to, &mut Icmpv6Packet::new_unchecked(body), &ChecksumCapabilities::default());
    Some(build(mac, settings.mac, IPV6, &packet))
}
