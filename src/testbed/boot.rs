//! From a profile to an agent that answers.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::UnixStream;

use super::bed::{ProfileImages, Testbed};
use super::console::Console;
use super::disks::AttachedDisk;
use super::error::{Death, VmError};
use super::launch::Launch;
use super::network::VmNetwork;
use super::options::VmOptions;
use super::running::Running;
use super::vm_disks::start_disks;
use super::watch::watch;
use crate::agent_client::{self, AgentClient, Hello};
use crate::agent_protocol::{GuestInit, LAUNCHER_PATH, PORT_NAME, RootDevice};
use crate::foundation::duration::format_duration;
use crate::foundation::nix_value::Value;
use crate::foundation::path_error::PathContext;
use crate::project::{Arch, CmdlineRequest, Profile, RootWords, Setting, effective_cmdline};
use crate::qemu::{MachineSpec, QemuError, RamKind};
use crate::run_events::{BootHow, EventKind, VmReady, VmRef, Warning};

/// How long boot waits for the agent, before the accelerator's factor.
const AGENT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an agent may give no sign of life while something is asked of it, before the accelerator's factor.
const SILENT_AGENT: Duration = Duration::from_secs(30);
/// How long an agent that ended is waited for, before the accelerator's factor: the guest may be going down.
pub const AGENT_ENDED: Duration = Duration::from_secs(3);
/// A console that is silent this long has said all of a complaint.
const COMPLAINT_PAUSE: Duration = Duration::from_millis(200);
/// How long after the agent's channel broke QEMU may take to say why.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Boots one machine; `started` is called as soon as QEMU runs, so that whoever gives up can stop it.
///
/// # Errors
/// See `Vm::boot`.
pub async fn boot(
    bed: &Testbed,
    vm: &VmRef,
    profile: &Arc<Profile>,
    options: &VmOptions,
    network: &VmNetwork,
    disks: &[Arc<AttachedDisk>],
    started: impl FnOnce(Arc<Running>),
) -> Result<(), VmError> {
    let begun = Instant::now();
    if profile.arch != Arch::host() {
        let message = format!(
            "`{}` can't be booted on this host: guests of another architecture are not supported yet, expected `{}`",
            profile.arch.name(),
            Arch::host().name()
        );
        return Err(VmError::Image { vm: vm.vm.clone(), profile: profile.name.clone(), key: "arch", message });
    }
    let machine = bed.machine().await?;
    let images = bed.profile_images(&vm.vm, profile).await?;
    let drivers = disks.iter().flat_map(|disk| disk.device().bus.modules()).copied().collect();
    let prepared = prepare(bed, vm, profile, options, &images, drivers).await?;
    let settings = &bed.shared.settings;
    if let Some(message) = prepared.notice {
        settings.sink.emit(EventKind::Warning(Warning { message, hint: None }));
    }
    let memory = options.memory.unwrap_or(profile.memory);
    let own = MachineSpec::chooses_ram(profile.machine.as_deref(), &profile.qemu_args);
    let (layout, disks) = start_disks(disks);
    let spec = MachineSpec {
        name: vm.vm.clone(),
        arch: std::env::consts::ARCH.to_owned(),
        accel: machine.accel(),
        memory,
        cpus: options.cpus.unwrap_or(profile.cpus),
        cpu_model: profile.cpu.clone(),
        machine: profile.machine.clone(),
        kernel: prepared.kernel,
        initrd: prepared.initrd,
        cmdline: prepared.cmdline.clone(),
        agent_port: PORT_NAME.to_owned(),
        rng_seed: options.rng_seed,
        initial_time: options.initial_time,
        cards: network.specs(),
        disks: layout,
        extra: profile.qemu_args.clone(),
        ram: if own { RamKind::Own } else { RamKind::Shared },
        ..MachineSpec::default()
    };
    let prepare_time = begun.elapsed();
    let launch = Launch { bed, vm, profile, kernel_store_path: images.kernel_store_path.clone(), op: "boot" };
    let mut launched = launch.start(spec, None, disks).await?;
    launched.announce();
    let running = Arc::clone(&launched.running);
    let Some(channel) = launched.take_channel() else {
        return Err(VmError::Environment("the agent's channel is in use".to_owned()));
    };
    started(Arc::clone(&running));
    network.plug_all(&vm.vm, launched.take_cables(), &running).await?;
    tokio::spawn(watch(Arc::clone(&running), bed.scaled(AGENT_ENDED, profile)));
    let meeting = Meeting { bed, vm, profile, options, running: &running, op: "boot" };
    let hello = meeting.meet(channel).await?;
    let whole = begun.elapsed();
    let guest = whole.saturating_sub(prepare_time);
    ready(bed, vm, &hello, BootHow::Boot, guest, &[("prepare", prepare_time), ("guest", guest)]);
    Ok(())
}
/// A guest on its way up, and what waits for its agent.
pub struct Meeting<'a> {
    /// The run.
    pub bed: &'a Testbed,
    /// The machine.
    pub vm: &'a VmRef,
    /// Its profile.
    pub profile: &'a Profile,
    /// Its options.
    pub options: &'a VmOptions,
    /// Its QEMU.
    pub running: &'a Arc<Running>,
    /// What the author called.
    pub op: &'static str,
}

impl Meeting<'_> {
    /// Waits until the agent answers on `channel`, and makes it known to the machine.
    ///
    /// # Errors
    /// The guest goes away, its agent or launcher says why it can't serve, or nothing is heard in time.
    pub async fn meet(&self, channel: UnixStream) -> Result<Hello, VmError> {
        let (vm, op) = (self.vm.vm.clone(), self.op);
        let limit = self.options.agent_timeout.unwrap_or_else(|| self.bed.scaled(AGENT_TIMEOUT, self.profile));
        let connected = tokio::select! {
            biased;
            connected = tokio::time::timeout(limit, agent_client::connect(channel)) => connected,
            death = self.running.wait_for_death() => return Err(self.dead(death)),
            message = complaint(&self.running.consoles().serial) => return Err(self.failed(message)),
            message = complaint(&self.running.consoles().virtio) => return Err(self.failed(message)),
        };
        let (agent, hello) = match connected {
            Ok(Ok(connected)) => connected,
            Ok(Err(error)) => {
                return Err(match tokio::time::timeout(LAST_WORDS, self.running.wait_for_death()).await {
                    Ok(death) => self.dead(death),
                    Err(_) => self.failed(error.to_string()),
                });
            }
            Err(_) if !self.profile.inject_agent => {
                return Err(self.failed(format!(
                    "the agent did not answer within {}\nhint: the profile says `inject_agent = false`, so that the image \
                     itself must start `provium-agent --serve` as root, and have the drivers for virtio-serial",
                    format_duration(limit)
                )));
            }
            Err(_) => return Err(VmError::BootTimeout { vm, op, waited: limit, console: self.running.evidence() }),
        };
        if let Some(message) = hello.boot_error.clone() {
            return Err(self.failed(message));
        }
        guard(self.bed, self.profile, self.running, &agent);
        self.running.set_agent(agent);
        Ok(hello)
    }

    fn dead(&self, death: Death) -> VmError {
        VmError::Dead { vm: self.vm.vm.clone(), op: self.op, death, console: self.running.evidence() }
    }

    fn failed(&self, message: String) -> VmError {
        VmError::BootFailed { vm: self.vm.vm.clone(), op: self.op, message, console: self.running.evidence() }
    }
}

/// Gives `agent` up where it is silent for too long.
pub fn guard(bed: &Testbed, profile: &Profile, running: &Arc<Running>, agent: &AgentClient) {
    let machine = Arc::downgrade(running);
    agent.give_up_after(bed.scaled(SILENT_AGENT, profile), move || {
        machine.upgrade().is_none_or(|machine| machine.condition().at_rest())
    });
}

/// Waits until the launcher or the agent says on `console` why it can't serve, then for the rest of what it says.
async fn complaint(console: &Console) -> String {
    let mut heard = console.heard();
    if heard.wait_for(|heard| !heard.complaints.is_empty()).await.is_err() {
        return std::future::pending().await;
    }
    let rest = async { while let Ok(Ok(())) = tokio::time::timeout(COMPLAINT_PAUSE, heard.changed()).await {} };
    // A console that never rests does not hold the message back.
    let _ = tokio::time::timeout(LAST_WORDS, rest).await;
    heard.borrow().complaints.join("\n")
}

/// What QEMU is told to boot.
pub struct Prepared {
    /// The kernel.
    pub kernel: PathBuf,
    /// The initrd, with the agent in front.
    pub initrd: PathBuf,
    /// The effective command line.
    pub cmdline: String,
    /// What is to be told about it, once.
    pub notice: Option<String>,
}

/// Makes what a machine boots from.
///
/// # Errors
/// An image that can't be used.
pub async fn prepare(
    bed: &Testbed,
    vm: &VmRef,
    profile: &Arc<Profile>,
    options: &VmOptions,
    images: &ProfileImages,
    drivers: Vec<&'static str>,
) -> Result<Prepared, VmError> {
    let work = {
        let (bed, profile, options, images) = (bed.clone(), Arc::clone(profile), options.clone(), images.clone());
        move || prepare_now(&bed, &profile, &options, &images, &drivers)
    };
    let prepared = match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(("kernel", format!("preparing it failed: {error}"))),
    };
    prepared.map_err(|(key, message)| {
        let error = VmError::Image { vm: vm.vm.clone(), profile: profile.name.clone(), key, message };
        let is_nix = |(of, setting): (&str, &Setting<Value>)| of == key && matches!(setting.value, Value::Nix(_));
        // What Nix made and can't be used is the environment's fault, not the test's.
        if profile.values().into_iter().any(is_nix) { bed.break_down(error.to_string()) } else { error }
    })
}

/// Reads and writes files. A failure names the profile's key.
fn prepare_now(
    bed: &Testbed,
    profile: &Profile,
    options: &VmOptions,
    images: &ProfileImages,
    drivers: &[&'static str],
) -> Result<Prepared, (&'static str, String)> {
    let problem = |(key, error): (&'static str, QemuError)| (key, error.to_string());
    let (cache, agent) = (&bed.shared.images, &bed.shared.settings.agent);
    let kernel = cache.kernel(images, profile.fast_boot).map_err(problem)?;
    let file_text = match &images.cmdline_file {
        None => String::new(),
        Some(path) => {
            std::fs::read_to_string(path).at("read", path).map_err(|error| ("cmdline_file", error.to_string()))?
        }
    };
    let cmdline = effective_cmdline(&CmdlineRequest {
        profile,
        file_text: &file_text,
        replace: options.kernel_cmdline.as_deref(),
        append: options.kernel_cmdline_append.as_deref(),
        launcher: LAUNCHER_PATH,
    })
    .map_err(|error| ("cmdline", error.to_string()))?;
    let init = match (&cmdline.guest_rdinit, &images.initrd) {
        (Some(path), _) => GuestInit::Named(path.clone()),
        (None, Some(_)) => GuestInit::Default,
        (None, None) => cmdline.root.clone().map_or(GuestInit::None, |root| GuestInit::Root(root_device(root))),
    };
    let initrd = if profile.inject_agent {
        cache.initrd(agent, &kernel.image, images, options, drivers, init)
    } else {
        cache.plain_initrd(images, options)
    };
    let notice = kernel
        .notice
        .map(|reason| format!("profile `{}`: `fast_boot` boots the kernel as it was given: {reason}", profile.name));
    Ok(Prepared { kernel: kernel.path, initrd: initrd.map_err(problem)?, cmdline: cmdline.line, notice })
}

fn root_device(words: RootWords) -> RootDevice {
    let RootWords { device, fs_types, flags, writable, wait, init } = words;
    RootDevice { device, fs_types, flags, writable, wait, init }
}

/// Tells that the agent answers, `duration` after its QEMU was started or found.
pub fn ready(bed: &Testbed, vm: &VmRef, hello: &Hello, how: BootHow, duration: Duration, phases: &[(&str, Duration)]) {
    let sink = &bed.shared.settings.sink;
    for notice in &hello.notices {
        sink.emit(EventKind::Warning(Warning { message: format!("vm `{}`: {notice}", vm.vm), hint: None }));
    }
    sink.emit(EventKind::VmReady(VmReady {
        vm: vm.clone(),
        how,
        duration: duration.as_secs_f64(),
        phases: phases.iter().map(|(name, time)| ((*name).to_owned(), time.as_secs_f64())).collect(),
        kernel_release: hello.kernel_release.clone(),
    }));
}
