//! What the I/O thread follows on behalf of a request: files that grow, descriptors, the kernel's log.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::out::Out;
use super::processes::Source;
use super::sys::check;

/// Something that is looked after whenever its descriptor is readable.
pub trait Follow: Send {
    /// The descriptor to watch; always the same.
    fn fd(&self) -> BorrowedFd<'_>;

    /// Passes on what there is, at most a few pieces, without waiting. False once there will be no more.
    ///
    /// # Errors
    /// When the host is gone.
    fn ready(&mut self, request: u32, out: &Out) -> io::Result<bool>;

    /// Whether the next request of its kind goes on with it after a snapshot.
    fn outlives_its_request(&self) -> bool {
        false
    }

    /// Passes on all there is, where the host may count on that.
    ///
    /// # Errors
    /// When the host is gone.
    fn flush(&mut self, _request: u32, _out: &Out) -> io::Result<()> {
        Ok(())
    }
}

/// What is followed for one request.
enum Followed {
    Waiting(Box<dyn Follow>),
    /// The I/O thread looks after it now.
    Busy,
    /// The request was given up meanwhile.
    GivenUp,
}

/// All that is followed, by request.
pub struct Watchers {
    epoll: Arc<OwnedFd>,
    table: Mutex<HashMap<u32, Followed>>,
    /// The kernel's log, where it stood when its request ended with a snapshot.
    kept: Mutex<Option<Box<dyn Follow>>>,
}

impl Watchers {
    /// Nothing yet; events come to `epoll`.
    pub fn new(epoll: Arc<OwnedFd>) -> Self {
        Self { epoll, table: Mutex::default(), kept: Mutex::default() }
    }

    fn table(&self) -> MutexGuard<'_, HashMap<u32, Followed>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows `what` until it ends or `request` is given up.
    ///
    /// # Errors
    /// errno of a descriptor that can't be waited on (`EPERM` for a regular file).
    pub fn add(&self, request: u32, what: Box<dyn Follow>) -> io::Result<()> {
        // In the table first: the I/O thread may see the event at once.
        let mut table = self.table();
        watch(&self.epoll, what.fd(), libc::EPOLLIN, Source::Follow(request))?;
        table.insert(request, Followed::Waiting(what));
        Ok(())
    }

    /// Puts what outlives its request aside: nothing of it is passed on until it is taken back.
    pub fn keep(&self) {
        let mut table = self.table();
        let outlives = |followed: &Followed| matches!(followed, Followed::Waiting(what) if what.outlives_its_request());
        let request = table.iter().find(|(_, followed)| outlives(followed)).map(|(request, _)| *request);
        if let Some(request) = request
            && let Some(Followed::Waiting(what)) = table.remove(&request)
        {
            unwatch(&self.epoll, what.fd());
            *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(what);
        }
    }

    /// What was put aside.
    pub fn take_kept(&self) -> Option<Box<dyn Follow>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Ends what `request` follows.
    pub fn remove(&self, request: u32) {
        let mut table = self.table();
        match table.remove(&request) {
            Some(Followed::Waiting(what)) => unwatch(&self.epoll, what.fd()),
            Some(Followed::Busy | Followed::GivenUp) => drop(table.insert(request, Followed::GivenUp)),
            None => {}
        }
    }

    /// The descriptor of `request` is readable.
    ///
    /// # Errors
    /// When the host is gone.
    pub fn ready(&self, request: u32, out: &Out) -> io::Result<()> {
        self.look_after(request, |what| what.ready(request, out))
    }

    /// Has all that is followed pass on what there is.
    ///
    /// # Errors
    /// When the host is gone.
    pub fn flush(&self, out: &Out) -> io::Result<()> {
        let requests: Vec<u32> = self.table().keys().copied().collect();
        requests
            .into_iter()
            .try_for_each(|request| self.look_after(request, |what| what.flush(request, out).map(|()| true)))
    }

    fn look_after(&self, request: u32, act: impl FnOnce(&mut dyn Follow) -> io::Result<bool>) -> io::Result<()> {
        let Some(Followed::Waiting(mut what)) = self.table().insert(request, Followed::Busy) else {
            self.table().remove(&request);
            return Ok(());
        };
        // Not locked here: sending may wait for the host.
        let goes_on = act(&mut *what)?;
        let mut table = self.table();
        match table.remove(&request) {
            Some(Followed::Busy) if goes_on => drop(table.insert(request, Followed::Waiting(what))),
            _ => unwatch(&self.epoll, what.fd()),
        }
        Ok(())
    }
}

/// Adds `fd` to an epoll instance.
///
/// # Errors
/// errno.
pub fn watch(epoll: &OwnedFd, fd: BorrowedFd<'_>, events: i32, source: Source) -> io::Result<()> {
    let mut event = libc::epoll_event { events: events.unsigned_abs(), u64: source.token() };
    // SAFETY: both descriptors are open, `event` lives during the call.
    check(unsafe { libc::epoll_ctl(epoll.as_fd().as_raw_fd(), libc::EPOLL_CTL_ADD, fd.as_raw_fd(), &raw mut event) })
        .map(drop)
}

/// Takes `fd` out of an epoll instance; one that is not in it is no error.
pub fn unwatch(epoll: &OwnedFd, fd: BorrowedFd<'_>) {
    // SAFETY: both descriptors are open; a null event is fine for a removal.
    unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_DEL, fd.as_raw_fd(), std::ptr::null_mut()) };
}
