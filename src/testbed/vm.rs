//! One machine and its states.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::bed::{ProfileImages, Testbed};
use super::boot;
use super::error::{Death, VmError};
use super::handles::Handles;
use super::options::VmOptions;
use super::running::{ConsolePort, Running};
use crate::agent_client::{AgentClient, AgentError};
use crate::project::Profile;
use crate::run_events::{StopReason, VmRef};

/// How long a guest that was asked to power off may take, before the accelerator's factor.
const POWEROFF: Duration = Duration::from_secs(10);
/// How long after the agent's channel broke QEMU may take to say why.
const LAST_WORDS: Duration = Duration::from_secs(1);

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
    /// Shut down by the test.
    Shutdown,
    /// QEMU or the guest went away by itself.
    Dead,
}

impl VmState {
    /// As `vm:state()` says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Created | Self::Booting => "created",
            Self::Booted => "booted",
            Self::Paused => "paused",
            Self::Shutdown => "shutdown",
            Self::Dead => "dead",
        }
    }
}

struct Inner {
    state: VmState,
    /// Its scope has ended: it can't be booted again.
    retired: bool,
    options: VmOptions,
    /// Of the newest boot, also after its end: the console logs outlive QEMU.
    running: Option<Arc<Running>>,
}

/// One machine.
pub struct Vm {
    reference: VmRef,
    profile: Arc<Profile>,
    bed: Testbed,
    handles: Handles,
    /// Whether its clock is to stay as it was when a snapshot of it is restored.
    clock_frozen: AtomicBool,
    inner: Mutex<Inner>,
}

impl Vm {
    /// A machine in the state `created`.
    pub fn new(reference: VmRef, profile: Arc<Profile>, options: VmOptions, bed: Testbed) -> Self {
        let inner = Mutex::new(Inner { state: VmState::Created, retired: false, options, running: None });
        let (handles, clock_frozen) = (Handles::default(), AtomicBool::new(false));
        Self { reference, profile, bed, handles, clock_frozen, inner }
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

    /// What tests hold open in it.
    pub fn handles(&self) -> &Handles {
        &self.handles
    }

    /// Its state now.
    pub fn state(&self) -> VmState {
        let inner = self.inner();
        match &inner.running {
            Some(running) if inner.state == VmState::Booted && running.death().is_some() => VmState::Dead,
            _ => inner.state,
        }
    }

    /// Bytes of RAM.
    pub fn memory(&self) -> u64 {
        self.inner().options.memory.unwrap_or(self.profile.memory)
    }

    /// Number of CPUs.
    pub fn cpus(&self) -> u32 {
        self.inner().options.cpus.unwrap_or(self.profile.cpus)
    }

    /// QEMU's process, while there is one.
    pub fn pid(&self) -> Option<u32> {
        let inner = self.inner();
        let running = inner.running.as_ref()?;
        matches!(inner.state, VmState::Booted | VmState::Paused).then(|| running.pid())
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Boots the machine and returns once its agent answers.
    ///
    /// # Errors
    /// A wrong state, an image that can't be used, a guest that does not come up.
    pub async fn boot(&self, later: VmOptions) -> Result<(), VmError> {
        let options = {
            let mut inner = self.inner();
            if inner.retired {
                return Err(VmError::Retired { vm: self.name().to_owned(), test: self.reference.test.clone() });
            }
            if !matches!(inner.state, VmState::Created | VmState::Shutdown | VmState::Dead) {
                return Err(self.wrong_state("boot", inner.state));
            }
            inner.options = inner.options.clone().overlaid(later);
            inner.state = VmState::Booting;
            inner.options.clone()
        };
        // The previous QEMU of a dead guest is kept for inspection until now.
        self.take_down(StopReason::GuestEnded).await;
        let mut unless_done = Unfinished { vm: self, done: false };
        let result = boot::boot(&self.bed, &self.reference, &self.profile, &options, |running| {
            self.inner().running = Some(running);
        })
        .await;
        unless_done.done = true;
        self.inner().state = if result.is_ok() { VmState::Booted } else { VmState::Dead };
        if result.is_err() {
            self.take_down(StopReason::BootFailed).await;
        }
        result
    }

    /// Powers the guest off. Does nothing where it is off already.
    ///
    /// # Errors
    /// When the guest is dead.
    pub async fn shutdown(&self) -> Result<(), VmError> {
        let running = {
            let mut inner = self.inner();
            match (inner.state, &inner.running) {
                (VmState::Booted | VmState::Paused, Some(running)) => Arc::clone(running),
                _ => {
                    inner.state = VmState::Shutdown;
                    return Ok(());
                }
            }
        };
        // A report just before is not lost with the guest.
        self.settle_log().await;
        let agent = running.agent().clone();
        // The reply may be lost with the guest: the end of the guest is what counts.
        let asked = tokio::spawn(async move { agent.poweroff().await });
        let limit = self.bed.scaled(POWEROFF, &self.profile);
        let _ = tokio::time::timeout(limit, running.wait_for_death()).await;
        asked.abort();
        self.inner().state = VmState::Shutdown;
        self.take_down(StopReason::Shutdown).await;
        Ok(())
    }

    /// Ends the machine at once, whatever its state.
    pub async fn destroy(&self, reason: StopReason) {
        {
            let mut inner = self.inner();
            inner.retired = true;
            if matches!(inner.state, VmState::Booted | VmState::Paused | VmState::Booting) {
                inner.state = VmState::Shutdown;
            }
        }
        self.take_down(reason).await;
    }

    async fn take_down(&self, reason: StopReason) {
        let running = self.inner().running.clone();
        if let Some(running) = running {
            running.stop(reason).await;
        }
    }

    /// Everything the console has said since the first byte of firmware; control bytes as they came.
    ///
    /// # Errors
    /// When the machine was never booted, or the log can't be read.
    pub fn console_log(&self, port: ConsolePort) -> Result<Vec<u8>, VmError> {
        let inner = self.inner();
        match &inner.running {
            Some(running) => running.console_log(port),
            None => Err(self.wrong_state("console", inner.state)),
        }
    }

    /// The last `bytes` of the console as text; none where it never said anything.
    pub fn console_tail(&self, bytes: usize) -> Option<String> {
        let running = self.inner().running.clone()?;
        running.console_tail(bytes)
    }

    fn wrong_state(&self, op: &'static str, state: VmState) -> VmError {
        VmError::State { vm: self.name().to_owned(), op, state: state.name() }
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
        let running = self.booted(op)?;
        let result = tokio::select! {
            biased;
            result = act(running.agent().clone()) => result,
            death = running.wait_for_death() => return Err(self.dead(op, &running, death)),
        };
        match result {
            Ok(value) => Ok(value),
            Err(source @ (AgentError::Op(_) | AgentError::TooMuch { .. })) => {
                Err(VmError::Agent { vm: self.name().to_owned(), source })
            }
            Err(broken) => {
                // The channel breaks a moment before QEMU's own word for it arrives.
                let death = match tokio::time::timeout(LAST_WORDS, running.wait_for_death()).await {
                    Ok(death) => death,
                    Err(_) => Death::AgentLost(broken.to_string()),
                };
                Err(self.dead(op, &running, death))
            }
        }
    }

    /// The running machine, when it is booted.
    ///
    /// # Errors
    /// Another state.
    pub(super) fn booted(&self, op: &'static str) -> Result<Arc<Running>, VmError> {
        let inner = self.inner();
        match (inner.state, &inner.running) {
            (VmState::Booted, Some(running)) => Ok(Arc::clone(running)),
            (state, _) => Err(self.wrong_state(op, state)),
        }
    }

    fn dead(&self, op: &'static str, running: &Running, death: Death) -> VmError {
        self.inner().state = VmState::Dead;
        VmError::Dead { vm: self.name().to_owned(), op, death, console: running.evidence() }
    }
}

/// Puts a machine whose boot was given up (its future dropped) into the state `dead`.
struct Unfinished<'a> {
    vm: &'a Vm,
    done: bool,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.vm.inner().state = VmState::Dead;
        }
    }
}

/// Boots all of `vms` at once; the first error is returned when all have ended.
///
/// # Errors
/// As `Vm::boot`.
pub async fn boot_all(vms: Vec<Arc<Vm>>) -> Result<(), VmError> {
    all(
        vms,
        |vm| async move { if vm.state() == VmState::Booted { Ok(()) } else { vm.boot(VmOptions::default()).await } },
    )
    .await
}

/// Shuts all of `vms` down at once.
///
/// # Errors
/// As `Vm::shutdown`.
pub async fn shutdown_all(vms: Vec<Arc<Vm>>) -> Result<(), VmError> {
    all(vms, |vm| async move { vm.shutdown().await }).await
}

async fn all<F>(vms: Vec<Arc<Vm>>, act: impl Fn(Arc<Vm>) -> F) -> Result<(), VmError>
where
    F: Future<Output = Result<(), VmError>> + Send + 'static,
{
    let mut tasks = tokio::task::JoinSet::new();
    for vm in vms {
        tasks.spawn(act(vm));
    }
    let mut first = Ok(());
    while let Some(done) = tasks.join_next().await {
        if let (Ok(Err(error)), true) = (done, first.is_ok()) {
            first = Err(error);
        }
    }
    first
}
