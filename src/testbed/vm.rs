//! One machine and its states.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::bed::{ProfileImages, Testbed};
use super::boot;
use super::console::ConsolePort;
use super::disks::DiskTable;
use super::error::{Death, VmError};
use super::handles::Handles;
use super::network::{self, VmNetwork};
use super::options::VmOptions;
use super::running::Running;
use crate::agent_client::{AgentClient, AgentError};
use crate::project::Profile;
use crate::qemu::Accel;
use crate::run_events::{EventKind, StopReason, VmRef, Warning};

/// How long after the agent's channel broke QEMU may take to say why.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What Linux says on its last line when it has not seen its timer tick.
const STARVED: &str = "IO-APIC + timer doesn't work";
/// How often a boot that ends so is begun anew.
const STARVED_BOOTS: u32 = 3;

/// The state of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VmState {
    /// Not booted yet.
    Created,
    /// On its way up.
    Booting,
    /// The agent answers.
    Booted,
    /// The CPUs are stopped.
    Paused,
    /// On its way up once more, in the same QEMU.
    Restarting,
    /// Shut down by the test, or by the guest as the test expected.
    Shutdown,
    /// QEMU or the guest went away by itself.
    Dead,
}

impl VmState {
    /// As `vm:state()` says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Created | Self::Booting => "created",
            Self::Booted | Self::Restarting => "booted",
            Self::Paused => "paused",
            Self::Shutdown => "shutdown",
            Self::Dead => "dead",
        }
    }
}

/// How a guest went down that was waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Down {
    /// It powered off.
    Shutdown,
    /// It reset itself.
    Reset,
    /// It panicked.
    Panic,
}

struct Inner {
    /// `Paused` is never stored here: QEMU knows.
    state: VmState,
    /// Its scope has ended: it can't be booted again.
    retired: bool,
    options: VmOptions,
    /// Of the newest boot, also after its end: the console logs outlive QEMU.
    running: Option<Arc<Running>>,
    /// How the guest went down, in the state `Shutdown`.
    down: Down,
}

/// One machine.
pub struct Vm {
    reference: VmRef,
    profile: Arc<Profile>,
    bed: Testbed,
    handles: Handles,
    network: VmNetwork,
    disks: DiskTable,
    /// Whether its clock is to stay as it was when a snapshot of it is restored.
    clock_frozen: AtomicBool,
    inner: Mutex<Inner>,
    /// Told after every change of `inner`.
    changed: watch::Sender<()>,
}

impl Vm {
    /// A machine in the state `created`.
    pub fn new(reference: VmRef, profile: Arc<Profile>, options: VmOptions, bed: Testbed) -> Self {
        let inner = Inner { state: VmState::Created, retired: false, options, running: None, down: Down::Shutdown };
        Self {
            reference,
            profile,
            bed,
            handles: Handles::default(),
            network: VmNetwork::default(),
            disks: DiskTable::default(),
            clock_frozen: AtomicBool::new(false),
            inner: Mutex::new(inner),
            changed: watch::Sender::new(()),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.reference.vm
    }

    /// Its profile's name.
    pub fn profile(&self) -> &str {
        &self.profile.name
    }

    /// The files that its profile boots.
    ///
    /// # Errors
    /// They can't be had.
    pub(super) async fn profile_images(&self) -> Result<ProfileImages, VmError> {
        self.bed.profile_images(self.name(), &self.profile).await
    }

    /// Which machine it is.
    pub(super) fn reference(&self) -> &VmRef {
        &self.reference
    }

    /// The test bed that it belongs to.
    pub(super) fn bed(&self) -> &Testbed {
        &self.bed
    }

    /// The newest boot, also after its end.
    pub(super) fn running(&self) -> Option<Arc<Running>> {
        self.inner().running.clone()
    }

    /// `time`, longer where the accelerator or the profile is slower.
    pub fn scaled(&self, time: Duration) -> Duration {
        self.bed.scaled(time, &self.profile)
    }

    /// Its clock is to stay as it was when a snapshot of it is restored.
    pub fn freeze_clock_on_restore(&self) {
        self.clock_frozen.store(true, Ordering::Relaxed);
    }

    /// Whether its clock is to stay as it was when a snapshot of it is restored.
    pub fn is_clock_frozen(&self) -> bool {
        self.clock_frozen.load(Ordering::Relaxed)
    }

    /// Its disks.
    pub(super) fn disks(&self) -> &DiskTable {
        &self.disks
    }

    /// What tests hold open in it.
    pub fn handles(&self) -> &Handles {
        &self.handles
    }

    /// Its network cards.
    pub fn network(&self) -> &VmNetwork {
        &self.network
    }

    /// Its state now.
    pub fn state(&self) -> VmState {
        self.look().0
    }

    /// Its state now, and its QEMU of the newest boot.
    pub(super) fn look(&self) -> (VmState, Option<Arc<Running>>) {
        let inner = self.inner();
        let state = match (inner.state, &inner.running) {
            (VmState::Booted, Some(running)) if running.death().is_some() => VmState::Dead,
            (VmState::Booted, Some(running)) if running.is_paused() => VmState::Paused,
            (state, _) => state,
        };
        (state, inner.running.clone())
    }

    /// Bytes of RAM.
    pub fn memory(&self) -> u64 {
        self.inner().options.memory.unwrap_or(self.profile.memory)
    }

    /// Whether a QEMU was ever started for it.
    pub fn was_started(&self) -> bool {
        self.inner().running.is_some()
    }

    /// Number of CPUs.
    pub fn cpus(&self) -> u32 {
        self.inner().options.cpus.unwrap_or(self.profile.cpus)
    }

    /// QEMU's process, while there is one.
    pub fn pid(&self) -> Option<u32> {
        let running = self.inner().running.clone()?;
        running.qemu_lives().then(|| running.pid())
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn profile_value(&self) -> &Arc<Profile> {
        &self.profile
    }

    pub(super) fn options(&self) -> VmOptions {
        self.inner().options.clone()
    }

    pub(super) fn set_state(&self, state: VmState) {
        self.inner().state = state;
        self.changed.send_replace(());
    }

    /// Goes from one of `from` to `to`, or says what the state is instead.
    pub(super) fn leave(
        &self,
        op: &'static str,
        from: &[VmState],
        to: VmState,
    ) -> Result<Option<Arc<Running>>, VmError> {
        let (state, running) = self.look();
        if !from.contains(&state) {
            return Err(self.not_in(op, state, running.as_deref()));
        }
        self.set_state(to);
        Ok(running)
    }

    /// # Errors
    /// Its scope has ended.
    pub(super) fn check_not_retired(&self, op: &'static str) -> Result<(), VmError> {
        match self.inner().retired {
            true => Err(VmError::Retired { vm: self.name().to_owned(), op, test: self.reference.test.clone() }),
            false => Ok(()),
        }
    }

    pub(super) fn set_running(&self, running: Option<Arc<Running>>) {
        self.inner().running = running;
        self.changed.send_replace(());
    }

    pub(super) fn set_options(&self, options: VmOptions) {
        self.inner().options = options;
    }

    /// Another QEMU takes the place of the one it had; the machine is booted. Where its scope has ended meanwhile, it goes.
    pub(super) async fn arrive(&self, running: Arc<Running>) {
        let is_late = {
            let mut inner = self.inner();
            if !inner.retired {
                inner.running = Some(Arc::clone(&running));
                inner.state = VmState::Booted;
            }
            inner.retired
        };
        self.changed.send_replace(());
        if is_late {
            running.stop(StopReason::ScopeEnded).await;
        }
    }

    /// Boots the machine and returns once its agent answers.
    ///
    /// # Errors
    /// A wrong state, an image that can't be used, a guest that does not come up.
    pub async fn boot(&self, later: VmOptions) -> Result<(), VmError> {
        self.check_not_retired("boot")?;
        // Cards come and go before or after, not meanwhile.
        let _alone = self.network.change.lock().await;
        self.leave("boot", &[VmState::Created, VmState::Shutdown, VmState::Dead], VmState::Booting)?;
        let unless_done = Unfinished::of(self);
        let options = {
            let mut inner = self.inner();
            inner.options = inner.options.clone().overlaid(later);
            VmOptions { network: !self.network.nics().is_empty(), ..inner.options.clone() }
        };
        let mut starved = 0;
        let result = loop {
            // The previous QEMU of a dead guest is kept for inspection until now.
            self.take_down(StopReason::GuestEnded).await;
            self.inner().running = None;
            match self.boot_once(&options).await {
                Err(error) if starved < STARVED_BOOTS && self.is_starved(&error).await => {
                    starved += 1;
                    let message = format!("vm `{}`: boots again: the busy host starved its timer", self.name());
                    self.bed.shared.settings.sink.emit(EventKind::Warning(Warning { message, hint: None }));
                }
                result => break result,
            }
        };
        unless_done.finish(result.is_ok());
        let result = match result {
            Ok(()) => network::bring_up_all(self, "boot").await,
            Err(error) => Err(error),
        };
        if result.is_err() {
            if self.state() == VmState::Booted {
                self.set_state(VmState::Dead);
            }
            self.take_down(StopReason::BootFailed).await;
        }
        result
    }

    async fn boot_once(&self, options: &VmOptions) -> Result<(), VmError> {
        let disks = self.ensure_disks("boot").await?;
        boot::boot(&self.bed, &self.reference, &self.profile, options, &self.network, &disks, |running| {
            self.inner().running = Some(running);
            self.changed.send_replace(());
        })
        .await
    }

    /// Whether the guest's kernel panicked only because the emulator was not given the CPU: it then misses the ticks of the
    /// timer that it counts at the start (`check_timer` of Linux's arch/x86/kernel/apic/io_apic.c).
    async fn is_starved(&self, error: &VmError) -> bool {
        let starved =
            matches!(error, VmError::Dead { death: Death::Panicked(Some(line)), .. } if line.contains(STARVED));
        starved && self.bed.machine().await.is_ok_and(|machine| machine.accel() == Accel::Tcg)
    }

    /// Ends the machine at once, whatever its state.
    pub async fn destroy(&self, reason: StopReason) {
        self.inner().retired = true;
        if !matches!(self.state(), VmState::Created | VmState::Dead) {
            self.set_state(VmState::Shutdown);
        }
        self.take_down(reason).await;
        network::leave_all(self);
    }

    pub(super) async fn take_down(&self, reason: StopReason) {
        let running = self.inner().running.clone();
        if let Some(running) = running {
            running.stop(reason).await;
        }
    }

    /// The guest went down as the test wanted: ends QEMU as well.
    pub(super) async fn settle_down(&self, down: Down, reason: StopReason) {
        self.inner().down = down;
        self.set_state(VmState::Shutdown);
        self.take_down(reason).await;
    }

    /// How the guest went down, in the state `shutdown`.
    pub(super) fn how_down(&self) -> Down {
        self.inner().down
    }

    /// The newest boot's QEMU. Waits for it where the machine is just being booted.
    ///
    /// # Errors
    /// A machine that was never booted.
    pub(super) async fn soon_running(&self, op: &'static str) -> Result<Arc<Running>, VmError> {
        let mut changed = self.changed.subscribe();
        loop {
            changed.borrow_and_update();
            match self.look() {
                (_, Some(running)) => return Ok(running),
                (VmState::Booting, None) => {}
                (state, None) => return Err(self.wrong_state(op, state)),
            }
            if changed.changed().await.is_err() {
                return Err(self.wrong_state(op, self.state()));
            }
        }
    }

    /// The newest boot's QEMU.
    ///
    /// # Errors
    /// A machine that was never booted.
    pub(super) fn ever_running(&self, op: &'static str) -> Result<Arc<Running>, VmError> {
        match self.look() {
            (_, Some(running)) => Ok(running),
            (state, None) => Err(self.wrong_state(op, state)),
        }
    }

    /// A QEMU that is there, whatever became of its guest: for what only looks.
    ///
    /// # Errors
    /// A machine without a QEMU.
    pub(super) fn with_qemu(&self, op: &'static str) -> Result<Arc<Running>, VmError> {
        match self.look() {
            (VmState::Booting | VmState::Booted | VmState::Paused | VmState::Restarting, Some(running)) => Ok(running),
            (VmState::Dead, Some(running)) if running.qemu_lives() => Ok(running),
            (state, running) => Err(self.not_in(op, state, running.as_deref())),
        }
    }

    /// All that a console said since the first byte of firmware; control bytes as they came.
    ///
    /// # Errors
    /// When the machine was never booted, or the log can't be read.
    pub fn console_log(&self, port: ConsolePort) -> Result<Vec<u8>, VmError> {
        let running = self.ever_running("console")?;
        let (_, console) = running.consoles().get(Some(port));
        console.read_log().map_err(VmError::File)
    }

    /// The last `bytes` of the console as text; none where it never said anything.
    pub fn console_tail(&self, bytes: usize) -> Option<String> {
        let running = self.inner().running.clone()?;
        running.console_tail(bytes)
    }

    pub(super) fn wrong_state(&self, op: &'static str, state: VmState) -> VmError {
        VmError::State { vm: self.name().to_owned(), op, state: state.name() }
    }

    /// The error for an operation that is not possible in `state`; a dead guest's says how it died.
    pub(super) fn not_in(&self, op: &'static str, state: VmState, running: Option<&Running>) -> VmError {
        match (state, running.and_then(|running| Some((running, running.death()?)))) {
            (VmState::Dead, Some((running, death))) => self.dead(op, running, death),
            _ => self.wrong_state(op, state),
        }
    }

    /// Lets `act` use the agent, unless the machine goes away first.
    ///
    /// # Errors
    /// A wrong state, a guest that goes away, and what the agent refuses.
    pub(super) async fn op<T>(
        &self,
        op: &'static str,
        act: impl AsyncFnOnce(AgentClient) -> Result<T, AgentError>,
    ) -> Result<T, VmError> {
        let booted = self.booted(op)?;
        let running = &booted.running;
        let result = tokio::select! {
            biased;
            result = act(booted.agent().clone()) => result,
            death = running.wait_for_death() => return Err(self.dead(op, running, death)),
        };
        match result {
            Ok(value) => Ok(value),
            Err(AgentError::Withdrawn(why)) => Err(VmError::Interrupted { vm: self.name().to_owned(), op, why }),
            Err(source @ (AgentError::Op(_) | AgentError::TooMuch { .. })) => {
                Err(VmError::Agent { vm: self.name().to_owned(), source })
            }
            Err(broken) => {
                // The channel breaks a moment before QEMU's own word for it arrives.
                let resets = running.condition().resets;
                let death = match tokio::time::timeout(LAST_WORDS, running.wait_for_death()).await {
                    Ok(death) => death,
                    Err(_) => {
                        let why = match broken {
                            AgentError::Closed(why) => why,
                            other => other.to_string(),
                        };
                        running.died(resets, Death::AgentLost(why));
                        running.wait_for_death().await
                    }
                };
                Err(self.dead(op, running, death))
            }
        }
    }

    /// The running machine and its agent, when it is booted.
    ///
    /// # Errors
    /// Another state.
    pub(super) fn booted(&self, op: &'static str) -> Result<Booted, VmError> {
        match self.look() {
            (VmState::Booted, Some(running)) => match running.find_agent() {
                Some(agent) => Ok(Booted { running, agent }),
                None => Err(self.wrong_state(op, VmState::Restarting)),
            },
            (state, running) => Err(self.not_in(op, state, running.as_deref())),
        }
    }

    pub(super) fn dead(&self, op: &'static str, running: &Running, death: Death) -> VmError {
        VmError::Dead { vm: self.name().to_owned(), op, death, console: running.evidence() }
    }
}

/// A machine that is booted, and its agent.
pub(super) struct Booted {
    /// Its QEMU.
    pub(super) running: Arc<Running>,
    agent: AgentClient,
}

impl Booted {
    /// The agent of this boot: after a reset there is another.
    pub(super) fn agent(&self) -> &AgentClient {
        &self.agent
    }
}

/// A machine on its way up. Where that is given up (the future dropped), it is dead.
pub(super) struct Unfinished<'a> {
    vm: &'a Vm,
    done: bool,
}

impl<'a> Unfinished<'a> {
    pub(super) fn of(vm: &'a Vm) -> Self {
        Self { vm, done: false }
    }

    /// It is up, or it failed. Whoever took it down meanwhile has decided already.
    pub(super) fn finish(mut self, up: bool) {
        self.done = true;
        self.settle(if up { VmState::Booted } else { VmState::Dead });
    }

    fn settle(&self, state: VmState) {
        let mut inner = self.vm.inner();
        if matches!(inner.state, VmState::Booting | VmState::Restarting) {
            inner.state = state;
        }
        drop(inner);
        self.vm.changed.send_replace(());
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.settle(VmState::Dead);
        }
    }
}
