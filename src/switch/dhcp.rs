//! DHCP for guests with a client of their own: the address that the guest's card has anyway.

use std::net::Ipv4Addr;

use smoltcp::wire::{DhcpMessageType, DhcpOption, DhcpPacket, DhcpRepr, EthernetAddress};

use super::frame::Mac;
use super::gateway::{Host, Settings};

/// Where servers listen.
pub const SERVER_PORT: u16 = 67;
/// Where clients listen.
pub const CLIENT_PORT: u16 = 68;
/// How long an address is lent, in seconds: longer than any test.
const LEASE: u32 = 7 * 24 * 3600;

/// Options of RFC 2132.
const DNS_SERVERS: u8 = 6;
const HOST_NAME: u8 = 12;
const DOMAIN_NAME: u8 = 15;
const MTU: u8 = 26;

/// What to send back.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// The hardware address that it goes to.
    pub mac: Mac,
    /// The address that it goes to.
    pub to: Ipv4Addr,
    /// The message.
    pub payload: Vec<u8>,
}

/// The answer to a client's message; `routed` says whether anything lies behind the gateway.
pub fn answer(settings: &Settings, hosts: &[Host], routed: bool, message: &[u8]) -> Option<Answer> {
    let packet = DhcpPacket::new_checked(message).ok()?;
    let request = DhcpRepr::parse(&packet).ok()?;
    let client = Mac(request.client_hardware_address.0);
    let host = hosts.iter().find(|host| host.mac == client)?;
    let own = settings.net4.address;
    let for_another = request.server_identifier.is_some_and(|server| server != own);
    let message_type = match request.message_type {
        DhcpMessageType::Discover => DhcpMessageType::Offer,
        DhcpMessageType::Request if for_another => return None,
        DhcpMessageType::Request => {
            let wanted = request.requested_ip.unwrap_or(request.client_ip);
            if wanted.is_unspecified() || wanted == host.ipv4 { DhcpMessageType::Ack } else { DhcpMessageType::Nak }
        }
        DhcpMessageType::Inform => DhcpMessageType::Ack,
        _ => return None,
    };
    let informs = request.message_type == DhcpMessageType::Inform;
    let refused = message_type == DhcpMessageType::Nak;
    let (server, mtu) = (own.octets(), settings.mtu.to_be_bytes());
    let mut options = Vec::new();
    if !refused {
        if settings.dns {
            options.push(DhcpOption { kind: DNS_SERVERS, data: &server });
        }
        options.push(DhcpOption { kind: HOST_NAME, data: host.name.as_bytes() });
        options.push(DhcpOption { kind: DOMAIN_NAME, data: settings.domain.as_bytes() });
        options.push(DhcpOption { kind: MTU, data: &mtu });
    }
    let reply = DhcpRepr {
        message_type,
        transaction_id: request.transaction_id,
        secs: 0,
        client_hardware_address: EthernetAddress(client.0),
        client_ip: request.client_ip,
        your_ip: if refused || informs { Ipv4Addr::UNSPECIFIED } else { host.ipv4 },
        server_ip: own,
        router: (routed && !refused).then_some(own),
        subnet_mask: (!refused).then_some(settings.net4.mask()),
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        broadcast: request.broadcast,
        requested_ip: None,
        client_identifier: None,
        server_identifier: Some(own),
        parameter_request_list: None,
        dns_servers: None,
        max_size: None,
        lease_duration: (!refused && !informs).then_some(LEASE),
        renew_duration: None,
        rebind_duration: None,
        additional_options: &options,
    };
    let mut payload = vec![0; reply.buffer_len()];
    reply.emit(&mut DhcpPacket::new_unchecked(&mut payload[..])).ok()?;
    let has_address = !request.client_ip.is_unspecified();
    let (mac, to) = match (request.broadcast || refused, has_address) {
        (true, _) => (Mac::BROADCAST, Ipv4Addr::BROADCAST),
        (false, true) => (client, request.client_ip),
        (false, false) => (client, Ipv4Addr::BROADCAST),
    };
    Some(Answer { mac, to, payload })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::switch::gateway::Net4;

    pub fn settings() -> Settings {
        Settings {
            mac: Mac([0x52, 0x54, 0, 1, 0, 1]),
            net4: Net4 { address: Ipv4Addr::new(10, 10, 1, 1), prefix: 24 },
            ipv6: Some("fd00::1".parse().unwrap()),
            mtu: 1500,
            dhcp: true,
            dns: true,
            domain: "lan".to_owned(),
        }
    }

    pub fn hosts() -> Vec<Host> {
        let host = |number: u8, name: &str| Host {
            mac: Mac([0x52, 0x54, 0, 1, 0, number]),
            ipv4: Ipv4Addr::new(10, 10, 1, number),
            ipv6: Some(format!("fd00::{number:x}").parse().unwrap()),
            name: name.to_owned(),
        };
        vec![host(2, "a"), host(3, "b")]
    }

    pub fn request(message_type: DhcpMessageType, mac: Mac, requested: Option<Ipv4Addr>) -> Vec<u8> {
        let request = DhcpRepr {
            message_type,
            transaction_id: 7,
            secs: 0,
            client_hardware_address: EthernetAddress(mac.0),
            client_ip: Ipv4Addr::UNSPECIFIED,
            your_ip: Ipv4Addr::UNSPECIFIED,
            server_ip: Ipv4Addr::UNSPECIFIED,
            router: None,
            subnet_mask: None,
            relay_agent_ip: Ipv4Addr::UNSPECIFIED,
            broadcast: false,
            requested_ip: requested,
            client_identifier: None,
            server_identifier: None,
            parameter_request_list: None,
            dns_servers: None,
            max_size: None,
            lease_duration: None,
            renew_duration: None,
            rebind_duration: None,
            additional_options: &[],
        };
        let mut bytes = vec![0; request.buffer_len()];
        request.emit(&mut DhcpPacket::new_unchecked(&mut bytes[..])).unwrap();
        bytes
    }

    #[test]
    fn a_guest_is_offered_its_own_address() {
        let (settings, hosts) = (settings(), hosts());
        let ask = |kind, mac, wanted| answer(&settings, &hosts, true, &request(kind, mac, wanted));
        let offer = ask(DhcpMessageType::Discover, hosts[1].mac, None).unwrap();
        let packet = DhcpPacket::new_checked(&offer.payload[..]).unwrap();
        let reply = DhcpRepr::parse(&packet).unwrap();
        assert_eq!((reply.message_type, reply.your_ip), (DhcpMessageType::Offer, hosts[1].ipv4));
        assert_eq!(
            (reply.router, reply.subnet_mask),
            (Some(settings.net4.address), Some(Ipv4Addr::new(255, 255, 255, 0)))
        );
        assert_eq!(reply.dns_servers.unwrap().as_slice(), [settings.net4.address]);
        assert_eq!((offer.mac, offer.to), (hosts[1].mac, Ipv4Addr::BROADCAST));
        let kind = |answer: Option<Answer>| {
            DhcpRepr::parse(&DhcpPacket::new_checked(&answer.unwrap().payload[..]).unwrap()).unwrap().message_type
        };
        assert_eq!(kind(ask(DhcpMessageType::Request, hosts[0].mac, Some(hosts[0].ipv4))), DhcpMessageType::Ack);
        assert_eq!(kind(ask(DhcpMessageType::Request, hosts[0].mac, Some(hosts[1].ipv4))), DhcpMessageType::Nak);
        assert_eq!(ask(DhcpMessageType::Discover, Mac([2; 6]), None), None);
        assert_eq!(ask(DhcpMessageType::Release, hosts[0].mac, None), None);
        assert_eq!(answer(&settings, &hosts, true, &offer.payload), None);
    }
}
