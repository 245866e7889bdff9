//! `disks` of a profile.

use super::check::Checker;
use super::document::{Data, Entry, Node};
use super::profile::Setting;
use crate::foundation::nix_value::Value;

/// Keys of a disk.
const KEYS: [&str; 13] = [
    "id",
    "size",
    "scratch",
    "image",
    "template",
    "path",
    "format",
    "readonly",
    "serial",
    "bus",
    "cache",
    "write_through",
    "mediated",
];
/// The longest id and serial number of a disk on the usual bus, in bytes.
const LONGEST_ID: usize = 20;

/// A disk that every machine of a profile boots with. What is absent has its default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DiskSetting {
    /// Its id.
    pub id: Option<String>,
    /// Bytes.
    pub size: Option<u64>,
    /// The image that it begins with.
    pub image: Option<Setting<Value>>,
    /// Whether the image itself is written.
    pub write_through: bool,
    /// `raw` or `qcow2`.
    pub format: Option<&'static str>,
    /// Whether the guest can't write to it.
    pub readonly: bool,
    /// Its serial number, where that is not its id.
    pub serial: Option<String>,
    /// `virtio`, `scsi` or `nvme`.
    pub bus: Option<&'static str>,
    /// How it treats what was written, as QEMU names it.
    pub cache: Option<&'static str>,
}

impl Checker {
    /// The disks of a profile.
    pub(super) fn disks(&mut self, entry: &Entry) -> Option<Vec<DiskSetting>> {
        let Data::List(disks) = &entry.value.data else {
            self.wrong(entry, "an array of tables");
            return None;
        };
        Some(disks.iter().map(|disk| self.disk(disk)).collect())
    }

    fn disk(&mut self, node: &Node) -> DiskSetting {
        let mut disk = DiskSetting::default();
        let mut sources: Vec<&str> = Vec::new();
        let mut through = None;
        for entry in self.table(node, "a disk") {
            let key = entry.key.as_str();
            match key {
                "id" => disk.id = self.short_text(entry),
                "serial" => disk.serial = self.short_text(entry),
                "size" => disk.size = self.disk_size(entry),
                "scratch" => {
                    sources.push("scratch");
                    disk.size = self.disk_size(entry);
                }
                "image" | "template" | "path" => {
                    sources.push(key);
                    disk.write_through |= key == "path";
                    disk.image = self.value(entry, true);
                }
                "format" => disk.format = self.choice(entry, &[("raw", "raw"), ("qcow2", "qcow2")]),
                "readonly" => disk.readonly = self.flag(entry).unwrap_or_default(),
                "bus" => {
                    disk.bus = self.choice(entry, &[("virtio", "virtio"), ("scsi", "scsi"), ("nvme", "nvme")]);
                }
                "cache" => {
                    let names = ["writeback", "writethrough", "none", "directsync", "unsafe"];
                    disk.cache = self.choice(entry, &names.map(|name| (name, name)));
                }
                "write_through" => through = self.flag(entry),
                // Every disk is.
                "mediated" => drop(self.flag(entry)),
                _ => self.unknown(entry, &KEYS, "key"),
            }
        }
        if sources.len() > 1 {
            let message = format!("a disk has one source, found `{}`", sources.join("` and `"));
            self.mistake(&node.at, message, None);
        }
        if through == Some(true) && sources.is_empty() {
            self.mistake(&node.at, "`write_through` needs an `image`".to_owned(), None);
        }
        disk.write_through |= through.unwrap_or_default();
        disk
    }

    fn short_text(&mut self, entry: &Entry) -> Option<String> {
        let text = self.text(entry)?;
        if text.is_empty() || text.len() > LONGEST_ID || text.bytes().any(|byte| !byte.is_ascii_graphic()) {
            let expected = format!("1 to {LONGEST_ID} printable ASCII characters without blanks");
            self.wrong(entry, &expected);
            return None;
        }
        Some(text)
    }

    fn disk_size(&mut self, entry: &Entry) -> Option<u64> {
        let bytes = self.size(entry)?;
        if bytes == 0 || !bytes.is_multiple_of(512) {
            self.wrong(entry, "whole sectors of 512 bytes, at least one");
            return None;
        }
        Some(bytes)
    }
}

impl DiskSetting {
    /// As `profile show` shows it.
    pub fn describe(&self) -> String {
        let image = self.image.as_ref().map(|image| image.value.to_string());
        let size = self.size.map(crate::foundation::size::format_size);
        let text = |name: &str, value: Option<&str>| value.map(|value| format!("{name} = {value}"));
        let parts = [
            text("id", self.id.as_deref()),
            text("image", image.as_deref()),
            text("size", size.as_deref()),
            text("bus", self.bus),
            text("format", self.format),
            text("cache", self.cache),
            text("serial", self.serial.as_deref()),
            self.readonly.then(|| "readonly".to_owned()),
            self.write_through.then(|| "write_through".to_owned()),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        if parts.is_empty() { "blank".to_owned() } else { parts.join(", ") }
    }

    /// Where the image lies, with `{out}` put in.
    pub(super) fn with_out(self, out: impl Fn(Setting<Value>) -> Setting<Value>) -> Self {
        Self { image: self.image.map(out), ..self }
    }
}
