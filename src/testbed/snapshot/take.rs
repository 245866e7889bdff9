//! Taking a snapshot of machines: all of them stand still at the same moment.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::net::UnixStream;

use super::disks::{self, Pause, Taken};
use super::format::{FORMAT, LabRecord, MachineRecord, Manifest, SnapshotKind, VmRecord};
use super::store::{Kept, Snapshot, SnapshotPlace, Unfinished, write_json};
use super::twin;
use crate::agent_client::{self, AgentClient, AgentError};
use crate::agent_protocol::Wake;
use crate::foundation::path_error::{PathContext, PathError, describe_io};
use crate::qemu::{RamFile, RamKind};
use crate::run_events::StopReason;
use crate::testbed::bed::Testbed;
use crate::testbed::boot;
use crate::testbed::error::{Death, VmError};
use crate::testbed::running::{Hold, Running};
use crate::testbed::vm::{Down, Vm, VmState};

/// The operation in messages.
pub(super) const OP: &str = "snapshot";
/// How long what is under way in a guest may take to end, before the accelerator's factor.
const SETTLE: Duration = Duration::from_secs(2);
/// How long an agent may take to be quiet, and to be back, before the accelerator's factor.
const QUIET: Duration = Duration::from_secs(15);

/// What becomes of the machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// They go on.
    GoOn,
    /// They are shut down: less is to be copied.
    Discard,
}

/// Takes a snapshot of `vms`, which `lab` tells of by their places. Goes on to its end, or back, where the caller gives up.
///
/// # Errors
/// A machine that is neither booted nor paused, something that is open in a guest, a disk that is full.
pub async fn take(
    bed: &Testbed,
    kind: SnapshotKind,
    lab: LabRecord,
    vms: Vec<Arc<Vm>>,
    place: SnapshotPlace,
    after: After,
) -> Result<Snapshot, VmError> {
    let manifest = Manifest {
        format: FORMAT,
        kind,
        provium: env!("CARGO_PKG_VERSION").to_owned(),
        created: std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs(),
        vms: vms.iter().map(|vm| record(vm, kind)).collect(),
        lab,
    };
    let mut held = Vec::new();
    for (_, vm) in vms.iter().enumerate().filter(|(index, _)| manifest.vms[*index].off) {
        disks::check(vm, false)?;
    }
    for (index, vm) in vms.iter().enumerate().filter(|(index, _)| !manifest.vms[*index].off) {
        held.push(Source::check(index, vm)?);
    }
    let number = bed.next_start();
    let unfinished = Unfinished::new(&place, bed.shared.settings.runtime_dir.join(format!("snapshot-{number}")))?;
    let in_memory = place == SnapshotPlace::Memory;
    let work = Work { bed: bed.clone(), manifest, vms, unfinished, in_memory, after };
    // A test whose time is over must not leave a guest that stands still.
    match tokio::spawn(work.run(held)).await {
        Ok(result) => result,
        Err(error) => Err(VmError::Environment(format!("the snapshot failed: {error}"))),
    }
}

fn record(vm: &Arc<Vm>, kind: SnapshotKind) -> VmRecord {
    let off = kind == SnapshotKind::Lab && matches!(vm.state(), VmState::Created | VmState::Shutdown);
    VmRecord {
        name: vm.name().to_owned(),
        profile: vm.profile().to_owned(),
        off,
        disks: Vec::new(),
        has_declared: false,
    }
}

/// A machine to take.
struct Source {
    index: usize,
    vm: Arc<Vm>,
    running: Arc<Running>,
    was_paused: bool,
    /// A guest that stands still for the snapshot does not count as paused.
    _held: Hold,
}

impl Source {
    fn check(index: usize, vm: &Arc<Vm>) -> Result<Self, VmError> {
        let (state, running) = vm.look();
        let (VmState::Booted | VmState::Paused, Some(running)) = (state, running.clone()) else {
            return Err(vm.not_in(OP, state, running.as_deref()));
        };
        let refused = |why: String| VmError::Refused { vm: vm.name().to_owned(), op: OP, why };
        if running.built().spec.ram == RamKind::Own {
            let profile = vm.profile();
            return Err(refused(format!(
                "profile `{profile}` chooses by its `machine` or `qemu_args` where the RAM lies: no snapshot can be taken then"
            )));
        }
        if !vm.network().nics().is_empty() || !running.built().spec.cards.is_empty() {
            let why = "it has had network cards since its boot, and a snapshot can't hold them yet\nhint: take the snapshot of a VM \
                       that was booted before `:attach()`, after `:detach()`";
            return Err(refused(why.to_owned()));
        }
        if running.condition().suspended {
            return Err(refused("the guest is suspended\nhint: `:wakeup()` wakes it".to_owned()));
        }
        disks::check(vm, true)?;
        let open = vm.handles().list();
        if !open.is_empty() {
            let line = |handle: &crate::testbed::OpenHandle| match &handle.place {
                Some(place) => format!("\n  {}, opened at {place}", handle.what),
                None => format!("\n  {}", handle.what),
            };
            let list: String = open.iter().map(line).collect();
            let (verb, things) = if open.len() == 1 { ("is", "1 thing") } else { ("are", "several things") };
            let why = format!(
                "there {verb} {things} open in the guest:{list}\nhint: close them first; what shall go on running in each clone is \
                 started with `vm:run(\"… &\")`"
            );
            return Err(refused(why.replace("several", &open.len().to_string())));
        }
        let held = running.hold();
        Ok(Self { index, vm: Arc::clone(vm), running, was_paused: state == VmState::Paused, _held: held })
    }

    fn failed(&self, why: impl std::fmt::Display) -> VmError {
        VmError::Refused { vm: self.vm.name().to_owned(), op: OP, why: why.to_string() }
    }

    /// Lets a paused guest go on, waits until nothing is under way in it, and makes its agent quiet.
    async fn quiesce(self) -> Result<Quiet, VmError> {
        if self.was_paused {
            self.vm.qemu(OP, &self.running, "cont", Value::Null).await?;
        }
        let result = self.make_quiet().await;
        match result {
            Ok((nonce, channel)) => Ok(Quiet { source: self, nonce, channel }),
            Err(error) => {
                if self.was_paused {
                    // The first error counts.
                    let _ = self.vm.qemu(OP, &self.running, "stop", Value::Null).await;
                }
                Err(error)
            }
        }
    }

    async fn make_quiet(&self) -> Result<([u8; 16], UnixStream), VmError> {
        self.vm.settle_log().await;
        let Some(agent) = self.running.find_agent() else {
            return Err(self.vm.wrong_state(OP, VmState::Restarting));
        };
        self.settle(&agent).await?;
        let limit = self.vm.scaled(QUIET);
        let nonce = tokio::select! {
            biased;
            nonce = tokio::time::timeout(limit, agent.quiesce()) => match nonce {
                Ok(Ok(nonce)) => nonce,
                Ok(Err(source)) => return Err(VmError::Agent { vm: self.vm.name().to_owned(), source }),
                Err(_) => return Err(self.failed("the agent did not become quiet in time")),
            },
            death = self.running.wait_for_death() => return Err(self.vm.dead(OP, &self.running, death)),
        };
        self.running.log().rest().await;
        self.running.take_agent();
        match agent.withdraw("a snapshot of the VM was taken").await {
            Some(channel) => Ok((nonce, channel)),
            None => Err(self.failed("the connection to the agent is broken")),
        }
    }

    /// Waits until no request is under way.
    async fn settle(&self, agent: &AgentClient) -> Result<(), VmError> {
        match agent.settle(self.vm.scaled(SETTLE)).await {
            0 => Ok(()),
            count => {
                let operations = if count == 1 { "an operation is" } else { "operations are" };
                Err(self.failed(format!(
                    "{operations} still under way in the guest\nhint: another branch of `parallel` must have finished with it first"
                )))
            }
        }
    }
}

/// A machine whose agent waits for a nonce.
struct Quiet {
    source: Source,
    nonce: [u8; 16],
    channel: UnixStream,
}

impl Quiet {
    /// Has the guest go on as before.
    async fn go_on(self) -> Result<(), VmError> {
        let Source { vm, running, was_paused, .. } = &self.source;
        let woken = async {
            if running.condition().stopped {
                vm.qemu(OP, running, "cont", Value::Null).await?;
            }
            let limit = vm.scaled(QUIET);
            let woken = agent_client::wake(self.channel, self.nonce, Wake::default());
            let agent = match tokio::time::timeout(limit, woken).await {
                Ok(Ok((agent, ..))) => agent,
                Ok(Err(source)) => return Err(VmError::Agent { vm: vm.name().to_owned(), source }),
                Err(_) => {
                    let source = AgentError::Closed("it did not answer after the snapshot".to_owned());
                    return Err(VmError::Agent { vm: vm.name().to_owned(), source });
                }
            };
            boot::guard(vm.bed(), vm.profile_value(), running, &agent);
            running.set_agent_again(agent);
            if *was_paused {
                vm.qemu(OP, running, "stop", Value::Null).await?;
            }
            Ok(())
        };
        let result = woken.await;
        if let Err(error) = &result {
            running.died(running.condition().resets, Death::AgentLost(error.to_string()));
        }
        result
    }
}

/// All that the taking needs.
struct Work {
    bed: Testbed,
    manifest: Manifest,
    vms: Vec<Arc<Vm>>,
    unfinished: Unfinished,
    in_memory: bool,
    after: After,
}

/// What was stored of a machine that stood still.
struct StoredMachine {
    index: usize,
    /// None of one that is off.
    record: Option<MachineRecord>,
    /// Its RAM, where that lies in memory.
    ram: Option<RamFile>,
    disks: Taken,
}

impl Work {
    async fn run(mut self, sources: Vec<Source>) -> Result<Snapshot, VmError> {
        if !self.in_memory {
            let (bed, vms) = (self.bed.clone(), self.vms.clone());
            // What can't be read is told when it is needed.
            let _ = tokio::task::spawn_blocking(move || disks::look_at_images(&bed, &vms)).await;
        }
        let (quiet, mut first) = all(sources, Source::quiesce).await;
        let mut stored = Vec::new();
        if first.is_none() {
            match self.store(&quiet).await {
                Ok(machines) => stored = machines,
                Err(error) => first = Some(error),
            }
        }
        if first.is_none() && self.after == After::Discard {
            for Quiet { source, .. } in quiet {
                source.vm.settle_down(Down::Shutdown, StopReason::Shutdown).await;
            }
        } else {
            let (_, error) = all(quiet, Quiet::go_on).await;
            first = first.or(error);
        }
        if let Some(error) = first {
            return Err(error);
        }
        let mut kept = Kept::default();
        for machine in stored {
            self.finish_one(machine, &mut kept).await?;
        }
        let directory = self.unfinished.finish(&self.manifest)?;
        Ok(Snapshot::of(directory, self.manifest, kept, self.in_memory))
    }

    /// Writes the machines, which all stand still meanwhile.
    async fn store(&mut self, quiet: &[Quiet]) -> Result<Vec<StoredMachine>, VmError> {
        let pauses: Vec<Pause> =
            quiet.iter().map(|machine| Pause::begin(&machine.source.vm)).collect::<Result<_, _>>()?;
        for Quiet { source, .. } in quiet {
            source.vm.qemu(OP, &source.running, "stop", Value::Null).await?;
        }
        pauses.iter().for_each(Pause::stand_still);
        let mut stored = Vec::new();
        for machine in quiet {
            stored.push(self.store_one(machine).await?);
        }
        for (index, vm) in self.vms.iter().enumerate() {
            let record = &mut self.manifest.vms[index];
            if record.off {
                record.has_declared = vm.disks().declared.lock().await.profile;
                stored.push(StoredMachine { index, record: None, ram: None, disks: Taken::of(vm, None).await? });
            }
        }
        Ok(stored)
    }

    async fn store_one(&self, machine: &Quiet) -> Result<StoredMachine, VmError> {
        let Quiet { source, nonce, .. } = machine;
        let host_file = |error: PathError| VmError::HostFile { vm: source.vm.name().to_owned(), op: OP, source: error };
        let directory = self.unfinished.vm(source.index).map_err(host_file)?;
        let disks = Taken::of(&source.vm, Some(&source.running)).await?;
        let record = self.machine_record(source, *nonce, &disks).await?;
        let device = directory.join("device");
        let built = source.running.built();
        let qemu_failed = |error| VmError::Qemu { vm: source.vm.name().to_owned(), op: OP, source: error };
        // Whether nobody writes to `ram` any more.
        let (ram, is_final) = match (built.spec.ram, &built.ram) {
            (RamKind::Shared, Some(ram)) => {
                source.running.qemu().save(&device, false).await.map_err(qemu_failed)?;
                (ram.clone(), self.after == After::Discard)
            }
            _ => {
                let forks = disks::fork(&source.vm, &disks.records, &disks.snapshots)?;
                let layout = record.disk_layout();
                (twin::save(&self.bed, &source.vm, &source.running, &layout, &forks, &device).await?, true)
            }
        };
        let path = directory.join("ram");
        let ram = self.store_ram(ram, is_final, &path).await.at("write", &path).map_err(host_file)?;
        Ok(StoredMachine { index: source.index, record: Some(record), ram, disks })
    }

    /// Writes what need not be written while the machine stands still.
    async fn finish_one(&mut self, machine: StoredMachine, kept: &mut Kept) -> Result<(), VmError> {
        let StoredMachine { index, record, ram, mut disks } = machine;
        let directory = self.unfinished.vm(index).map_err(VmError::File)?;
        kept.ram.extend(ram);
        if self.in_memory {
            kept.disks.insert(index, Arc::clone(&disks.snapshots));
        } else {
            let (bed, into) = (self.bed.clone(), directory.clone());
            let store = move || disks.store(&bed, &into).map(|()| disks);
            let stored = tokio::task::spawn_blocking(store).await;
            disks = stored.map_err(|error| VmError::Environment(format!("the snapshot failed: {error}")))??;
        }
        match record {
            None => self.manifest.vms[index].disks = disks.records,
            Some(record) => {
                let record = MachineRecord { disks: disks.records, ..record };
                write_json(&directory.join("machine.json"), &record).map_err(VmError::File)?;
            }
        }
        Ok(())
    }

    async fn store_ram(&self, ram: RamFile, is_final: bool, path: &Path) -> std::io::Result<Option<RamFile>> {
        let in_memory = self.in_memory;
        let path = path.to_owned();
        let work = move || {
            if !in_memory {
                return ram.copy_to_path(&path).map(|()| None);
            }
            let ram = if is_final { ram } else { ram.copy_in_memory()? };
            let link = format!("/proc/{}/fd/{}", std::process::id(), ram.descriptor());
            std::os::unix::fs::symlink(link, &path)?;
            Ok(Some(ram))
        };
        tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other)?
    }

    async fn machine_record(&self, source: &Source, wake: [u8; 16], disks: &Taken) -> Result<MachineRecord, VmError> {
        let machine = self.bed.machine().await?;
        let spec = &source.running.built().spec;
        Ok(MachineRecord {
            qemu: machine.qemu().version.to_string(),
            accel: machine.accel().name().to_owned(),
            arch: spec.arch.clone(),
            machine: spec.machine.clone(),
            cpu: spec.cpu_model.clone(),
            memory: spec.memory,
            cpus: spec.cpus,
            qemu_args: spec.extra.clone(),
            cmdline: spec.cmdline.clone(),
            options: source.vm.options(),
            clock_frozen: source.vm.is_clock_frozen(),
            wake,
            nics: Vec::new(),
            disks: disks.records.clone(),
            disk_ports: disks.ports.clone(),
            scsi_port: disks.controller.clone(),
        })
    }
}

/// Does `act` to all at once. What succeeded, in the order given, and the first error.
async fn all<T: Send + 'static, R: Send + 'static, F>(items: Vec<T>, act: impl Fn(T) -> F) -> (Vec<R>, Option<VmError>)
where
    F: Future<Output = Result<R, VmError>> + Send + 'static,
{
    let tasks: Vec<_> = items.into_iter().map(|item| tokio::spawn(act(item))).collect();
    let (mut done, mut first) = (Vec::new(), None);
    for task in tasks {
        match task.await {
            Ok(Ok(result)) => done.push(result),
            Ok(Err(error)) => first = first.or(Some(error)),
            Err(error) => {
                let why = describe_io(&std::io::Error::other(error));
                first = first.or(Some(VmError::Environment(format!("the snapshot failed: {why}"))));
            }
        }
    }
    (done, first)
}
