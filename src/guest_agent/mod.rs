//! The guest's end: launcher, then agent.
//!
//! The kernel starts this program as PID 1 through `rdinit=`. It mounts what it needs out of sight, loads drivers,
//! forks the agent, and becomes the guest's own init. The agent has two threads: one that does all I/O (`server`),
//! and one on which everything happens that belongs to the guest's own view of itself: opening files, starting
//! processes (`ops`).

mod buffers;
mod button;
mod clock;
mod content;
mod disks;
mod files;
mod hosts;
mod input;
mod interrupt;
mod kmsg;
mod launcher;
mod modules;
mod netlink;
mod network;
mod oom;
mod ops;
mod out;
mod paths;
mod port;
mod processes;
mod root_device;
mod server;
mod settle;
mod spawn;
mod sync;
mod sys;
mod syscalls;
mod tail;
mod uevents;
mod users;
mod waits;
mod wake_up;
mod watchers;
mod worker;

use std::os::fd::{FromRawFd, OwnedFd};

/// Entry of the `provium-agent` binary.
///
/// As PID 1 it is the launcher. `--agent …` is what the launcher starts, `--worker` what an agent starts; `--serve` is for
/// images that bring the agent themselves; `--fd N` speaks on an inherited descriptor (for tests on a host).
pub fn main() {
    let mut args = std::env::args().skip(1);
    let what = args.next();
    // A worker in a PID namespace of its own has this number as well.
    if std::process::id() == 1 && what.as_deref() != Some("--worker") {
        launcher::launch();
    }
    match what.as_deref() {
        Some("--agent") => launcher::agent(args),
        Some("--worker") => worker::main(),
        Some("--serve") => launcher::serve(),
        Some("--fd") => match args.next().and_then(|fd| fd.parse::<i32>().ok()) {
            Some(fd) if fd > 2 => {
                // SAFETY: the caller hands the descriptor over by naming it.
                let channel = unsafe { OwnedFd::from_raw_fd(fd) };
                let setting = server::Setting { program: worker::program(None).ok(), ..server::Setting::default() };
                server::serve(channel, setting, server::hello(None, Vec::new()));
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
