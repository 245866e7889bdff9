//! A machine's power and its buttons: shut down, pause, reset, and waiting for a guest that does so itself.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::boot::{self, Meeting};
use super::error::{Death, VmError};
use super::guest::Guest;
use super::network;
use super::running::Running;
use super::vm::{Down, Unfinished, Vm, VmState};
use crate::agent_client::AgentError;
use crate::agent_protocol::{Button, Op, OpReply};
use crate::run_events::{BootHow, StopReason};

/// How long a guest that was asked to power off may take, before the accelerator's factor.
const POWEROFF: Duration = Duration::from_secs(10);
/// How long a guest is waited for that goes down, or comes up again, by itself; before the accelerator's factor.
const BY_ITSELF: Duration = Duration::from_secs(60);
/// The drivers of the power button and of what programs read it from.
const BUTTON_MODULES: [&str; 2] = ["button", "evdev"];
/// How long a reset takes at most: QEMU alone does it.
const RESET: Duration = Duration::from_secs(30);
/// How long a guest that is about to fall asleep may take, before the accelerator's factor.
const FALL_ASLEEP: Duration = Duration::from_secs(1);
/// How long a guest that was woken may take to answer, before the accelerator's factor.
const WAKE_UP: Duration = Duration::from_secs(30);

impl Vm {
    /// A command to QEMU on behalf of `op`.
    pub(super) async fn qemu(
        &self,
        op: &'static str,
        running: &Running,
        command: &str,
        arguments: Value,
    ) -> Result<Value, VmError> {
        let result = running.qmp().execute(command, arguments).await;
        result.map_err(|error| VmError::Qemu { vm: self.name().to_owned(), op, source: error.into() })
    }

    /// Powers the guest off. Does nothing where it is off already.
    ///
    /// # Errors
    /// When QEMU does not go on with a paused guest.
    pub async fn shutdown(&self) -> Result<(), VmError> {
        let (state, running) = self.look();
        if let (VmState::Booted | VmState::Paused, Some(running)) = (state, running) {
            if running.is_paused() {
                self.qemu("shutdown", &running, "cont", Value::Null).await?;
            }
            if running.condition().suspended {
                self.qemu("shutdown", &running, "system_wakeup", Value::Null).await?;
            }
            // A report just before is not lost with the guest.
            self.settle_log().await;
            if let Some(agent) = running.find_agent() {
                // The reply may be lost with the guest: the end of the guest is what counts.
                let asked = tokio::spawn(async move { agent.poweroff().await });
                let _ = tokio::time::timeout(self.scaled(POWEROFF), running.wait_for_down()).await;
                asked.abort();
            }
        }
        match state {
            VmState::Shutdown => self.take_down(StopReason::Shutdown).await,
            _ => self.settle_down(Down::Shutdown, StopReason::Shutdown).await,
        }
        Ok(())
    }

    /// Stops the CPUs.
    ///
    /// # Errors
    /// Any state but `booted`.
    pub async fn pause(&self) -> Result<(), VmError> {
        let booted = self.booted("pause")?;
        self.qemu("pause", &booted.running, "stop", Value::Null).await.map(drop)
    }

    /// Lets the CPUs go on.
    ///
    /// # Errors
    /// Any state but `paused`.
    pub async fn resume(&self) -> Result<(), VmError> {
        match self.look() {
            (VmState::Paused, Some(running)) => self.qemu("resume", &running, "cont", Value::Null).await.map(drop),
            (state, running) => Err(self.not_in("resume", state, running.as_deref())),
        }
    }

    /// Presses the reset button and waits until the agent answers again.
    ///
    /// # Errors
    /// A machine that is neither booted nor paused, a guest that does not come up.
    pub async fn reset(&self) -> Result<(), VmError> {
        self.restart("reset", &[VmState::Booted, VmState::Paused], None).await
    }

    /// Waits until the guest has reset itself and its agent answers again.
    ///
    /// # Errors
    /// A wrong state, a guest that goes down in another way, or does nothing in time.
    pub async fn wait_reboot(&self, timeout: Option<Duration>) -> Result<(), VmError> {
        const OP: &str = "wait_reboot";
        let limit = timeout.unwrap_or_else(|| self.scaled(BY_ITSELF));
        let deadline = Instant::now().checked_add(limit);
        let running = self.up_or_down(OP)?;
        match self.in_time(OP, "the guest did not reboot", limit, running.wait_for_down()).await? {
            Death::Reset | Death::TripleFault => {}
            other => return Err(self.dead(OP, &running, other)),
        }
        let restart = self.restart(OP, &[VmState::Dead], timeout.and(deadline));
        match timeout.and(deadline) {
            None => restart.await,
            Some(deadline) => match tokio::time::timeout_at(deadline, restart).await {
                Ok(result) => result,
                Err(_) => Err(self.too_late(OP, "the guest did not come up again", limit)),
            },
        }
    }

    /// The QEMU of a machine that is booted or whose guest has gone down by itself.
    fn up_or_down(&self, op: &'static str) -> Result<Arc<Running>, VmError> {
        match self.look() {
            (VmState::Booted, Some(running)) => Ok(running),
            (VmState::Dead, Some(running)) if running.qemu_lives() => Ok(running),
            (state, running) => Err(self.not_in(op, state, running.as_deref())),
        }
    }

    async fn in_time<T>(
        &self,
        op: &'static str,
        what: &str,
        limit: Duration,
        future: impl Future<Output = T>,
    ) -> Result<T, VmError> {
        tokio::time::timeout(limit, future).await.map_err(|_| self.too_late(op, what, limit))
    }

    fn too_late(&self, op: &'static str, what: &str, waited: Duration) -> VmError {
        VmError::Timeout { vm: self.name().to_owned(), op, what: what.to_owned(), waited }
    }

    /// Resets the machine and meets its agent again.
    async fn restart(&self, op: &'static str, from: &[VmState], deadline: Option<Instant>) -> Result<(), VmError> {
        let Some(running) = self.leave(op, from, VmState::Restarting)? else {
            return Err(self.wrong_state(op, self.state()));
        };
        let begun = std::time::Instant::now();
        let unless_done = Unfinished::of(self);
        let result = async {
            let channel = self.begin_again(op, &running).await?;
            let mut options = self.options();
            if let Some(deadline) = deadline {
                // The author's own limit is the one that is told.
                options.agent_timeout = Some(deadline.duration_since(Instant::now()) + RESET);
            }
            let meeting = Meeting {
                bed: self.bed(),
                vm: self.reference(),
                profile: self.profile_value(),
                options: &options,
                running: &running,
                op,
            };
            let hello = tokio::select! {
                hello = meeting.meet(channel) => hello?,
                error = self.hold_resets(op, &running) => return Err(error),
            };
            self.qemu(op, &running, "set-action", json!({"reboot": "shutdown"})).await?;
            let guest = begun.elapsed();
            boot::ready(self.bed(), self.reference(), &hello, BootHow::Boot, guest, &[("guest", guest)]);
            Ok(())
        }
        .await;
        unless_done.finish(result.is_ok());
        result?;
        network::bring_up_all(self, op).await
    }

    /// Has QEMU begin anew. Returns the agent's channel, with nothing of the last boot in it.
    async fn begin_again(&self, op: &'static str, running: &Running) -> Result<UnixStream, VmError> {
        let condition = running.condition();
        // QEMU would wait for requests that hang.
        self.abort_hanging(true);
        let _restored = OnDrop(|| self.abort_hanging(false));
        if !condition.stopped {
            self.qemu(op, running, "stop", Value::Null).await?;
        }
        let stream = match running.take_agent() {
            None => None,
            Some(agent) => agent.withdraw("the VM was reset").await,
        };
        let Some(stream) = stream else {
            let why = "the connection to the agent is broken\nhint: `:shutdown()` and `:boot()` start another QEMU";
            return Err(VmError::Refused { vm: self.name().to_owned(), op, why: why.to_owned() });
        };
        // A reset would end QEMU otherwise.
        self.qemu(op, running, "set-action", json!({"reboot": "reset"})).await?;
        self.qemu(op, running, "system_reset", Value::Null).await?;
        let mut conditions = running.qmp().condition();
        let reset = conditions.wait_for(|now| now.resets > condition.resets);
        let _ = self.in_time(op, "QEMU did not reset the machine", RESET, reset).await?;
        discard(&stream);
        running.begin_anew();
        self.power_disks();
        self.qemu(op, running, "cont", Value::Null).await?;
        Ok(stream)
    }

    /// Firmware that finds its traces in memory resets the machine once more; from then on a reset is the guest's own and
    /// stops it. Returns only an error.
    async fn hold_resets(&self, op: &'static str, running: &Running) -> VmError {
        let mut condition = running.qmp().condition();
        let before = condition.borrow().resets;
        if condition.wait_for(|now| now.resets > before).await.is_ok()
            && let Err(error) = self.qemu(op, running, "set-action", json!({"reboot": "shutdown"})).await
        {
            return error;
        }
        std::future::pending().await
    }

    /// Waits until the guest goes down by itself.
    ///
    /// # Errors
    /// A wrong state, a QEMU that goes away, a guest that stays up.
    pub async fn wait_shutdown(&self, timeout: Option<Duration>) -> Result<Down, VmError> {
        const OP: &str = "wait_shutdown";
        if self.state() == VmState::Shutdown {
            return Ok(self.how_down());
        }
        let running = self.up_or_down(OP)?;
        let limit = timeout.unwrap_or_else(|| self.scaled(BY_ITSELF));
        let down = match self.in_time(OP, "the guest did not go down", limit, running.wait_for_down()).await? {
            Death::PoweredOff => Down::Shutdown,
            Death::Reset | Death::TripleFault => Down::Reset,
            Death::Panicked(_) => return Ok(Down::Panic),
            other => return Err(self.dead(OP, &running, other)),
        };
        self.settle_down(down, StopReason::GuestEnded).await;
        Ok(down)
    }

    /// Presses the power button and waits until the guest has powered off. Where nothing in the guest listens to the button,
    /// the agent does.
    ///
    /// # Errors
    /// A machine that is not booted, a kernel without the button's drivers, a guest that does not power off.
    pub async fn power_button(self: &Arc<Self>, timeout: Option<Duration>) -> Result<(), VmError> {
        const OP: &str = "power_button";
        let running = self.booted(OP)?.running;
        if self.watch_button().await? == Button::NoDevice {
            let guest = Guest::new(Arc::clone(self));
            for module in BUTTON_MODULES {
                // A kernel may have one built in; what counts is whether the button is there then.
                let _ = guest.load_profile_module(module, "").await;
            }
            if self.watch_button().await? == Button::NoDevice {
                let why = "the guest's kernel shows no power button\nhint: it needs CONFIG_ACPI_BUTTON and CONFIG_INPUT_EVDEV, \
                           built in or as `button` and `evdev` in the profile's `modules`";
                return Err(VmError::Refused { vm: self.name().to_owned(), op: OP, why: why.to_owned() });
            }
        }
        self.qemu(OP, &running, "system_powerdown", Value::Null).await?;
        let limit = timeout.unwrap_or_else(|| self.scaled(BY_ITSELF));
        match self.in_time(OP, "the guest did not power off", limit, running.wait_for_down()).await? {
            Death::PoweredOff => self.settle_down(Down::Shutdown, StopReason::Shutdown).await,
            other => return Err(self.dead(OP, &running, other)),
        }
        Ok(())
    }

    async fn watch_button(&self) -> Result<Button, VmError> {
        let reply = self.op("power_button", async |agent| agent.op(Op::WatchPowerButton).await).await?;
        match reply {
            OpReply::Button(button) => Ok(button),
            _ => Ok(Button::NoDevice),
        }
    }

    /// Wakes a guest that sleeps, and returns once its agent answers.
    ///
    /// # Errors
    /// A guest that does not sleep, or does not wake up.
    pub async fn wakeup(&self) -> Result<(), VmError> {
        const OP: &str = "wakeup";
        let booted = self.booted(OP)?;
        let (running, agent) = (&booted.running, booted.agent());
        let mut condition = running.qmp().condition();
        let asleep = condition.wait_for(|now| now.suspended);
        if !matches!(tokio::time::timeout(self.scaled(FALL_ASLEEP), asleep).await, Ok(Ok(_))) {
            let why = "the guest is not suspended".to_owned();
            return Err(VmError::Refused { vm: self.name().to_owned(), op: OP, why });
        }
        self.qemu(OP, running, "system_wakeup", Value::Null).await?;
        let limit = self.scaled(WAKE_UP);
        tokio::select! {
            answered = self.in_time(OP, "the guest did not wake up", limit, agent.ping()) => match answered? {
                Ok(()) => Ok(()),
                Err(AgentError::Withdrawn(why)) => {
                    Err(VmError::Interrupted { vm: self.name().to_owned(), op: OP, why })
                }
                Err(source) => Err(VmError::Agent { vm: self.name().to_owned(), source }),
            },
            death = running.wait_for_death() => Err(self.dead(OP, running, death)),
        }
    }
}

/// Calls a function when it is dropped, however that comes.
struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Throws away what the guest sent before its reset.
fn discard(stream: &UnixStream) {
    use std::io::Read;
    let Ok(socket) = std::os::fd::AsFd::as_fd(stream).try_clone_to_owned() else { return };
    let mut socket = std::os::unix::net::UnixStream::from(socket);
    let mut buffer = [0; 64 * 1024];
    // The socket does not block: an error means that it is empty.
    while matches!(socket.read(&mut buffer), Ok(1..)) {}
}
