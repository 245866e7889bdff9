//! One test file: its Lua state, its tests in the order of registration, its events.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mlua::{HookTriggers, Lua, LuaOptions, StdLib, Table, VmState};

use super::bindings::{Bindings, CallRecord};
use super::error::lua_message;
use super::file_state::FileState;
use super::lab::VmLab;
use super::place::Place;
use super::registration::Meta;
use super::{globals, modules, test_runner};
use crate::foundation::cancel::CancelToken;
use crate::run_events::{EventSink, FileError, FilePhase, FileStatus};
use crate::testbed::{HostProcesses, Scope, Testbed};

/// How many Lua instructions run between two looks at the deadline.
const HOOK_INTERVAL: u32 = 10_000;

/// What decides whether a test runs: its name and its metadata.
pub type Select = Arc<dyn Fn(&str, &Meta) -> bool + Send + Sync>;

/// One test file to run.
pub struct FileSettings {
    /// The file, absolute.
    pub path: PathBuf,
    /// The file as it is shown.
    pub display: String,
    /// The run's machines and settings.
    pub bed: Testbed,
    /// Where events go.
    pub sink: EventSink,
    /// Ends when the file must end.
    pub token: CancelToken,
    /// Which tests run.
    pub select: Select,
    /// The default limit of one test; none: only the file's.
    pub test_timeout: Option<Duration>,
    /// Where `require` looks first.
    pub roots: Vec<PathBuf>,
    /// Whether the first failure ends the file.
    pub fail_fast: bool,
    /// Where it is noted which bindings were called.
    pub record: Option<Arc<CallRecord>>,
}

/// How a test file went.
#[derive(Debug, Default)]
pub struct FileRun {
    /// How many of its tests ran (or were skipped by themselves).
    pub selected: usize,
    /// How many failed or timed out.
    pub failed: usize,
    /// What broke the file apart from its tests.
    pub error: Option<FileError>,
    /// What it printed outside of tests.
    pub log: String,
    /// Its status.
    pub status: Option<FileStatus>,
}

/// Runs a test file on this thread.
pub fn run_file(settings: FileSettings) -> FileRun {
    let mut run = FileRun::default();
    let state = Rc::new(FileState {
        bed: settings.bed.clone(),
        display: settings.display.clone(),
        path: settings.path.clone(),
        scope: RefCell::new(Scope::default()),
        belongings: RefCell::default(),
        file_processes: HostProcesses::default(),
        token: settings.token.clone(),
        tests: RefCell::default(),
        todo: RefCell::default(),
        current: RefCell::default(),
        file_log: RefCell::default(),
        branch_place: RefCell::default(),
        pending: RefCell::default(),
        loaded: Cell::new(false),
        lab: VmLab::root(),
        barriers: RefCell::default(),
        claim: RefCell::default(),
        dependencies: RefCell::default(),
        test_timeout: Cell::new(settings.test_timeout),
    });
    match load(&settings, &state) {
        Ok((lua, prelude)) => {
            state.loaded.set(true);
            test_runner::run_tests(&lua, &prelude, &state, &settings, &mut run);
        }
        Err(error) => run.error = Some(error),
    }
    settings.bed.block_on(state.belongings.take().end());
    let words = settings.bed.block_on(state.file_processes.end());
    state.log(&String::from_utf8_lossy(&words));
    let vms = state.scope.borrow_mut().take();
    settings.bed.block_on(Scope::stop(vms, &settings.token));
    settings.bed.splats().end_file(&settings.display);
    run.log = state.file_log.borrow().clone();
    run.status.get_or_insert(match (&run.error, run.failed, run.selected) {
        (Some(_), ..) => FileStatus::Failed,
        (None, 0, 0) => FileStatus::Skipped,
        (None, 0, _) => FileStatus::Passed,
        (None, ..) => FileStatus::Failed,
    });
    run
}

fn load(settings: &FileSettings, state: &Rc<FileState>) -> Result<(Lua, Table), FileError> {
    let broken = |message: String, trace: Vec<Place>| FileError {
        phase: FilePhase::Load,
        message,
        trace: trace.iter().map(ToString::to_string).collect(),
    };
    let internal =
        |error: &mlua::Error| FileError { phase: FilePhase::Internal, message: lua_message(error), trace: Vec::new() };
    // SAFETY: `debug` is part of the API; test files are code that the user chose to run on this machine, as any
    // program of theirs. C modules can't be loaded: `package.cpath` is empty and its searchers are removed.
    let lua = unsafe { Lua::unsafe_new_with(StdLib::ALL, LuaOptions::default()) };
    lua.set_app_data(Rc::clone(state));
    lua.set_app_data(Bindings::new(settings.record.clone()));
    let prelude = globals::install(&lua, settings.roots.clone()).map_err(|error| internal(&error))?;
    watch_deadline(&lua, HOOK_INTERVAL).map_err(|error| internal(&error))?;
    let text = std::fs::read(&settings.path).map_err(|error| {
        let why = crate::foundation::path_error::describe_io(&error);
        broken(format!("can't read `{}`: {why}", settings.display), Vec::new())
    })?;
    let chunk =
        modules::compile(&lua, &text, &settings.display).map_err(|error| broken(lua_message(&error), Vec::new()))?;
    let run_body: mlua::Function = prelude.get("run_body").map_err(|error| internal(&error))?;
    let outcome: (bool, mlua::Value, Option<Vec<String>>) =
        run_body.call((chunk, mlua::Value::Nil)).map_err(|error| broken(lua_message(&error), Vec::new()))?;
    if outcome.0 {
        return Ok((lua, prelude));
    }
    let message = match settings.token.is_cancelled() {
        true => format!("{} at file scope", state.cancel_message()),
        false => test_runner::raised_message(&lua, &outcome.1),
    };
    let mut error = broken(message, Vec::new());
    error.trace = outcome.2.unwrap_or_default();
    Err(error)
}

/// Looks at the deadline every `interval` instructions; past it, every instruction raises, so that no `pcall` goes on.
///
/// # Errors
/// Those of Lua.
pub fn watch_deadline(lua: &Lua, interval: u32) -> mlua::Result<()> {
    lua.set_global_hook(HookTriggers::new().every_nth_instruction(interval), |lua, _| {
        let state = FileState::of(lua)?;
        if state.refuse_when_cancelled().is_none() {
            return Ok(VmState::Continue);
        }
        state.note_stop(lua);
        watch_deadline(lua, 1)?;
        Err(mlua::Error::runtime(state.cancel_message()))
    })
}

/// Back to looking rarely, after a test that was cancelled.
///
/// # Errors
/// Those of Lua.
pub fn relax(lua: &Lua) -> mlua::Result<()> {
    watch_deadline(lua, HOOK_INTERVAL)
}
