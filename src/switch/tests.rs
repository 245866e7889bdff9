//! The whole core, with virtual time.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use proptest::prelude::*;

use super::dhcp::tests::{hosts, settings};
use super::frame::{Frame, Mac, build};
use super::gateway::{ARP, Gateway, IPV4, IPV6, Neighbour, Net4, Route};
use super::*;

const A: Port = Port(1);
const B: Port = Port(2);
const C: Port = Port(3);
const MS: fn(u64) -> Duration = Duration::from_millis;

/// A bridge with three guests, its clock, and what came out of it.
struct Lab {
    bridge: Bridge,
    now: Moment,
    out: Out,
}

#[derive(Default)]
struct Out {
    now: Moment,
    delivered: Vec<(Moment, Port, Port, Vec<u8>)>,
    routed: Vec<(Neighbour, Vec<u8>)>,
    seen: usize,
    full: bool,
}

impl Output for Out {
    fn seen(&mut self, _: Port, _: &[u8]) {
        self.seen += 1;
    }

    fn deliver(&mut self, pair: Pair, frame: &[u8]) -> bool {
        self.delivered.push((self.now, pair.0, pair.1, frame.to_vec()));
        !self.full
    }

    fn route(&mut self, to: Neighbour, packet: &[u8]) {
        self.routed.push((to, packet.to_vec()));
    }
}

fn mac(port: Port) -> Mac {
    Mac([2, 0, 0, 0, 0, u8::try_from(port.0).unwrap()])
}

impl Lab {
    fn new() -> Self {
        Self::seeded(1)
    }

    fn seeded(seed: u64) -> Self {
        let mut lab =
            Self { bridge: Bridge::new(seed, Gateway::new(settings())), now: Moment::ZERO, out: Out::default() };
        for port in [A, B, C] {
            lab.bridge.add_port(port);
            lab.raw(port, &build(Mac::BROADCAST, mac(port), 0x1234, b"hello"));
        }
        lab.out.delivered.clear();
        lab
    }

    fn raw(&mut self, from: Port, bytes: &[u8]) {
        self.out.now = self.now;
        self.bridge.receive(self.now, from, bytes, &mut self.out);
    }

    fn send(&mut self, from: Port, to: Port, payload: &[u8]) {
        self.raw(from, &build(mac(to), mac(from), 0x1234, payload));
    }

    /// Lets everything happen that is due up to `until`, each at its moment.
    fn run(&mut self, until: Moment) {
        while let Some(at) = self.bridge.deadline().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.out.now = self.now;
            self.bridge.poll(self.now, &mut self.out);
        }
        self.now = until;
    }

    fn arrivals(&mut self, to: Port) -> Vec<(Moment, Vec<u8>)> {
        let found = self.out.delivered.iter().filter(|(_, _, port, _)| *port == to);
        let found = found.map(|(at, _, _, frame)| (*at, frame[14..].to_vec())).collect();
        self.out.delivered.retain(|(_, _, port, _)| *port != to);
        found
    }

    fn count(&self, to: Port) -> usize {
        self.out.delivered.iter().filter(|(_, _, port, _)| *port == to).count()
    }

    fn change(&mut self, act: impl FnOnce(&mut Policy)) {
        self.bridge.change(self.now, act);
    }
}

#[test]
fn frames_go_where_their_address_is() {
    let mut lab = Lab::new();
    lab.send(A, B, b"one");
    assert_eq!((lab.count(B), lab.count(C)), (1, 0));
    lab.raw(A, &build(Mac::BROADCAST, mac(A), 0x1234, b"all"));
    lab.raw(A, &build(Mac([6; 6]), mac(A), 0x1234, b"whoever"));
    assert_eq!((lab.count(A), lab.count(B), lab.count(C)), (0, 3, 2));
    // B moves to the place of C.
    lab.raw(C, &build(mac(A), mac(B), 0x1234, b"moved"));
    lab.send(A, B, b"two");
    assert_eq!((lab.count(B), lab.count(C)), (3, 3));
    assert_eq!(lab.bridge.deadline(), None);
    let counters = lab.bridge.counters(A);
    assert_eq!((counters.tx_packets, counters.dropped, counters.errors), (5, 0, 0));
}

#[test]
fn latency_is_exact_and_of_one_direction() {
    let mut lab = Lab::new();
    lab.change(|policy| policy.change((A, B), |own| own.latency = MS(200)));
    lab.send(A, B, b"slow");
    lab.send(B, A, b"fast");
    lab.send(A, C, b"fast");
    assert_eq!((lab.count(A), lab.count(C), lab.count(B)), (1, 1, 0));
    assert_eq!(lab.bridge.deadline(), Some(MS(200)));
    lab.run(MS(1000));
    assert_eq!(lab.arrivals(B), [(MS(200), b"slow".to_vec())]);
    // The whole bridge's adds up.
    lab.change(|policy| policy.whole.latency = MS(50));
    lab.send(A, B, b"slower");
    lab.send(B, A, b"slow");
    lab.run(MS(2000));
    assert_eq!((lab.arrivals(B)[0].0, lab.arrivals(A)[1].0), (MS(1250), MS(1050)));
}

#[test]
fn jitter_stays_within_and_keeps_the_order() {
    let mut lab = Lab::new();
    lab.change(|policy| {
        policy.whole.latency = MS(50);
        policy.whole.jitter = MS(10);
    });
    for number in 0..200_u8 {
        lab.send(A, B, &[number]);
        lab.run(lab.now + MS(30));
    }
    lab.run(lab.now + MS(100));
    let arrived = lab.arrivals(B);
    assert_eq!(arrived.iter().map(|(_, frame)| frame[0]).collect::<Vec<_>>(), (0..200).collect::<Vec<_>>());
    let delays: Vec<Duration> =
        arrived.iter().zip(0..).map(|((at, _), number)| *at - MS(30) * u32::try_from(number).unwrap()).collect();
    assert!(delays.iter().all(|delay| (MS(40)..=MS(60)).contains(delay)), "{delays:?}");
    let (least, most) = (delays.iter().min().unwrap(), delays.iter().max().unwrap());
    assert!(*most - *least > MS(15), "{least:?} {most:?}");
}

fn lost(seed: u64) -> Vec<usize> {
    let mut lab = Lab::seeded(seed);
    lab.change(|policy| policy.change((A, B), |own| own.loss = 30.0));
    let mut lost = Vec::new();
    for number in 0..2000 {
        lab.send(A, B, b"x");
        // What others say changes nothing.
        lab.send(B, A, b"y");
        if lab.arrivals(B).is_empty() {
            lost.push(number);
        }
    }
    assert_eq!((lab.count(A), lab.bridge.counters(B).dropped), (2000, lost.len() as u64));
    lost
}

#[test]
fn loss_is_of_one_direction_and_repeats_with_its_seed() {
    let first = lost(42);
    // The binomial interval of 99.9 %.
    assert!((533..=668).contains(&first.len()), "{}", first.len());
    assert_eq!(first, lost(42));
    assert_ne!(first, lost(43));
    let mut lab = Lab::new();
    lab.change(|policy| policy.change((A, B), |own| own.loss = 100.0));
    for _ in 0..100 {
        lab.send(A, B, b"x");
        lab.send(B, A, b"x");
    }
    assert_eq!((lab.count(B), lab.count(A)), (0, 100));
}

/// Bytes that arrive in each second, of a sender that always has more.
fn flow(lab: &mut Lab, seconds: u64) -> Vec<usize> {
    (0..seconds)
        .map(|_| {
            let end = lab.now + MS(1000);
            while lab.now < end {
                (0..8).for_each(|_| lab.send(A, B, &[0; 1486]));
                lab.run(lab.now + MS(1));
            }
            lab.arrivals(B).iter().map(|(_, frame)| frame.len() + 14).sum()
        })
        .collect()
}

#[test]
fn bandwidth_is_met_also_when_it_changes() {
    let mut lab = Lab::new();
    lab.change(|policy| policy.change((A, B), |own| own.bandwidth = 8_000_000));
    let near = |bytes: &usize, expected: usize| bytes.abs_diff(expected) < expected / 50;
    assert!(flow(&mut lab, 3).iter().all(|bytes| near(bytes, 1_000_000)));
    lab.send(B, A, &[0; 1000]);
    assert_eq!(lab.count(A), 1, "the other direction is free");
    lab.change(|policy| policy.change((A, B), |own| own.bandwidth = 32_000_000));
    assert!(flow(&mut lab, 2).iter().all(|bytes| near(bytes, 4_000_000)));
    lab.change(|policy| policy.change((A, B), |own| own.bandwidth = 1_000_000));
    assert!(near(&flow(&mut lab, 3)[2], 125_000));
    // From one that is nearly nothing to none at all: what waits goes at once.
    lab.change(|policy| policy.change((A, B), |own| own.bandwidth = 100));
    lab.arrivals(B);
    lab.change(|policy| *policy = Policy::default());
    lab.run(lab.now + MS(1));
    assert!(lab.arrivals(B).len() > 10 && lab.bridge.deadline().is_none());
}

#[test]
fn the_whole_bridge_shares_its_limit() {
    let mut lab = Lab::new();
    lab.change(|policy| policy.whole.bandwidth = 8_000_000);
    for _ in 0..1000 {
        lab.send(A, B, &[0; 1486]);
        lab.send(C, B, &[0; 1486]);
        lab.run(lab.now + MS(2));
    }
    let bytes: usize = lab.arrivals(B).iter().map(|(_, frame)| frame.len() + 14).sum();
    assert!(bytes.abs_diff(2_000_000) < 60_000, "{bytes}");
}

#[test]
fn duplicates_damage_and_overtaking() {
    let mut lab = Lab::new();
    lab.change(|policy| policy.change((A, B), |own| own.duplicate = 100.0));
    lab.send(A, B, b"twice");
    assert_eq!(lab.arrivals(B).len(), 2);
    lab.change(|policy| {
        policy.change((A, B), |own| *own = Impairment { corrupt: 100.0, ..Impairment::default() });
    });
    lab.send(A, B, &[0; 100]);
    let bits: u32 = lab.arrivals(B)[0].1.iter().map(|byte| byte.count_ones()).sum();
    assert_eq!(bits, 1);
    lab.change(|policy| {
        policy.change((A, B), |own| *own = Impairment { reorder: 50.0, ..Impairment::default() });
    });
    for number in 0..200_u8 {
        lab.send(A, B, &[number]);
        lab.run(lab.now + MS(1));
    }
    lab.run(lab.now + MS(100));
    let order: Vec<u8> = lab.arrivals(B).iter().map(|(_, frame)| frame[0]).collect();
    let overtaken = order.windows(2).filter(|pair| pair[0] > pair[1]).count();
    let mut sorted = order.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..200).collect::<Vec<_>>(), "none is lost");
    assert!((40..=110).contains(&overtaken), "{overtaken}");
    // The last one is not held for ever.
    lab.change(|policy| policy.change((A, B), |own| own.reorder = 100.0));
    lab.send(A, B, b"last");
    lab.run(lab.now + MS(60));
    assert_eq!(lab.arrivals(B).len(), 1);
}

#[test]
fn a_cut_takes_what_is_under_way() {
    let mut lab = Lab::new();
    lab.change(|policy| {
        policy.whole.latency = MS(100);
        policy.change((A, C), |own| own.bandwidth = 1000);
    });
    for _ in 0..3 {
        lab.send(A, B, b"x");
        lab.send(B, A, b"x");
        lab.send(A, C, b"x");
    }
    lab.run(MS(50));
    lab.change(|policy| {
        policy.split(&[vec![A], vec![B]]);
        policy.cut.insert((A, C));
    });
    lab.run(MS(5000));
    assert_eq!((lab.count(A), lab.count(B), lab.count(C)), (0, 0, 0));
    assert_eq!((lab.bridge.counters(B).dropped, lab.bridge.counters(C).dropped), (3, 3));
    lab.send(C, A, b"still");
    lab.send(A, B, b"not");
    lab.run(MS(6000));
    assert_eq!((lab.count(A), lab.count(B)), (1, 0));
    lab.change(|policy| policy.join(&[vec![A], vec![B]]));
    lab.send(A, B, b"healed");
    lab.run(MS(7000));
    assert_eq!(lab.count(B), 1);
}

#[test]
fn a_port_that_goes_leaves_nothing() {
    let mut lab = Lab::new();
    lab.change(|policy| {
        policy.whole.latency = MS(100);
        policy.isolated.insert(C);
    });
    lab.send(A, B, b"x");
    lab.bridge.remove_port(B, lab.now);
    lab.bridge.remove_port(C, lab.now);
    assert_eq!((lab.bridge.deadline(), lab.bridge.policy().isolated.len()), (None, 0));
    lab.send(B, A, b"x");
    lab.run(MS(500));
    assert_eq!(lab.count(A), 0);
}

#[test]
fn a_flood_is_bounded() {
    let mut lab = Lab::new();
    lab.change(|policy| policy.whole.latency = MS(10_000));
    for _ in 0..30_000 {
        lab.send(A, B, &[0; 1400]);
    }
    lab.send(C, B, b"heard");
    lab.run(MS(20_000));
    let arrived = lab.arrivals(B);
    assert!(arrived.len() < 12_000 && arrived.last().unwrap().1 == b"heard");
    // Addresses made up by one guest push nobody else's out.
    for number in 0..10_000_u32 {
        let [_, b, c, d] = number.to_be_bytes();
        lab.raw(C, &build(mac(A), Mac([2, 9, 9, b, c, d]), 0x1234, b"x"));
    }
    lab.change(|policy| policy.whole.latency = MS(0));
    lab.out.delivered.clear();
    lab.send(A, B, b"x");
    assert_eq!((lab.count(B), lab.count(C)), (1, 0));
}

#[test]
fn runts_giants_and_groups_are_errors() {
    let mut lab = Lab::new();
    lab.raw(A, &[]);
    lab.raw(A, &[0; 13]);
    lab.raw(A, &vec![0; LONGEST + 1]);
    lab.raw(A, &build(mac(B), Mac::BROADCAST, 0x1234, b"x"));
    lab.raw(Port(77), &build(mac(B), mac(A), 0x1234, b"from nowhere"));
    assert_eq!((lab.bridge.counters(A).errors, lab.out.delivered.len()), (4, 0));
    lab.out.full = true;
    lab.send(A, B, b"x");
    assert_eq!((lab.bridge.counters(B).dropped, lab.bridge.counters(B).rx_packets), (1, 1));
}

/// The frames that the gateway sent to `to`.
fn answers(lab: &mut Lab, to: Port) -> Vec<Vec<u8>> {
    let of_gateway = |(_, from, port, _): &&(Moment, Port, Port, Vec<u8>)| *from == Port::GATEWAY && *port == to;
    let found = lab.out.delivered.iter().filter(of_gateway).map(|(.., frame)| frame.clone()).collect();
    lab.out.delivered.clear();
    found
}

fn arp(from: Mac, sender: [u8; 4], target: [u8; 4], reply: bool) -> Vec<u8> {
    let kind = if reply { 2 } else { 1 };
    let body = [&[0, 1, 8, 0, 6, 4, 0, kind][..], &from.0, &sender, &[0; 6], &target].concat();
    build(Mac::BROADCAST, from, ARP, &body)
}

fn ipv4(from: [u8; 4], to: [u8; 4], protocol: u8, hops: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + body.len()).unwrap().to_be_bytes();
    let mut packet =
        [&[0x45, 0, length[0], length[1], 0, 1, 0, 0, hops, protocol, 0, 0][..], &from, &to, body].concat();
    smoltcp::wire::Ipv4Packet::new_unchecked(&mut packet[..]).fill_checksum();
    packet
}

#[test]
fn the_gateway_answers_arp_and_pings() {
    let mut lab = Lab::new();
    lab.raw(A, &arp(mac(A), [10, 10, 1, 2], [10, 10, 1, 1], false));
    let reply = answers(&mut lab, A);
    assert_eq!((reply.len(), reply[0][21], &reply[0][22..28]), (1, 2, &settings().mac.0[..]));
    lab.raw(A, &arp(mac(A), [10, 10, 1, 2], [10, 10, 1, 3], false));
    assert!(answers(&mut lab, A).is_empty());
    let mut echo = vec![8, 0, 0, 0, 0, 1, 0, 2, b'h', b'i'];
    smoltcp::wire::Icmpv4Packet::new_unchecked(&mut echo[..]).fill_checksum();
    let ping = ipv4([10, 10, 1, 2], [10, 10, 1, 1], 1, 64, &echo);
    lab.raw(A, &build(settings().mac, mac(A), IPV4, &ping));
    let reply = answers(&mut lab, A);
    assert_eq!((reply.len(), reply[0][34], reply[0].ends_with(b"hi")), (1, 0, true));
    // A word of neighbour discovery over IPv6.
    let own = "fd00::1".parse::<std::net::Ipv6Addr>().unwrap().octets();
    let asker = "fd00::2".parse::<std::net::Ipv6Addr>().unwrap();
    let group = "ff02::1:ff00:1".parse::<std::net::Ipv6Addr>().unwrap();
    let mut body = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &own, &[1, 1], &mac(A).0].concat();
    smoltcp::wire::Icmpv6Packet::new_unchecked(&mut body[..]).fill_checksum(&asker, &group);
    let header = [&[0x60, 0, 0, 0, 0, 32, 58, 255][..], &asker.octets(), &group.octets()].concat();
    lab.raw(A, &build(Mac([0x33, 0x33, 0xff, 0, 0, 1]), mac(A), IPV6, &[header, body].concat()));
    let reply = answers(&mut lab, A);
    assert_eq!((reply.len(), reply[0][54]), (1, 136));
}

#[test]
fn packets_go_to_other_bridges_and_nowhere_else() {
    let mut lab = Lab::new();
    let away = Route {
        net4: Net4 { address: Ipv4Addr::new(10, 10, 2, 1), prefix: 24 },
        net6: Some("fd00:0:0:2::".parse().unwrap()),
        to: Neighbour(9),
    };
    lab.bridge.gateway().set_routes(vec![away]);
    let to_gateway = |packet: &[u8]| build(settings().mac, mac(A), IPV4, packet);
    lab.raw(A, &to_gateway(&ipv4([10, 10, 1, 2], [10, 10, 2, 7], 17, 64, b"data")));
    assert_eq!((lab.out.routed.len(), lab.out.routed[0].0, lab.out.routed[0].1[8]), (1, Neighbour(9), 63));
    assert!(smoltcp::wire::Ipv4Packet::new_checked(&lab.out.routed[0].1[..]).unwrap().verify_checksum());
    let icmp = |lab: &mut Lab| answers(lab, A).iter().map(|frame| (frame[34], frame[35])).collect::<Vec<_>>();
    lab.raw(A, &to_gateway(&ipv4([10, 10, 1, 2], [10, 10, 2, 7], 17, 1, b"too old")));
    assert_eq!(icmp(&mut lab), [(11, 0)]);
    lab.raw(A, &to_gateway(&ipv4([10, 10, 1, 2], [9, 9, 9, 9], 17, 64, b"nowhere")));
    assert_eq!(icmp(&mut lab), [(3, 0)]);
    lab.raw(A, &to_gateway(&ipv4([10, 10, 1, 2], [10, 10, 1, 3], 17, 64, b"a detour")));
    assert_eq!((lab.out.routed.len(), lab.out.delivered.len()), (1, 0));

    // From the other side: a host that is known, and one that is found out.
    lab.bridge.gateway().set_hosts(hosts(), Names::new());
    let packet = ipv4([10, 10, 2, 7], [10, 10, 1, 3], 17, 63, b"data");
    lab.bridge.receive_routed(lab.now, &packet, &mut lab.out);
    let frame = lab.out.delivered.pop().unwrap().3;
    assert_eq!(Frame::new(&frame).unwrap().destination(), hosts()[1].mac);
    lab.out.delivered.clear();
    let packet = ipv4([10, 10, 2, 7], [10, 10, 1, 77], 17, 63, b"who");
    lab.bridge.receive_routed(lab.now, &packet, &mut lab.out);
    assert_eq!(Frame::new(&answers(&mut lab, B)[0]).unwrap().ethertype(), ARP);
    lab.raw(B, &arp(mac(B), [10, 10, 1, 77], [10, 10, 1, 1], true));
    assert!(answers(&mut lab, B).iter().any(|frame| frame.ends_with(b"who")));
}

#[test]
fn the_world_is_behind_the_gateway() {
    let mut lab = Lab::new();
    let world = Port(9);
    lab.bridge.add_port(world);
    lab.bridge.set_uplink(Some(world));
    lab.raw(A, &build(Mac::BROADCAST, mac(A), 0x1234, b"all"));
    assert_eq!(lab.count(world), 0);
    lab.raw(world, &build(Mac::BROADCAST, Mac([2, 9, 9, 9, 9, 9]), 0x1234, b"all"));
    lab.out.delivered.clear();
    lab.raw(A, &build(settings().mac, mac(A), IPV4, &ipv4([10, 10, 1, 2], [9, 9, 9, 9], 17, 64, b"out")));
    let frame = lab.out.delivered.pop().unwrap();
    assert_eq!((frame.2, &frame.3[..6]), (world, &[2, 9, 9, 9, 9, 9][..]));
    lab.raw(
        world,
        &build(settings().mac, Mac([2, 9, 9, 9, 9, 9]), IPV4, &ipv4([9, 9, 9, 9], [10, 10, 1, 2], 17, 64, b"in")),
    );
    let inward: Vec<_> = lab.out.delivered.iter().filter(|(.., frame)| frame.ends_with(b"in")).collect();
    assert!(inward.len() == 1 && inward[0].2 == A, "its address is known from what it sent");
}

#[test]
fn services_answer_datagrams() {
    let mut lab = Lab::new();
    let address: IpAddr = "10.10.1.3".parse().unwrap();
    lab.bridge.gateway().set_hosts(hosts(), [("b.lan".to_owned(), vec![address])].into());
    let udp = |from: [u8; 4], to: [u8; 4], ports: [u16; 2], body: &[u8]| {
        let length = u16::try_from(8 + body.len()).unwrap();
        let head = [ports[0].to_be_bytes(), ports[1].to_be_bytes(), length.to_be_bytes(), [0, 0]].concat();
        ipv4(from, to, 17, 64, &[&head, body].concat())
    };
    let query = super::dns::tests::query("b.lan", 1);
    let packet = udp([10, 10, 1, 2], [10, 10, 1, 1], [4000, 53], &query);
    lab.raw(A, &build(settings().mac, mac(A), IPV4, &packet));
    let answer = answers(&mut lab, A);
    assert!(answer.len() == 1 && answer[0].ends_with(&[10, 10, 1, 3]));
    let discover = super::dhcp::tests::request(smoltcp::wire::DhcpMessageType::Discover, hosts()[0].mac, None);
    let packet = udp([0; 4], [255; 4], [68, 67], &discover);
    lab.raw(A, &build(Mac::BROADCAST, hosts()[0].mac, IPV4, &packet));
    let offers = answers(&mut lab, A);
    assert!(offers.len() == 1 && offers[0].windows(4).any(|part| part == [10, 10, 1, 2]));
}

#[derive(Debug, Clone)]
enum Step {
    Frame(u32, Vec<u8>),
    Routed(Vec<u8>),
    Wait(u64),
    Change(u64, u64, u8),
    Remove(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let kinds = prop_oneof![Just(ARP), Just(IPV4), Just(IPV6), Just(0x8100), any::<u16>()];
    let addresses = prop_oneof![
        Just(settings().mac.0),
        Just([0xff; 6]),
        Just([0x33, 0x33, 0, 0, 0, 1]),
        (1_u32..5).prop_map(|port| mac(Port(port)).0)
    ];
    let body = prop::collection::vec(any::<u8>(), 0..120);
    let frame =
        (0_u32..5, addresses, kinds, body.clone(), any::<bool>()).prop_map(|(from, to, kind, mut body, likely)| {
            // Garbage that looks like something gets further.
            if likely && body.len() > 40 {
                match kind {
                    IPV4 => {
                        body[0] = 0x45;
                        body[9] = [1, 17][usize::from(body[9] % 2)];
                        body[16..20].copy_from_slice(&[10, 10, 1, 1]);
                        let length = u16::try_from(body.len()).unwrap_or_default();
                        body[2..4].copy_from_slice(&length.to_be_bytes());
                        smoltcp::wire::Ipv4Packet::new_unchecked(&mut body[..]).fill_checksum();
                    }
                    IPV6 => {
                        body[0] = 0x60;
                        body[6] = 58;
                        let length = u16::try_from(body.len() - 40).unwrap_or_default();
                        body[4..6].copy_from_slice(&length.to_be_bytes());
                    }
                    _ => body[..8].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]),
                }
            }
            Step::Frame(from, build(Mac(to), mac(Port(from)), kind, &body))
        });
    prop_oneof![
        6 => frame,
        1 => (0_u32..5, body.clone()).prop_map(|(from, bytes)| Step::Frame(from, bytes)),
        1 => body.prop_map(Step::Routed),
        2 => (0_u64..300).prop_map(Step::Wait),
        1 => (0_u64..200, 0_u64..2_000_000, any::<u8>()).prop_map(|(ms, bits, bits2)| Step::Change(ms, bits, bits2)),
        1 => (1_u32..5).prop_map(Step::Remove),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Nothing that guests send makes it panic, and everything that is under way comes to an end.
    #[test]
    fn no_frame_and_no_change_upsets_it(steps in prop::collection::vec(step(), 1..60)) {
        let mut lab = Lab::new();
        lab.bridge.gateway().set_hosts(hosts(), Names::new());
        for step in steps {
            match step {
                Step::Frame(from, bytes) => lab.raw(Port(from), &bytes),
                Step::Routed(packet) => lab.bridge.receive_routed(lab.now, &packet, &mut lab.out),
                Step::Wait(ms) => lab.run(lab.now + MS(ms)),
                Step::Change(ms, bits, which) => lab.change(|policy| {
                    let percent = f64::from(which % 101);
                    let impairment = Impairment {
                        latency: MS(ms),
                        jitter: MS(ms / 2),
                        loss: percent / 2.0,
                        duplicate: percent,
                        corrupt: percent,
                        reorder: percent,
                        bandwidth: if which % 2 == 0 { 0 } else { bits + 10_000 },
                    };
                    match which % 5 {
                        0 => policy.whole = impairment,
                        1 => policy.change((A, B), |own| *own = impairment),
                        2 => policy.split(&[vec![A], vec![B, C]]),
                        3 => {
                            policy.isolated.insert(C);
                        }
                        _ => *policy = Policy::default(),
                    }
                }),
                Step::Remove(port) => {
                    lab.bridge.remove_port(Port(port), lab.now);
                    lab.bridge.add_port(Port(port));
                }
            }
        }
        lab.change(|policy| *policy = Policy::default());
        lab.run(lab.now + Duration::from_secs(60));
        prop_assert_eq!(lab.bridge.deadline(), None);
    }

    /// Whatever the impairments: without loss, damage and limits every frame arrives, in its time.
    #[test]
    fn nothing_is_lost_without_a_reason(latency in 0_u64..500, jitter in 0_u64..500, reorder in 0_u32..=100, count in 1_u8..50) {
        let mut lab = Lab::new();
        lab.change(|policy| {
            policy.whole = Impairment {
                latency: MS(latency),
                jitter: MS(jitter),
                reorder: f64::from(reorder),
                ..Impairment::default()
            };
        });
        for number in 0..count {
            lab.send(A, B, &[number]);
            lab.run(lab.now + MS(3));
        }
        lab.run(lab.now + MS(latency + jitter + 60));
        let mut arrived: Vec<u8> = lab.arrivals(B).iter().map(|(_, frame)| frame[0]).collect();
        arrived.sort_unstable();
        prop_assert_eq!(arrived, (0..count).collect::<Vec<_>>());
    }
}
