//! A machine's disks: attached before or after boot, taken away, resized, without power.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::disks::{Asker, AttachedDisk, DiskOptions};
use super::error::VmError;
use super::guest::Guest;
use super::running::Running;
use super::vm::{Vm, VmState};
use crate::agent_client::AgentError;
use crate::agent_protocol::{Op, OpReply, WaitFor};
use crate::disks::{Chance, Disk, DiskError, Order, SECTOR, refusal, serve};
use crate::foundation::path_error::{PathContext, describe_io};
use crate::qemu::disks::{Bus, DiskLayout, plug_disk, replace_node, unplug_disk};

/// How long a guest may take to find a disk, before the accelerator's factor.
const FIND: Duration = Duration::from_secs(10);
/// How long a guest may take to let go of one, before the accelerator's factor.
const LET_GO: Duration = Duration::from_secs(10);
/// How long a guest may take to see another size, before the accelerator's factor; and how often it is looked at.
const SEE_SIZE: Duration = Duration::from_secs(3);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

impl Vm {
    /// Attaches a disk; a machine that runs gets it plugged in.
    ///
    /// # Errors
    /// An image that can't be used, an id that is taken, a machine that is on its way up or dead, QEMU's refusal.
    pub async fn attach_disk(self: &Arc<Self>, options: DiskOptions) -> Result<Arc<AttachedDisk>, VmError> {
        const OP: &str = "attach_disk";
        let (state, running) = self.look();
        let plug_into = match (state, running) {
            (VmState::Created | VmState::Shutdown, _) => None,
            (VmState::Booted | VmState::Paused, Some(running)) => Some(running),
            (state, running) => return Err(self.not_in(OP, state, running.as_deref())),
        };
        // Held: nobody takes the id meanwhile.
        let _turn = self.disks().declared.lock().await;
        let attached = self.open_disk(OP, options, Asker::Test).await?;
        let Some(running) = plug_into else { return Ok(attached) };
        let result = self.plug_in(OP, &running, &attached).await;
        if result.is_err() {
            self.disks().remove(&attached);
        }
        result.map(|()| attached)
    }

    async fn open_disk(
        &self,
        op: &'static str,
        options: DiskOptions,
        asker: Asker,
    ) -> Result<Arc<AttachedDisk>, VmError> {
        let id = self.disks().new_id(&options, self.name()).map_err(|why| self.disk_failed(op, "", &why))?;
        let (spec, directory) = (options.spec(), self.disk_directory()?);
        let opened = tokio::task::spawn_blocking(move || Disk::open(&spec, &directory)).await;
        let disk = match opened {
            Ok(opened) => opened.map_err(|error| self.disk_error(op, &id, &error))?,
            Err(error) => return Err(self.disk_failed(op, &id, &format!("opening it failed: {error}"))),
        };
        Ok(self.disks().add(id, &options, disk, asker))
    }

    /// Where what is written to disks lies: not in memory, as runtime files may.
    pub(super) fn disk_directory(&self) -> Result<PathBuf, VmError> {
        let directory = self.bed().shared.settings.cache_dir.join("disks");
        std::fs::create_dir_all(&directory).at("create", &directory).map_err(VmError::File)?;
        Ok(directory)
    }

    /// Opens what profile and options ask for and is not open yet; all disks that the machine has then.
    ///
    /// # Errors
    /// An image that can't be used, two disks of one id.
    pub(super) async fn ensure_disks(&self, op: &'static str) -> Result<Vec<Arc<AttachedDisk>>, VmError> {
        let mut declared = self.disks().declared.lock().await;
        let profile = Arc::clone(self.profile_value());
        if !declared.profile && !profile.disks.is_empty() {
            let images = self.profile_images().await?;
            let mut paths = images.disks.into_iter();
            for setting in &profile.disks {
                let image = setting.image.as_ref().and_then(|_| paths.next());
                self.open_disk(op, DiskOptions::of_profile(setting, image), Asker::Profile).await?;
            }
        }
        declared.profile = true;
        let wanted = self.options().disks.unwrap_or_default();
        if wanted != declared.options {
            for disk in self.disks().all().iter().filter(|disk| disk.now().asker == Asker::Options) {
                self.disks().remove(disk);
            }
            declared.options.clear();
            for options in &wanted {
                self.open_disk(op, options.clone(), Asker::Options).await?;
            }
            declared.options = wanted;
        }
        Ok(self.disks().all())
    }

    /// The disk of this id.
    ///
    /// # Errors
    /// There is none; an image that can't be used.
    pub async fn disk(&self, id: &str) -> Result<Arc<AttachedDisk>, VmError> {
        if let Some(found) = self.disks().find(id) {
            return Ok(found);
        }
        self.ensure_disks("disk").await?;
        self.disks().find(id).ok_or_else(|| {
            let ids = self.disks().ids();
            let why = match ids.is_empty() {
                true => "there is no such disk: the VM has none".to_owned(),
                false => format!("there is no such disk\nhint: there are `{}`", ids.join("`, `")),
            };
            self.disk_failed("disk", id, &why)
        })
    }

    async fn plug_in(
        self: &Arc<Self>,
        op: &'static str,
        running: &Running,
        attached: &AttachedDisk,
    ) -> Result<(), VmError> {
        if self.booted(op).is_ok() {
            let guest = Guest::new(Arc::clone(self));
            for module in attached.device().bus.modules() {
                // It may be built in, or the guest may load it by itself: what counts is whether the disk is found.
                let _ = guest.load_profile_module(module, "").await;
            }
        }
        let _turn = attached.plug.lock().await;
        attached.generation.store(0, Ordering::SeqCst);
        let end =
            serve_end(&attached.disk()).map_err(|error| self.disk_failed(op, attached.id(), &describe_io(&error)))?;
        plug_disk(running.qemu(), &attached.device(), end).await.map_err(|source| VmError::Qemu {
            vm: self.name().to_owned(),
            op,
            source,
        })
    }

    /// The path of the disk's node in the guest.
    ///
    /// # Errors
    /// A machine that is not booted, a disk that was taken away or that the guest does not find.
    pub async fn disk_device(&self, attached: &AttachedDisk) -> Result<String, VmError> {
        const OP: &str = "device";
        self.still_attached(OP, attached)?;
        let serial = attached.device().serial.clone().into_bytes();
        let asked = serial.clone();
        let limit = self.scaled(FIND);
        let found = self.op(OP, async |agent| {
            match tokio::time::timeout(limit, agent.wait_for(WaitFor::Disk(asked))).await {
                Err(_) => return Ok(None),
                Ok(result) => result?,
            }
            device(agent.op(Op::FindDisk { serial, rescan: false }).await)
        });
        let bus = attached.device().bus;
        found.await?.ok_or_else(|| {
            let modules = bus.modules().join("` and `");
            let why = format!(
                "the guest has no disk of this serial number\nhint: its kernel needs `{modules}`, built in or in the profile's `modules`"
            );
            self.disk_failed(OP, attached.id(), &why)
        })
    }

    fn still_attached(&self, op: &'static str, attached: &AttachedDisk) -> Result<(), VmError> {
        match attached.is_detached() {
            true => Err(self.disk_failed(op, attached.id(), "it was detached")),
            false => Ok(()),
        }
    }

    /// Takes a disk away. Does nothing where that was done.
    ///
    /// # Errors
    /// A guest that does not let go of it, QEMU's refusal.
    pub async fn detach_disk(&self, attached: &Arc<AttachedDisk>) -> Result<(), VmError> {
        const OP: &str = "detach";
        let _turn = attached.plug.lock().await;
        if attached.is_detached() {
            return Ok(());
        }
        if let Some(running) = self.plugged_in(OP)? {
            // What hangs would keep the guest from letting go.
            attached.disk().abort(true);
            let limit = self.scaled(LET_GO);
            let generation = attached.generation.load(Ordering::SeqCst);
            let unplugged = unplug_disk(running.qemu(), &attached.device(), generation, limit).await;
            attached.disk().abort(false);
            unplugged.map_err(|source| VmError::Qemu { vm: self.name().to_owned(), op: OP, source })?;
        }
        self.disks().remove(attached);
        Ok(())
    }

    /// The QEMU that its disks are plugged into, where there is one.
    fn plugged_in(&self, op: &'static str) -> Result<Option<Arc<Running>>, VmError> {
        match self.look() {
            (VmState::Created | VmState::Shutdown, _) => Ok(None),
            (VmState::Booted | VmState::Paused, Some(running)) => Ok(Some(running)),
            (VmState::Dead, running) => Ok(running.filter(|running| running.qemu_lives())),
            (state, running) => Err(self.not_in(op, state, running.as_deref())),
        }
    }

    /// Gives a disk another size; a guest that runs sees it when this returns.
    ///
    /// # Errors
    /// No size for a disk, a bus that can't tell the guest, a disk that was taken away, QEMU's refusal.
    pub async fn resize_disk(&self, attached: &AttachedDisk, bytes: u64) -> Result<(), VmError> {
        const OP: &str = "resize";
        let _turn = attached.plug.lock().await;
        let running = if attached.is_detached() { None } else { self.plugged_in(OP)? };
        if running.is_some() && attached.device().bus == Bus::Nvme {
            let why = "an NVMe disk keeps its size while the machine runs\nhint: `:shutdown()` comes first, or `bus = \"virtio\"`";
            return Err(self.disk_failed(OP, attached.id(), why));
        }
        attached.disk().resize(bytes).map_err(|error| self.disk_error(OP, attached.id(), &error))?;
        let Some(running) = running else { return Ok(()) };
        let end =
            serve_end(&attached.disk()).map_err(|error| self.disk_failed(OP, attached.id(), &describe_io(&error)))?;
        let generation = attached.generation.load(Ordering::SeqCst);
        replace_node(running.qmp(), &attached.device(), generation, end, bytes)
            .await
            .map_err(|source| VmError::Qemu { vm: self.name().to_owned(), op: OP, source })?;
        attached.generation.store(generation + 1, Ordering::SeqCst);
        if self.booted(OP).is_ok() {
            self.wait_for_size(attached, bytes / SECTOR).await?;
        }
        Ok(())
    }

    /// Returns once the guest's kernel knows the size, as far as its own `/sys` tells.
    async fn wait_for_size(&self, attached: &AttachedDisk, sectors: u64) -> Result<(), VmError> {
        let serial = attached.device().serial.clone().into_bytes();
        let limit = tokio::time::Instant::now() + self.scaled(SEE_SIZE);
        self.op("resize", async |agent| {
            loop {
                let Some(path) = device(agent.op(Op::FindDisk { serial: serial.clone(), rescan: true }).await)? else {
                    return Ok(());
                };
                let size = format!("/sys/block/{}/size", path.trim_start_matches("/dev/"));
                let Ok(text) = agent.read_file(size.as_bytes()).await else { return Ok(()) };
                let seen = String::from_utf8_lossy(&text).trim().parse() == Ok(sectors);
                if seen || tokio::time::Instant::now() > limit {
                    return Ok(());
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        })
        .await
    }

    /// A request of the test's own.
    ///
    /// # Errors
    /// What the disk refuses, faults included.
    pub async fn disk_request(
        &self,
        op: &'static str,
        attached: &AttachedDisk,
        order: Order,
    ) -> Result<Vec<u8>, VmError> {
        let extent = order.extent();
        let outcome = attached.disk().request(order).await;
        outcome.map_err(|errno| self.disk_error(op, attached.id(), &refusal(&attached.disk(), extent, errno)))
    }

    /// Ends the machine as a power cut does: what its disks had not made durable is lost, as chance has it.
    ///
    /// # Errors
    /// A machine that has no power; a file of the host's.
    pub async fn power_cut(&self, chance: Chance) -> Result<(), VmError> {
        use super::vm::Down;
        use crate::run_events::StopReason;
        const OP: &str = "power_cut";
        let running = self.with_qemu(OP)?;
        // All disks stop at the same moment.
        running.qemu().freeze();
        let mut result = Ok(());
        for attached in self.disks().all() {
            let cut = attached.disk().power_cut(chance);
            result = result.and(cut.map_err(|error| self.disk_error(OP, attached.id(), &error)));
        }
        self.settle_down(Down::Shutdown, StopReason::PowerCut).await;
        result
    }

    /// While it is true, requests that hang fail instead: a machine that is reset does not wait for them.
    pub(super) fn abort_hanging(&self, on: bool) {
        self.disks().all().iter().for_each(|attached| attached.disk().abort(on));
    }

    /// The disks have power (again).
    pub(super) fn power_disks(&self) {
        self.disks().all().iter().for_each(|attached| attached.disk().power_on());
    }

    /// The error for what a disk refuses.
    pub fn disk_error(&self, op: &'static str, id: &str, error: &DiskError) -> VmError {
        match error {
            DiskError::Refused { errno, why } => {
                use crate::agent_protocol::{errno_name, errno_text};
                let why = format!("{why}: {} ({})", errno_name(*errno), errno_text(*errno));
                self.disk_failed(op, id, &why)
            }
            other => self.disk_failed(op, id, &other.to_string()),
        }
    }

    fn disk_failed(&self, op: &'static str, id: &str, why: &str) -> VmError {
        let subject = if id.is_empty() { String::new() } else { format!("disk `{id}`: ") };
        VmError::Failed { vm: self.name().to_owned(), message: format!("{op}: {subject}{why}") }
    }
}

fn device(reply: Result<OpReply, AgentError>) -> Result<Option<String>, AgentError> {
    match reply? {
        OpReply::Device(path) => Ok(path),
        _ => Ok(None),
    }
}

/// Serves a disk; the end that QEMU gets.
fn serve_end(disk: &Arc<Disk>) -> std::io::Result<OwnedFd> {
    let (ours, theirs) = UnixStream::pair()?;
    serve(Arc::clone(disk), ours)?;
    Ok(theirs.into())
}

/// Serves disks; the ends that QEMU gets.
pub(super) fn serve_all(disks: &[Arc<Disk>]) -> std::io::Result<Vec<OwnedFd>> {
    disks.iter().map(serve_end).collect()
}

/// The disks of a machine that is about to boot: where they hang, and what they are.
pub(super) fn start_disks(disks: &[Arc<AttachedDisk>]) -> (DiskLayout, Vec<Arc<Disk>>) {
    let start = |attached: &Arc<AttachedDisk>| {
        attached.disk().power_on();
        attached.generation.store(0, Ordering::SeqCst);
        attached.disk()
    };
    let layout = DiskLayout::of(disks.iter().map(|attached| attached.device()));
    (layout, disks.iter().map(start).collect())
}
