//! A snapshot's directory.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::disks::{self, DiskRecord, DiskSnapshots};
use super::format::{FORMAT, MachineRecord, Manifest, SnapshotKind};
use crate::disks::DiskSnapshot;
use crate::foundation::path_error::{PathContext, PathError, describe_io};
use crate::qemu::RamFile;
use crate::testbed::bed::Testbed;
use crate::testbed::error::VmError;

/// The file that says what is in the directory.
const MANIFEST: &str = "snapshot.json";

/// Where a new snapshot goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotPlace {
    /// RAM stays in memory, the rest lies in a directory that goes with the run.
    Memory,
    /// This directory, which need not be there yet. It appears there once it is whole.
    Directory(PathBuf),
    /// This directory, which is there and empty; whoever made it knows when it is whole.
    Into(PathBuf),
}

/// A stored snapshot; clones are the same one.
#[derive(Debug, Clone)]
pub struct Snapshot(Arc<Stored>);

#[derive(Debug)]
struct Stored {
    directory: PathBuf,
    manifest: Manifest,
    /// RAM that lies in memory only.
    ram: Mutex<Vec<RamFile>>,
    /// The disks of machines: those that have no files, and those that were opened.
    disks: Mutex<BTreeMap<usize, DiskSnapshots>>,
    /// Whether the directory goes with this.
    is_temporary: bool,
    is_deleted: AtomicBool,
}

impl Drop for Stored {
    fn drop(&mut self) {
        if self.is_temporary && !*self.is_deleted.get_mut() {
            // What is left goes with the run's directory.
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

/// What of a snapshot is not in its directory.
#[derive(Default)]
pub(super) struct Kept {
    pub(super) ram: Vec<RamFile>,
    pub(super) disks: BTreeMap<usize, DiskSnapshots>,
}

/// An error about the snapshot in `directory`.
fn unusable(directory: &Path, why: impl Into<String>) -> VmError {
    VmError::Snapshot { directory: directory.display().to_string(), why: why.into() }
}

impl Snapshot {
    /// The snapshot that somebody stored in `directory`.
    ///
    /// # Errors
    /// There is none, it is of another version, or a part of it is missing.
    pub fn open(directory: &Path) -> Result<Self, VmError> {
        let file = directory.join(MANIFEST);
        let text = match fs::read(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let why = match directory.is_dir() {
                    true => "the directory holds no snapshot: there is no `snapshot.json` in it",
                    false => "there is no such directory",
                };
                return Err(unusable(directory, why));
            }
            Err(error) => return Err(unusable(directory, format!("`{MANIFEST}`: {}", describe_io(&error)))),
        };
        let version: Version = parse(directory, MANIFEST, &text)?;
        if version.format != FORMAT {
            let why = format!(
                "its format is {}, this provium reads format {FORMAT}\nhint: take the snapshot anew with this version",
                version.format
            );
            return Err(unusable(directory, why));
        }
        let manifest: Manifest = parse(directory, MANIFEST, &text)?;
        let snapshot = Self::of(directory.to_owned(), manifest, Kept::default(), false);
        snapshot.check()?;
        Ok(snapshot)
    }

    pub(super) fn of(directory: PathBuf, manifest: Manifest, kept: Kept, is_temporary: bool) -> Self {
        let is_deleted = AtomicBool::new(false);
        let (ram, disks) = (Mutex::new(kept.ram), Mutex::new(kept.disks));
        Self(Arc::new(Stored { directory, manifest, ram, disks, is_temporary, is_deleted }))
    }

    /// The disks of a machine, where they are known.
    pub(super) fn known_disks(&self, index: usize) -> Option<DiskSnapshots> {
        self.0.disks.lock().unwrap_or_else(PoisonError::into_inner).get(&index).cloned()
    }

    /// The disks of a machine are open.
    pub(super) fn know_disks(&self, index: usize, disks: &DiskSnapshots) {
        self.0.disks.lock().unwrap_or_else(PoisonError::into_inner).insert(index, Arc::clone(disks));
    }

    /// What is written down of a machine's disks.
    fn disk_records(&self, index: usize) -> Result<Vec<DiskRecord>, VmError> {
        match &self.manifest().vms[index] {
            record if record.off => Ok(record.disks.clone()),
            _ => Ok(self.machine(index)?.disks),
        }
    }

    /// Looks whether all that it says is there.
    fn check(&self) -> Result<(), VmError> {
        let manifest = self.manifest();
        let members = manifest.lab.walk();
        let mut named = members.iter().flat_map(|(_, lab)| &lab.vms);
        if let Some(member) = named.find(|member| member.vm >= manifest.vms.len()) {
            return Err(self.unusable(format!("`{MANIFEST}` names a VM `{}` that is not in it", member.name)));
        }
        if manifest.kind == SnapshotKind::Vm && manifest.vms.iter().filter(|vm| !vm.off).count() != 1 {
            return Err(self.unusable(format!("`{MANIFEST}` does not have one VM")));
        }
        for index in 0..manifest.vms.len() {
            if let Some(name) = disks::missing(&self.directory_of(index), self.disk_records(index)?.len()) {
                return Err(self.unusable(format!("`vms/{index}/{name}` is missing")));
            }
            if manifest.vms[index].off {
                continue;
            }
            self.machine(index)?;
            let ram = self.ram(index)?;
            let wanted = self.machine(index)?.memory;
            match ram.size() {
                Ok(size) if size >= wanted => {}
                Ok(size) => {
                    let why = format!("`vms/{index}/ram` has {size} bytes, expected {wanted}: it was cut short");
                    return Err(self.unusable(why));
                }
                Err(error) => return Err(self.unusable(format!("`vms/{index}/ram`: {}", describe_io(&error)))),
            }
            if fs::metadata(self.device(index)).map_or(0, |file| file.len()) == 0 {
                return Err(self.unusable(format!("`vms/{index}/device` is missing or empty")));
            }
        }
        Ok(())
    }

    pub(super) fn unusable(&self, why: impl Into<String>) -> VmError {
        unusable(&self.0.directory, why)
    }

    /// What is in it.
    pub fn manifest(&self) -> &Manifest {
        &self.0.manifest
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.0.directory
    }

    /// Bytes that it takes, of RAM only what is not empty.
    ///
    /// # Errors
    /// It was deleted, or can't be looked at.
    pub fn size(&self) -> Result<u64, VmError> {
        self.check_there()?;
        let mut size = allocated(&self.0.directory.join(MANIFEST)).map_err(VmError::File)?;
        for index in (0..self.manifest().vms.len()).filter(|index| !self.manifest().vms[*index].off) {
            for name in ["machine.json", "device", "ram"] {
                size += allocated(&self.part(index, name)).map_err(VmError::File)?;
            }
        }
        for index in 0..self.manifest().vms.len() {
            let count = self.disk_records(index)?.len();
            match self.known_disks(index).filter(|_| self.0.is_temporary) {
                Some(known) => size += known.iter().map(DiskSnapshot::allocated).sum::<u64>(),
                None => {
                    for path in disks::parts(&self.directory_of(index), count) {
                        size += allocated(&path).map_err(VmError::File)?;
                    }
                }
            }
        }
        Ok(size)
    }

    /// Copies it into `directory`, which is there and has no snapshot in it. Blocks.
    ///
    /// # Errors
    /// It was deleted, or the directory can't be written: `ENOSPC` where there is no room.
    pub fn copy_into(&self, bed: &Testbed, directory: &Path) -> Result<(), VmError> {
        self.check_there()?;
        let mut manifest = self.manifest().clone();
        for (index, vm) in manifest.vms.iter_mut().enumerate() {
            let target = directory.join("vms").join(index.to_string());
            fs::create_dir_all(&target).at("create", &target).map_err(VmError::File)?;
            let disks = self.copy_disks(bed, index, &self.disk_records(index)?, &target)?;
            if vm.off {
                vm.disks = disks;
                continue;
            }
            let record = MachineRecord { disks, ..self.machine(index)? };
            write_json(&target.join("machine.json"), &record).map_err(VmError::File)?;
            let device = target.join("device");
            fs::copy(self.device(index), &device).at("write", &device).map_err(VmError::File)?;
            let ram = target.join("ram");
            self.ram(index)?.copy_to_path(&ram).at("write", &ram).map_err(VmError::File)?;
        }
        write_json(&directory.join(MANIFEST), &manifest).map_err(VmError::File)
    }

    /// Removes it. Machines that were restored from it go on.
    ///
    /// # Errors
    /// It was deleted before, or its files can't be removed.
    pub fn delete(&self) -> Result<(), VmError> {
        if self.0.is_deleted.swap(true, Ordering::SeqCst) {
            return Err(self.unusable("it was deleted"));
        }
        self.0.ram.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.0.disks.lock().unwrap_or_else(PoisonError::into_inner).clear();
        fs::remove_dir_all(&self.0.directory).at("remove", &self.0.directory).map_err(VmError::File)
    }

    pub(super) fn check_there(&self) -> Result<(), VmError> {
        if self.0.is_deleted.load(Ordering::SeqCst) { Err(self.unusable("it was deleted")) } else { Ok(()) }
    }

    pub(super) fn directory_of(&self, index: usize) -> PathBuf {
        self.0.directory.join("vms").join(index.to_string())
    }

    fn part(&self, index: usize, name: &str) -> PathBuf {
        self.directory_of(index).join(name)
    }

    /// The state of a machine's devices.
    pub(super) fn device(&self, index: usize) -> PathBuf {
        self.part(index, "device")
    }

    /// What a machine is.
    ///
    /// # Errors
    /// It can't be read.
    pub fn machine(&self, index: usize) -> Result<MachineRecord, VmError> {
        let name = format!("vms/{index}/machine.json");
        let text = fs::read(self.part(index, "machine.json"))
            .map_err(|error| self.unusable(format!("`{name}`: {}", describe_io(&error))))?;
        parse(&self.0.directory, &name, &text)
    }

    /// The RAM of a machine.
    ///
    /// # Errors
    /// It can't be opened.
    pub(super) fn ram(&self, index: usize) -> Result<RamFile, VmError> {
        RamFile::open(&self.part(index, "ram"))
            .map_err(|error| self.unusable(format!("`vms/{index}/ram`: {}", describe_io(&error))))
    }
}

/// What every version has.
#[derive(serde::Deserialize)]
struct Version {
    format: u32,
}

fn parse<T: DeserializeOwned>(directory: &Path, name: &str, text: &[u8]) -> Result<T, VmError> {
    serde_json::from_slice(text).map_err(|error| unusable(directory, format!("`{name}` can't be read: {error}")))
}

/// How much of `path` is there, in bytes. RAM in memory is behind a link.
fn allocated(path: &Path) -> Result<u64, PathError> {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).at("look at", path).map(|file| file.blocks() * 512)
}

/// Writes one of the descriptions.
pub(super) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), PathError> {
    let text = serde_json::to_vec_pretty(value).map_err(std::io::Error::other).at("write", path)?;
    fs::write(path, text).at("write", path)
}

/// A directory on its way to be a snapshot. Dropping it removes what was written.
pub(super) struct Unfinished {
    directory: PathBuf,
    target: Option<PathBuf>,
    is_ours: bool,
}

impl Unfinished {
    /// # Errors
    /// The place is taken, or nothing can be written there.
    pub(super) fn new(place: &SnapshotPlace, temporary: PathBuf) -> Result<Self, VmError> {
        let (directory, target, is_ours) = match place {
            SnapshotPlace::Memory => (temporary, None, true),
            SnapshotPlace::Into(directory) => (directory.clone(), None, false),
            SnapshotPlace::Directory(target) => {
                check_free(target)?;
                let mut name = std::ffi::OsString::from(".");
                name.push(target.file_name().unwrap_or_default());
                name.push(format!(".{}.part", std::process::id()));
                (target.with_file_name(name), Some(target.clone()), true)
            }
        };
        if is_ours {
            // What is there under this name was left by a process that is gone.
            let _ = fs::remove_dir_all(&directory);
            fs::create_dir(&directory).map_err(|error| {
                let named = target.as_deref().unwrap_or(&directory);
                unusable(named, format!("it can't be written there: {}", describe_io(&error)))
            })?;
        }
        Ok(Self { directory, target, is_ours })
    }

    /// The directory of machine `index`, made.
    pub(super) fn vm(&self, index: usize) -> Result<PathBuf, PathError> {
        let path = self.directory.join("vms").join(index.to_string());
        fs::create_dir_all(&path).at("create", &path)?;
        Ok(path)
    }

    /// It is whole: gives it its name.
    pub(super) fn finish(mut self, manifest: &Manifest) -> Result<PathBuf, VmError> {
        write_json(&self.directory.join(MANIFEST), manifest).map_err(VmError::File)?;
        if let Some(target) = self.target.clone() {
            // An older snapshot makes place; machines that were restored from it have its files open.
            let _ = fs::remove_dir_all(&target);
            fs::rename(&self.directory, &target).at("create", &target).map_err(VmError::File)?;
            self.directory = target;
        }
        self.is_ours = false;
        Ok(self.directory.clone())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if self.is_ours {
            // What is left of it is in nobody's way.
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

/// Only an empty directory or an older snapshot may be replaced.
fn check_free(target: &Path) -> Result<(), VmError> {
    match fs::read_dir(target).map(Iterator::count) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(unusable(target, format!("it can't be written there: {}", describe_io(&error)))),
        Ok(entries) if entries == 0 || target.join(MANIFEST).is_file() => Ok(()),
        Ok(_) => Err(unusable(target, "the directory holds something else: it is not replaced by a snapshot")),
    }
}
