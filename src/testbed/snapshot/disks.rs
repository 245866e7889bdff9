//! Disks of machines in snapshots: what is refused, what is taken while a machine stands still, the files it becomes, and the
//! disks that are made of those.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::store::{Snapshot, write_json};
use super::take::OP;
use crate::disks::{Disk, DiskError, DiskSnapshot, StoredDisk};
use crate::fixtures::{Files, Memo};
use crate::foundation::path_error::PathError;
use crate::qemu::RamFile;
use crate::qemu::disks::{Bus, DiskLayout, PlacedDisk, layout_now};
use crate::testbed::bed::Testbed;
use crate::testbed::disks::{Asker, AttachedDisk, DiskNow};
use crate::testbed::error::VmError;
use crate::testbed::running::Running;
use crate::testbed::vm::Vm;

/// One disk of a machine in a snapshot. Its content lies beside, in the files of its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskRecord {
    /// Its id.
    pub id: String,
    /// Who asked for it.
    pub asker: Asker,
    /// The device, and where it hangs.
    #[serde(flatten)]
    pub place: PlacedDisk,
    /// The files of the image that it lies over, the image itself first.
    #[serde(default)]
    pub image: Vec<ImageRecord>,
}

/// A file that disks of a snapshot go on reading from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// Where it lies, from the project's directory on where it is below it.
    pub path: String,
    /// What was in it.
    pub checksum: String,
}

/// The disks of one machine as they were at one moment, in the order of their records.
pub type DiskSnapshots = Arc<Vec<DiskSnapshot>>;

/// Whether the disks of a machine can be part of a snapshot.
///
/// # Errors
/// One that can't, named.
pub fn check(vm: &Vm, is_on: bool) -> Result<(), VmError> {
    for attached in vm.disks().all() {
        let refused = |why: &str| refused(vm, &attached, why);
        let disk = attached.disk();
        if disk.is_write_through() {
            return Err(refused(
                "the image is written through: clones would write to the same file\nhint: without `write_through`, writes go to \
                 an overlay",
            ));
        }
        if is_on && attached.device().bus == Bus::Nvme {
            return Err(refused(
                "QEMU can't store the state of an NVMe controller\nhint: `bus = \"virtio\"` or `\"scsi\"`, or `:detach()` it \
                 before the snapshot and attach it to each clone",
            ));
        }
    }
    Ok(())
}

fn refused(vm: &Vm, attached: &AttachedDisk, why: &str) -> VmError {
    let why = format!("disk `{}`: {why}", attached.id());
    VmError::Refused { vm: vm.name().to_owned(), op: OP, why }
}

/// The disks of a machine, kept from hanging until the guard is dropped.
pub struct Pause(Vec<Arc<AttachedDisk>>);

impl Pause {
    /// The machine is about to stand still: QEMU waits for all requests then.
    ///
    /// # Errors
    /// One hangs already.
    pub fn begin(vm: &Vm) -> Result<Self, VmError> {
        let pause = Self(vm.disks().all());
        pause.0.iter().for_each(|attached| attached.disk().begin_pause());
        match pause.0.iter().find(|attached| attached.disk().hangs()) {
            None => Ok(pause),
            Some(attached) => Err(refused(
                vm,
                attached,
                "a request of the guest hangs, and can't be part of a snapshot\nhint: `disk:clear_faults()` lets it go on",
            )),
        }
    }

    /// The machine stands still.
    pub fn stand_still(&self) {
        self.0.iter().for_each(|attached| attached.disk().stand_still());
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        self.0.iter().for_each(|attached| attached.disk().end_pause());
    }
}

/// The disks of one machine, taken.
pub struct Taken {
    /// What is written down of them.
    pub records: Vec<DiskRecord>,
    /// They themselves.
    pub snapshots: DiskSnapshots,
    /// The numbers of the ports that are there for disks.
    pub ports: Vec<usize>,
    /// The port of the SCSI controller, where there is one.
    pub controller: Option<String>,
}

impl Taken {
    /// Of a machine that stands still: as it runs in `running`, or off. Nothing is copied.
    ///
    /// # Errors
    /// A file of the host's; QEMU does not tell.
    pub async fn of(vm: &Vm, running: Option<&Running>) -> Result<Self, VmError> {
        let disks = vm.disks().all();
        let devices: Vec<_> = disks.iter().map(|attached| attached.device()).collect();
        let layout = match running {
            Some(running) => {
                let start = &running.built().spec.disks;
                let layout = layout_now(running.qemu(), start, devices).await;
                layout.map_err(|source| VmError::Qemu { vm: vm.name().to_owned(), op: OP, source })?
            }
            None => DiskLayout::of(devices),
        };
        let (mut records, mut snapshots) = (Vec::new(), Vec::new());
        let DiskLayout { ports, controller, disks: places } = layout;
        for (attached, place) in disks.iter().zip(places) {
            let snapshot = attached.disk().snapshot();
            snapshots.push(snapshot.map_err(|error| vm.disk_error(OP, attached.id(), &error))?);
            let asker = attached.now().asker;
            records.push(DiskRecord { id: attached.id().to_owned(), asker, place, image: Vec::new() });
        }
        Ok(Self { records, snapshots: Arc::new(snapshots), ports, controller })
    }

    /// Writes them to files in `directory`, and down what images they lie over. Blocks.
    ///
    /// # Errors
    /// A file that can't be read or written: `ENOSPC` where there is no room.
    pub fn store(&mut self, bed: &Testbed, directory: &Path) -> Result<(), VmError> {
        let files = files(bed);
        store(&mut self.records, &self.snapshots, &files, directory)
    }
}

/// Reads the images that machines' disks lie over, so that what they hold is known by the time that the machines stand still.
pub fn look_at_images(bed: &Testbed, vms: &[Arc<Vm>]) {
    let files = files(bed);
    let disks = vms.iter().flat_map(|vm| vm.disks().all());
    let images = disks.flat_map(|attached| attached.disk().image());
    // What can't be read is told when it is needed.
    images.for_each(|path| drop(files.memo.checksum(&path)));
    files.memo.save();
}

/// The project's files, for names and checksums of images.
fn files(bed: &Testbed) -> Files {
    if let Some(Ok(shelf)) = bed.shared.fixtures.get() {
        return shelf.files().clone();
    }
    let settings = &bed.shared.settings;
    let directory = settings.project.as_ref().map_or_else(|| PathBuf::from("/"), |project| project.directory.clone());
    Files { directory, roots: Vec::new(), memo: Arc::new(Memo::load(settings.fixtures.memo.clone())) }
}

fn store(
    records: &mut [DiskRecord],
    snapshots: &[DiskSnapshot],
    files: &Files,
    directory: &Path,
) -> Result<(), VmError> {
    let failed = |error: DiskError| match error {
        DiskError::File(error) => VmError::File(error),
        other => VmError::Environment(format!("the snapshot's disks can't be written: {other}")),
    };
    for (number, (record, snapshot)) in records.iter_mut().zip(snapshots).enumerate() {
        record.image.clear();
        for path in snapshot.image() {
            let checksum = files.memo.checksum(&path);
            let checksum =
                checksum.map_err(|source| VmError::File(PathError { act: "read", path: path.clone(), source }))?;
            record.image.push(ImageRecord { path: files.recorded(&path), checksum });
        }
        let Parts { data, replaced, description } = Parts::of(directory, number);
        let stored = snapshot.save(&data, &replaced).map_err(failed)?;
        write_json(&description, &stored).map_err(VmError::File)?;
    }
    Ok(())
}

/// The files of one disk.
struct Parts {
    data: PathBuf,
    replaced: PathBuf,
    description: PathBuf,
}

impl Parts {
    fn of(directory: &Path, number: usize) -> Self {
        let file = |ending: &str| directory.join(format!("disk{number}{ending}"));
        Self { data: file(""), replaced: file(".replaced"), description: file(".json") }
    }
}

/// The files of the disks of one machine that are there.
pub fn parts(directory: &Path, count: usize) -> Vec<PathBuf> {
    let all = (0..count).map(|number| Parts::of(directory, number));
    all.flat_map(|Parts { data, replaced, description }| [data, description, replaced])
        .filter(|path| path.exists())
        .collect()
}

/// Looks whether the files of all `count` disks are there; the name of one that is not.
pub fn missing(directory: &Path, count: usize) -> Option<String> {
    let all = (0..count).map(|number| Parts::of(directory, number));
    let needed = all.flat_map(|Parts { data, description, .. }| [data, description]);
    let missing = needed.into_iter().find(|path| !path.is_file())?;
    missing.file_name().map(|name| name.to_string_lossy().into_owned())
}

impl Snapshot {
    /// The disks of machine `index`, of which `records` tells.
    ///
    /// # Errors
    /// A file that is missing or damaged; an image that has changed.
    pub(super) async fn disks(&self, vm: &Vm, index: usize, records: &[DiskRecord]) -> Result<DiskSnapshots, VmError> {
        if records.is_empty() {
            return Ok(DiskSnapshots::default());
        }
        if let Some(known) = self.known_disks(index) {
            return Ok(known);
        }
        let (this, bed, records, own) = (self.clone(), vm.bed().clone(), records.to_vec(), vm.disk_directory()?);
        let opened = tokio::task::spawn_blocking(move || this.open_disks(&bed, index, &records, &own)).await;
        let opened = opened.map_err(|error| self.unusable(format!("opening its disks failed: {error}")))??;
        let opened = Arc::new(opened);
        self.know_disks(index, &opened);
        Ok(opened)
    }

    fn open_disks(
        &self,
        bed: &Testbed,
        index: usize,
        records: &[DiskRecord],
        own: &Path,
    ) -> Result<Vec<DiskSnapshot>, VmError> {
        let files = files(bed);
        let open = |(number, record): (usize, &DiskRecord)| {
            let bad = |why: String| self.unusable(format!("disk `{}`: {why}", record.id));
            let parts = Parts::of(&self.directory_of(index), number);
            let text = std::fs::read(&parts.description).map_err(|error| {
                let why = crate::foundation::path_error::describe_io(&error);
                bad(format!("`vms/{index}/disk{number}.json`: {why}"))
            })?;
            let stored: StoredDisk = serde_json::from_slice(&text)
                .map_err(|error| bad(format!("`vms/{index}/disk{number}.json` can't be read: {error}")))?;
            if stored.has_image() == record.image.is_empty() {
                return Err(bad("`machine.json` does not tell the same of its image".to_owned()));
            }
            for file in &record.image {
                let path = files.directory.join(&file.path);
                let why = match files.memo.checksum(&path) {
                    Ok(checksum) if checksum == file.checksum => continue,
                    Ok(_) => "has changed".to_owned(),
                    Err(error) => format!("can't be read: {}", crate::foundation::path_error::describe_io(&error)),
                };
                return Err(bad(format!(
                    "its image `{}` {why}, and the snapshot holds only what was written over it\nhint: put the image back, or \
                     take the snapshot anew",
                    path.display()
                )));
            }
            let image = record.image.first().map(|file| files.directory.join(&file.path));
            DiskSnapshot::open(&stored, &parts.data, &parts.replaced, image.as_deref(), own)
                .map_err(|error| bad(error.to_string()))
        };
        let opened = records.iter().enumerate().map(open).collect();
        files.memo.save();
        opened
    }

    /// Copies the disks of machine `index` into `directory`; what is written down of them there. Blocks.
    ///
    /// # Errors
    /// A file that can't be read or written.
    pub(super) fn copy_disks(
        &self,
        bed: &Testbed,
        index: usize,
        records: &[DiskRecord],
        directory: &Path,
    ) -> Result<Vec<DiskRecord>, VmError> {
        let mut records = records.to_vec();
        match self.known_disks(index) {
            Some(known) => store(&mut records, &known, &files(bed), directory)?,
            None => {
                for path in parts(&self.directory_of(index), records.len()) {
                    let target = directory.join(path.file_name().unwrap_or_default());
                    RamFile::open(&path)
                        .and_then(|file| file.copy_to_path(&target))
                        .map_err(|source| VmError::File(PathError { act: "write", path: target, source }))?;
                }
            }
        }
        Ok(records)
    }
}

/// Disks of a machine that goes on: one for each of the snapshot. They meet no faults yet.
///
/// # Errors
/// No file can be made.
pub fn fork(vm: &Vm, records: &[DiskRecord], snapshots: &[DiskSnapshot]) -> Result<Vec<Arc<Disk>>, VmError> {
    let one = |(record, snapshot): (&DiskRecord, &DiskSnapshot)| {
        Disk::from_snapshot(snapshot).map_err(|error| vm.disk_error("restore", &record.id, &error))
    };
    records.iter().zip(snapshots).map(one).collect()
}

/// The machine goes on: its disks meet the faults of then.
pub fn arm(disks: &[Arc<Disk>], snapshots: &[DiskSnapshot]) {
    disks.iter().zip(snapshots).for_each(|(disk, snapshot)| disk.arm(snapshot));
}

impl Vm {
    /// Its disks are those of a snapshot from now on. `declared` is whether those of its profile and options are among them.
    pub(super) async fn become_disks(&self, records: &[DiskRecord], disks: Vec<Arc<Disk>>, declared: bool) {
        let mut known = self.disks().declared.lock().await;
        known.profile = declared;
        known.options = if declared { self.options().disks.unwrap_or_default() } else { Vec::new() };
        let now = |(record, disk): (&DiskRecord, Arc<Disk>)| {
            (record.id.clone(), DiskNow { disk, device: record.place.device.clone(), asker: record.asker })
        };
        self.disks().restore(records.iter().zip(disks).map(now).collect());
    }
}
