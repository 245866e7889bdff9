//! Snapshots of VMs: `vm:snapshot`, `vm:restore`, `vm:clone`, and the handle of a snapshot.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use mlua::{Lua, MetaMethod, UserData, UserDataFields, UserDataMethods, Value};

use super::args::Args;
use super::error::ApiError;
use super::file_state::FileState;
use super::lab::{LabVm, check_name, origin, refused};
use super::lab_tree::{Refusal, Thing};
use super::place;
use super::register::{Class, class};
use super::vm::{VmHandle, agent_timeout, borrow, hostname};
use crate::testbed::{
    After, LabRecord, MemberRecord, RestoreOptions, Snapshot, SnapshotKind, SnapshotPlace, Vm, VmOptions, take_snapshot,
};

/// Registry key of the class.
const CLASS: &str = "provium.Snapshot";

/// A snapshot as Lua holds it.
pub struct SnapshotHandle(pub Snapshot);

impl UserData for SnapshotHandle {
    fn add_fields<F: UserDataFields<Self>>(fields: &mut F) {
        fields.add_meta_field_with(MetaMethod::Index.name(), |lua| class(lua, CLASS));
        fields.add_meta_field("__name", "Snapshot");
    }

    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_meta_method(MetaMethod::ToString, |_, this, ()| {
            Ok(format!("snapshot of {} in `{}`", this.0.manifest().kind.name(), this.0.path().display()))
        });
    }
}

/// Makes the class known to a Lua state.
///
/// # Errors
/// Those of Lua's allocator.
pub fn install(lua: &Lua) -> mlua::Result<()> {
    Class::new(lua)?
        .method("snapshot:path", |_, _, mut args| Ok(args.this::<SnapshotHandle>()?.0.path().display().to_string()))?
        .method("snapshot:size", |_, _, mut args| Ok(args.this::<SnapshotHandle>()?.0.size()?))?
        .method("snapshot:delete", |_, _, mut args| Ok(args.this::<SnapshotHandle>()?.0.delete()?))?
        .store(CLASS)
}

/// The methods of VMs.
///
/// # Errors
/// Those of Lua's allocator.
pub fn methods(class: Class<'_>) -> mlua::Result<Class<'_>> {
    class
        .waits("vm:snapshot", |lua, state, mut args| {
            let vm = Arc::clone(&args.this::<VmHandle>()?.0);
            let place = place_of(lua, state, &mut args)?;
            let state = Rc::clone(state);
            Ok(async move {
                let snapshot = of_vm(&state, &vm, place).await?;
                state.with_scope(|scope| scope.keep(snapshot.clone()));
                Ok(SnapshotHandle(snapshot))
            })
        })?
        .waits("vm:restore", |lua, state, mut args| {
            let object = args.next();
            let vm = borrow(&args, &object)?;
            let snapshot = snapshot_of(lua, state, &mut args)?;
            Ok(async move {
                let snapshot = snapshot.open(SnapshotKind::Vm).await?;
                vm.restore(&snapshot, 0, RestoreOptions::default()).await?;
                Ok(object)
            })
        })?
        .waits("vm:clone", |lua, state, mut args| {
            let vm = Arc::clone(&args.this::<VmHandle>()?.0);
            let name = args.text("name")?;
            check_name(&args, &name)?;
            let options = args.options(&["hostname", "agent_timeout"])?;
            let asked = RestoreOptions {
                hostname: hostname(&args, &options)?,
                agent_timeout: agent_timeout(&args, &options)?,
                is_last: true,
            };
            let lab = state.lab.holder(state.layer(), &LabVm(Arc::clone(&vm))).unwrap_or_else(|| Rc::clone(&state.lab));
            if let Some(member) = lab.find(&name, state.layer()) {
                return Err(refused(&args, &name, Refusal::Taken(member.thing.describe(), member.origin)));
            }
            let (origin, state) = (origin(lua, "cloned"), Rc::clone(state));
            Ok(async move {
                let clone = clone(&state, &vm, &name, asked).await?;
                lab.add(&name, Thing::Vm(LabVm(Arc::clone(&clone))), state.layer(), origin)
                    .map_err(|why| refused(&args, &name, why))?;
                Ok(VmHandle(clone))
            })
        })
}

/// Where a snapshot goes: to the path that may follow, relative to the calling file.
///
/// # Errors
/// What is no path.
pub fn place_of(lua: &Lua, state: &FileState, args: &mut Args) -> Result<SnapshotPlace, ApiError> {
    match args.text_opt("path")? {
        None => Ok(state.snapshot_place()),
        Some(path) if path.trim_end_matches('/').is_empty() => {
            Err(args.bad("path", &format!("expected the path of a directory, found `{path}`")))
        }
        Some(path) => Ok(SnapshotPlace::Directory(place::host_path(lua, state, path.trim_end_matches('/')))),
    }
}

/// A snapshot that an argument names.
pub enum Named {
    /// By its handle.
    Handle(Snapshot),
    /// By its directory.
    Directory(PathBuf),
}

impl Named {
    /// The snapshot, which must be of `kind`.
    ///
    /// # Errors
    /// One that can't be used, or of another kind.
    pub async fn open(self, kind: SnapshotKind) -> Result<Snapshot, ApiError> {
        let snapshot = match self {
            Self::Handle(snapshot) => snapshot,
            Self::Directory(path) => {
                let opened = tokio::task::spawn_blocking(move || Snapshot::open(&path)).await;
                opened.map_err(ApiError::new)??
            }
        };
        let found = snapshot.manifest().kind;
        if found == kind {
            return Ok(snapshot);
        }
        let method = match found {
            SnapshotKind::Vm => "vm:restore",
            SnapshotKind::Lab => "lab:restore",
        };
        let path = snapshot.path().display();
        let (found, kind) = (found.name(), kind.name());
        Err(ApiError::new(format!(
            "snapshot `{path}`: it is of {found}, expected one of {kind}\nhint: {method} takes it"
        )))
    }
}

/// The snapshot that the next argument names; paths are relative to the calling file.
///
/// # Errors
/// It is something else.
pub fn snapshot_of(lua: &Lua, state: &FileState, args: &mut Args) -> Result<Named, ApiError> {
    match args.next() {
        Value::String(path) => Ok(Named::Directory(place::host_path(lua, state, &path.to_string_lossy()))),
        other => match other.as_userdata().and_then(|object| object.borrow::<SnapshotHandle>().ok()) {
            Some(handle) => Ok(Named::Handle(handle.0.clone())),
            None => Err(args.wrong("snapshot", "a Snapshot or the path of one", &other)),
        },
    }
}

async fn of_vm(state: &FileState, vm: &Arc<Vm>, place: SnapshotPlace) -> Result<Snapshot, ApiError> {
    let member = MemberRecord { name: vm.name().to_owned(), vm: 0 };
    let lab = LabRecord { vms: vec![member], ..LabRecord::default() };
    Ok(take_snapshot(&state.bed, SnapshotKind::Vm, lab, vec![Arc::clone(vm)], place, After::GoOn).await?)
}

async fn clone(state: &FileState, vm: &Arc<Vm>, name: &str, asked: RestoreOptions) -> Result<Arc<Vm>, ApiError> {
    let snapshot = of_vm(state, vm, SnapshotPlace::Memory).await?;
    let test = state.current.borrow().as_ref().map(|test| test.name.clone());
    let clone = state.bed.vm(name, vm.profile(), VmOptions::default(), &state.display, test.as_deref())?;
    // In the scope first: it goes with it, however this ends.
    state.with_scope(|scope| scope.insert(Arc::clone(&clone)));
    clone.restore(&snapshot, 0, asked).await?;
    Ok(clone)
}
