//! A machine while QEMU runs: its channels, its end, its consoles.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use super::error::{Death, VmError};
use super::kernel_log::KernelLog;
use crate::agent_client::AgentClient;
use crate::foundation::path_error::PathContext;
use crate::qemu::{QemuProcess, console};
use crate::run_events::{EventKind, EventSink, GuestPanic, StopReason, VmRef, VmStopped};

/// How much of the console an error message shows, in bytes.
const EVIDENCE: usize = 1500;

/// How long the kernel's last reports are waited for when QEMU is gone.
const LAST_REPORTS: Duration = Duration::from_secs(2);

/// One of the guest's consoles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsolePort {
    /// `ttyS0` (`ttyAMA0` on aarch64), from the first byte of firmware.
    Serial,
    /// `hvc0`.
    Virtio,
}

/// The console logs of one machine.
#[derive(Debug, Clone)]
pub struct ConsoleFiles {
    /// Of the serial port.
    pub serial: PathBuf,
    /// Of `hvc0`.
    pub virtio: PathBuf,
}

/// A started QEMU and what is known of its guest.
pub struct Running {
    vm: VmRef,
    sink: EventSink,
    qemu: QemuProcess,
    agent: OnceLock<AgentClient>,
    death: watch::Sender<Option<Death>>,
    consoles: ConsoleFiles,
    log: KernelLog,
    stopped: AtomicBool,
}

impl Running {
    /// A machine whose QEMU has just started; `vm_started` is told already.
    pub fn new(vm: VmRef, sink: EventSink, qemu: QemuProcess, consoles: ConsoleFiles, log: KernelLog) -> Self {
        Self {
            vm,
            sink,
            qemu,
            agent: OnceLock::new(),
            death: watch::Sender::new(None),
            consoles,
            log,
            stopped: AtomicBool::new(false),
        }
    }

    /// QEMU's process.
    pub fn pid(&self) -> u32 {
        self.qemu.pid()
    }

    /// QEMU itself.
    pub fn qemu(&self) -> &QemuProcess {
        &self.qemu
    }

    /// Makes the agent's channel known, once.
    pub fn set_agent(&self, agent: AgentClient) {
        self.log.follow(agent.clone());
        // A second agent can't be: there is one connection to a boot.
        let _ = self.agent.set(agent);
    }

    /// What its kernel logs.
    pub fn log(&self) -> &KernelLog {
        &self.log
    }

    /// The agent's channel.
    pub fn agent(&self) -> &AgentClient {
        self.agent.get().expect("a machine is `booted` only once its agent is set")
    }

    /// How the guest went away, once it has.
    pub fn death(&self) -> Option<Death> {
        self.death.borrow().clone()
    }

    /// Waits until the guest goes away.
    pub async fn wait_for_death(&self) -> Death {
        let mut deaths = self.death.subscribe();
        match deaths.wait_for(Option::is_some).await {
            Ok(death) => death.clone().expect("waited for"),
            Err(_) => Death::QemuEnded("it was taken down".to_owned()),
        }
    }

    /// Tells that the guest went away; the first word counts.
    pub fn died(&self, death: Death) {
        let first = self.death.send_if_modified(|known| {
            let first = known.is_none();
            known.get_or_insert(death.clone());
            if first {
                // Before anybody learns of it: whoever asks for the last reports then gets them.
                self.log.guest_gone();
            }
            first
        });
        if let (true, Death::Panicked(line)) = (first, &death) {
            let message = line.clone().unwrap_or_else(|| "kernel panic".to_owned());
            self.sink.emit(EventKind::GuestPanic(GuestPanic { vm: self.vm.clone(), message }));
        }
    }

    /// Kills QEMU, waits for its end and tells so; only the first call does anything.
    pub async fn stop(&self, reason: StopReason) {
        if self.stopped.swap(true, Ordering::SeqCst) {
            return;
        }
        let death = self.death();
        self.qemu.kill().await;
        self.died(Death::QemuEnded("it was taken down".to_owned()));
        let reason = match (&death, reason) {
            (Some(Death::Panicked(_)), StopReason::ScopeEnded | StopReason::GuestEnded) => StopReason::Panicked,
            (Some(Death::PoweredOff | Death::Reset), StopReason::ScopeEnded) => StopReason::GuestEnded,
            (Some(Death::QemuEnded(_)), StopReason::ScopeEnded | StopReason::GuestEnded) => StopReason::QemuDied,
            (Some(Death::AgentLost(_)), StopReason::ScopeEnded | StopReason::GuestEnded) => StopReason::AgentLost,
            (_, reason) => reason,
        };
        self.log.sync(false, LAST_REPORTS).await;
        let detail = death.map(|death| death.to_string());
        self.sink.emit(EventKind::VmStopped(VmStopped { vm: self.vm.clone(), reason, detail }));
    }

    /// The kernel's own line of a panic, where a console has one.
    pub fn panic_line(&self) -> Option<String> {
        [ConsolePort::Serial, ConsolePort::Virtio].into_iter().find_map(|port| console::panic_line(self.path(port)))
    }

    /// What the launcher in the guest could not do, where it said so.
    pub fn launcher_complaint(&self, port: ConsolePort) -> Option<String> {
        console::launcher_complaint(self.path(port))
    }

    fn path(&self, port: ConsolePort) -> &PathBuf {
        match port {
            ConsolePort::Serial => &self.consoles.serial,
            ConsolePort::Virtio => &self.consoles.virtio,
        }
    }

    /// All that a console said so far.
    ///
    /// # Errors
    /// When the log can't be read.
    pub fn console_log(&self, port: ConsolePort) -> Result<Vec<u8>, VmError> {
        let path = self.path(port);
        std::fs::read(path).at("read", path).map_err(VmError::File)
    }

    /// The last `bytes` of what the guest said: of `hvc0` where the serial port is silent.
    pub fn console_tail(&self, bytes: usize) -> Option<String> {
        [ConsolePort::Serial, ConsolePort::Virtio]
            .into_iter()
            .filter_map(|port| console::tail(self.path(port), bytes).ok())
            .find(|tail| !tail.trim().is_empty())
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
