//! One test file: its Lua state, its tests in the order of registration, its events.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mlua::{Lua, LuaOptions, StdLib, Table};

use super::bindings::{Bindings, CallRecord};
use super::error::lua_message;
use super::file_state::{FileState, StateParts};
use super::place::Place;
use super::registration::Meta;
use super::{globals, hook, modules, test_runner};
use crate::foundation::cancel::CancelToken;
use crate::run_events::{EventSink, FileError, FilePhase, FileStatus};
use crate::testbed::{Scope, Testbed};

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
    let state = Rc::new(FileState::new(StateParts {
        bed: settings.bed.clone(),
        display: settings.display.clone(),
        path: settings.path.clone(),
        token: settings.token.clone(),
        test_timeout: settings.test_timeout,
        roots: settings.roots.clone(),
        record: settings.record.clone(),
        fixture: None,
    }));
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
    let bridges = state.scope.borrow_mut().take_bridges();
    settings.bed.block_on(Scope::close(bridges));
    state.join_builds();
    state.pins.borrow_mut().clear();
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

/// A Lua state with the whole standard library, and nothing of ours.
pub(super) fn new_state() -> Lua {
    // SAFETY: `debug` is part of the API; test files are code that the user chose to run on this machine, as any
    // program of theirs. C modules can't be loaded: `package.cpath` is empty and its searchers are removed.
    unsafe { Lua::unsafe_new_with(StdLib::ALL, LuaOptions::default()) }
}

fn load(settings: &FileSettings, state: &Rc<FileState>) -> Result<(Lua, Table), FileError> {
    let broken = |message: String, trace: Vec<Place>| FileError {
        phase: FilePhase::Load,
        message,
        trace: trace.iter().map(ToString::to_string).collect(),
    };
    let internal =
        |error: &mlua::Error| FileError { phase: FilePhase::Internal, message: lua_message(error), trace: Vec::new() };
    let lua = new_state();
    lua.set_app_data(Rc::clone(state));
    lua.set_app_data(Bindings::new(settings.record.clone()));
    let prelude = globals::install(&lua, settings.roots.clone()).map_err(|error| internal(&error))?;
    hook::watch(&lua).map_err(|error| internal(&error))?;
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
