//! `vm_fixture` and `lab_fixture`: machines that go on from a stored snapshot.

use std::rc::Rc;
use std::sync::{Arc, PoisonError};

use mlua::Value;

use super::args::{Args, Options};
use super::error::ApiError;
use super::file_state::FileState;
use super::fixture_chunk::{FixtureRequest, obtain_fixture};
use super::lab::{LabHandle, LabVm, VmLab, check_name, origin, refused};
use super::lab_snapshot;
use super::lab_tree::{Refusal, Thing};
use super::register::Class;
use super::vm::{VmHandle, agent_timeout, hostname};
use crate::foundation::cancel::{CancelReason, CancelToken};
use crate::testbed::{FixtureEntry, FixtureProblem, RestoreOptions, Snapshot, SnapshotKind, VmOptions, Wish};

/// The name of a lab that nobody has named.
const ROOT: &str = "provium";

/// Adds the methods to the class of labs.
///
/// # Errors
/// Those of Lua's allocator.
pub fn methods(class: Class<'_>) -> mlua::Result<Class<'_>> {
    class
        .waits("lab:vm_fixture", |lua, state, mut args| {
            let (lab, wish) = (lab_of(&mut args, state)?, args.text("path")?);
            let options = args.options(&["profile", "name", "hostname", "agent_timeout"])?;
            let asked = RestoreOptions {
                hostname: hostname(&args, &options)?,
                agent_timeout: agent_timeout(&args, &options)?,
                is_last: false,
            };
            let (wish, name) = wanted(state, &args, wish, &options)?;
            let (state, origin) = (Rc::clone(state), origin(lua, "restored"));
            Ok(async move {
                let (entry, snapshot) = have(&state, &args, &wish, SnapshotKind::Vm).await?;
                let vm = restore_vm(&state, &args, &lab, name, &snapshot, asked, origin).await?;
                note(&state, &wish, entry);
                Ok(vm)
            })
        })?
        .waits("lab:lab_fixture", |lua, state, mut args| {
            let (lab, wish) = (lab_of(&mut args, state)?, args.text("path")?);
            let options = args.options(&["profile", "name"])?;
            let (wish, name) = wanted(state, &args, wish, &options)?;
            let (state, origin) = (Rc::clone(state), origin(lua, "restored"));
            Ok(async move {
                let (entry, snapshot) = have(&state, &args, &wish, SnapshotKind::Lab).await?;
                let restored = restore_lab(&state, &args, &lab, name, &snapshot, origin).await?;
                note(&state, &wish, entry);
                Ok(restored)
            })
        })
}

/// The lab that the function is called on with a colon; with a dot the root lab.
fn lab_of(args: &mut Args, state: &FileState) -> Result<Rc<VmLab>, ApiError> {
    match args.peek() {
        Value::String(_) => Ok(Rc::clone(&state.lab)),
        value if value.as_userdata().is_some_and(|object| object.is::<LabHandle>()) => super::lab::this(args, state),
        value => Err(args.wrong("path", "the path of a fixture", &value)),
    }
}

/// Which fixture is meant, and the name that is asked for.
fn wanted(state: &FileState, args: &Args, path: String, options: &Options) -> Result<(Wish, Option<String>), ApiError> {
    if path.is_empty() {
        return Err(args.bad("path", "expected the path of a fixture, found an empty string"));
    }
    let name = options.text("name")?;
    if let Some(name) = &name {
        check_name(args, name)?;
    }
    let profile = match options.text("profile")? {
        Some(profile) => {
            state.bed.check_profile(&profile).map_err(|why| args.bad("profile", &why))?;
            profile
        }
        // A fixture hands on what it was asked for with.
        None => match &state.fixture {
            Some(run) => run.wish.profile.clone(),
            None => state.bed.first_profile().map_err(ApiError::new)?,
        },
    };
    let path = path.strip_suffix(".fixture.lua").unwrap_or(&path).to_owned();
    Ok((Wish { name: path, profile }, name))
}

/// Ends a build that nobody waits for any more.
struct GiveUp(CancelToken);

impl Drop for GiveUp {
    fn drop(&mut self) {
        self.0.cancel(CancelReason::Interrupted);
    }
}

/// The fixture's entry and the snapshot in it, had on a thread that has a Lua state of its own.
async fn have(
    state: &Rc<FileState>,
    args: &Args,
    wish: &Wish,
    kind: SnapshotKind,
) -> Result<(FixtureEntry, Snapshot), ApiError> {
    let token = state.active_token().child();
    let _give_up = GiveUp(token.clone());
    let request = FixtureRequest {
        bed: state.bed.clone(),
        token,
        roots: state.roots.clone(),
        record: state.record.clone(),
        wish: wish.clone(),
        holder: state.display.clone(),
        rebuild: false,
        chain: state.fixture.as_ref().map(|run| run.chain.clone()).unwrap_or_default(),
        log: Arc::default(),
    };
    let log = Arc::clone(&request.log);
    let (tell, told) = tokio::sync::oneshot::channel();
    let work = move || {
        let result = obtain_fixture(&request).and_then(|entry| {
            let opened = Snapshot::open(entry.directory());
            opened.map(|snapshot| (entry, snapshot)).map_err(|error| FixtureProblem::Failed(error.to_string()))
        });
        // Nobody listens where the test is over.
        let _ = tell.send(result);
    };
    let thread = std::thread::Builder::new().name("fixture".to_owned()).spawn(work).map_err(|error| {
        ApiError::new(format!(
            "{}: no thread for it: {}",
            args.function(),
            crate::foundation::path_error::describe_io(&error)
        ))
    })?;
    state.builds.borrow_mut().push(thread);
    let result = told.await;
    state.log(&log.lock().unwrap_or_else(PoisonError::into_inner));
    let (entry, snapshot) = match result {
        Ok(Ok(had)) => had,
        Ok(Err(FixtureProblem::Cancelled)) => return Err(ApiError::Cancelled),
        Ok(Err(FixtureProblem::Failed(why))) => return Err(ApiError::new(format!("{}: {why}", args.function()))),
        Err(_) => return Err(ApiError::new(format!("{}: the build of `{}` broke off", args.function(), wish.name))),
    };
    let found = snapshot.manifest().kind;
    if found != kind {
        let (function, returns) = match found {
            SnapshotKind::Vm => ("vm_fixture", "a VM's snapshot"),
            SnapshotKind::Lab => ("lab_fixture", "a lab's snapshot"),
        };
        return Err(ApiError::new(format!(
            "{}: the fixture `{}` returns {returns}\nhint: {function} restores it",
            args.function(),
            wish.name
        )));
    }
    Ok((entry, snapshot))
}

/// Keeps the entry while what was restored from it may run.
fn note(state: &FileState, wish: &Wish, entry: FixtureEntry) {
    if let Some(run) = &state.fixture {
        run.recorder.restored(wish, &entry);
    }
    state.pins.borrow_mut().push((state.layer(), entry));
}

/// The first of `name`, `name-2`, `name-3`, … that is free in the lab.
fn free_name(lab: &VmLab, state: &FileState, name: &str) -> String {
    let taken = lab.names(state.layer());
    let free = |name: &String| !taken.contains(name);
    let more = (2_u32..).map(|number| format!("{name}-{number}"));
    std::iter::once(name.to_owned()).chain(more).find(free).unwrap_or_default()
}

async fn restore_vm(
    state: &Rc<FileState>,
    args: &Args,
    lab: &Rc<VmLab>,
    name: Option<String>,
    snapshot: &Snapshot,
    asked: RestoreOptions,
    origin: String,
) -> Result<VmHandle, ApiError> {
    let record = snapshot.manifest().vms.first();
    let record = record.ok_or_else(|| ApiError::new(format!("{}: the snapshot holds no VM", args.function())))?;
    let layer = state.layer();
    let name = match name {
        None => free_name(lab, state, &record.name),
        Some(name) => match lab.find(&name, layer) {
            None => name,
            Some(member) => {
                return Err(refused(args, &name, Refusal::Taken(member.thing.describe(), member.origin)));
            }
        },
    };
    let test = state.current.borrow().as_ref().map(|test| test.name.clone());
    let vm = state.bed.vm(&name, &record.profile, VmOptions::default(), &state.display, test.as_deref())?;
    // Named first: another branch of `parallel` may restore the same fixture meanwhile.
    lab.add(&name, Thing::Vm(LabVm(Arc::clone(&vm))), layer, origin).map_err(|why| refused(args, &name, why))?;
    state.with_scope(|scope| scope.insert(Arc::clone(&vm)));
    if let Err(error) = vm.restore(snapshot, 0, asked).await {
        let _ = lab.remove(|member| member.thing == Thing::Vm(LabVm(Arc::clone(&vm))), layer);
        return Err(error.into());
    }
    Ok(VmHandle(vm))
}

async fn restore_lab(
    state: &Rc<FileState>,
    args: &Args,
    lab: &Rc<VmLab>,
    name: Option<String>,
    snapshot: &Snapshot,
    origin: String,
) -> Result<LabHandle, ApiError> {
    let (layer, recorded) = (state.layer(), snapshot.manifest().lab.name.clone());
    let test = state.current.borrow().as_ref().map(|test| test.name.clone());
    let name = match name {
        Some(name) => Some(name),
        None if recorded == ROOT || recorded.is_empty() => None,
        None => Some(free_name(lab, state, &recorded)),
    };
    let made = lab.create(name.as_deref(), layer, test, origin.clone());
    let made = made.map_err(|why| refused(args, name.as_deref().unwrap_or_default(), why))?;
    if let Err(error) = lab_snapshot::restore_into(state, &made, snapshot, origin).await {
        let _ = lab.remove(|member| member.thing == Thing::Lab(Rc::clone(&made)), layer);
        return Err(error);
    }
    Ok(LabHandle::of(made))
}
