//! A fixture's own file: run in a Lua state of its own, where the cache does not have what it makes.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use mlua::Value;

use super::bindings::{Bindings, CallRecord};
use super::error::lua_message;
use super::file_runner::new_state;
use super::file_state::{FileState, StateParts};
use super::render::short;
use super::snapshot::SnapshotHandle;
use super::{globals, hook, modules, test_runner};
use crate::foundation::cancel::CancelToken;
use crate::foundation::path_error::describe_io;
use crate::foundation::suggest;
use crate::testbed::{
    FixtureBuild, FixtureEntry, FixtureOrder, FixtureProblem, FixtureRecorder, Scope, Snapshot, Testbed, Wish,
};

/// A fixture that is wanted.
#[derive(Clone)]
pub struct FixtureRequest {
    /// The run's machines and settings.
    pub bed: Testbed,
    /// Ends the wait.
    pub token: CancelToken,
    /// Where `require` looks first.
    pub roots: Vec<PathBuf>,
    /// Where it is noted which bindings were called.
    pub record: Option<Arc<CallRecord>>,
    /// Which fixture.
    pub wish: Wish,
    /// The file that wants it, as it is shown.
    pub holder: String,
    /// Whether it is built although it is there.
    pub rebuild: bool,
    /// The fixtures being built that led here, outermost first.
    pub chain: Vec<Wish>,
    /// What chunks print.
    pub log: Arc<Mutex<String>>,
}

/// What a file that is a fixture's knows of that.
pub struct FixtureRun {
    /// Which fixture.
    pub wish: Wish,
    /// The fixtures being built, this one last.
    pub chain: Vec<Wish>,
    /// What it depends on.
    pub recorder: FixtureRecorder,
    /// Where its snapshot goes.
    pub directory: PathBuf,
    /// Snapshots that it has taken.
    pub taken: RefCell<usize>,
}

/// The fixture, from the cache or built on this thread.
///
/// # Errors
/// There is none of this name, it is built on itself, its file failed, or the cache can't be used.
pub fn obtain_fixture(request: &FixtureRequest) -> Result<FixtureEntry, FixtureProblem> {
    let FixtureRequest { bed, wish, .. } = request;
    let failed = |why: String| FixtureProblem::Failed(format!("fixture `{}`: {why}", wish.name));
    let shelf = bed.fixtures().map_err(failed)?;
    let Some(path) = shelf.files().find(&wish.name) else {
        let known: Vec<String> = shelf.files().all().into_keys().collect();
        let roots: Vec<String> = shelf.files().roots.iter().map(|root| format!("`{}`", bed.display(root))).collect();
        let hint = match known.is_empty() {
            true => "a fixture is a file `NAME.fixture.lua` under a test root".to_owned(),
            false => suggest::hint(&wish.name, &known),
        };
        let why = format!("there is no `{}.fixture.lua` under {}\nhint: {hint}", wish.name, roots.join(", "));
        return Err(failed(why));
    };
    if let Some(first) = request.chain.iter().position(|outer| outer == wish) {
        let names = request.chain[first..].iter().chain([wish]).map(|wish| format!("`{}`", wish.name));
        let circle = names.collect::<Vec<_>>().join(" → ");
        return Err(failed(format!("it is built on itself: {circle}")));
    }
    let order = FixtureOrder {
        wish,
        holder: &request.holder,
        rebuild: request.rebuild,
        token: &request.token,
        build: &mut |directory| run_chunk(request, &path, directory),
    };
    bed.fixture(order).map_err(|problem| match problem {
        FixtureProblem::Failed(why) => failed(why),
        FixtureProblem::Cancelled => FixtureProblem::Cancelled,
    })
}

/// Runs the chunk, and puts the snapshot that it returns into `directory`.
fn run_chunk(request: &FixtureRequest, path: &Path, directory: &Path) -> Result<FixtureBuild, String> {
    let bed = &request.bed;
    let display = bed.display(path);
    let files = bed.fixtures()?.files().clone();
    let run = FixtureRun {
        wish: request.wish.clone(),
        chain: request.chain.iter().chain([&request.wish]).cloned().collect(),
        recorder: FixtureRecorder::new(files, &request.wish.name),
        directory: directory.to_owned(),
        taken: RefCell::default(),
    };
    let state = Rc::new(FileState::new(StateParts {
        bed: bed.clone(),
        display: display.clone(),
        path: path.to_owned(),
        token: request.token.clone(),
        test_timeout: None,
        roots: request.roots.clone(),
        record: request.record.clone(),
        fixture: Some(run),
    }));
    state.loaded.set(true);
    let result = call(request, &state, path, &display).and_then(|snapshot| store(&state, &snapshot, directory));
    bed.block_on(state.belongings.take().end());
    let words = bed.block_on(state.file_processes.end());
    state.log(&String::from_utf8_lossy(&words));
    state.join_builds();
    let vms = state.scope.borrow_mut().take();
    let booted: Vec<String> = vms.iter().filter(|vm| vm.was_started()).map(|vm| vm.profile().to_owned()).collect();
    bed.block_on(Scope::stop(vms, &request.token));
    state.pins.borrow_mut().clear();
    bed.splats().end_file(&display);
    request.log.lock().unwrap_or_else(PoisonError::into_inner).push_str(&state.file_log.borrow());
    result?;
    let Some(run) = &state.fixture else { return Err("provium lost what it depends on".to_owned()) };
    for profile in booted {
        run.recorder.booted(&profile);
    }
    Ok(run.recorder.finish())
}

fn call(request: &FixtureRequest, state: &Rc<FileState>, path: &Path, display: &str) -> Result<Snapshot, String> {
    let internal = |error: mlua::Error| lua_message(&error);
    let lua = new_state();
    lua.set_app_data(Rc::clone(state));
    lua.set_app_data(Bindings::new(request.record.clone()));
    let prelude = globals::install(&lua, request.roots.clone()).map_err(internal)?;
    hook::watch(&lua).map_err(internal)?;
    let text = std::fs::read(path).map_err(|error| format!("can't read `{display}`: {}", describe_io(&error)))?;
    let chunk = modules::compile(&lua, &text, display).map_err(internal)?;
    // The prelude's function takes what the chunk returns for nothing: it is caught on its way.
    let returned: Rc<RefCell<Value>> = Rc::default();
    let kept = Rc::clone(&returned);
    let keep = lua.create_function(move |_, value: Value| {
        *kept.borrow_mut() = value;
        Ok(())
    });
    let keep = keep.map_err(internal)?;
    let wrap = "local keep, chunk = ... return function() keep((chunk())) end";
    let wrap = lua.load(wrap).set_name(super::register::CHUNK);
    let body: mlua::Function = wrap.call((keep, chunk)).map_err(internal)?;
    let run_body: mlua::Function = prelude.get("run_body").map_err(internal)?;
    let outcome: (bool, Value, Option<Vec<String>>) = run_body.call((body, Value::Nil)).map_err(internal)?;
    if !outcome.0 {
        return Err(match request.token.is_cancelled() {
            true => state.cancel_message(),
            false => test_runner::raised_message(&lua, &outcome.1),
        });
    }
    let value = returned.borrow();
    match value.as_userdata().and_then(|object| object.borrow::<SnapshotHandle>().ok()) {
        Some(handle) => Ok(handle.0.clone()),
        None => Err(format!(
            "`{display}` returned {}, expected a snapshot\nhint: a fixture ends with `return vm:snapshot()` or `return \
             lab:snapshot()`",
            short(&value)
        )),
    }
}

/// Puts the snapshot's files right into the draft.
fn store(state: &FileState, snapshot: &Snapshot, directory: &Path) -> Result<(), String> {
    let place = snapshot.path().to_owned();
    let failed = |error: std::io::Error| {
        format!("can't move the snapshot to `{}`: {}", directory.display(), describe_io(&error))
    };
    if place.parent() == Some(directory) {
        for entry in std::fs::read_dir(&place).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            std::fs::rename(entry.path(), directory.join(entry.file_name())).map_err(failed)?;
        }
    } else {
        // One that the author put elsewhere.
        snapshot.copy_into(&state.bed, directory).map_err(|error| error.to_string())?;
    }
    // Others that were taken on the way are of no use.
    let taken = state.fixture.as_ref().map(|run| *run.taken.borrow()).unwrap_or_default();
    for number in 0..taken {
        let _ = std::fs::remove_dir_all(directory.join(taken_name(number)));
    }
    Ok(())
}

/// Where the snapshot `number` of a fixture's chunk goes.
pub fn taken_name(number: usize) -> String {
    format!("taken-{number}")
}
