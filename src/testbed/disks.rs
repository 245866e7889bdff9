//! The disks of one machine: as they are asked for, and as they are.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use serde::{Deserialize, Serialize};

use crate::disks::{Cache, Content, Disk, DiskSpec, Format, Source};
use crate::project::DiskSetting;
use crate::qemu::disks::{Bus, DiskDevice};

/// The content of a disk as an option; two are the same where they are one.
#[derive(Debug, Clone)]
pub struct ContentOption(pub Arc<Content>);

impl PartialEq for ContentOption {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for ContentOption {}

/// What a disk begins with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum DiskSource {
    /// Zeroes.
    #[default]
    Blank,
    /// An image of the host's; whether it is written itself.
    Image {
        /// Where it lies.
        path: PathBuf,
        /// Whether writes go to it.
        write_through: bool,
    },
    /// The content of another disk.
    Content(ContentOption),
}

/// A disk as it is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiskOptions {
    /// Its id; none: made from the machine's name.
    pub id: Option<String>,
    /// Its serial number; none: its id.
    pub serial: Option<String>,
    /// What it begins with.
    pub source: DiskSource,
    /// Bytes.
    pub size: Option<u64>,
    /// The image's format; none: it is looked at.
    pub format: Option<Format>,
    /// Whether the guest can't write to it.
    pub readonly: bool,
    /// What it is plugged into.
    pub bus: Bus,
    /// How it treats what was written.
    pub cache: Cache,
}

impl DiskOptions {
    /// A profile's disk; `image` is where its image lies by now.
    pub(super) fn of_profile(setting: &DiskSetting, image: Option<PathBuf>) -> Self {
        let source = match image {
            None => DiskSource::Blank,
            Some(path) => DiskSource::Image { path, write_through: setting.write_through },
        };
        Self {
            id: setting.id.clone(),
            serial: setting.serial.clone(),
            source,
            size: setting.size,
            format: setting.format.and_then(Format::parse),
            readonly: setting.readonly,
            bus: setting.bus.and_then(Bus::parse).unwrap_or_default(),
            cache: setting.cache.and_then(Cache::parse).unwrap_or_default(),
        }
    }

    /// As the disk itself is told.
    pub(super) fn spec(&self) -> DiskSpec {
        let source = match &self.source {
            DiskSource::Blank => Source::Blank,
            // One that can't be written need not be writable.
            DiskSource::Image { path, write_through: true } if !self.readonly => {
                Source::WriteThrough(path.clone(), self.format)
            }
            DiskSource::Image { path, .. } => Source::Image(path.clone(), self.format),
            DiskSource::Content(content) => Source::Content(Arc::clone(&content.0)),
        };
        DiskSpec { source, size: self.size, readonly: self.readonly, cache: self.cache }
    }
}

/// Who asked for a disk; also the order in which a machine has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Asker {
    /// The profile.
    Profile,
    /// The machine's options.
    Options,
    /// `vm:attach_disk`.
    Test,
}

/// A disk of a machine. It stays the same one when a restore puts another content, or another device, in its place.
#[derive(Debug)]
pub struct AttachedDisk {
    id: String,
    now: Mutex<DiskNow>,
    /// How often its node was replaced in the running QEMU.
    pub(super) generation: AtomicU32,
    detached: AtomicBool,
    /// One change of its plug at a time.
    pub(super) plug: tokio::sync::Mutex<()>,
}

/// What a disk is for now.
#[derive(Debug, Clone)]
pub(super) struct DiskNow {
    pub(super) disk: Arc<Disk>,
    pub(super) device: DiskDevice,
    pub(super) asker: Asker,
}

impl AttachedDisk {
    fn new(id: String, now: DiskNow) -> Arc<Self> {
        Arc::new(Self {
            id,
            now: Mutex::new(now),
            generation: AtomicU32::new(0),
            detached: AtomicBool::new(false),
            plug: tokio::sync::Mutex::new(()),
        })
    }

    pub(super) fn now(&self) -> DiskNow {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The disk itself.
    pub fn disk(&self) -> Arc<Disk> {
        self.now().disk
    }

    /// As QEMU knows it.
    pub(super) fn device(&self) -> DiskDevice {
        self.now().device
    }

    /// Whether it was taken away.
    pub fn is_detached(&self) -> bool {
        self.detached.load(Ordering::SeqCst)
    }

    /// It is there (again), as a snapshot has it.
    fn become_restored(&self, now: DiskNow) {
        let old = std::mem::replace(&mut *self.now.lock().unwrap_or_else(PoisonError::into_inner), now.clone());
        now.disk.succeed(&old.disk);
        self.generation.store(0, Ordering::SeqCst);
        self.detached.store(false, Ordering::SeqCst);
    }
}

/// What was opened so far of what profile and options ask for.
#[derive(Debug, Default)]
pub(super) struct Declared {
    pub(super) profile: bool,
    pub(super) options: Vec<DiskOptions>,
}

/// The disks of one machine.
#[derive(Debug, Default)]
pub(super) struct DiskTable {
    disks: Mutex<Vec<Arc<AttachedDisk>>>,
    /// Those that were taken away, the last one at the end: a restore may bring them back.
    gone: Mutex<Vec<Weak<AttachedDisk>>>,
    next: AtomicU32,
    /// Held while disks are opened.
    pub(super) declared: tokio::sync::Mutex<Declared>,
}

impl DiskTable {
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<AttachedDisk>>> {
        self.disks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of them, in the order in which the guest finds them at boot.
    pub(super) fn all(&self) -> Vec<Arc<AttachedDisk>> {
        let mut all = self.lock().clone();
        all.sort_by_key(|disk| disk.now().asker);
        all
    }

    /// The disk of this id. A default id that was shortened is found under its whole name too.
    pub(super) fn find(&self, id: &str) -> Option<Arc<AttachedDisk>> {
        let disks = self.lock();
        let shortened = shortened(id);
        let found = disks.iter().find(|disk| disk.id == id);
        found.or_else(|| disks.iter().find(|disk| id.starts_with(DEFAULT_PREFIX) && disk.id == shortened)).cloned()
    }

    /// The ids, in the order of `all`.
    pub(super) fn ids(&self) -> Vec<String> {
        self.all().iter().map(|disk| disk.id.clone()).collect()
    }

    /// The id of a disk that is asked for: its own, or a default that is free.
    ///
    /// # Errors
    /// There is one of that id.
    pub(super) fn new_id(&self, options: &DiskOptions, vm: &str) -> Result<String, String> {
        let disks = self.lock();
        let is_free = |id: &str| disks.iter().all(|disk| disk.id != id);
        if let Some(id) = &options.id {
            return if is_free(id) { Ok(id.clone()) } else { Err(format!("there is a disk `{id}` already")) };
        }
        let free = std::iter::once(default_id(vm, "")).chain((2..).map(|number| default_id(vm, &format!("-{number}"))));
        Ok(free.into_iter().find(|id| is_free(id)).unwrap_or_default())
    }

    /// Adds an opened disk.
    pub(super) fn add(&self, id: String, options: &DiskOptions, disk: Arc<Disk>, asker: Asker) -> Arc<AttachedDisk> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let device = DiskDevice {
            id: format!("{DEVICE_PREFIX}{number}"),
            bus: options.bus,
            serial: options.serial.clone().unwrap_or_else(|| id.clone()),
            readonly: options.readonly,
            write_cache: options.cache != Cache::WriteThrough,
        };
        let attached = AttachedDisk::new(id, DiskNow { disk, device, asker });
        self.lock().push(Arc::clone(&attached));
        attached
    }

    /// Takes a disk out.
    pub(super) fn remove(&self, disk: &Arc<AttachedDisk>) {
        disk.detached.store(true, Ordering::SeqCst);
        self.lock().retain(|other| !Arc::ptr_eq(other, disk));
        let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        gone.retain(|disk| disk.strong_count() > 0);
        gone.push(Arc::downgrade(disk));
    }

    /// The machine has exactly these from now on, in this order. Who holds a disk of the same id holds the new one.
    pub(super) fn restore(&self, arrived: Vec<(String, DiskNow)>) {
        let mut old = self.lock().clone();
        let mut new = Vec::new();
        for (id, now) in arrived {
            let number = now.device.id.trim_start_matches(DEVICE_PREFIX).parse().map_or(0, |number: u32| number + 1);
            self.next.fetch_max(number, Ordering::Relaxed);
            let known = old.iter().position(|disk| disk.id == id).map(|at| old.remove(at));
            let known = known.or_else(|| {
                let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
                let at = gone.iter().rposition(|disk| disk.upgrade().is_some_and(|disk| disk.id == id))?;
                gone.remove(at).upgrade()
            });
            new.push(match known {
                None => AttachedDisk::new(id, now),
                Some(disk) => {
                    disk.become_restored(now);
                    disk
                }
            });
        }
        old.iter().for_each(|disk| self.remove(disk));
        *self.lock() = new;
    }
}

/// How the ids of devices begin.
const DEVICE_PREFIX: &str = "disk";
/// How default ids begin.
const DEFAULT_PREFIX: &str = "attached-";
/// The longest id that is its own serial number, in bytes.
const LONGEST: usize = 20;

/// `attached-<vm>`, shortened so that the suffix fits.
fn default_id(vm: &str, suffix: &str) -> String {
    let mut id = format!("{DEFAULT_PREFIX}{vm}");
    id.truncate(LONGEST - suffix.len());
    id + suffix
}

fn shortened(id: &str) -> &str {
    id.get(..LONGEST).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_made_found_and_refused() {
        let dir = tempfile::tempdir().unwrap();
        let table = DiskTable::default();
        let add = |options: DiskOptions| {
            let id = table.new_id(&options, "a-machine-of-a-long-name")?;
            let disk = Disk::open(&options.spec(), dir.path()).unwrap();
            Ok::<_, String>(table.add(id, &options, disk, Asker::Test))
        };
        let first = add(DiskOptions::default()).unwrap();
        assert_eq!(first.id(), "attached-a-machine-o");
        assert_eq!(add(DiskOptions::default()).unwrap().id(), "attached-a-machine-2");
        let data = DiskOptions { id: Some("data".to_owned()), ..DiskOptions::default() };
        add(data.clone()).unwrap();
        assert_eq!(add(data.clone()).unwrap_err(), "there is a disk `data` already");
        assert!(Arc::ptr_eq(&table.find("attached-a-machine-of-a-long-name").unwrap(), &first));
        assert!(table.find("dat").is_none());
        let gone = table.find("data").unwrap();
        table.remove(&gone);
        assert!(gone.is_detached() && table.find("data").is_none() && add(data).is_ok());
        assert_eq!(table.ids().len(), 3);
    }
}
