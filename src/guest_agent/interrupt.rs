//! Work that may block for as long as it likes, and still ends when the host gives its request up.
//!
//! A thread registers for the request that it works on, either for a while ([`Interrupts::enter`], the ops thread) or for its
//! whole life ([`Interrupts::spawn`]). When the host cancels a request, its threads get a signal whose handler does nothing but
//! make blocking calls return `EINTR`; a signal that comes just before such a call is lost, so it is sent again until
//! the thread is done.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::sys::check;

/// How long after a signal the next one follows, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LAST_PAUSE: Duration = Duration::from_millis(50);
/// The stack of a thread that was started for one request, in bytes.
const STACK: usize = 128 * 1024;

/// All threads that work on requests.
#[derive(Default)]
pub struct Interrupts {
    table: Mutex<Table>,
    changed: Condvar,
}

#[derive(Default)]
struct Table {
    requests: HashMap<u32, Request>,
    /// Whether the thread that sends the signals was started.
    has_sender: bool,
}

/// A request with threads at work, or one that was given up before all of its messages were looked at.
#[derive(Default)]
struct Request {
    given_up: Arc<AtomicBool>,
    /// Whether messages of the request may still come to [`Interrupts::enter`] although it was given up.
    remembered: bool,
    /// Threads that were announced and have not registered yet.
    starting: u32,
    threads: Vec<libc::pid_t>,
}

impl Interrupts {
    /// Nothing at work. Takes a signal for itself.
    ///
    /// # Errors
    /// errno.
    pub fn new() -> io::Result<Arc<Self>> {
        extern "C" fn nothing(_: libc::c_int) {}
        // SAFETY: sigaction is plain data; the handler does nothing, so it is safe at any point. Without SA_RESTART:
        // blocking calls must return.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as libc::sighandler_t;
            check(libc::sigaction(signal(), &raw const action, std::ptr::null_mut()))?;
        }
        Ok(Arc::default())
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers the calling thread for `request` until the returned value is dropped. `None` when the request was
    /// given up already.
    pub fn enter(self: &Arc<Self>, request: u32) -> Option<Working> {
        self.register(request, false)
    }

    fn register(self: &Arc<Self>, request: u32, announced: bool) -> Option<Working> {
        let mut table = self.table();
        let entry = table.requests.entry(request).or_default();
        entry.starting -= u32::from(announced);
        if entry.given_up.load(Ordering::Relaxed) {
            table.tidy(request);
            return None;
        }
        // SAFETY: no preconditions.
        entry.threads.push(unsafe { libc::gettid() });
        let given_up = Arc::clone(&entry.given_up);
        Some(Working { interrupts: Arc::clone(self), request, given_up })
    }

    /// Does `work` for `request` on a thread `name` of its own. It starts with the caller's identity, root and working
    /// directory. A request that is given up before the thread runs is not begun.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn spawn(
        self: &Arc<Self>,
        request: u32,
        name: &str,
        work: impl FnOnce(&Working) + Send + 'static,
    ) -> io::Result<()> {
        self.table().requests.entry(request).or_default().starting += 1;
        let interrupts = Arc::clone(self);
        let started = std::thread::Builder::new().name(name.to_owned()).stack_size(STACK).spawn(move || {
            if let Some(working) = interrupts.register(request, true) {
                work(&working);
            }
        });
        if started.is_err() {
            let mut table = self.table();
            if let Some(entry) = table.requests.get_mut(&request) {
                entry.starting -= 1;
            }
            table.tidy(request);
        }
        started.map(drop)
    }

    /// The host gave `request` up: its threads are interrupted until they are done, and no thread can enter it any more
    /// before [`Self::forget`].
    pub fn cancel(self: &Arc<Self>, request: u32) {
        let mut table = self.table();
        let entry = table.requests.entry(request).or_default();
        entry.given_up.store(true, Ordering::Relaxed);
        entry.remembered = true;
        if !entry.threads.is_empty() && !table.has_sender {
            let interrupts = Arc::clone(self);
            let sender = std::thread::Builder::new().name("interrupt".to_owned()).stack_size(STACK);
            table.has_sender = sender.spawn(move || interrupts.send_signals()).is_ok();
        }
        drop(table);
        self.changed.notify_all();
    }

    /// No more messages of a request that was given up will come to [`Self::enter`].
    pub fn forget(&self, request: u32) {
        let mut table = self.table();
        if let Some(entry) = table.requests.get_mut(&request) {
            entry.remembered = false;
            table.tidy(request);
        }
    }

    /// Signals the threads of all requests that were given up, again and again while there are any. Never returns.
    fn send_signals(&self) {
        let mut pause = FIRST_PAUSE;
        let mut table = self.table();
        loop {
            let mut sent = false;
            for entry in table.requests.values().filter(|entry| entry.given_up.load(Ordering::Relaxed)) {
                for thread in &entry.threads {
                    sent = true;
                    // SAFETY: the thread lives: it takes itself out of the table, which is locked, before it ends.
                    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), *thread, signal()) };
                }
            }
            if sent {
                table = self.changed.wait_timeout(table, pause).unwrap_or_else(PoisonError::into_inner).0;
                pause = (pause * 2).min(LAST_PAUSE);
            } else {
                pause = FIRST_PAUSE;
                table = self.changed.wait(table).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

impl Table {
    /// Drops the entry of `request` where it has no more use.
    fn tidy(&mut self, request: u32) {
        let idle = |entry: &Request| entry.threads.is_empty() && entry.starting == 0 && !entry.remembered;
        if self.requests.get(&request).is_some_and(idle) {
            self.requests.remove(&request);
        }
    }
}

/// The signal; a real-time one, which nothing else in a guest sends to the agent.
fn signal() -> libc::c_int {
    libc::SIGRTMIN() + 7
}

/// The calling thread works on a request.
pub struct Working {
    interrupts: Arc<Interrupts>,
    request: u32,
    given_up: Arc<AtomicBool>,
}

impl Working {
    /// Whether the host has given the request up.
    pub fn given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
    }

    /// Makes a call that may block again when it was interrupted, but not once the request was given up.
    ///
    /// # Errors
    /// errno; `EINTR` only when the request was given up.
    pub fn retry<T>(&self, mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        loop {
            if self.given_up() {
                return Err(io::Error::from_raw_os_error(libc::EINTR));
            }
            match call() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        {
            let mut table = self.interrupts.table();
            // SAFETY: no preconditions.
            let me = unsafe { libc::gettid() };
            if let Some(entry) = table.requests.get_mut(&self.request) {
                if let Some(at) = entry.threads.iter().position(|thread| *thread == me) {
                    entry.threads.swap_remove(at);
                }
                table.tidy(self.request);
            }
        }
        if self.given_up() {
            // A signal that was sent and not handled yet would interrupt what this thread does next: it is handled on
            // the way out of any system call.
            // SAFETY: no preconditions.
            unsafe { libc::syscall(libc::SYS_getppid) };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, AsRawFd};
    use std::sync::mpsc;

    use super::*;
    use crate::guest_agent::sys;

    /// One raw `read`, as a blocked call of a request makes it.
    fn read_once(fd: &impl AsRawFd) -> io::Result<i32> {
        let mut byte = 0_u8;
        // SAFETY: one byte to be filled.
        check(unsafe { libc::read(fd.as_raw_fd(), (&raw mut byte).cast(), 1) } as i32)
    }

    #[test]
    fn a_blocked_thread_ends_when_its_request_is_given_up() {
        let interrupts = Interrupts::new().unwrap();
        let (reading, _writing) = sys::pipe().unwrap();
        let (told, heard) = mpsc::channel();
        let begun = told.clone();
        interrupts
            .spawn(7, "blocked", move |working| {
                begun.send(Ok(0)).unwrap();
                told.send(working.retry(|| read_once(&reading))).unwrap();
            })
            .unwrap();
        heard.recv().unwrap().unwrap();
        interrupts.cancel(7);
        assert_eq!(heard.recv().unwrap().unwrap_err().raw_os_error(), Some(libc::EINTR));
        assert!(interrupts.enter(7).is_none(), "a later message of the request is skipped");
        interrupts.forget(7);
        // The thread takes itself out a moment after its work.
        while !interrupts.table().requests.is_empty() {
            std::thread::yield_now();
        }
        assert!(interrupts.enter(7).is_some());
    }

    #[test]
    fn other_requests_are_left_alone() {
        let interrupts = Interrupts::new().unwrap();
        let (reading, writing) = sys::pipe().unwrap();
        let (told, heard) = mpsc::channel();
        interrupts.spawn(1, "other", move |working| told.send(working.retry(|| read_once(&reading))).unwrap()).unwrap();
        for request in 2..50 {
            let entered = interrupts.enter(request);
            interrupts.cancel(request);
            assert!(entered.unwrap().given_up());
            interrupts.forget(request);
        }
        // What the cancelled requests left behind does not interrupt the next call of this thread.
        assert_eq!(sys::poll_one(writing.as_fd(), libc::POLLOUT, -1).unwrap(), libc::POLLOUT);
        sys::write(writing.as_fd(), b"x").unwrap();
        assert_eq!(heard.recv().unwrap().unwrap(), 1);
    }

    #[test]
    fn nothing_is_kept_of_a_request_that_is_over() {
        let interrupts = Interrupts::new().unwrap();
        let (done, over) = mpsc::channel();
        interrupts.spawn(1, "short", move |_| done.send(()).unwrap()).unwrap();
        over.recv().unwrap();
        drop(interrupts.enter(2));
        interrupts.cancel(3);
        interrupts.forget(3);
        // The thread takes itself out a moment after its work.
        while !interrupts.table().requests.is_empty() {
            std::thread::yield_now();
        }
    }
}
