//! What one Lua state (one test file) knows: the running test, its scope, its log, and how to wait.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use mlua::Lua;

use super::barrier::Barrier;
use super::bindings::CallRecord;
use super::error::ApiError;
use super::fixture_chunk::{FixtureRun, taken_name};
use super::hook::AuthorHook;
use super::lab::VmLab;
use super::lab_tree::Layer;
use super::place::{self, Place};
use super::register::Pending;
use super::registration::Registered;
use super::steps::Steps;
use crate::foundation::cancel::{CancelReason, CancelToken};
use crate::testbed::{Belongings, FixtureEntry, HostProcesses, Pool, Scope, SnapshotPlace, Testbed};

/// A failed assertion.
#[derive(Debug, Clone)]
pub struct Failure {
    /// What failed, without the place.
    pub message: String,
    /// The author's frames, innermost first.
    pub trace: Vec<Place>,
}

/// The test that runs now.
pub struct CurrentTest {
    /// Its name.
    pub name: String,
    /// A number that no other test of the file has.
    pub serial: u64,
    /// Where it was registered.
    pub place: Option<Place>,
    /// What it created.
    pub scope: Scope,
    /// What it started in guests.
    pub belongings: Belongings,
    /// Programs of this host that it started.
    pub host_processes: HostProcesses,
    /// Ends when the test must end.
    pub token: CancelToken,
    /// Failed assertions so far.
    pub failures: Vec<Failure>,
    /// Steps that failed, whose error may have been swallowed.
    pub failed_steps: Vec<Failure>,
    /// Its steps.
    pub steps: Steps,
    /// The error that a branch of `parallel` raised last, and the author's frames there.
    pub raised: Option<(mlua::Value, Vec<String>)>,
    /// Set by `t:skip`.
    pub skipped: Option<String>,
    /// What it printed.
    pub log: String,
    /// The author's frames where its time ran out.
    pub stopped_at: Vec<Place>,
}

/// State of one test file, shared by all functions of its Lua state.
pub struct FileState {
    /// The run's machines and settings.
    pub bed: Testbed,
    /// The file as it is shown.
    pub display: String,
    /// The file.
    pub path: PathBuf,
    /// What the file's own scope created.
    pub scope: RefCell<Scope>,
    /// What the file started in guests outside of tests.
    pub belongings: RefCell<Belongings>,
    /// Programs of this host that the file started outside of tests.
    pub file_processes: HostProcesses,
    /// Ends when the file must end.
    pub token: CancelToken,
    /// Tests in the order of registration.
    pub tests: RefCell<Vec<Registered>>,
    /// Set by `todo`.
    pub todo: RefCell<Option<String>>,
    /// The running test.
    pub current: RefCell<Option<CurrentTest>>,
    /// What the file printed outside of tests.
    pub file_log: RefCell<String>,
    /// What the author gave to `debug.sethook`.
    pub author_hook: RefCell<Option<AuthorHook>>,
    /// Where `parallel` was called whose branch runs now.
    pub branch_place: RefCell<Option<Place>>,
    /// What the branch of `parallel` that has just yielded waits for.
    pub pending: RefCell<Option<Pending>>,
    /// Whether the file's chunk has returned: `test` may no longer be called.
    pub loaded: Cell<bool>,
    /// The root lab, `provium`.
    pub lab: Rc<VmLab>,
    /// Barriers in use, by lab and name.
    pub barriers: RefCell<HashMap<(usize, String), Rc<Barrier>>>,
    /// What the file has claimed of the pool, and where.
    pub claim: RefCell<Option<(Pool, String)>>,
    /// Host files that the file's fixtures depend on.
    pub dependencies: RefCell<BTreeSet<PathBuf>>,
    /// Whether the file's machines are reset before each test: `provium.reset_between_tests`.
    pub resets: Cell<bool>,
    /// The time of a test that sets none itself: `provium.timeout`.
    pub test_timeout: Cell<Option<Duration>>,
    /// Where `require` looks first.
    pub roots: Vec<PathBuf>,
    /// Where it is noted which bindings were called.
    pub record: Option<Arc<CallRecord>>,
    /// The fixture that this file is, where it is one.
    pub fixture: Option<FixtureRun>,
    /// Fixtures that are being built for this file.
    pub builds: RefCell<Vec<JoinHandle<()>>>,
    /// Entries of the cache in use, by the layer that uses them.
    pub pins: RefCell<Vec<(Layer, FixtureEntry)>>,
}

/// What a file's state begins with.
pub struct StateParts {
    /// The run's machines and settings.
    pub bed: Testbed,
    /// The file as it is shown.
    pub display: String,
    /// The file.
    pub path: PathBuf,
    /// Ends when the file must end.
    pub token: CancelToken,
    /// The default limit of one test.
    pub test_timeout: Option<Duration>,
    /// Where `require` looks first.
    pub roots: Vec<PathBuf>,
    /// Where it is noted which bindings were called.
    pub record: Option<Arc<CallRecord>>,
    /// The fixture that this file is, where it is one.
    pub fixture: Option<FixtureRun>,
}

impl FileState {
    /// The state of a file that has not run yet.
    pub fn new(parts: StateParts) -> Self {
        Self {
            bed: parts.bed,
            display: parts.display,
            path: parts.path,
            scope: RefCell::new(Scope::default()),
            belongings: RefCell::default(),
            file_processes: HostProcesses::default(),
            token: parts.token,
            tests: RefCell::default(),
            todo: RefCell::default(),
            current: RefCell::default(),
            file_log: RefCell::default(),
            author_hook: RefCell::default(),
            branch_place: RefCell::default(),
            pending: RefCell::default(),
            loaded: Cell::new(false),
            lab: VmLab::root(),
            barriers: RefCell::default(),
            claim: RefCell::default(),
            dependencies: RefCell::default(),
            resets: Cell::new(false),
            test_timeout: Cell::new(parts.test_timeout),
            roots: parts.roots,
            record: parts.record,
            fixture: parts.fixture,
            builds: RefCell::default(),
            pins: RefCell::default(),
        }
    }

    /// A fixture that is built depends on this file of the host from now on.
    pub fn depend_on(&self, path: &Path) {
        if let Some(run) = &self.fixture {
            run.recorder.file(path);
        }
    }

    /// Where a snapshot goes that is given no place: a fixture's is kept, any other goes with the run.
    pub fn snapshot_place(&self) -> SnapshotPlace {
        match &self.fixture {
            None => SnapshotPlace::Memory,
            Some(run) => {
                let number = run.taken.replace_with(|taken| *taken + 1);
                SnapshotPlace::Directory(run.directory.join(taken_name(number)))
            }
        }
    }

    /// Waits for the fixtures that are being built for this file. Nobody needs them any more.
    pub fn join_builds(&self) {
        for thread in self.builds.take() {
            // A panic there was told of by the hook.
            let _ = thread.join();
        }
    }

    /// The state of `lua`.
    ///
    /// # Errors
    /// When `lua` was not made for a test file.
    pub fn of(lua: &Lua) -> mlua::Result<Rc<Self>> {
        lua.app_data_ref::<Rc<Self>>()
            .map(|state| Rc::clone(&state))
            .ok_or_else(|| mlua::Error::runtime("this Lua state belongs to no test file"))
    }

    /// The token of the running test, else the file's.
    pub fn active_token(&self) -> CancelToken {
        match &*self.current.borrow() {
            Some(test) => test.token.clone(),
            None => self.token.clone(),
        }
    }

    /// An error once the running test must end: nothing new is begun then.
    pub fn refuse_when_cancelled(&self) -> Option<ApiError> {
        self.active_token().is_cancelled().then_some(ApiError::Cancelled)
    }

    /// Remembers what ran when the time was over: the first call counts.
    pub fn note_stop(&self, lua: &Lua) {
        if let Some(test) = &mut *self.current.borrow_mut()
            && test.stopped_at.is_empty()
        {
            test.stopped_at = place::stack(lua);
        }
    }

    /// The line that stands in for one that the running call has not.
    pub fn outer_place(&self) -> Option<Place> {
        let branch = self.branch_place.borrow().clone();
        branch.or_else(|| self.current.borrow().as_ref().and_then(|test| test.place.clone()))
    }

    /// Remembers the author's frames (an array of strings) of an error that a branch of `parallel` raised.
    pub fn note_raised(&self, value: &mlua::Value, trace: mlua::Value) {
        let frames = match trace {
            mlua::Value::Table(frames) => frames.sequence_values::<String>().filter_map(Result::ok).collect(),
            _ => Vec::new(),
        };
        if let Some(test) = &mut *self.current.borrow_mut() {
            test.raised = Some((value.clone(), frames));
        }
    }

    /// Says why everything ends now.
    pub fn cancel_message(&self) -> String {
        match self.active_token().reason() {
            Some(CancelReason::Interrupted) => "interrupted".to_owned(),
            Some(CancelReason::FileTimeout) => "the file's time is over".to_owned(),
            Some(CancelReason::TestTimeout) => "the test's time is over".to_owned(),
            None => "cancelled".to_owned(),
        }
    }

    /// Waits for `future` on this thread, at most until the running test must end.
    ///
    /// # Errors
    /// `Cancelled` when the test's time is over first; the future is dropped then.
    pub fn wait<T, E>(&self, future: impl Future<Output = Result<T, E>>) -> Result<T, ApiError>
    where
        ApiError: From<E>,
    {
        let token = self.active_token();
        self.bed.block_on(async {
            tokio::select! {
                biased;
                result = future => result.map_err(ApiError::from),
                _ = token.cancelled() => Err(ApiError::Cancelled),
            }
        })
    }

    /// Adds a line to the running test's log.
    pub fn log(&self, text: &str) {
        match &mut *self.current.borrow_mut() {
            Some(test) => test.log.push_str(text),
            None => self.file_log.borrow_mut().push_str(text),
        }
    }

    /// Runs `act` on the scope in which new objects are made: the test's, else the file's.
    pub fn with_scope<T>(&self, act: impl FnOnce(&mut Scope) -> T) -> T {
        match &mut *self.current.borrow_mut() {
            Some(test) => act(&mut test.scope),
            None => act(&mut self.scope.borrow_mut()),
        }
    }

    /// Runs `act` on what is ended with the running test, else with the file.
    pub fn with_belongings<T>(&self, act: impl FnOnce(&mut Belongings) -> T) -> T {
        match &mut *self.current.borrow_mut() {
            Some(test) => act(&mut test.belongings),
            None => act(&mut self.belongings.borrow_mut()),
        }
    }

    /// The programs of this host that the running test, else the file, has started.
    pub fn host_processes(&self) -> HostProcesses {
        match &*self.current.borrow() {
            Some(test) => test.host_processes.clone(),
            None => self.file_processes.clone(),
        }
    }

    /// Whether a test runs now.
    pub fn in_test(&self) -> bool {
        self.current.borrow().is_some()
    }
}
