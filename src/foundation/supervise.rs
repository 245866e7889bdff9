//! A child that leads a process group of its own, watched until it has ended and what it says is read.
//!
//! The child is never reaped here: until its owner does that, the number of its group is nobody else's.

use std::process::Child;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use super::process;

/// How long a cancelled group has to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);
/// How long the pipes of an ended child are read, should something that it left behind hold them open.
const DRAIN: Duration = Duration::from_secs(1);

enum Event<T> {
    Said(T),
    PipeEnded,
    Exited,
    Cancelled,
}

/// What becomes of the rest of the group when the child has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leftovers {
    /// They are killed.
    Kill,
    /// They go on.
    Leave,
}

/// A child under watch. `T` is what its pipes say.
pub struct Supervisor<T> {
    child: Child,
    events: Sender<Event<T>>,
    received: Receiver<Event<T>>,
    open_pipes: usize,
}

impl<T: Send + 'static> Supervisor<T> {
    /// Watches `child`, which leads a process group.
    pub fn new(child: Child) -> Self {
        let (events, received) = mpsc::channel();
        let (id, exited) = (child.id(), events.clone());
        std::thread::spawn(move || {
            // It fails only where there is no such child, which is an end as well; the owner's `wait` says what is wrong.
            drop(process::wait_unreaped(id));
            drop(exited.send(Event::Exited));
        });
        Self { child, events, received, open_pipes: 0 }
    }

    /// Has `read` read one of the child's pipes to its end, on a thread. It hands over what it finds, and stops where nobody
    /// takes that any more: when it is told `false`.
    pub fn read(&mut self, read: impl FnOnce(&mut dyn FnMut(T) -> bool) + Send + 'static) {
        self.open_pipes += 1;
        let events = self.events.clone();
        std::thread::spawn(move || {
            read(&mut |said| events.send(Event::Said(said)).is_ok());
            drop(events.send(Event::PipeEnded));
        });
    }

    /// What cancels: the group gets SIGTERM, and SIGKILL 5 seconds later.
    pub fn canceller(&self) -> impl Fn() + Send + 'static {
        let events = self.events.clone();
        move || drop(events.send(Event::Cancelled))
    }

    /// Until the child has ended and its pipes are read; `heard` gets what they say. Returns the child, to be reaped, and whether
    /// somebody cancelled.
    pub fn run(mut self, leftovers: Leftovers, heard: &mut dyn FnMut(T)) -> (Child, bool) {
        let (mut cancelled, mut exited) = (false, false);
        let mut deadline = None::<Instant>;
        while !exited || self.open_pipes > 0 {
            let event = match deadline {
                None => self.received.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(at) => self.received.recv_timeout(at.saturating_duration_since(Instant::now())),
            };
            match event {
                Ok(Event::Said(said)) => heard(said),
                Ok(Event::PipeEnded) => self.open_pipes -= 1,
                Ok(Event::Exited) => {
                    exited = true;
                    if leftovers == Leftovers::Kill {
                        signal_group(&self.child, libc::SIGKILL);
                    }
                    deadline = Some(Instant::now() + DRAIN);
                }
                Ok(Event::Cancelled) if !cancelled && !exited => {
                    cancelled = true;
                    signal_group(&self.child, libc::SIGTERM);
                    deadline = Some(Instant::now() + GRACE);
                }
                Ok(Event::Cancelled) => cancelled = true,
                Err(RecvTimeoutError::Timeout) if !exited => {
                    signal_group(&self.child, libc::SIGKILL);
                    deadline = None;
                }
                Err(_) => break,
            }
        }
        (self.child, cancelled)
    }
}

fn signal_group(child: &Child, signal: i32) {
    // A process id fits in `pid_t`; 0 would be our own group, so nothing is sent should that ever not hold.
    let Ok(group @ 1..) = libc::pid_t::try_from(child.id()) else { return };
    // SAFETY: `kill` takes no pointers; the group's leader is our child and not reaped yet.
    unsafe {
        libc::kill(-group, signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    fn shell(script: &str) -> Supervisor<String> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
        let mut child = process::spawn(command, Vec::new()).unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut supervisor = Supervisor::new(child);
        supervisor.read(move |say| {
            let _ = output.lines().map_while(Result::ok).all(say);
        });
        supervisor
    }

    #[test]
    fn hears_all_and_leaves_the_child_to_be_reaped() {
        let mut lines = Vec::new();
        let (mut child, cancelled) =
            shell("echo a; echo b; exit 3").run(Leftovers::Leave, &mut |line| lines.push(line));
        assert_eq!((lines, cancelled), (vec!["a".to_owned(), "b".to_owned()], false));
        assert_eq!(child.wait().unwrap().code(), Some(3));
    }

    #[test]
    fn cancelling_asks_the_whole_group() {
        let supervisor = shell("sleep 1000 & echo $!; wait");
        let cancel = supervisor.canceller();
        let mut sleeper = String::new();
        let (mut child, cancelled) = supervisor.run(Leftovers::Leave, &mut |line| {
            sleeper = line;
            cancel();
        });
        assert!(cancelled);
        assert!(!child.wait().unwrap().success());
        process::wait_for_end_of(&sleeper);
    }

    #[test]
    fn what_is_left_behind_goes_on_or_is_killed_and_is_not_waited_for() {
        let script = "sleep 1000 & echo $!";
        let mut left = String::new();
        let (mut child, _) = shell(script).run(Leftovers::Leave, &mut |line| left = line);
        let state = std::fs::read_to_string(format!("/proc/{left}/stat")).unwrap();
        assert!(!state.contains(") Z"), "{state}");
        signal_group(&child, libc::SIGKILL);
        assert!(child.wait().unwrap().success());
        process::wait_for_end_of(&left);
        let (mut child, _) = shell(script).run(Leftovers::Kill, &mut |line| left = line);
        assert!(child.wait().unwrap().success());
        process::wait_for_end_of(&left);
    }
}
