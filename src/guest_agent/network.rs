//! Setting up network cards: found by their hardware address, as soon as the kernel has them.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use super::netlink::{Message, Netlink, Request};
use super::sys;
use super::waits::Pause;
use crate::agent_protocol::{Card, CardRoute};

/// The kernel tells of each card; this often it is looked for all the same.
const INTERVAL: Duration = Duration::from_secs(1);
/// Bytes of `ifinfomsg`, `ifaddrmsg`, `rtmsg`.
const LINK: usize = 16;
const ADDRESS: usize = 8;
/// The address is used at once: nobody else has it, so nobody is asked.
const NO_DETECTION: u32 = 0x02;
/// `IFA_FLAGS`.
const FLAGS: u16 = 8;

/// Waits for the card and sets it up. False once the request was given up.
pub fn set_up(card: &Card, proc: Option<&OwnedFd>, pause: &Pause) -> io::Result<bool> {
    enter_first_network(proc);
    let news = Netlink::open(u32::try_from(libc::RTMGRP_LINK).unwrap_or_default())?;
    let mut netlink = Netlink::open(0)?;
    let index = loop {
        if let Some(index) = find(&mut netlink, card)? {
            break index;
        }
        if !pause.elapse(INTERVAL, Some(news.descriptor()))? {
            return Ok(false);
        }
        news.discard()?;
    };
    apply(&mut netlink, index, card)?;
    Ok(true)
}

/// The network that PID 1 is in: a test may have moved the ops thread to another.
fn enter_first_network(proc: Option<&OwnedFd>) {
    let opened = match proc {
        Some(proc) => sys::openat(proc.as_raw_fd(), c"1/ns/net", libc::O_RDONLY, 0),
        None => sys::open(b"/proc/1/ns/net", libc::O_RDONLY, 0),
    };
    if let Ok(network) = opened {
        // SAFETY: an open descriptor; only this thread moves. A kernel without namespaces has but one.
        unsafe { libc::setns(network.as_raw_fd(), libc::CLONE_NEWNET) };
    }
}

fn find(netlink: &mut Netlink, card: &Card) -> io::Result<Option<i32>> {
    let mut found = None;
    netlink.ask(Request::new(libc::RTM_GETLINK, libc::NLM_F_DUMP, &[0; LINK]), |link| {
        if let Some(address) = link.attribute(LINK, libc::IFLA_ADDRESS)
            && link.kind == libc::RTM_NEWLINK
            && (address == card.mac || card.new_mac.is_some_and(|mac| address == mac))
            // A bridge or a VLAN over the card has its address too.
            && link.attribute(LINK, libc::IFLA_LINKINFO).is_none()
        {
            found = link.number(4);
        }
    })?;
    Ok(found)
}

fn apply(netlink: &mut Netlink, index: i32, card: &Card) -> io::Result<()> {
    netlink.act(link(1, true)).or_else(tolerate(libc::ENODEV))?;
    if let Some(mac) = card.new_mac {
        // Not every driver takes another address while the card is up.
        netlink.act(link(index, false))?;
        netlink.act(link(index, false).with(libc::IFLA_ADDRESS, &mac))?;
    }
    netlink.act(link(index, true).with(libc::IFLA_MTU, &card.mtu.to_ne_bytes()))?;
    netlink.act(link(index, true))?;
    for (address, prefix) in old_addresses(netlink, index)? {
        if !card.addresses.contains(&(address.clone(), prefix)) {
            let request = address_request(libc::RTM_DELADDR, 0, index, &address, prefix);
            netlink.act(request).or_else(tolerate(libc::EADDRNOTAVAIL))?;
        }
    }
    let make = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
    for (address, prefix) in &card.addresses {
        let request = address_request(libc::RTM_NEWADDR, make, index, address, *prefix);
        match (netlink.act(request), address.len()) {
            // A kernel without IPv6 has no use for the address.
            (Err(error), 16) if without_ipv6(&error) => {}
            (result, _) => result?,
        }
    }
    for route in &card.ended_routes {
        netlink.act(route_request(libc::RTM_DELROUTE, 0, index, route)).or_else(tolerate(libc::ESRCH))?;
    }
    for route in &card.routes {
        match (netlink.act(route_request(libc::RTM_NEWROUTE, make, index, route)), route.to.len()) {
            (Err(error), 16) if without_ipv6(&error) => {}
            (result, _) => result?,
        }
    }
    Ok(())
}

fn without_ipv6(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EAFNOSUPPORT | libc::EOPNOTSUPP | libc::EACCES | libc::EPERM | libc::ENETUNREACH | libc::EHOSTUNREACH
        )
    )
}

fn tolerate(errno: i32) -> impl Fn(io::Error) -> io::Result<()> {
    move |error| if error.raw_os_error() == Some(errno) { Ok(()) } else { Err(error) }
}

fn link(index: i32, up: bool) -> Request {
    let up_flag = libc::IFF_UP.unsigned_abs();
    let flags = if up { up_flag } else { 0 };
    let mut body = [0; LINK];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body[8..12].copy_from_slice(&flags.to_ne_bytes());
    body[12..16].copy_from_slice(&up_flag.to_ne_bytes());
    Request::new(libc::RTM_NEWLINK, libc::NLM_F_ACK, &body)
}

fn family(address: &[u8]) -> u8 {
    u8::try_from(if address.len() == 16 { libc::AF_INET6 } else { libc::AF_INET }).unwrap_or_default()
}

fn address_request(kind: u16, flags: i32, index: i32, address: &[u8], prefix: u8) -> Request {
    let mut body = [0; ADDRESS];
    body[0] = family(address);
    body[1] = prefix;
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    let request = Request::new(kind, flags | libc::NLM_F_ACK, &body)
        .with(libc::IFA_LOCAL, address)
        .with(libc::IFA_ADDRESS, address);
    match address {
        [a, b, c, d] => {
            let mask = u32::MAX.checked_shr(prefix.into()).unwrap_or_default();
            let broadcast = u32::from_be_bytes([*a, *b, *c, *d]) | mask;
            request.with(libc::IFA_BROADCAST, &broadcast.to_be_bytes())
        }
        _ => request.with(FLAGS, &NO_DETECTION.to_ne_bytes()),
    }
}

/// The card's addresses but for those that the kernel makes itself.
fn old_addresses(netlink: &mut Netlink, index: i32) -> io::Result<Vec<(Vec<u8>, u8)>> {
    let mut found = Vec::new();
    netlink.ask(Request::new(libc::RTM_GETADDR, libc::NLM_F_DUMP, &[0; ADDRESS]), |message: &Message<'_>| {
        let value =
            message.attribute(ADDRESS, libc::IFA_LOCAL).or_else(|| message.attribute(ADDRESS, libc::IFA_ADDRESS));
        if let (true, Some(address), Some(prefix)) = (message.number(4) == Some(index), value, message.body.get(1)) {
            let of_link = address.len() == 16 && address.starts_with(&[0xfe, 0x80]);
            if !of_link {
                found.push((address.to_vec(), *prefix));
            }
        }
    })?;
    Ok(found)
}

fn route_request(kind: u16, flags: i32, index: i32, route: &CardRoute) -> Request {
    let body = [
        family(&route.to),
        route.prefix,
        0,
        0,
        libc::RT_TABLE_MAIN,
        libc::RTPROT_STATIC,
        libc::RT_SCOPE_UNIVERSE,
        libc::RTN_UNICAST,
        0,
        0,
        0,
        0,
    ];
    let request = Request::new(kind, flags | libc::NLM_F_ACK, &body);
    let request = if route.prefix == 0 { request } else { request.with(libc::RTA_DST, &route.to) };
    request.with(libc::RTA_GATEWAY, &route.via).with(libc::RTA_OIF, &index.to_ne_bytes())
}
