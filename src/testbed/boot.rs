//! From a profile to an agent that answers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::bed::{ProfileImages, Testbed};
use super::error::{Death, VmError};
use super::kernel_log::{KernelLog, Teller};
use super::options::VmOptions;
use super::running::{ConsoleFiles, ConsolePort, Running};
use crate::agent_client::{self, AgentError, Hello};
use crate::agent_protocol::{GuestInit, LAUNCHER_PATH, PORT_NAME, RootDevice};
use crate::foundation::duration::format_duration;
use crate::foundation::nix_value::Value;
use crate::foundation::path_error::PathContext;
use crate::project::{Arch, CmdlineRequest, Profile, RootWords, Setting, effective_cmdline};
use crate::qemu::{End, MachineSpec, QemuError, QemuProcess};
use crate::run_events::{BootHow, EventKind, VmReady, VmRef, VmStarted, Warning};

/// How long boot waits for the agent, before the accelerator's factor.
const AGENT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the kernel's log is quiet between two reports, before the accelerator's factor.
const QUIET: Duration = Duration::from_millis(250);
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
    let prepared = prepare(bed, vm, profile, options, &images).await?;
    let settings = &bed.shared.settings;
    if let Some(message) = prepared.notice {
        settings.sink.emit(EventKind::Warning(Warning { message, hint: None }));
    }
    let consoles = console_files(bed, vm)?;
    let spec = MachineSpec {
        name: vm.vm.clone(),
        arch: std::env::consts::ARCH.to_owned(),
        accel: machine.accel(),
        memory: options.memory.unwrap_or(profile.memory),
        cpus: options.cpus.unwrap_or(profile.cpus),
        cpu_model: profile.cpu.clone(),
        machine: profile.machine.clone(),
        kernel: prepared.kernel,
        initrd: prepared.initrd,
        cmdline: prepared.cmdline.clone(),
        serial_log: consoles.serial.clone(),
        virtio_log: consoles.virtio.clone(),
        agent_port: PORT_NAME.to_owned(),
        extra: profile.qemu_args.clone(),
    };
    let prepare_time = begun.elapsed();
    let (qemu, channel) = QemuProcess::start(machine.qemu(), &spec)
        .await
        .map_err(|source| VmError::Qemu { vm: vm.vm.clone(), source })?;
    settings.sink.emit(EventKind::VmStarted(VmStarted {
        vm: vm.clone(),
        profile: profile.name.clone(),
        pid: qemu.pid(),
        accelerator: machine.accel().name().to_owned(),
        kernel: spec.kernel.display().to_string(),
        kernel_store_path: images.kernel_store_path.clone(),
        cmdline: spec.cmdline,
    }));
    let log = kernel_log(bed, vm, profile, &consoles);
    let running = Arc::new(Running::new(vm.clone(), settings.sink.clone(), qemu, consoles, log));
    started(Arc::clone(&running));
    tokio::spawn(watch(Arc::clone(&running)));

    let limit = options.agent_timeout.unwrap_or_else(|| bed.scaled(AGENT_TIMEOUT, profile));
    let connected = tokio::select! {
        connected = tokio::time::timeout(limit, agent_client::connect(channel)) => connected,
        death = running.wait_for_death() => return Err(dead(vm, &running, death)),
    };
    let (agent, hello) = match connected {
        Ok(Ok(connected)) => connected,
        Ok(Err(error)) => return Err(broken_channel(vm, &running, &error).await),
        Err(_) => return Err(no_answer(vm, profile, &running, limit)),
    };
    if let Some(message) = hello.boot_error.clone() {
        return Err(VmError::BootFailed { vm: vm.vm.clone(), message, console: running.evidence() });
    }
    running.set_agent(agent);
    ready(bed, vm, &hello, prepare_time, begun.elapsed());
    Ok(())
}

/// What QEMU is told to boot.
struct Prepared {
    kernel: PathBuf,
    initrd: PathBuf,
    cmdline: String,
    notice: Option<String>,
}

async fn prepare(
    bed: &Testbed,
    vm: &VmRef,
    profile: &Arc<Profile>,
    options: &VmOptions,
    images: &ProfileImages,
) -> Result<Prepared, VmError> {
    let work = {
        let (bed, profile, options, images) = (bed.clone(), Arc::clone(profile), options.clone(), images.clone());
        move || prepare_now(&bed, &profile, &options, &images)
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
        cache.initrd(agent, &kernel.image, images, options, init)
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

fn console_files(bed: &Testbed, vm: &VmRef) -> Result<ConsoleFiles, VmError> {
    let directory = &bed.shared.settings.runtime_dir;
    let consoles = ConsoleFiles {
        serial: directory.join(format!("vm-{}.ttyS0.log", vm.vm_id)),
        virtio: directory.join(format!("vm-{}.hvc0.log", vm.vm_id)),
    };
    for log in [&consoles.serial, &consoles.virtio] {
        std::fs::write(log, b"").at("create", log).map_err(VmError::File)?;
    }
    Ok(consoles)
}

fn kernel_log(bed: &Testbed, vm: &VmRef, profile: &Profile, consoles: &ConsoleFiles) -> KernelLog {
    let teller = Teller {
        vm: vm.clone(),
        policy: profile.splats,
        sink: bed.shared.settings.sink.clone(),
        desk: bed.splats().clone(),
        artifacts: bed.artifacts().clone(),
    };
    KernelLog::start(teller, vec![consoles.serial.clone(), consoles.virtio.clone()], bed.scaled(QUIET, profile))
}

fn ready(bed: &Testbed, vm: &VmRef, hello: &Hello, prepare: Duration, whole: Duration) {
    let sink = &bed.shared.settings.sink;
    for notice in &hello.notices {
        sink.emit(EventKind::Warning(Warning { message: format!("vm `{}`: {notice}", vm.vm), hint: None }));
    }
    let guest = whole.saturating_sub(prepare).as_secs_f64();
    sink.emit(EventKind::VmReady(VmReady {
        vm: vm.clone(),
        how: BootHow::Boot,
        duration: guest,
        phases: BTreeMap::from([("prepare".to_owned(), prepare.as_secs_f64()), ("guest".to_owned(), guest)]),
        kernel_release: hello.kernel_release.clone(),
    }));
}

/// Follows the guest and its QEMU to their end.
async fn watch(running: Arc<Running>) {
    let death = match (running.qemu().wait_for_end().await, running.panic_line()) {
        (End::Panic | End::Poweroff | End::Reset, Some(line)) => Death::Panicked(Some(line)),
        (End::Panic, None) => Death::Panicked(None),
        (End::Poweroff, None) => Death::PoweredOff,
        (End::Reset, None) => Death::Reset,
        (End::Exited(how), _) => Death::QemuEnded(how),
    };
    running.died(death);
}

fn dead(vm: &VmRef, running: &Running, death: Death) -> VmError {
    VmError::Dead { vm: vm.vm.clone(), op: "boot", death, console: running.evidence() }
}

async fn broken_channel(vm: &VmRef, running: &Running, error: &AgentError) -> VmError {
    match tokio::time::timeout(LAST_WORDS, running.wait_for_death()).await {
        Ok(death) => dead(vm, running, death),
        Err(_) => VmError::BootFailed { vm: vm.vm.clone(), message: error.to_string(), console: running.evidence() },
    }
}

/// The agent did not answer: where the launcher could say why, that is the message.
fn no_answer(vm: &VmRef, profile: &Profile, running: &Running, limit: Duration) -> VmError {
    if !profile.inject_agent {
        let message = format!(
            "the agent did not answer within {}\nhint: the profile says `inject_agent = false`, so that the image itself must \
             start `provium-agent --serve` as root, and have the drivers for virtio-serial",
            format_duration(limit)
        );
        return VmError::BootFailed { vm: vm.vm.clone(), message, console: running.evidence() };
    }
    let complaint =
        [ConsolePort::Serial, ConsolePort::Virtio].into_iter().find_map(|port| running.launcher_complaint(port));
    match complaint {
        Some(message) => VmError::BootFailed { vm: vm.vm.clone(), message, console: running.evidence() },
        None => VmError::BootTimeout { vm: vm.vm.clone(), waited: limit, console: running.evidence() },
    }
}
