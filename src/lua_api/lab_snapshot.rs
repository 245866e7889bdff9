//! Snapshots of labs: all VMs of one moment, and the tree that holds them.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use super::args::Args;
use super::error::ApiError;
use super::file_state::FileState;
use super::lab::{LabVm, VmLab, origin, this};
use super::lab_tree::{Layer, Thing};
use super::register::Class;
use super::snapshot::{SnapshotHandle, place_of, snapshot_of};
use crate::testbed::{
    After, LabRecord, MemberRecord, Snapshot, SnapshotKind, SnapshotPlace, Vm, VmOptions, restore_all, take_snapshot,
};

/// Adds the methods to the class of labs.
///
/// # Errors
/// Those of Lua's allocator.
pub fn methods(class: Class<'_>) -> mlua::Result<Class<'_>> {
    class
        .waits("lab:snapshot", |lua, state, mut args| {
            let lab = this(&mut args, state)?;
            let place = place_of(lua, state, &mut args)?;
            let state = Rc::clone(state);
            Ok(async move {
                let snapshot = take(&state, &lab, place, After::GoOn).await?;
                state.with_scope(|scope| scope.keep(snapshot.clone()));
                Ok(SnapshotHandle(snapshot))
            })
        })?
        .waits("lab:restore", |lua, state, mut args| {
            let object = args.next();
            let mut first = Args::new(args.function(), mlua::MultiValue::from_iter([object.clone()]));
            let lab = this(&mut first, state)?;
            let snapshot = snapshot_of(lua, state, &mut args)?;
            let (state, origin) = (Rc::clone(state), origin(lua, "restored"));
            Ok(async move {
                let snapshot = snapshot.open(SnapshotKind::Lab).await?;
                restore_into(&state, &lab, &snapshot, origin).await?;
                Ok(object)
            })
        })
}

/// Takes a snapshot of what `lab` lists.
///
/// # Errors
/// As `testbed::take_snapshot`.
pub async fn take(state: &FileState, lab: &VmLab, place: SnapshotPlace, after: After) -> Result<Snapshot, ApiError> {
    let mut vms = Vec::new();
    let record = record(lab, state.layer(), &mut vms);
    Ok(take_snapshot(&state.bed, SnapshotKind::Lab, record, vms, place, after).await?)
}

/// What `lab` holds; each machine is added to `vms` once.
fn record(lab: &VmLab, layer: Layer, vms: &mut Vec<Arc<Vm>>) -> LabRecord {
    let mut record = LabRecord { name: lab.name().to_owned(), ..LabRecord::default() };
    for member in lab.listed(layer) {
        match member.thing {
            Thing::Vm(LabVm(vm)) => {
                let known = vms.iter().position(|known| Arc::ptr_eq(known, &vm));
                let index = known.unwrap_or_else(|| {
                    vms.push(vm);
                    vms.len() - 1
                });
                record.vms.push(MemberRecord { name: member.name, vm: index });
            }
            Thing::Bridge(_) => {}
            Thing::Lab(inner) => record.labs.push(self::record(&inner, layer, vms)),
        }
    }
    record
}

/// Something that a lab is to hold once the restore has succeeded.
struct NewMember {
    lab: Rc<VmLab>,
    name: String,
    vm: Arc<Vm>,
}

/// Has the lab be as `snapshot` holds it: its machines go on in their handles, those that it has not are made.
///
/// # Errors
/// A snapshot that does not fit; nothing has changed then.
pub async fn restore_into(
    state: &Rc<FileState>,
    lab: &Rc<VmLab>,
    snapshot: &Snapshot,
    origin: String,
) -> Result<(), ApiError> {
    let manifest = snapshot.manifest();
    let mut machines: Vec<Option<Arc<Vm>>> = vec![None; manifest.vms.len()];
    find(state, lab, &manifest.lab, &mut machines)?;
    let test = state.current.borrow().as_ref().map(|test| test.name.clone());
    for (machine, record) in machines.iter_mut().zip(&manifest.vms) {
        if machine.is_none() {
            let options = VmOptions::default();
            let vm = state.bed.vm(&record.name, &record.profile, options, &state.display, test.as_deref())?;
            // In the scope first: it goes with it, however this ends.
            state.with_scope(|scope| scope.insert(Arc::clone(&vm)));
            *machine = Some(vm);
        }
    }
    let machines: Vec<Arc<Vm>> = machines.into_iter().flatten().collect();
    let targets = machines.iter().enumerate().map(|(index, vm)| (Arc::clone(vm), index)).collect();
    restore_all(snapshot, targets).await?;
    let mut new = Vec::new();
    make_labs(state, lab, &manifest.lab, &machines, &origin, test.as_ref(), &mut new)?;
    for NewMember { lab, name, vm } in new {
        let added = lab.add(&name, Thing::Vm(LabVm(vm)), state.layer(), origin.clone());
        added.map_err(|_| ApiError::new(format!("lab:restore: the name `{name}` is taken")))?;
    }
    Ok(())
}

/// Finds the machines that the lab has already.
fn find(state: &FileState, lab: &VmLab, record: &LabRecord, machines: &mut [Option<Arc<Vm>>]) -> Result<(), ApiError> {
    let layer = state.layer();
    let taken = |name: &str, what: &str, wanted: &str| {
        let lab = lab.name();
        ApiError::new(format!(
            "lab:restore: in the lab `{lab}`, `{name}` is a {what}, in the snapshot it is a {wanted}"
        ))
    };
    for member in &record.vms {
        match lab.find(&member.name, layer).map(|found| found.thing) {
            None => {}
            Some(Thing::Vm(LabVm(vm))) => {
                if let Some(machine) = machines.get_mut(member.vm) {
                    machine.get_or_insert(vm);
                }
            }
            Some(other) => return Err(taken(&member.name, other.describe(), "VM")),
        }
    }
    for inner in &record.labs {
        match lab.find(&inner.name, layer).map(|found| found.thing) {
            None => {}
            Some(Thing::Lab(found)) => find(state, &found, inner, machines)?,
            Some(other) => return Err(taken(&inner.name, other.describe(), "sub-lab")),
        }
    }
    Ok(())
}

/// Makes the labs that are missing, and lists the members that are.
fn make_labs(
    state: &FileState,
    lab: &Rc<VmLab>,
    record: &LabRecord,
    machines: &[Arc<Vm>],
    origin: &str,
    test: Option<&String>,
    new: &mut Vec<NewMember>,
) -> Result<(), ApiError> {
    let layer = state.layer();
    for member in &record.vms {
        if let (None, Some(vm)) = (lab.find(&member.name, layer), machines.get(member.vm)) {
            new.push(NewMember { lab: Rc::clone(lab), name: member.name.clone(), vm: Arc::clone(vm) });
        }
    }
    for inner in &record.labs {
        let found = match lab.find(&inner.name, layer).map(|found| found.thing) {
            Some(Thing::Lab(found)) => found,
            _ => lab
                .create(Some(&inner.name), layer, test.cloned(), origin.to_owned())
                .map_err(|_| ApiError::new(format!("lab:restore: the name `{}` is taken", inner.name)))?,
        };
        make_labs(state, &found, inner, machines, origin, test, new)?;
    }
    Ok(())
}

/// The machines of the file's scope as they are now: what tests are reset to.
pub struct Baseline {
    snapshot: Snapshot,
    vms: Vec<Arc<Vm>>,
    /// Whether a test has run since.
    used: Cell<bool>,
}

impl Baseline {
    /// Takes it.
    ///
    /// # Errors
    /// As `testbed::take_snapshot`.
    pub async fn take(state: &FileState) -> Result<Self, ApiError> {
        let vms = state.scope.borrow().vms();
        let members = vms.iter().enumerate().map(|(index, vm)| MemberRecord { name: vm.name().to_owned(), vm: index });
        let lab = LabRecord { vms: members.collect(), ..LabRecord::default() };
        let (kind, place) = (SnapshotKind::Lab, SnapshotPlace::Memory);
        let snapshot = take_snapshot(&state.bed, kind, lab, vms.clone(), place, After::GoOn).await?;
        Ok(Self { snapshot, vms, used: Cell::new(false) })
    }

    /// Has all machines be as they were, for a test that is about to run. The first one finds them so.
    ///
    /// # Errors
    /// As `testbed::restore_all`.
    pub async fn reset(&self) -> Result<(), ApiError> {
        if !self.used.replace(true) {
            return Ok(());
        }
        let targets = self.vms.iter().enumerate().map(|(index, vm)| (Arc::clone(vm), index)).collect();
        Ok(restore_all(&self.snapshot, targets).await?)
    }
}
