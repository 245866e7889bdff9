//! A machine while QEMU runs: its channels, its end, its consoles.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::console::{Console, ConsolePort};
use super::error::Death;
use super::kernel_log::KernelLog;
use crate::agent_client::AgentClient;
use crate::qemu::{GuestCondition, MachineSpec, QemuProcess, Qmp, RamFile};
use crate::run_events::{EventKind, EventSink, GuestPanic, StopReason, VmRef, VmStarted, VmStopped};

/// How much of the console an error message shows, in bytes.
const EVIDENCE: usize = 1500;
/// What TCG writes to its log before it resets a CPU that has met one.
const TRIPLE_FAULT: &str = "Triple fault";

/// How long the kernel's last reports are waited for when QEMU is gone.
const LAST_REPORTS: Duration = Duration::from_secs(2);

/// The guest's consoles.
pub struct Consoles {
    /// The serial port.
    pub serial: Arc<Console>,
    /// `hvc0`.
    pub virtio: Arc<Console>,
}

impl Consoles {
    /// Both, the serial one first.
    pub fn both(&self) -> [&Arc<Console>; 2] {
        [&self.serial, &self.virtio]
    }

    /// One of them: where none is asked for, `hvc0` if it alone has said anything (the kernel has no driver for the serial
    /// port), else the serial port.
    pub fn get(&self, port: Option<ConsolePort>) -> (ConsolePort, &Arc<Console>) {
        let port = port.unwrap_or_else(|| {
            let silent = |console: &Console| console.heard_now().length == 0;
            if silent(&self.serial) && !silent(&self.virtio) { ConsolePort::Virtio } else { ConsolePort::Serial }
        });
        match port {
            ConsolePort::Serial => (port, &self.serial),
            ConsolePort::Virtio => (port, &self.virtio),
        }
    }
}

/// What a machine was built from.
pub struct Built {
    /// As QEMU was told.
    pub spec: MachineSpec,
    /// The file of its RAM, where it has one.
    pub ram: Option<RamFile>,
}

/// A started QEMU and what is known of its guest.
pub struct Running {
    vm: VmRef,
    sink: EventSink,
    qemu: QemuProcess,
    agent: Mutex<Option<AgentClient>>,
    death: watch::Sender<Option<Death>>,
    consoles: Consoles,
    built: Built,
    log: KernelLog,
    /// Whether it was told that it runs.
    announced: AtomicBool,
    stopped: AtomicBool,
    /// How many operations have QEMU stop the guest for a moment.
    holding: AtomicU32,
    /// The socket of gdb's stub, once it was opened.
    gdb: tokio::sync::Mutex<Option<PathBuf>>,
}

impl Running {
    /// A machine whose QEMU has just started.
    pub fn new(
        vm: VmRef,
        sink: EventSink,
        qemu: QemuProcess,
        consoles: Consoles,
        built: Built,
        log: KernelLog,
    ) -> Self {
        Self {
            vm,
            sink,
            qemu,
            agent: Mutex::new(None),
            death: watch::Sender::new(None),
            consoles,
            built,
            log,
            announced: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            holding: AtomicU32::new(0),
            gdb: tokio::sync::Mutex::new(None),
        }
    }

    /// Tells that it runs.
    pub fn announce(&self, started: VmStarted) {
        self.announced.store(true, Ordering::SeqCst);
        self.sink.emit(EventKind::VmStarted(started));
    }

    /// What it was built from.
    pub fn built(&self) -> &Built {
        &self.built
    }

    /// QEMU's process.
    pub fn pid(&self) -> u32 {
        self.qemu.pid()
    }

    /// QEMU itself.
    pub fn qemu(&self) -> &QemuProcess {
        &self.qemu
    }

    /// QEMU's control channel.
    pub fn qmp(&self) -> &Qmp {
        self.qemu.qmp()
    }

    /// Whether QEMU is there, whatever became of its guest.
    pub fn qemu_lives(&self) -> bool {
        !self.stopped.load(Ordering::SeqCst) && self.qemu.exit_watch().borrow().is_none()
    }

    /// The guest's condition, as QEMU tells.
    pub fn condition(&self) -> GuestCondition {
        *self.qmp().condition().borrow()
    }

    /// Whether the guest's CPUs stand still because somebody stopped them.
    pub fn is_paused(&self) -> bool {
        let condition = self.condition();
        condition.stopped && condition.end.is_none() && self.holding.load(Ordering::SeqCst) == 0
    }

    /// Until the guard is dropped, a guest that QEMU stops for a moment does not count as paused.
    pub fn hold(self: &Arc<Self>) -> Hold {
        self.holding.fetch_add(1, Ordering::SeqCst);
        Hold(Arc::clone(self))
    }

    /// The place of gdb's socket.
    pub fn gdb(&self) -> &tokio::sync::Mutex<Option<PathBuf>> {
        &self.gdb
    }

    /// The consoles.
    pub fn consoles(&self) -> &Consoles {
        &self.consoles
    }

    /// What its kernel logs.
    pub fn log(&self) -> &KernelLog {
        &self.log
    }

    /// Makes the agent's channel known.
    pub fn set_agent(&self, agent: AgentClient) {
        self.log.follow(agent.clone());
        *self.agent.lock().unwrap_or_else(PoisonError::into_inner) = Some(agent);
    }

    /// The agent of before a snapshot is back; its log goes on where it was.
    pub fn set_agent_again(&self, agent: AgentClient) {
        self.log.go_on(agent.clone());
        *self.agent.lock().unwrap_or_else(PoisonError::into_inner) = Some(agent);
    }

    /// The agent's channel, where there is one.
    pub fn find_agent(&self) -> Option<AgentClient> {
        self.agent.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes the agent's channel away.
    pub fn take_agent(&self) -> Option<AgentClient> {
        self.agent.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// How the guest went away, once it has.
    pub fn death(&self) -> Option<Death> {
        self.death.borrow().clone()
    }

    /// Waits until the guest goes away.
    pub async fn wait_for_death(&self) -> Death {
        self.wait_for(|_| true).await
    }

    /// Waits until the guest is down; an agent that is lost does not count: it may be lost because the guest goes down.
    pub async fn wait_for_down(&self) -> Death {
        self.wait_for(|death| !matches!(death, Death::AgentLost(_))).await
    }

    async fn wait_for(&self, counts: impl Fn(&Death) -> bool) -> Death {
        let mut deaths = self.death.subscribe();
        match deaths.wait_for(|death| death.as_ref().is_some_and(&counts)).await {
            Ok(death) => death.clone().expect("waited for"),
            Err(_) => Death::QemuEnded("it was taken down".to_owned()),
        }
    }

    /// Tells that the guest of the boot after `resets` resets went away. The first word counts, except that more than the
    /// loss of the agent may become known later.
    pub fn died(&self, resets: u64, death: Death) {
        let news = self.death.send_if_modified(|known| {
            // Late news of the guest before its reset is none.
            let late = self.condition().resets != resets && !matches!(death, Death::QemuEnded(_));
            let settled = match known {
                None => false,
                Some(Death::AgentLost(_)) => matches!(death, Death::AgentLost(_)),
                Some(_) => true,
            };
            if late || settled {
                return false;
            }
            *known = Some(death.clone());
            // Before anybody learns of it: whoever asks for the last reports then gets them.
            self.log.guest_gone();
            true
        });
        if let (true, Death::Panicked(line)) = (news, &death) {
            let message = line.clone().unwrap_or_else(|| "kernel panic".to_owned());
            self.sink.emit(EventKind::GuestPanic(GuestPanic { vm: self.vm.clone(), message }));
        }
    }

    /// Another boot of the same QEMU begins: nothing of the last one counts any more. To be called when the machine has been
    /// reset and its CPUs stand still.
    pub fn begin_anew(&self) {
        for console in self.consoles.both() {
            console.begin_anew();
        }
        // Emptied, not removed: QEMU writes on to the file it has open.
        let _ = std::fs::File::create(&self.built.spec.reset_log);
        self.death.send_if_modified(|death| match death {
            None | Some(Death::QemuEnded(_)) => false,
            Some(_) => death.take().is_some(),
        });
    }

    /// Kills QEMU, waits for its end and tells so; only the first call does anything.
    pub async fn stop(&self, reason: StopReason) {
        if self.stopped.swap(true, Ordering::SeqCst) {
            return;
        }
        let death = self.death();
        self.qemu.kill().await;
        self.died(0, Death::QemuEnded("it was taken down".to_owned()));
        let reason = match (&death, reason) {
            (Some(Death::Panicked(_)), StopReason::ScopeEnded | StopReason::GuestEnded) => StopReason::Panicked,
            (Some(Death::PoweredOff | Death::Reset | Death::TripleFault), StopReason::ScopeEnded) => {
                StopReason::GuestEnded
            }
            (Some(Death::QemuEnded(_)), StopReason::ScopeEnded | StopReason::GuestEnded) => StopReason::QemuDied,
            (Some(Death::AgentLost(_)), StopReason::ScopeEnded | StopReason::GuestEnded) => StopReason::AgentLost,
            (_, reason) => reason,
        };
        self.log.sync(false, LAST_REPORTS).await;
        if !self.announced.load(Ordering::SeqCst) {
            return;
        }
        let detail = death.map(|death| death.to_string());
        self.sink.emit(EventKind::VmStopped(VmStopped { vm: self.vm.clone(), reason, detail }));
    }

    /// The kernel's own line of a panic, where a console has one.
    pub fn panic_line(&self) -> Option<String> {
        self.consoles.both().into_iter().find_map(|console| console.heard_now().panic)
    }

    /// Whether the last reset of a CPU was a triple fault, where QEMU tells.
    pub fn had_triple_fault(&self) -> bool {
        std::fs::read(&self.built.spec.reset_log)
            .is_ok_and(|log| memchr::memmem::find(&log, TRIPLE_FAULT.as_bytes()).is_some())
    }

    /// The last `bytes` of what the guest said: of `hvc0` where the serial port is silent.
    pub fn console_tail(&self, bytes: usize) -> Option<String> {
        self.consoles.both().into_iter().filter_map(|console| console.tail(bytes)).find(|tail| !tail.trim().is_empty())
    }

    /// The console's last lines as they are put behind an error message.
    pub fn evidence(&self) -> String {
        match self.console_tail(EVIDENCE) {
            None => "\nthe guest's console is empty".to_owned(),
            Some(tail) => {
                let lines: Vec<String> = tail.trim_end().lines().map(|line| format!("  | {line}")).collect();
                format!("\nthe guest's console ends with:\n{}", lines.join("\n"))
            }
        }
    }
}

/// See [`Running::hold`].
pub struct Hold(Arc<Running>);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.holding.fetch_sub(1, Ordering::SeqCst);
    }
}
