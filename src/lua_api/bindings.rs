//! The names of all bindings, and a record of which of them were called: what keeps the editor's type definitions, the
//! reference and the test suite complete.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use mlua::Lua;

use super::error::ApiError;
use super::{file_runner, globals};

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Ending {
    Returned,
    Raised,
}

/// A file that collects which bindings returned and which raised, one line for each: `returned vm:run`. Several processes may
/// write to one file.
#[derive(Debug)]
pub struct CallRecord {
    file: File,
    seen: Mutex<HashSet<(&'static str, Ending)>>,
}

impl CallRecord {
    /// Adds to the file at `path`, which is made where it is missing.
    ///
    /// # Errors
    /// When it can't be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self { file, seen: Mutex::default() })
    }

    fn note(&self, name: &'static str, ending: Ending) {
        let first = self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert((name, ending));
        if !first {
            return;
        }
        let word = match ending {
            Ending::Returned => "returned",
            Ending::Raised => "raised",
        };
        // One write: lines of several processes never mix. A line that is lost shows as a gap.
        let _ = (&self.file).write_all(format!("{word} {name}\n").as_bytes());
    }
}

/// The bindings of one Lua state.
#[derive(Default)]
pub(super) struct Bindings {
    names: RefCell<BTreeSet<&'static str>>,
    record: Option<Arc<CallRecord>>,
}

impl Bindings {
    /// Of a state whose calls go into `record`.
    pub(super) fn new(record: Option<Arc<CallRecord>>) -> Rc<Self> {
        Rc::new(Self { names: RefCell::default(), record })
    }

    /// The bindings of `lua`, which was given them before its first binding.
    ///
    /// # Errors
    /// When it was not.
    fn of(lua: &Lua) -> mlua::Result<Rc<Self>> {
        lua.app_data_ref::<Rc<Self>>()
            .map(|bindings| Rc::clone(&bindings))
            .ok_or_else(|| mlua::Error::runtime("this Lua state has no list of bindings"))
    }
}

/// Notes how calls of one binding end.
#[derive(Clone)]
pub(super) struct Recorder {
    name: &'static str,
    record: Option<Arc<CallRecord>>,
    /// Whether a return is told too.
    whole: bool,
}

impl Recorder {
    /// Makes the binding `name` known. Where it is only a `part` of what the author calls, its return is no return of the whole.
    ///
    /// # Errors
    /// When `lua` has no list of bindings.
    pub(super) fn add(lua: &Lua, name: &'static str, part: bool) -> mlua::Result<Self> {
        let bindings = Bindings::of(lua)?;
        bindings.names.borrow_mut().insert(name);
        Ok(Self { name, record: bindings.record.clone(), whole: !part })
    }

    /// Notes how a call ended. One that the test's deadline ended did neither.
    pub(super) fn note<T>(&self, result: &Result<T, ApiError>) {
        let Some(record) = &self.record else { return };
        match result {
            Ok(_) if self.whole => record.note(self.name, Ending::Returned),
            Ok(_) | Err(ApiError::Cancelled) => {}
            Err(_) => record.note(self.name, Ending::Raised),
        }
    }
}

/// The names of all bindings as an author writes them: `vm:run`, `result.stdout`, `json.encode`.
///
/// # Errors
/// A message when no Lua state can be made.
pub fn binding_names() -> Result<BTreeSet<&'static str>, String> {
    let names = || -> mlua::Result<_> {
        let lua = file_runner::new_state();
        let bindings = Bindings::new(None);
        lua.set_app_data(Rc::clone(&bindings));
        globals::install(&lua, Vec::new())?;
        let names = bindings.names.borrow().clone();
        Ok(names)
    };
    names().map_err(|error| super::error::lua_message(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_ending_is_written_once() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let record = Some(Arc::new(CallRecord::open(file.path()).unwrap()));
        let whole = Recorder { name: "vm:run", record: record.clone(), whole: true };
        let part = Recorder { name: "wait_until", record, whole: false };
        for _ in 0..2 {
            whole.note(&Ok(()));
            whole.note::<()>(&Err(ApiError::new("refused")));
        }
        part.note(&Ok(()));
        part.note::<()>(&Err(ApiError::Cancelled));
        assert_eq!(std::fs::read_to_string(file.path()).unwrap(), "returned vm:run\nraised vm:run\n");
        part.note::<()>(&Err(ApiError::new("not met")));
        assert!(std::fs::read_to_string(file.path()).unwrap().ends_with("raised wait_until\n"));
    }

    #[test]
    fn the_names_of_a_real_state() {
        let names = binding_names().unwrap();
        for name in
            ["test", "vm:run", "result.stdout", "result:json", "json.encode", "t.name", "t:assert_raises", "wait_until"]
        {
            assert!(names.contains(name), "{name} is missing in {names:?}");
        }
    }
}
