//! Fuzzing of the guest's end: a host that says anything at all ends the agent's connection at worst.
//!
//! This is the real I/O thread on a real channel: framing, the search for the nonce, decoding, dispatch, processes and watchers that are
//! given up. What does the jobs is not the ops thread but `harmless`: the real one would make any system call and power off the
//! machine that runs the test.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::agent_protocol::{OpError, OpReply, golden_to_guest};
use crate::foundation::fuzzing::{self, Random};

#[test]
fn the_guest_s_end_survives_any_host() {
    fuzzing::in_a_child("guest_agent::server::fuzz::target");
}

#[test]
#[ignore = "the fuzz target: runs in a process of its own"]
fn target() {
    fuzzing::begin();
    let count = fuzzing::rounds(round);
    let jobs = JOBS.load(Ordering::Relaxed);
    println!("{count} rounds, {jobs} jobs");
    assert!(jobs > count, "hardly a message reached the dispatch");
}

/// How many jobs came out of the dispatch.
static JOBS: AtomicU64 = AtomicU64::new(0);

/// Answers jobs without doing them.
fn harmless(jobs: Receiver<(u32, ToGuest)>, shared: Arc<Shared>, _: Option<Root>) -> io::Result<()> {
    let answer = move |(request, message)| {
        JOBS.fetch_add(1, Ordering::Relaxed);
        let refused = || OpError { op: "o".to_owned(), subject: String::new(), errno: 1, detail: String::new() };
        match message {
            ToGuest::Run(_) => {
                if let Err(error) = shared.processes.start(request, None, Some(&shared.out), || Err(refused())) {
                    shared.out.fail(request, error);
                }
            }
            ToGuest::ReadFile(path) => drop(shared.out.send(request, &ToHost::Data(path))),
            ToGuest::Op(_) => shared.out.reply(request, OpReply::Unit),
            ToGuest::Cancel => {}
            _ => shared.out.done(request),
        }
    };
    std::thread::Builder::new().name("ops".to_owned()).spawn(move || jobs.into_iter().for_each(answer)).map(drop)
}

fn round(mut random: Random) {
    let (host, guest) = UnixStream::pair().unwrap();
    let hello = hello(None, Vec::new());
    let nonce = hello.nonce;
    let agent = std::thread::spawn(move || run(guest.into(), Setting::default(), &hello, harmless));
    let mut answers = host.try_clone().unwrap();
    // A host that reads nothing must not keep the agent for ever either.
    let reading = (!random.one_in(6)).then(|| std::thread::spawn(move || drain(&mut answers)));
    let mut bytes = Vec::new();
    if random.one_in(10) {
        bytes.extend(random.bytes());
    }
    if !random.one_in(20) {
        bytes.extend(nonce);
    }
    // The agent may have ended the connection.
    let _ = say(&host, bytes, &mut random);
    // A host that reads hears the rest; one that does not is gone at once.
    let how = if reading.is_some() { std::net::Shutdown::Write } else { std::net::Shutdown::Both };
    host.shutdown(how).unwrap();
    // An end with an error is fine, a panic is not.
    let _ = agent.join().unwrap();
    drop(host);
    if let Some(reading) = reading {
        reading.join().unwrap();
    }
}

fn drain(answers: &mut UnixStream) {
    let mut buffer = [0; 4096];
    while answers.read(&mut buffer).is_ok_and(|count| count > 0) {}
}

fn say(mut host: &UnixStream, mut bytes: Vec<u8>, random: &mut Random) -> io::Result<()> {
    host.set_write_timeout(Some(std::time::Duration::from_millis(200)))?;
    let golden = golden_to_guest();
    for _ in 0..random.below(200) {
        let start = bytes.len();
        let request = u32::try_from(random.below(8)).unwrap_or_default();
        match random.below(12) {
            0 if random.one_in(10) => bytes.extend(random.bytes()),
            1 => ToGuest::Data(random.bytes()).encode(request, &mut bytes),
            2 => ToGuest::Stdin(random.bytes()).encode(request, &mut bytes),
            3 => ToGuest::ReadFile(random.bytes()).encode(request, &mut bytes),
            _ => random.pick(&golden).0.encode(request, &mut bytes),
        }
        if random.one_in(60) {
            let mut damaged = bytes.split_off(start);
            random.damage(&mut damaged);
            bytes.extend(damaged);
        }
        if random.one_in(5) {
            // In pieces of any size.
            let rest = bytes.split_off(random.below(bytes.len() + 1));
            host.write_all(&bytes)?;
            bytes = rest;
        }
    }
    host.write_all(&bytes)
}
