//! What fuzz targets share: bytes that are nearly right, and a process of their own with bounded memory.
//!
//! A target is an ignored test that `in_a_child` runs in a process of its own, so that a panic on any thread, an allocation past the limit
//! and a hang are all seen. `PROVIUM_FUZZ_SECONDS` is how long (10), `PROVIUM_FUZZ_SEED` repeats one round.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The target's process may have so much address space, in bytes: far above what a bounded end needs.
const MEMORY: u64 = 1 << 30;
/// A round that is under way longer hangs.
const LONGEST_ROUND: Duration = Duration::from_secs(20);

/// The round under way; told when it fails.
static SEED: AtomicU64 = AtomicU64::new(0);

/// Numbers that look random, the same for one seed (xorshift64*).
pub struct Random(u64);

impl Random {
    /// Begins at `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() >> 16).unwrap_or_default() % end.max(1)
    }

    /// True once in `times`.
    pub fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// One of `all`.
    pub fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    /// Some bytes, mostly few.
    pub fn bytes(&mut self) -> Vec<u8> {
        let count = if self.one_in(50) { self.below(70_000) } else { self.below(40) };
        (0..count).map(|_| self.next().to_le_bytes()[5]).collect()
    }

    /// Changes bytes, takes some out, or puts some in.
    pub fn damage(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len() + 1);
            match self.below(5) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, self.next().to_le_bytes()[5]),
                2 => drop(bytes.splice(at..(at + self.below(9)).min(bytes.len()), self.next().to_le_bytes())),
                3 if at < bytes.len() => bytes[at] = *self.pick(&[0, 1, 0x7f, 0x80, 0xff]),
                _ if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                _ => {}
            }
        }
    }
}

/// Runs rounds with seeds of their own until the time is over; returns how many.
pub fn rounds(mut round: impl FnMut(Random)) -> u64 {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let once = number("PROVIUM_FUZZ_SEED");
    let time = Duration::from_secs(number("PROVIUM_FUZZ_SECONDS").unwrap_or(10));
    let watched = std::thread::Builder::new().name("watch".to_owned()).spawn(watch).unwrap();
    let begun = Instant::now();
    let first = once.unwrap_or_else(|| u64::from(std::process::id()) << 32);
    let mut count = 0;
    while count == 0 || once.is_none() && begun.elapsed() < time {
        SEED.store(first + count, Ordering::SeqCst);
        round(Random::new(first + count));
        count += 1;
    }
    drop(watched);
    count
}

/// Ends the process when one round lasts too long.
fn watch() {
    let mut last = (0, Instant::now());
    loop {
        std::thread::park_timeout(Duration::from_millis(500));
        let now = SEED.load(Ordering::SeqCst);
        if now != last.0 {
            last = (now, Instant::now());
        } else if last.1.elapsed() > LONGEST_ROUND {
            eprintln!("a round hangs: PROVIUM_FUZZ_SEED={now}");
            std::process::abort();
        }
    }
}

/// The target's side of `in_a_child`: a panic on any thread ends the process.
pub fn begin() {
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        told(panic);
        eprintln!("to repeat this round: PROVIUM_FUZZ_SEED={}", SEED.load(Ordering::SeqCst));
        std::process::abort();
    }));
}

/// Runs the ignored test `name` (its whole path) of this program in a process of its own.
#[track_caller]
pub fn in_a_child(name: &str) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--ignored", "--nocapture", "--test-threads", "1"]);
    let limit = libc::rlimit { rlim_cur: MEMORY, rlim_max: MEMORY };
    // SAFETY: one system call between fork and exec, on plain data.
    unsafe {
        command.pre_exec(move || {
            if libc::setrlimit(libc::RLIMIT_AS, &raw const limit) == 0 {
                Ok(())
            } else {
                Err(std::io::Error::last_os_error())
            }
        })
    };
    let output = command.output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "{}\n{said}", output.status);
}
