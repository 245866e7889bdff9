//! Going on from a snapshot.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::net::UnixStream;

use super::disks::{self, DiskSnapshots};
use super::format::MachineRecord;
use super::store::Snapshot;
use crate::agent_client::{self, Hello};
use crate::agent_protocol::Wake;
use crate::disks::Disk;
use crate::qemu::{MachineSpec, RamKind};
use crate::run_events::{BootHow, StopReason, Warning};
use crate::testbed::boot;
use crate::testbed::error::{Death, VmError};
use crate::testbed::launch::{Launch, Launched};
use crate::testbed::options::VmOptions;
use crate::testbed::ready::start_ahead;
use crate::testbed::running::Running;
use crate::testbed::vm::{Unfinished, Vm, VmState};
use crate::testbed::watch::watch;

/// The operation in messages.
const OP: &str = "restore";
/// How long an agent may take to wake up, before the accelerator's factor.
const WAKE_UP: Duration = Duration::from_secs(15);
/// How many random bytes a clone is given.
const ENTROPY: usize = 64;

/// What is asked of a restore besides the snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestoreOptions {
    /// The guest's own host name; as in the snapshot where none is given.
    pub hostname: Option<String>,
    /// How long its agent may take.
    pub agent_timeout: Option<Duration>,
    /// Nobody will restore the snapshot again: no QEMU is started ahead for that.
    pub is_last: bool,
}

/// A QEMU that has the state and stands still.
struct Loaded {
    launched: Launched,
    record: MachineRecord,
    /// The file of the state.
    device: PathBuf,
    disks: DiskSnapshots,
    begun: Instant,
    phases: Vec<(&'static str, Duration)>,
}

/// Checks that `record` fits this run and `vm`.
async fn check(vm: &Vm, snapshot: &Snapshot, index: usize) -> Result<MachineRecord, VmError> {
    snapshot.check_there()?;
    let stored = snapshot.manifest().vms.get(index).filter(|stored| !stored.off);
    let Some(stored) = stored else {
        return Err(snapshot.unusable("the VM was not running when it was taken"));
    };
    if stored.profile != vm.profile() {
        let (theirs, ours) = (&stored.profile, vm.profile());
        let why = format!("it is of profile `{theirs}`, vm `{}` is of profile `{ours}`", vm.name());
        return Err(snapshot.unusable(why));
    }
    let record = snapshot.machine(index)?;
    let machine = vm.bed().machine().await?;
    let now =
        [machine.qemu().version.to_string(), machine.accel().name().to_owned(), std::env::consts::ARCH.to_owned()];
    let then = [&record.qemu, &record.accel, &record.arch];
    for ((what, now), then) in ["QEMU", "the accelerator", "the architecture"].into_iter().zip(&now).zip(then) {
        if now != then {
            let why = format!("it was made with {what} {then}, here it is {now}: only what made it can restore it");
            return Err(snapshot.unusable(why));
        }
    }
    Ok(record)
}

/// Starts a QEMU that takes the state in.
async fn load(vm: &Vm, snapshot: &Snapshot, index: usize, started: impl FnOnce(&Launched)) -> Result<Loaded, VmError> {
    let begun = Instant::now();
    let record = check(vm, snapshot, index).await?;
    let (bed, profile) = (vm.bed(), vm.profile_value());
    let images = vm.profile_images().await?;
    let drivers = record.disks.iter().flat_map(|disk| disk.place.device.bus.modules()).copied().collect();
    let prepared = boot::prepare(bed, vm.reference(), profile, &record.options, &images, drivers).await?;
    if prepared.cmdline != record.cmdline {
        let lines = format!("it was `{}`, and is `{}` now", record.cmdline, prepared.cmdline);
        let message = format!(
            "vm `{}`: the snapshot's kernel was booted with another command line than profile `{}` gives now: {lines}",
            vm.name(),
            profile.name
        );
        let hint = "where it is a fixture's, `provium fixture rebuild PATH` boots with the new one".to_owned();
        bed.warn_once((profile.name.clone(), lines), Warning { message, hint: Some(hint) });
    }
    let ram = snapshot.ram(index)?;
    let machine = bed.machine().await?;
    let spec = MachineSpec {
        // Not the clone's own name: a QEMU that was started ahead fits any of them.
        name: snapshot.manifest().vms[index].name.clone(),
        arch: record.arch.clone(),
        accel: machine.accel(),
        memory: record.memory,
        cpus: record.cpus,
        cpu_model: record.cpu.clone(),
        machine: record.machine.clone(),
        kernel: prepared.kernel,
        initrd: prepared.initrd,
        cmdline: record.cmdline.clone(),
        agent_port: crate::agent_protocol::PORT_NAME.to_owned(),
        rng_seed: record.options.rng_seed,
        initial_time: record.options.initial_time,
        disks: record.disk_layout(),
        extra: record.qemu_args.clone(),
        ram: RamKind::Private,
        incoming: true,
        ..MachineSpec::default()
    };
    let disks = snapshot.disks(vm, index, &record.disks).await?;
    let forks = disks::fork(vm, &record.disks, &disks)?;
    let prepare = begun.elapsed();
    let kernel_store_path = images.kernel_store_path.clone();
    let launch = Launch { bed, vm: vm.reference(), profile, kernel_store_path, op: OP };
    let device = snapshot.device(index);
    let launched = launch.start(spec, Some((ram, &device)), forks).await?;
    let qemu = begun.elapsed() - prepare;
    started(&launched);
    tokio::spawn(watch(Arc::clone(&launched.running), bed.scaled(boot::AGENT_ENDED, profile)));
    if !launched.is_loaded {
        let loaded = launched.running.qemu().load(&device, false).await;
        loaded.map_err(|source| VmError::Qemu { vm: vm.name().to_owned(), op: OP, source })?;
    }
    let load = begun.elapsed() - prepare - qemu;
    let phases = vec![("prepare", prepare), ("qemu", qemu), ("load", load)];
    Ok(Loaded { launched, record, device, disks, begun, phases })
}

/// A machine that goes on.
struct Woken {
    launched: Launched,
    hello: Hello,
    begun: Instant,
    phases: Vec<(&'static str, Duration)>,
    record: MachineRecord,
    device: PathBuf,
    disks: DiskSnapshots,
}

impl Woken {
    fn tell(&self, vm: &Vm, is_last: bool) {
        let built = self.launched.running.built();
        if let Some(ram) = built.ram.as_ref().filter(|_| !is_last) {
            let forks = || disks::fork(vm, &self.record.disks, &self.disks).ok();
            start_ahead(vm.bed(), &built.spec, ram, self.device.clone(), forks);
        }
        let duration = self.begun.elapsed().saturating_sub(self.phases[0].1);
        boot::ready(vm.bed(), vm.reference(), &self.hello, BootHow::Restore, duration, &self.phases);
    }
}

/// Has a loaded machine go on, and its agent with it.
async fn go_on(vm: &Vm, loaded: Loaded, options: &RestoreOptions) -> Result<Woken, VmError> {
    let Loaded { mut launched, record, device, disks, begun, mut phases } = loaded;
    disks::arm(&launched.disks, &disks);
    let before = begun.elapsed();
    let running = Arc::clone(&launched.running);
    let wake = wake_of(&record, options)?;
    let limit = options.agent_timeout.unwrap_or_else(|| vm.scaled(WAKE_UP));
    let channel = launched.take_channel();
    let go = async {
        let woken = async { Ok(tokio::time::timeout(limit, wake_up(channel, record.wake, wake)).await) };
        // In this order: the agent finds its orders when it runs, and carries them out before anything else goes on.
        tokio::try_join!(biased; woken, vm.qemu(OP, &running, "cont", serde_json::Value::Null))
    };
    let (woken, _) = tokio::select! {
        biased;
        result = go => result?,
        death = running.wait_for_death() => return Err(vm.dead(OP, &running, death)),
    };
    let (agent, mut hello, notices) = match woken {
        Ok(Ok(woken)) => woken,
        Ok(Err(source)) => return Err(VmError::Agent { vm: vm.name().to_owned(), source }),
        Err(_) => {
            let console = running.evidence();
            return Err(VmError::BootTimeout { vm: vm.name().to_owned(), op: OP, waited: limit, console });
        }
    };
    hello.notices.extend(notices);
    boot::guard(vm.bed(), vm.profile_value(), &running, &agent);
    running.set_agent(agent);
    phases.push(("agent", begun.elapsed().saturating_sub(before)));
    Ok(Woken { launched, hello, begun, phases, record, device, disks })
}

type Greeting = (agent_client::AgentClient, Hello, Vec<String>);

async fn wake_up(
    channel: Option<UnixStream>,
    nonce: [u8; 16],
    wake: Wake,
) -> Result<Greeting, agent_client::AgentError> {
    match channel {
        Some(channel) => agent_client::wake(channel, nonce, wake).await,
        None => Err(agent_client::AgentError::Closed("there is no channel".to_owned())),
    }
}

fn wake_of(record: &MachineRecord, options: &RestoreOptions) -> Result<Wake, VmError> {
    let keeps_time = record.clock_frozen || record.options.initial_time.is_some();
    let now = || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(now.as_nanos()).unwrap_or(i64::MAX)
    };
    // Who asked for the same random numbers in each boot gets them in each clone as well.
    let entropy = if record.options.rng_seed.is_some() { Vec::new() } else { random()? };
    Ok(Wake { time: (!keeps_time).then(now), entropy, hostname: options.hostname.clone() })
}

fn random() -> Result<Vec<u8>, VmError> {
    let mut bytes = vec![0; ENTROPY];
    // SAFETY: the pointer and the length belong together.
    let count = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if usize::try_from(count) == Ok(bytes.len()) {
        Ok(bytes)
    } else {
        let error = std::io::Error::last_os_error();
        Err(VmError::Environment(format!("the host gives no random numbers: {error}")))
    }
}

impl Vm {
    /// Goes on from machine `index` of `snapshot`, in a state in which it could be booted. What the snapshot holds takes the
    /// place of what the machine was given.
    ///
    /// # Errors
    /// A wrong state, a snapshot that does not fit or is damaged, a guest that does not wake up.
    pub async fn restore(&self, snapshot: &Snapshot, index: usize, options: RestoreOptions) -> Result<(), VmError> {
        self.check_not_retired(OP)?;
        let options = RestoreOptions {
            hostname: options.hostname.or_else(|| self.options().hostname),
            agent_timeout: options.agent_timeout.or_else(|| self.options().agent_timeout),
            is_last: options.is_last,
        };
        self.leave(OP, &[VmState::Created, VmState::Shutdown, VmState::Dead], VmState::Booting)?;
        let unless_done = Unfinished::of(self);
        self.take_down(StopReason::GuestEnded).await;
        self.set_running(None);
        let result = async {
            let loaded = load(self, snapshot, index, |launched| {
                launched.announce();
                self.set_running(Some(Arc::clone(&launched.running)));
            })
            .await?;
            let woken = go_on(self, loaded, &options).await?;
            self.become_record(&woken, &options).await;
            woken.tell(self, options.is_last);
            Ok(())
        }
        .await;
        unless_done.finish(Result::is_ok(&result));
        if result.is_err() {
            self.take_down(StopReason::BootFailed).await;
        }
        result
    }

    /// The options are those of the snapshot from now on.
    async fn become_record(&self, woken: &Woken, options: &RestoreOptions) {
        let record = &woken.record;
        if record.clock_frozen {
            self.freeze_clock_on_restore();
        }
        let (memory, cpus) = (Some(record.memory), Some(record.cpus));
        let later = VmOptions {
            memory,
            cpus,
            hostname: options.hostname.clone(),
            agent_timeout: options.agent_timeout,
            ..VmOptions::default()
        };
        self.set_options(record.options.clone().overlaid(later));
        self.become_disks(&record.disks, woken.launched.disks.clone(), true).await;
    }
}

/// Has `vms` go on from the machines of `snapshot` at their places, each in its own handle, whatever its state. A machine that
/// was not running then is shut down. Goes on to its end where the caller gives up.
///
/// # Errors
/// As `Vm::restore`; nothing has changed then.
pub async fn restore_all(snapshot: &Snapshot, vms: Vec<(Arc<Vm>, usize)>) -> Result<(), VmError> {
    match tokio::spawn(in_place(snapshot.clone(), vms)).await {
        Ok(result) => result,
        Err(error) => Err(VmError::Environment(format!("the restore failed: {error}"))),
    }
}

/// A QEMU that is killed unless it is taken.
struct Arriving(Option<Arc<Running>>);

impl Arriving {
    /// Somebody else looks after it from now on.
    fn settle(&mut self) {
        self.0 = None;
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        if let Some(running) = self.0.take() {
            tokio::spawn(async move { running.stop(StopReason::BootFailed).await });
        }
    }
}

async fn in_place(snapshot: Snapshot, vms: Vec<(Arc<Vm>, usize)>) -> Result<(), VmError> {
    let is_off = |index: usize| snapshot.manifest().vms.get(index).is_some_and(|vm| vm.off);
    let (off, on): (Vec<_>, Vec<_>) = vms.into_iter().partition(|(_, index)| is_off(*index));
    let tasks: Vec<_> = on
        .into_iter()
        .map(|(vm, index)| {
            let snapshot = snapshot.clone();
            tokio::spawn(async move {
                vm.check_not_retired(OP)?;
                let mut arriving = Arriving(None);
                let started = |launched: &Launched| arriving.0 = Some(Arc::clone(&launched.running));
                let loaded = load(&vm, &snapshot, index, started).await?;
                Ok((vm, arriving, loaded))
            })
        })
        .collect();
    let mut loaded = Vec::new();
    let mut first = None;
    let mut off_disks = Vec::new();
    for (vm, index) in off {
        match off_forks(&vm, &snapshot, index).await {
            Ok(forks) => off_disks.push((vm, index, forks)),
            Err(error) => first = first.or(Some(error)),
        }
    }
    for task in tasks {
        match task.await {
            Ok(Ok(machine)) => loaded.push(machine),
            Ok(Err(error)) => first = first.or(Some(error)),
            Err(error) => first = first.or(Some(VmError::Environment(format!("the restore failed: {error}")))),
        }
    }
    if let Some(error) = first {
        return Err(error);
    }
    // The old ones stand still before the new ones go on: no two of a kind run at once.
    let mut stopped = Vec::new();
    for (vm, ..) in &loaded {
        if let (VmState::Booted, Some(running)) = vm.look() {
            // One that can't be stopped is about to go anyway.
            let _ = vm.qemu(OP, &running, "stop", serde_json::Value::Null).await;
            stopped.push((Arc::clone(vm), running));
        }
    }
    let mut woken = Vec::new();
    for (vm, arriving, loaded) in loaded {
        match go_on(&vm, loaded, &RestoreOptions::default()).await {
            Ok(machine) => woken.push((vm, arriving, machine)),
            Err(error) => {
                for (vm, running) in &stopped {
                    let _ = vm.qemu(OP, running, "cont", serde_json::Value::Null).await;
                }
                return Err(error);
            }
        }
    }
    for (vm, mut arriving, machine) in woken {
        arriving.settle();
        vm.exchange(machine).await;
    }
    for (vm, index, forks) in off_disks {
        if !matches!(vm.state(), VmState::Created | VmState::Shutdown) {
            vm.settle_down(crate::testbed::vm::Down::Shutdown, StopReason::Restored).await;
        }
        let record = &snapshot.manifest().vms[index];
        vm.become_disks(&record.disks, forks, record.has_declared).await;
    }
    Ok(())
}

/// The disks of a machine that was not running.
async fn off_forks(vm: &Vm, snapshot: &Snapshot, index: usize) -> Result<Vec<Arc<Disk>>, VmError> {
    snapshot.check_there()?;
    let records = &snapshot.manifest().vms[index].disks;
    let disks = snapshot.disks(vm, index, records).await?;
    let forks = disks::fork(vm, records, &disks)?;
    disks::arm(&forks, &disks);
    Ok(forks)
}

impl Vm {
    /// The machine goes on as `woken`.
    async fn exchange(&self, woken: Woken) {
        let old = self.running();
        if let Some(old) = &old {
            if let Some(agent) = old.take_agent() {
                agent.withdraw("the VM was restored to a snapshot").await;
            }
            old.died(old.condition().resets, Death::QemuEnded("it was restored to a snapshot".to_owned()));
            old.stop(StopReason::Restored).await;
        }
        woken.launched.announce();
        self.become_record(&woken, &RestoreOptions::default()).await;
        self.arrive(Arc::clone(&woken.launched.running)).await;
        woken.tell(self, false);
    }
}
