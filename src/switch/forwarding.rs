//! The bridge itself, without any I/O: frames and moments in, frames and the next moment out.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::time::Duration;

use super::frame::{Frame, Mac};
use super::gateway::{Gateway, Neighbour, Reaction};
use super::impairments::{Impairment, Pair, Policy};
use super::line::Line;
use super::port::{Counters, Port};
use super::shaper::Shaper;

/// A point in time: how long after the bridge's start.
pub type Moment = Duration;

/// How many addresses are remembered of one port.
const ADDRESSES: usize = 256;
/// How much may be under way from one port, in bytes; what is more is lost.
const UNDER_WAY: usize = 16 * 1024 * 1024;
/// How long a frame waits for another one that overtakes it.
const HOLD: Duration = Duration::from_millis(50);

/// A frame on its way.
#[derive(Debug, Clone)]
pub struct Queued {
    /// Frames that are due at the same moment go in the order of their numbers.
    pub number: u64,
    /// From where to where.
    pub pair: Pair,
    /// The frame.
    pub bytes: Box<[u8]>,
    /// Whether the next one overtakes it.
    pub reorder: bool,
}

/// Where the bridge puts what it has done.
pub trait Output {
    /// A frame came in from `from`.
    fn seen(&mut self, from: Port, frame: &[u8]);
    /// A frame goes out; false where it does not fit.
    fn deliver(&mut self, pair: Pair, frame: &[u8]) -> bool;
    /// An IP packet goes to another bridge.
    fn route(&mut self, to: Neighbour, packet: &[u8]);
}

#[derive(Debug)]
enum Due {
    /// The frame's time is over.
    Arrives(Queued),
    /// Nothing overtook the frame of this number.
    Release(Pair, u64),
}

#[derive(Debug)]
struct Timer {
    at: Moment,
    number: u64,
    due: Due,
}

impl PartialEq for Timer {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl Eq for Timer {}

impl PartialOrd for Timer {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timer {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// A bridge.
#[derive(Debug)]
pub struct Bridge {
    seed: u64,
    policy: Policy,
    ports: BTreeMap<Port, Counters>,
    addresses: HashMap<Mac, Port>,
    lines: HashMap<Pair, Line>,
    whole: Shaper,
    timers: BinaryHeap<Reverse<Timer>>,
    under_way: HashMap<Port, usize>,
    number: u64,
    gateway: Gateway,
    for_gateway: VecDeque<(Port, Box<[u8]>)>,
    /// Where the world outside is; only the gateway talks to it.
    uplink: Option<Port>,
}

impl Bridge {
    /// A bridge without ports.
    pub fn new(seed: u64, gateway: Gateway) -> Self {
        Self {
            seed,
            policy: Policy::default(),
            ports: BTreeMap::new(),
            addresses: HashMap::new(),
            lines: HashMap::new(),
            whole: Shaper::new(),
            timers: BinaryHeap::new(),
            under_way: HashMap::new(),
            number: 0,
            gateway,
            for_gateway: VecDeque::new(),
            uplink: None,
        }
    }

    /// Random decisions from now on are those of `seed`.
    pub fn reseed(&mut self, seed: u64) {
        self.seed = seed;
        for (pair, line) in &mut self.lines {
            let new = Line::new(seed, *pair);
            line.loss = new.loss;
            line.duplicate = new.duplicate;
            line.corrupt = new.corrupt;
            line.reorder = new.reorder;
            line.jitter = new.jitter;
        }
    }

    /// The seed of its random decisions.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// A port is there.
    pub fn add_port(&mut self, port: Port) {
        self.ports.insert(port, Counters::default());
    }

    /// A port is gone, and all that was under way from and to it.
    pub fn remove_port(&mut self, port: Port, now: Moment) {
        self.ports.remove(&port);
        self.addresses.retain(|_, at| *at != port);
        self.policy.forget(port);
        self.purge(now, |pair| pair.0 == port || pair.1 == port);
        self.lines.retain(|pair, _| pair.0 != port && pair.1 != port);
        self.under_way.remove(&port);
        if self.uplink == Some(port) {
            self.uplink = None;
        }
    }

    /// The port behind which the world is; it must have been added.
    pub fn set_uplink(&mut self, port: Option<Port>) {
        self.uplink = port;
        self.gateway.set_uplink(port.is_some());
    }

    /// What went through a port.
    pub fn counters(&self, port: Port) -> Counters {
        self.ports.get(&port).copied().unwrap_or_default()
    }

    /// What is in force.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Its own services.
    pub fn gateway(&mut self) -> &mut Gateway {
        &mut self.gateway
    }

    /// Changes what is in force. What is cut off from now on is also lost where it is under way already.
    pub fn change<T>(&mut self, now: Moment, act: impl FnOnce(&mut Policy) -> T) -> T {
        let result = act(&mut self.policy);
        self.whole.set(self.policy.whole.bandwidth, now);
        let policy = &self.policy;
        for (pair, line) in &mut self.lines {
            line.shaper.set(policy.pairs.get(pair).map_or(0, |own| own.bandwidth), now);
        }
        let cut = self.policy.clone();
        self.purge(now, |pair| cut.is_cut(pair));
        result
    }

    fn purge(&mut self, now: Moment, goes: impl Fn(Pair) -> bool) {
        let mut gone: Vec<Queued> = self.whole.retain(now, |queued| !goes(queued.pair));
        for (pair, line) in &mut self.lines {
            if goes(*pair) {
                gone.extend(line.shaper.retain(now, |_| false));
                gone.extend(line.held.take());
            }
        }
        for Reverse(timer) in std::mem::take(&mut self.timers) {
            match timer.due {
                Due::Arrives(queued) if goes(queued.pair) => gone.push(queued),
                due => self.timers.push(Reverse(Timer { due, ..timer })),
            }
        }
        for queued in gone {
            self.left(&queued);
            self.dropped(queued.pair.1);
        }
    }

    /// A frame comes in from a port.
    pub fn receive(&mut self, now: Moment, from: Port, bytes: &[u8], out: &mut impl Output) {
        if from != Port::INJECTED && from != Port::GATEWAY && !self.ports.contains_key(&from) {
            return;
        }
        match Frame::new(bytes).filter(|frame| !frame.source().is_group()) {
            Some(frame) => {
                if let Some(counters) = self.ports.get_mut(&from) {
                    counters.tx_packets += 1;
                    counters.tx_bytes += bytes.len() as u64;
                }
                self.forward(now, from, frame, out);
            }
            None => {
                if let Some(counters) = self.ports.get_mut(&from) {
                    counters.errors += 1;
                }
            }
        }
        self.serve(now, out);
    }

    /// An IP packet comes from another bridge.
    pub fn receive_routed(&mut self, now: Moment, packet: &[u8], out: &mut impl Output) {
        let reactions = self.gateway.routed(packet);
        self.react(now, reactions, out);
        self.serve(now, out);
    }

    /// Does what is due.
    pub fn poll(&mut self, now: Moment, out: &mut impl Output) {
        loop {
            let mut through = Vec::new();
            for line in self.lines.values_mut() {
                while let Some(frame) = line.shaper.pop(now) {
                    through.push(frame);
                }
            }
            through.sort_by_key(|(at, queued)| (*at, queued.number));
            for (at, queued) in through {
                self.enter_whole(now, at, queued, out);
            }
            while let Some((at, queued)) = self.whole.pop(now) {
                self.enter_delay(now, at, queued, out);
            }
            match self.timers.peek() {
                Some(Reverse(timer)) if timer.at <= now => {}
                _ => break,
            }
            let Some(Reverse(timer)) = self.timers.pop() else { break };
            match timer.due {
                Due::Arrives(queued) => self.arrive(timer.at, queued, out),
                Due::Release(pair, number) => self.release(pair, Some(number), out),
            }
        }
        self.serve(now, out);
    }

    /// When something is due next; `None` where nothing is under way.
    pub fn deadline(&self) -> Option<Moment> {
        let shapers = self.lines.values().filter_map(|line| line.shaper.deadline());
        let timer = self.timers.peek().map(|Reverse(timer)| timer.at);
        shapers.chain(self.whole.deadline()).chain(timer).min()
    }

    fn forward(&mut self, now: Moment, from: Port, frame: Frame<'_>, out: &mut impl Output) {
        out.seen(from, frame.bytes());
        if Some(from) == self.uplink {
            self.send(now, (from, Port::GATEWAY), frame.bytes(), out);
            return;
        }
        self.learn(from, frame.source());
        let to = frame.destination();
        if to == self.gateway.mac() {
            if from != Port::GATEWAY {
                self.send(now, (from, Port::GATEWAY), frame.bytes(), out);
            }
            return;
        }
        if let Some(port) = self.addresses.get(&to).copied() {
            if port != from {
                self.send(now, (from, port), frame.bytes(), out);
            }
            return;
        }
        let others: Vec<Port> =
            self.ports.keys().copied().filter(|port| *port != from && Some(*port) != self.uplink).collect();
        for port in others {
            self.send(now, (from, port), frame.bytes(), out);
        }
        if to.is_group() && from != Port::GATEWAY {
            self.send(now, (from, Port::GATEWAY), frame.bytes(), out);
        }
    }

    fn learn(&mut self, from: Port, mac: Mac) {
        if matches!(from, Port::GATEWAY | Port::INJECTED) || mac == self.gateway.mac() {
            return;
        }
        match self.addresses.get(&mac) {
            Some(port) if *port == from => {}
            Some(_) => drop(self.addresses.insert(mac, from)),
            None => {
                if self.addresses.values().filter(|port| **port == from).count() < ADDRESSES {
                    self.addresses.insert(mac, from);
                }
            }
        }
    }

    /// Frames that were delivered never reached their ports after all.
    pub fn lost(&mut self, frames: &[(Port, u64)]) {
        for (port, count) in frames {
            if let Some(counters) = self.ports.get_mut(port) {
                counters.dropped += count;
                counters.rx_packets = counters.rx_packets.saturating_sub(*count);
            }
        }
    }

    fn dropped(&mut self, port: Port) {
        if let Some(counters) = self.ports.get_mut(&port) {
            counters.dropped += 1;
        }
    }

    fn left(&mut self, queued: &Queued) {
        if let Some(bytes) = self.under_way.get_mut(&queued.pair.0) {
            *bytes = bytes.saturating_sub(queued.bytes.len());
        }
    }

    /// A frame goes from one port to another.
    fn send(&mut self, now: Moment, pair: Pair, bytes: &[u8], out: &mut impl Output) {
        if self.policy.is_cut(pair) {
            return self.dropped(pair.1);
        }
        let Some(impairment) = self.policy.of(pair) else { return self.deliver(pair, bytes, out) };
        let own_limit = self.policy.pairs.get(&pair).map_or(0, |own| own.bandwidth);
        let seed = self.seed;
        let line = self.lines.entry(pair).or_insert_with(|| Line::new(seed, pair));
        line.shaper.set(own_limit, now);
        if line.loss.happens(impairment.loss) {
            return self.dropped(pair.1);
        }
        let copies = if line.duplicate.happens(impairment.duplicate) { 2 } else { 1 };
        for _ in 0..copies {
            self.put_under_way(now, pair, bytes, &impairment, out);
        }
    }

    fn put_under_way(&mut self, now: Moment, pair: Pair, bytes: &[u8], impairment: &Impairment, out: &mut impl Output) {
        let under_way = self.under_way.entry(pair.0).or_default();
        if *under_way + bytes.len() > UNDER_WAY {
            return self.dropped(pair.1);
        }
        *under_way += bytes.len();
        self.number += 1;
        let Some(line) = self.lines.get_mut(&pair) else { return };
        let mut bytes: Box<[u8]> = bytes.into();
        if line.corrupt.happens(impairment.corrupt) {
            line.corrupt(&mut bytes);
        }
        let reorder = line.reorder.happens(impairment.reorder);
        let queued = Queued { number: self.number, pair, bytes, reorder };
        if !line.shaper.is_active() {
            return self.enter_whole(now, now, queued, out);
        }
        if let Err(queued) = line.shaper.push(queued, now) {
            self.left(&queued);
            self.dropped(pair.1);
        }
    }

    fn enter_whole(&mut self, now: Moment, at: Moment, queued: Queued, out: &mut impl Output) {
        if !self.whole.is_active() {
            return self.enter_delay(now, at, queued, out);
        }
        if let Err(queued) = self.whole.push(queued, at) {
            self.left(&queued);
            self.dropped(queued.pair.1);
        }
    }

    fn enter_delay(&mut self, now: Moment, at: Moment, queued: Queued, out: &mut impl Output) {
        let impairment = self.policy.of(queued.pair).unwrap_or_default();
        let due = match self.lines.get_mut(&queued.pair) {
            None => at,
            Some(line) => {
                let mut due = at + line.delay(impairment.latency, impairment.jitter);
                if !impairment.jitter.is_zero() {
                    due = due.max(line.last_due);
                }
                line.last_due = due;
                due
            }
        };
        if due <= now {
            return self.arrive(now, queued, out);
        }
        self.timers.push(Reverse(Timer { at: due, number: queued.number, due: Due::Arrives(queued) }));
    }

    fn arrive(&mut self, at: Moment, queued: Queued, out: &mut impl Output) {
        let pair = queued.pair;
        match self.lines.get_mut(&pair) {
            Some(line) if queued.reorder && line.held.is_none() => {
                let due = Due::Release(pair, queued.number);
                self.timers.push(Reverse(Timer { at: at + HOLD, number: queued.number, due }));
                line.held = Some(queued);
            }
            _ => {
                self.left(&queued);
                self.deliver(pair, &queued.bytes, out);
                self.release(pair, None, out);
            }
        }
    }

    /// The frame that was to be overtaken arrives; with a number, only where it is that one.
    fn release(&mut self, pair: Pair, number: Option<u64>, out: &mut impl Output) {
        let Some(line) = self.lines.get_mut(&pair) else { return };
        let is_it = |held: &Queued| number.is_none_or(|number| held.number == number);
        if let Some(held) = line.held.take_if(|held| is_it(held)) {
            self.left(&held);
            self.deliver(pair, &held.bytes, out);
        }
    }

    fn deliver(&mut self, pair: Pair, bytes: &[u8], out: &mut impl Output) {
        if pair.1 == Port::GATEWAY {
            self.for_gateway.push_back((pair.0, bytes.into()));
            return;
        }
        let fits = out.deliver(pair, bytes);
        if let Some(counters) = self.ports.get_mut(&pair.1) {
            if fits {
                counters.rx_packets += 1;
                counters.rx_bytes += bytes.len() as u64;
            } else {
                counters.dropped += 1;
            }
        }
    }

    /// The gateway's turn. What it says goes to ports only, never to itself.
    fn serve(&mut self, now: Moment, out: &mut impl Output) {
        while let Some((from, bytes)) = self.for_gateway.pop_front() {
            let Some(frame) = Frame::new(&bytes) else { continue };
            let reactions = self.gateway.receive(frame, Some(from) == self.uplink);
            self.react(now, reactions, out);
        }
    }

    fn react(&mut self, now: Moment, reactions: Vec<Reaction>, out: &mut impl Output) {
        for reaction in reactions {
            match reaction {
                Reaction::Send(bytes) => {
                    if let Some(frame) = Frame::new(&bytes) {
                        self.forward(now, Port::GATEWAY, frame, out);
                    }
                }
                Reaction::Uplink(bytes) => {
                    if let Some(port) = self.uplink {
                        self.send(now, (Port::GATEWAY, port), &bytes, out);
                    }
                }
                Reaction::Route(to, packet) => out.route(to, &packet),
            }
        }
    }
}
