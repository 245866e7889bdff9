//! What a test holds open in a machine: files, streams, processes, with the place that opened each.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The kind of an open thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandleKind {
    /// A file of the guest.
    File,
    /// A stream of bytes.
    Stream,
    /// A process that was started and not collected.
    Process,
    /// A worker.
    Worker,
    /// A system call under way.
    Call,
}

/// One open thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenHandle {
    /// Its kind.
    pub kind: HandleKind,
    /// What it is, for messages: ``tail of `/var/log/x` ``.
    pub what: String,
    /// `file:line` that opened it.
    pub place: Option<String>,
}

#[derive(Default)]
struct Table {
    next: u64,
    open: BTreeMap<u64, OpenHandle>,
}

/// All that is open in one machine; clones share it.
#[derive(Clone, Default)]
pub struct Handles {
    table: Arc<Mutex<Table>>,
}

impl Handles {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that something is open, until the returned guard is dropped.
    pub fn open(&self, kind: HandleKind, what: String, place: Option<String>) -> HandleGuard {
        let mut table = self.table();
        let id = table.next;
        table.next += 1;
        table.open.insert(id, OpenHandle { kind, what, place });
        HandleGuard { handles: self.clone(), id }
    }

    /// How many of `kind` are open.
    pub fn count(&self, kind: HandleKind) -> usize {
        self.table().open.values().filter(|open| open.kind == kind).count()
    }

    /// All that is open, oldest first.
    pub fn list(&self) -> Vec<OpenHandle> {
        self.table().open.values().cloned().collect()
    }
}

/// One open thing; dropping it notes that it is closed.
pub struct HandleGuard {
    handles: Handles,
    id: u64,
}

impl HandleGuard {
    /// A number above 0 that no other thing opened in the machine has.
    pub fn number(&self) -> u64 {
        self.id + 1
    }
}

impl Drop for HandleGuard {
    fn drop(&mut self) {
        self.handles.table().open.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_that_is_dropped_is_no_longer_counted() {
        let handles = Handles::default();
        let first = handles.open(HandleKind::File, "file `/a`".to_owned(), None);
        let second = handles.open(HandleKind::Stream, "tail of `/a`".to_owned(), Some("x.lua:3".to_owned()));
        assert_eq!((handles.count(HandleKind::File), handles.count(HandleKind::Stream)), (1, 1));
        drop(first);
        assert_eq!(handles.count(HandleKind::File), 0);
        assert_eq!(handles.list()[0].place.as_deref(), Some("x.lua:3"));
        drop(second);
        assert!(handles.list().is_empty());
    }
}
