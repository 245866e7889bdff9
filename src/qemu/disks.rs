//! Disks of a machine: those it starts with, as words; those that come later, as QMP. Each is a network block device over an
//! inherited or passed descriptor.

use std::os::fd::{OwnedFd, RawFd};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::error::{QemuError, QmpError};
use super::hotplug::{plug, unplug};
use super::process::QemuProcess;
use super::qmp::Qmp;

/// The controller that SCSI disks hang on, and its driver.
const CONTROLLER: (&str, &str) = ("scsi", "virtio-scsi-pci");

/// What a disk is plugged into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bus {
    /// virtio-blk.
    #[default]
    Virtio,
    /// virtio-scsi.
    Scsi,
    /// NVMe.
    Nvme,
}

impl Bus {
    /// All names.
    pub const NAMES: [&str; 3] = ["virtio", "scsi", "nvme"];

    /// The bus of this name.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "virtio" => Some(Self::Virtio),
            "scsi" => Some(Self::Scsi),
            "nvme" => Some(Self::Nvme),
            _ => None,
        }
    }

    /// As a test writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Virtio => "virtio",
            Self::Scsi => "scsi",
            Self::Nvme => "nvme",
        }
    }

    /// The kernel modules that drive it, in Linux.
    pub fn modules(self) -> &'static [&'static str] {
        match self {
            Self::Virtio => &["virtio_blk"],
            Self::Scsi => &["virtio_scsi", "sd_mod"],
            Self::Nvme => &["nvme"],
        }
    }

    /// The longest serial number that the guest is told whole, in bytes.
    pub fn longest_serial(self) -> usize {
        match self {
            Self::Virtio | Self::Nvme => 20,
            Self::Scsi => 36,
        }
    }
}

/// One disk as QEMU is told of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskDevice {
    /// The id of the device, and the beginning of its node's name.
    pub id: String,
    /// What it is plugged into.
    pub bus: Bus,
    /// What the guest is told as its serial number.
    pub serial: String,
    /// Whether the guest can't write to it.
    pub readonly: bool,
    /// Whether the guest is told of a volatile cache.
    pub write_cache: bool,
}

/// A disk that is there when QEMU starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedDisk {
    /// The disk.
    pub device: DiskDevice,
    /// The bus that it hangs on: a port, or that of the controller.
    pub bus: String,
    /// Its number on the controller, where QEMU chose one before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scsi_id: Option<u32>,
}

/// The disks that are there when QEMU starts, and where they hang. The guest sees each port, also one without a disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskLayout {
    /// The numbers of the ports that are there for disks.
    pub ports: Vec<usize>,
    /// The port of the SCSI controller, where there is one.
    pub controller: Option<String>,
    /// The disks.
    pub disks: Vec<PlacedDisk>,
}

impl DiskLayout {
    /// Where disks hang that a machine boots with. Each has a port of its own, so that it can be unplugged.
    pub fn of(devices: impl IntoIterator<Item = DiskDevice>) -> Self {
        let devices: Vec<DiskDevice> = devices.into_iter().collect();
        let mut layout = Self::default();
        if let Some(number) = devices.iter().position(|device| device.bus == Bus::Scsi) {
            layout.ports.push(devices.len() + number);
            layout.controller = Some(port(devices.len() + number));
        }
        for (number, device) in devices.into_iter().enumerate() {
            let bus = match device.bus {
                Bus::Scsi => controller_bus(),
                Bus::Virtio | Bus::Nvme => {
                    layout.ports.push(number);
                    port(number)
                }
            };
            layout.disks.push(PlacedDisk { device, bus, scsi_id: None });
        }
        layout
    }

    /// The devices and the ports that they hang on, of those which are free for whatever comes later.
    pub(super) fn in_free_ports(&self) -> Vec<(&str, &str)> {
        let controller = self.controller.iter().map(|bus| (bus.as_str(), CONTROLLER.0));
        controller.chain(self.disks.iter().map(|disk| (disk.bus.as_str(), disk.device.id.as_str()))).collect()
    }
}

fn port(number: usize) -> String {
    format!("disk-port{number}")
}

fn controller_bus() -> String {
    format!("{}.0", CONTROLLER.0)
}

impl DiskDevice {
    /// The name of its node; `generation` counts how often it was replaced.
    pub fn node(&self, generation: u32) -> String {
        format!("{}-{generation}", self.id)
    }

    fn driver(&self) -> &'static str {
        match self.bus {
            Bus::Virtio => "virtio-blk-pci",
            Bus::Scsi => "scsi-hd",
            Bus::Nvme => "nvme",
        }
    }

    fn properties(&self, node: &str) -> Map<String, Value> {
        let mut properties = Map::new();
        let mut set = |name: &str, value: Value| drop(properties.insert(name.to_owned(), value));
        set("drive", json!(node));
        set("serial", json!(self.serial));
        set("write-cache", json!(if self.write_cache { "on" } else { "off" }));
        if self.bus != Bus::Nvme {
            // The guest hears of errors; otherwise a full disk pauses the machine.
            set("werror", json!("report"));
            set("rerror", json!("report"));
        }
        properties
    }

    fn backend(&self, node: &str, descriptor: &str) -> Value {
        json!({
            "driver": "nbd",
            "node-name": node,
            "server": {"type": "fd", "str": descriptor},
            "read-only": self.readonly,
            "discard": "unmap",
        })
    }
}

/// The words for the ports of disks, each option with its value.
pub fn ports(layout: &DiskLayout) -> Vec<(&'static str, String)> {
    let word = |number: &usize| {
        let port =
            json!({"driver": "pcie-root-port", "id": port(*number), "chassis": 100 + number, "slot": 100 + number});
        ("-device", port.to_string())
    };
    layout.ports.iter().map(word).collect()
}

/// The words for the disks themselves, each served on a descriptor that QEMU inherits; the ports come before.
pub fn words(layout: &DiskLayout, ends: &[RawFd]) -> Vec<(&'static str, String)> {
    let mut words = Vec::new();
    if let Some(bus) = &layout.controller {
        words.push(("-device", json!({"driver": CONTROLLER.1, "id": CONTROLLER.0, "bus": bus}).to_string()));
    }
    for (PlacedDisk { device, bus, scsi_id }, fd) in layout.disks.iter().zip(ends) {
        let node = device.node(0);
        words.push(("-blockdev", device.backend(&node, &fd.to_string()).to_string()));
        let mut properties = device.properties(&node);
        if let Some(number) = scsi_id {
            properties.insert("scsi-id".to_owned(), json!(number));
        }
        properties.insert("driver".to_owned(), json!(device.driver()));
        properties.insert("id".to_owned(), json!(device.id));
        properties.insert("bus".to_owned(), json!(bus));
        words.push(("-device", Value::Object(properties).to_string()));
    }
    words
}

/// Where disks hang in a running machine that was started as `start`: some may have come and gone.
///
/// # Errors
/// A disk that is not there; QEMU does not tell.
pub async fn layout_now(
    qemu: &QemuProcess,
    start: &DiskLayout,
    devices: Vec<DiskDevice>,
) -> Result<DiskLayout, QemuError> {
    let controller = start.controller.clone().or_else(|| qemu.ports().port_of(CONTROLLER.0));
    let mut layout = DiskLayout { ports: start.ports.clone(), controller, disks: Vec::new() };
    for device in devices {
        let placed = start.disks.iter().find(|placed| placed.device.id == device.id);
        let mut scsi_id = None;
        let bus = match (device.bus, placed) {
            (Bus::Scsi, _) => {
                let wanted = json!({"path": format!("/machine/peripheral/{}", device.id), "property": "scsi-id"});
                let number = qemu.qmp().execute("qom-get", wanted).await?;
                scsi_id = number.as_u64().and_then(|number| u32::try_from(number).ok());
                Some(controller_bus())
            }
            (_, Some(placed)) => Some(placed.bus.clone()),
            (_, None) => qemu.ports().port_of(&device.id),
        };
        let bus = bus.ok_or_else(|| QemuError::Image(format!("the disk `{}` hangs on no port", device.serial)))?;
        layout.disks.push(PlacedDisk { device, bus, scsi_id });
    }
    Ok(layout)
}

/// Plugs a disk into a running machine; it is served on `end`.
///
/// # Errors
/// No port is free; QEMU refuses it.
pub async fn plug_disk(qemu: &QemuProcess, device: &DiskDevice, end: OwnedFd) -> Result<(), QemuError> {
    let qmp = qemu.qmp();
    let bus = match device.bus {
        Bus::Scsi => {
            ensure_controller(qemu).await?;
            controller_bus()
        }
        Bus::Virtio | Bus::Nvme => free_port(qemu, &device.id)?,
    };
    let node = device.node(0);
    let result = async {
        add_node(qmp, device, &node, end).await?;
        let plugged = plug(qmp, device.driver(), &device.id, &bus, device.properties(&node)).await;
        if plugged.is_err() {
            // Best effort: the first error is the one that tells.
            let _ = remove_node(qmp, &node).await;
        }
        plugged
    };
    result.await.map_err(|error| {
        qemu.ports().give_back(&device.id);
        error.into()
    })
}

/// Unplugs a disk and waits until the guest has let go of it.
///
/// # Errors
/// As `unplug`.
pub async fn unplug_disk(
    qemu: &QemuProcess,
    device: &DiskDevice,
    generation: u32,
    limit: Duration,
) -> Result<(), QemuError> {
    unplug(qemu.qmp(), &device.id, limit).await?;
    qemu.ports().give_back(&device.id);
    Ok(remove_node(qemu.qmp(), &device.node(generation)).await?)
}

/// Gives a disk another node, served on `end`, and tells the guest of its size: a network block device can't change its own.
///
/// # Errors
/// QEMU refuses it.
pub async fn replace_node(
    qmp: &Qmp,
    device: &DiskDevice,
    generation: u32,
    end: OwnedFd,
    size: u64,
) -> Result<(), QemuError> {
    let (old, new) = (device.node(generation), device.node(generation + 1));
    add_node(qmp, device, &new, end).await?;
    let set = json!({"path": format!("/machine/peripheral/{}", device.id), "property": "drive", "value": new});
    qmp.execute("qom-set", set).await?;
    qmp.execute("block_resize", json!({"node-name": new, "size": size})).await?;
    Ok(remove_node(qmp, &old).await?)
}

async fn add_node(qmp: &Qmp, device: &DiskDevice, node: &str, end: OwnedFd) -> Result<(), QmpError> {
    qmp.pass(node, end).await?;
    qmp.execute("blockdev-add", device.backend(node, node)).await.map(drop)
}

async fn remove_node(qmp: &Qmp, node: &str) -> Result<(), QmpError> {
    qmp.execute("blockdev-del", json!({ "node-name": node })).await.map(drop)
}

fn free_port(qemu: &QemuProcess, id: &str) -> Result<String, QemuError> {
    qemu.ports().take(id).ok_or_else(|| {
        QemuError::Image(
            "all ports for devices that come later are in use\nhint: disks that are attached before boot have ports of their own"
                .to_owned(),
        )
    })
}

async fn ensure_controller(qemu: &QemuProcess) -> Result<(), QemuError> {
    let listed = qemu.qmp().execute("qom-list", json!({"path": "/machine/peripheral"})).await?;
    if listed.as_array().is_some_and(|all| all.iter().any(|one| one["name"] == CONTROLLER.0)) {
        return Ok(());
    }
    let port = free_port(qemu, CONTROLLER.0)?;
    plug(qemu.qmp(), CONTROLLER.1, CONTROLLER.0, &port, Map::new()).await.map_err(|error| {
        qemu.ports().give_back(CONTROLLER.0);
        error.into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(id: &str, bus: Bus) -> DiskDevice {
        DiskDevice { id: id.to_owned(), bus, serial: format!("s,{id}"), readonly: false, write_cache: true }
    }

    fn line(layout: &DiskLayout, ends: &[RawFd]) -> String {
        let words = ports(layout).into_iter().chain(words(layout, ends));
        words.map(|(option, value)| format!("{option} {value}")).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn words_for_each_bus() {
        let disks = [disk("a", Bus::Virtio), disk("b", Bus::Scsi), disk("c", Bus::Scsi), disk("d", Bus::Nvme)];
        let layout = DiskLayout::of(disks);
        let line = line(&layout, &[7, 8, 9, 10]);
        for part in [
            r#"-device {"driver":"virtio-scsi-pci","id":"scsi","bus":"disk-port5"}"#,
            r#""node-name":"a-0","server":{"type":"fd","str":"7"},"read-only":false,"discard":"unmap"}"#,
            r#"{"drive":"a-0","serial":"s,a","write-cache":"on","werror":"report","rerror":"report","driver":"virtio-blk-pci","id":"a","bus":"disk-port0"}"#,
            r#""driver":"scsi-hd","id":"b","bus":"scsi.0"}"#,
            r#"-device {"drive":"d-0","serial":"s,d","write-cache":"on","driver":"nvme","id":"d","bus":"disk-port3"}"#,
        ] {
            assert!(line.contains(part), "{part} is missing in\n{line}");
        }
        assert_eq!(line.matches("virtio-scsi-pci").count(), 1);
        assert!(Bus::NAMES.iter().all(|name| Bus::parse(name).is_some_and(|bus| bus.name() == *name)));
    }

    #[test]
    fn disks_hang_where_they_hung() {
        let mut layout = DiskLayout::of([disk("a", Bus::Virtio), disk("b", Bus::Virtio)]);
        // One was unplugged, one came later, and so did a controller with a disk.
        layout.disks.remove(0);
        layout.controller = Some("free1".to_owned());
        layout.disks.push(PlacedDisk { device: disk("c", Bus::Virtio), bus: "free0".to_owned(), scsi_id: None });
        layout.disks.push(PlacedDisk { device: disk("d", Bus::Scsi), bus: controller_bus(), scsi_id: Some(3) });
        let line = line(&layout, &[7, 8, 9]);
        for part in [
            r#""id":"disk-port0","#,
            r#""id":"disk-port1","#,
            r#""driver":"virtio-blk-pci","id":"b","bus":"disk-port1"}"#,
            r#""driver":"virtio-blk-pci","id":"c","bus":"free0"}"#,
            r#"{"driver":"virtio-scsi-pci","id":"scsi","bus":"free1"}"#,
            r#""scsi-id":3,"driver":"scsi-hd","id":"d","bus":"scsi.0"}"#,
        ] {
            assert!(line.contains(part), "{part} is missing in\n{line}");
        }
        let kept: DiskLayout = serde_json::from_str(&serde_json::to_string(&layout).unwrap()).unwrap();
        assert_eq!(kept, layout);
        assert_eq!(layout.in_free_ports().iter().filter(|(port, _)| port.starts_with("free")).count(), 2);
    }
}
