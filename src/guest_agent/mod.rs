//! The guest's end: launcher, then agent.
//!
//! The kernel starts this program as PID 1 through `rdinit=`. It mounts what it needs out of sight, loads drivers,
//! forks the agent, and becomes the guest's own init. The agent has two threads: one that does all I/O (`server`),
//! and one on which everything happens that belongs to the guest's own view of itself: opening files, starting
//! processes (`ops`).

mod files;
mod interrupt;
mod launcher;
mod modules;
mod ops;
mod out;
mod port;
mod processes;
mod root_device;
mod server;
mod settle;
mod spawn;
mod sys;
mod uevents;
mod users;
mod watchers;

use std::os::fd::{FromRawFd, OwnedFd};

/// Entry of the `provium-agent` binary.
///
/// As PID 1 it is the launcher. `--agent …` is what the launcher starts; `--serve` is for images that bring the agent
/// themselves; `--fd N` speaks on an inherited descriptor (for
/// tests on a host).
pub fn main() {
    if std::process::id() == 1 {
        launcher::launch();
    }
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        Some("--agent") => launcher::agent(args),
        Some("--serve") => launcher::serve(),
        Some("--fd") => match args.next().and_then(|fd| fd.parse::<i32>().ok()) {
            Some(fd) if fd > 2 => {
                // SAFETY: the caller hands the descriptor over by naming it.
                let channel = unsafe { OwnedFd::from_raw_fd(fd) };
                server::serve(channel, None, server::hello(None, Vec::new()));
            }
            _ => usage(),
        },
        _ => usage(),
    }
}

fn usage() {
    eprintln!(
        "provium-agent runs inside a guest, started by provium; `--serve` is for an image that starts it itself, `--fd N` \
         makes it speak on an inherited descriptor"
    );
    std::process::exit(2);
}
