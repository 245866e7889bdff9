//! A bridge at work: one thread moves frames between sockets and the pure core. It sleeps while nothing is under way.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use super::capture;
use super::forwarding::{Bridge, Moment, Output};
use super::gateway::Neighbour;
use super::impairments::Pair;
use super::port::Port;
use super::wire::{Piece, Wire};

/// How many packets from other bridges may wait; what is more is lost.
const INBOX: usize = 4096;
/// How many answers one buffer of frames can cause; what is more is lost.
const ANSWERS: usize = 4096;
/// How many sockets are looked at before the timers again.
const EVENTS: usize = 64;
/// Which descriptor an event is about, where it is no port.
const WAKE: u64 = u64::MAX;
const TIMER: u64 = u64::MAX - 1;
/// The thread needs little stack: no recursion, no big values.
const STACK: usize = 512 * 1024;

/// Takes pieces of a capture; false when it wants no more.
pub type Sink = Box<dyn FnMut(Vec<u8>) -> bool + Send>;

struct Tap {
    /// One port's frames; none: all that comes in.
    port: Option<Port>,
    sink: Sink,
}

/// What both the thread and the callers use.
pub struct Shared {
    start: Instant,
    state: Mutex<State>,
    inbox: Mutex<VecDeque<Vec<u8>>>,
    wake: OwnedFd,
    timer: OwnedFd,
    epoll: OwnedFd,
    stopped: AtomicBool,
}

/// The core and its surroundings.
pub struct State {
    /// The pure core.
    pub bridge: Bridge,
    /// What it puts frames into.
    pub io: Io,
}

/// Cables, captures, other bridges.
#[derive(Default)]
pub struct Io {
    wires: BTreeMap<Port, Wire>,
    touched: Vec<Port>,
    taps: Vec<Tap>,
    neighbours: HashMap<Neighbour, Weak<Shared>>,
    /// The port whose frames are being read, and what comes back to it meanwhile: the gateway's answers.
    busy: Option<Port>,
    answers: Vec<(Port, Vec<u8>)>,
}

impl Output for Io {
    fn seen(&mut self, from: Port, frame: &[u8]) {
        self.tap(frame, |port| port.is_none_or(|port| port == from));
    }

    fn deliver(&mut self, pair: Pair, frame: &[u8]) -> bool {
        self.tap(frame, |port| port == Some(pair.1));
        if self.busy == Some(pair.1) {
            let fits = self.answers.len() < ANSWERS;
            if fits {
                self.answers.push((pair.0, frame.to_vec()));
            }
            return fits;
        }
        let Some(wire) = self.wires.get_mut(&pair.1) else { return false };
        if !wire.has_output() {
            self.touched.push(pair.1);
        }
        wire.push(pair.0, frame)
    }

    fn route(&mut self, to: Neighbour, packet: &[u8]) {
        if let Some(other) = self.neighbours.get(&to).and_then(Weak::upgrade) {
            other.hand_over(packet);
        }
    }
}

impl Io {
    fn tap(&mut self, frame: &[u8], wanted: impl Fn(Option<Port>) -> bool) {
        if self.taps.is_empty() {
            return;
        }
        let record = capture::record(SystemTime::now(), frame);
        self.taps.retain_mut(|tap| !wanted(tap.port) || (tap.sink)(record.clone()));
    }

    /// Sends copies of frames to `sink` from now on.
    pub fn add_tap(&mut self, port: Option<Port>, mut sink: Sink) {
        if sink(capture::header()) {
            self.taps.push(Tap { port, sink });
        }
    }

    /// Ends the captures: of one port, or all.
    pub fn end_taps(&mut self, port: Option<Port>) {
        self.taps.retain(|tap| port.is_some() && tap.port != port);
    }

    /// Where packets for another bridge go.
    pub fn set_neighbour(&mut self, name: Neighbour, other: Option<Weak<Shared>>) {
        match other {
            Some(other) => drop(self.neighbours.insert(name, other)),
            None => drop(self.neighbours.remove(&name)),
        }
    }

    /// Takes back what waits for a guest and is cut off now; returns how much, for each port.
    pub fn take_back(&mut self, cut: impl Fn(Pair) -> bool) -> Vec<(Port, u64)> {
        let back = |(port, wire): (&Port, &mut Wire)| (*port, wire.take_back(|from| cut((from, *port))));
        self.wires.iter_mut().map(back).collect()
    }
}

impl Shared {
    /// A bridge at rest, and the thread that works for it.
    ///
    /// # Errors
    /// errno: no descriptors or no thread can be had.
    pub fn start(bridge: Bridge) -> io::Result<(Arc<Self>, std::thread::JoinHandle<()>)> {
        let shared = Arc::new(Self {
            start: Instant::now(),
            state: Mutex::new(State { bridge, io: Io::default() }),
            inbox: Mutex::default(),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            timer: timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            stopped: AtomicBool::new(false),
        });
        let data = epoll::EventData::new_u64;
        epoll::add(&shared.epoll, &shared.wake, data(WAKE), epoll::EventFlags::IN)?;
        epoll::add(&shared.epoll, &shared.timer, data(TIMER), epoll::EventFlags::IN)?;
        let working = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("switch".to_owned()).stack_size(STACK);
        let thread = thread.spawn(move || working.work())?;
        Ok((shared, thread))
    }

    /// How long after the start it is.
    pub fn now(&self) -> Moment {
        self.start.elapsed()
    }

    /// The state, alone.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the thread look at everything again.
    pub fn wake(&self) {
        // A counter that is full wakes as well.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    /// Makes the thread end.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.wake();
    }

    fn hand_over(&self, packet: &[u8]) {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        if inbox.len() < INBOX {
            inbox.push_back(packet.to_vec());
            drop(inbox);
            self.wake();
        }
    }

    /// A guest is plugged in.
    ///
    /// # Errors
    /// errno.
    pub fn add_wire(&self, port: Port, wire: Wire) -> io::Result<()> {
        let data = epoll::EventData::new_u64(u64::from(port.0));
        epoll::add(&self.epoll, wire.stream(), data, epoll::EventFlags::IN)?;
        let mut state = self.lock();
        state.bridge.add_port(port);
        state.io.wires.insert(port, wire);
        Ok(())
    }

    /// A guest is gone.
    pub fn remove_wire(&self, port: Port) {
        let mut state = self.lock();
        self.unplug(&mut state, port);
        state.bridge.remove_port(port, self.now());
        state.io.end_taps(Some(port));
    }

    /// Only the cable goes: QEMU has ended, or will be started anew.
    fn unplug(&self, state: &mut State, port: Port) {
        if let Some(wire) = state.io.wires.remove(&port) {
            // The descriptor is open until the end of this block.
            let _ = epoll::delete(&self.epoll, wire.stream());
        }
    }

    fn work(&self) {
        let mut events = Vec::with_capacity(EVENTS);
        let mut armed = None;
        while !self.stopped.load(Ordering::SeqCst) {
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
            let mut state = self.lock();
            let state = &mut *state;
            for event in &events {
                match event.data.u64() {
                    which @ (WAKE | TIMER) => {
                        let descriptor = if which == WAKE { self.wake.as_fd() } else { self.timer.as_fd() };
                        // Read to make it silent; that nothing was there does no harm.
                        let _ = rustix::io::read(descriptor, &mut [0_u8; 8]);
                        if which == TIMER {
                            armed = None;
                        }
                    }
                    number => self.port_is_ready(state, number, event.flags),
                }
            }
            let packets = std::mem::take(&mut *self.inbox.lock().unwrap_or_else(PoisonError::into_inner));
            for packet in packets {
                state.bridge.receive_routed(self.now(), &packet, &mut state.io);
            }
            state.bridge.poll(self.now(), &mut state.io);
            self.flush(state);
            self.arm(&mut armed, state.bridge.deadline());
        }
    }

    fn port_is_ready(&self, state: &mut State, number: u64, flags: epoll::EventFlags) {
        let Ok(port) = u32::try_from(number).map(Port) else { return };
        // Taken out, so that the core can put frames into the other cables meanwhile.
        let Some(mut wire) = state.io.wires.remove(&port) else { return };
        state.io.busy = Some(port);
        let mut alive = true;
        if flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR) {
            alive = wire.fill();
            while let Some(piece) = wire.next() {
                let bytes = match piece {
                    Piece::Frame(range) => wire.bytes(range),
                    Piece::Nonsense => &[],
                };
                state.bridge.receive(self.now(), port, bytes, &mut state.io);
            }
        }
        state.io.busy = None;
        for (from, frame) in std::mem::take(&mut state.io.answers) {
            if !wire.push(from, &frame) {
                state.bridge.lost(&[(port, 1)]);
            }
        }
        if alive {
            // One that was watched for room, and whose frames were taken back, is watched for it no more.
            if wire.has_output() || wire.waits_for_room {
                state.io.touched.push(port);
            }
            state.io.wires.insert(port, wire);
        } else {
            let _ = epoll::delete(&self.epoll, wire.stream());
        }
    }

    fn flush(&self, state: &mut State) {
        for port in std::mem::take(&mut state.io.touched) {
            let Some(wire) = state.io.wires.get_mut(&port) else { continue };
            if !wire.flush() {
                self.unplug(state, port);
                continue;
            }
            let waits = wire.has_output();
            if waits != wire.waits_for_room {
                wire.waits_for_room = waits;
                let room = if waits { epoll::EventFlags::OUT } else { epoll::EventFlags::empty() };
                let data = epoll::EventData::new_u64(u64::from(port.0));
                // A cable that can't be watched is dead, which a read will tell.
                let _ = epoll::modify(&self.epoll, wire.stream(), data, epoll::EventFlags::IN | room);
            }
        }
    }

    /// Sets the timer, where its moment has changed.
    fn arm(&self, armed: &mut Option<Moment>, deadline: Option<Moment>) {
        if *armed == deadline {
            return;
        }
        *armed = deadline;
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value = deadline.map_or(zero, |deadline| {
            // Zero would be no timer at all.
            let left = deadline.saturating_sub(self.now()).max(Duration::from_nanos(1));
            Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() }
        });
        let spec = Itimerspec { it_interval: zero, it_value: value };
        // Fails for values that can't be, which these are not.
        let _ = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &spec);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::switch::dhcp::tests::settings;
    use crate::switch::frame::{Mac, build};
    use crate::switch::gateway::Gateway;

    fn framed(frame: &[u8]) -> Vec<u8> {
        [&u32::try_from(frame.len()).unwrap().to_be_bytes()[..], frame].concat()
    }

    fn receive(guest: &mut UnixStream) -> Vec<u8> {
        let mut length = [0; 4];
        guest.read_exact(&mut length).unwrap();
        let mut frame = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
        guest.read_exact(&mut frame).unwrap();
        frame
    }

    #[test]
    fn frames_pass_and_the_gateway_answers_its_asker() {
        let (shared, thread) = Shared::start(Bridge::new(1, Gateway::new(settings()))).unwrap();
        let mut guests = Vec::new();
        for number in 1..=2 {
            let (ours, theirs) = UnixStream::pair().unwrap();
            shared.add_wire(Port(number), Wire::new(ours).unwrap()).unwrap();
            theirs.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            guests.push(theirs);
        }
        let mac = Mac([2, 0, 0, 0, 0, 9]);
        let all = build(Mac::BROADCAST, mac, 0x1234, b"hello");
        guests[0].write_all(&framed(&all)).unwrap();
        assert_eq!(receive(&mut guests[1]), all);
        let body = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &mac.0, &[10, 10, 1, 9], &[0; 6], &[10, 10, 1, 1]].concat();
        guests[0].write_all(&framed(&build(Mac::BROADCAST, mac, 0x0806, &body))).unwrap();
        assert_eq!(receive(&mut guests[0])[..6], mac.0);
        shared.stop();
        thread.join().unwrap();
    }

    #[test]
    fn a_cable_whose_frames_were_taken_back_keeps_nobody_busy() {
        let (shared, thread) = Shared::start(Bridge::new(1, Gateway::new(settings()))).unwrap();
        let (ours, mut guest) = UnixStream::pair().unwrap();
        shared.add_wire(Port(1), Wire::new(ours).unwrap()).unwrap();
        let waits = || shared.lock().io.wires.get(&Port(1)).is_some_and(|wire| wire.waits_for_room);
        let until = |wanted: bool| {
            let deadline = Instant::now() + Duration::from_secs(30);
            while waits() != wanted {
                assert!(Instant::now() < deadline, "the switch did not look at the cable");
                std::thread::yield_now();
            }
        };
        {
            let mut state = shared.lock();
            let state = &mut *state;
            let frame = build(Mac::BROADCAST, Mac([2, 0, 0, 0, 0, 9]), 0x1234, &[7; 46]);
            // Frames of 64 bytes with their lengths: what fits into a socket ends with one of them.
            for _ in 0..30_000 {
                state.bridge.receive(shared.now(), Port::INJECTED, &frame, &mut state.io);
            }
        }
        shared.wake();
        until(true);
        shared.lock().io.take_back(|_| true);
        // What is half sent is finished, then there is room and nothing for it.
        guest.set_nonblocking(true).unwrap();
        let mut buffer = vec![0; 1 << 20];
        let deadline = Instant::now() + Duration::from_secs(30);
        while waits() {
            assert!(Instant::now() < deadline, "the cable is watched for room that nothing needs");
            let _ = guest.read(&mut buffer);
        }
        shared.stop();
        thread.join().unwrap();
    }
}
