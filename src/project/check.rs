//! Second pass: the tree to typed settings. Every mistake is told, none ends the pass.

use std::path::{Path, PathBuf};

use super::disks::DiskSetting;
use super::document::{Data, Entry, Node};
use super::error::Diagnostic;
use super::profile::{Arch, GuestOs, KeyProfiles, Origin, Setting, Splats, join};
use crate::foundation::nix_value::{NixSource, NixValue, Value};
use crate::foundation::{size, suggest};

/// Keys of `[provium]`.
const PROVIUM_KEYS: [&str; 6] = ["roots", "cache_dir", "cache_max_size", "qemu", "fixture_stores", "key_profiles"];
/// Keys of a profile.
const PROFILE_KEYS: [&str; 21] = [
    "kernel",
    "initrd",
    "modules",
    "vmlinux",
    "cmdline",
    "cmdline_file",
    "fast_boot",
    "guest_os",
    "arch",
    "memory",
    "cpus",
    "timeout_scale",
    "splats",
    "machine",
    "cpu",
    "qemu_args",
    "disks",
    "inject_agent",
    "build",
    "build_out",
    "extends",
];
/// Keys of `[profiles]` that are no profiles.
const SOURCES: [&str; 2] = ["from_dir", "from_flake"];

/// What the checked settings of `[provium]` are.
#[derive(Debug, Default)]
pub struct Provium {
    /// Test roots.
    pub roots: Option<Vec<PathBuf>>,
    /// Where fixtures are kept.
    pub cache_dir: Option<PathBuf>,
    /// Bytes.
    pub cache_max_size: Option<u64>,
    /// QEMU.
    pub qemu: Option<Setting<Value>>,
    /// Read-only caches.
    pub fixture_stores: Option<Vec<PathBuf>>,
    /// Which profiles a key folds in.
    pub key_profiles: Option<KeyProfiles>,
}

/// What stands in one profile's table.
#[derive(Debug, Clone, Default)]
pub struct Draft {
    /// Where the profile begins.
    pub at: Option<Origin>,
    /// Where each key stands.
    pub origins: std::collections::BTreeMap<String, Origin>,
    /// See [`Profile`](super::Profile).
    pub kernel: Option<Setting<Value>>,
    /// As above, and so on.
    pub initrd: Option<Setting<Value>>,
    /// Modules.
    pub modules: Option<Setting<Value>>,
    /// Kernel with symbols.
    pub vmlinux: Option<Setting<Value>>,
    /// Kernel's words.
    pub cmdline: Option<String>,
    /// File before them.
    pub cmdline_file: Option<Setting<Value>>,
    /// Quicker boot.
    pub fast_boot: Option<bool>,
    /// Guest.
    pub guest_os: Option<GuestOs>,
    /// Architecture.
    pub arch: Option<Arch>,
    /// Bytes.
    pub memory: Option<u64>,
    /// CPUs.
    pub cpus: Option<u32>,
    /// Factor.
    pub timeout_scale: Option<f64>,
    /// Reports.
    pub splats: Option<Splats>,
    /// QEMU's machine.
    pub machine: Option<String>,
    /// QEMU's CPU.
    pub cpu: Option<String>,
    /// QEMU's further arguments.
    pub qemu_args: Option<Vec<String>>,
    /// Disks.
    pub disks: Option<Vec<DiskSetting>>,
    /// Agent.
    pub inject_agent: Option<bool>,
    /// Hook.
    pub build: Option<String>,
    /// Its output.
    pub build_out: Option<PathBuf>,
    /// Parent.
    pub extends: Option<Setting<String>>,
}

/// What `[profiles]` holds.
#[derive(Debug, Default)]
pub struct Profiles {
    /// Profiles by name, in the order of the file.
    pub named: Vec<(String, Draft)>,
    /// A directory of further ones.
    pub from_dir: Option<Setting<PathBuf>>,
    /// A flake with further ones.
    pub from_flake: Option<Setting<String>>,
}

/// Collects mistakes.
#[derive(Default)]
pub struct Checker {
    /// In the order they were found.
    pub mistakes: Vec<Diagnostic>,
}

impl Checker {
    /// Adds a mistake.
    pub fn mistake(&mut self, at: &Origin, message: String, hint: Option<String>) {
        self.mistakes.push(Diagnostic { at: at.clone(), message, hint });
    }

    /// Checks the root of a provium.toml.
    pub fn root(&mut self, root: &Node) -> (Provium, Profiles) {
        let (mut provium, mut profiles) = (Provium::default(), Profiles::default());
        for entry in self.table(root, "the file") {
            match entry.key.as_str() {
                "provium" => provium = self.provium(&entry.value),
                "profiles" => profiles = self.profiles(&entry.value),
                _ => self.unknown(entry, &["provium", "profiles"], "table"),
            }
        }
        (provium, profiles)
    }

    fn provium(&mut self, node: &Node) -> Provium {
        let mut provium = Provium::default();
        for entry in self.table(node, "`provium`") {
            let base = directory(&entry.value);
            match entry.key.as_str() {
                "roots" => {
                    provium.roots = self.texts(entry).map(|roots| roots.iter().map(|root| join(base, root)).collect())
                }
                "cache_dir" => provium.cache_dir = self.path(entry),
                "cache_max_size" => provium.cache_max_size = self.size(entry),
                "qemu" => provium.qemu = self.value(entry, false),
                "fixture_stores" => {
                    provium.fixture_stores =
                        self.texts(entry).map(|all| all.iter().map(|path| join(base, path)).collect());
                }
                "key_profiles" => {
                    provium.key_profiles =
                        self.choice(entry, &[("all", KeyProfiles::All), ("used", KeyProfiles::Used)]);
                }
                _ => self.unknown(entry, &PROVIUM_KEYS, "key"),
            }
        }
        provium
    }

    fn profiles(&mut self, node: &Node) -> Profiles {
        let mut profiles = Profiles::default();
        for entry in self.table(node, "`profiles`") {
            match (entry.key.as_str(), &entry.value.data) {
                ("from_dir", Data::Text(path)) => {
                    let value = join(directory(&entry.value), path);
                    profiles.from_dir = Some(Setting { value, origin: entry.value.at.clone() });
                }
                ("from_flake", Data::Text(reference)) => profiles.from_flake = self.flake(entry, reference),
                (_, Data::Table(_)) => {
                    self.profile_name(entry);
                    let draft = self.profile(&entry.value, &entry.key_at);
                    profiles.named.push((entry.key.clone(), draft));
                }
                (key, data) if SOURCES.contains(&key) => {
                    self.mistake(
                        &entry.value.at,
                        format!("`{key}`: expected a string, found {}", data.describe()),
                        None,
                    );
                }
                (key, data) => self.mistake(
                    &entry.value.at,
                    format!("`profiles.{key}`: expected a table with the profile's keys, found {}", data.describe()),
                    Some(format!("a profile is written `[profiles.{key}]`, its keys below")),
                ),
            }
        }
        profiles
    }

    /// Checks a reference to a flake; which profiles it has is seen later.
    fn flake(&mut self, entry: &Entry, reference: &str) -> Option<Setting<String>> {
        let wrong = match reference {
            "" => "is empty",
            _ if reference.starts_with('-') => "begins with `-`, which Nix would take for an option",
            _ if reference.contains('#') => "names an attribute, and the attribute is always `proviumProfiles`",
            _ => return Some(Setting { value: reference.to_owned(), origin: entry.value.at.clone() }),
        };
        let message = format!("`from_flake`: `{reference}` {wrong}");
        self.mistake(&entry.value.at, message, Some("write a flake, such as \".\"".to_owned()));
        None
    }

    /// Checks a profile's name that stands in a flake.
    pub fn name_in_flake(&mut self, name: &str, at: &Origin) {
        let node = Node { at: at.clone(), data: Data::Table(Vec::new()) };
        self.profile_name(&Entry { key: name.to_owned(), key_at: at.clone(), value: node });
    }

    /// Checks that a profile's name can stand in file names and messages.
    fn profile_name(&mut self, entry: &Entry) {
        let fine = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
        if entry.key.is_empty() || !entry.key.chars().all(fine) || entry.key.starts_with(['-', '.']) {
            self.mistake(
                &entry.key_at,
                format!(
                    "`{}` can't be the name of a profile: expected letters, digits, `-`, `_`, `.` or `+`",
                    entry.key
                ),
                None,
            );
        }
    }

    /// Checks one profile's table.
    pub fn profile(&mut self, node: &Node, at: &Origin) -> Draft {
        let mut draft = Draft { at: Some(at.clone()), ..Draft::default() };
        for entry in self.table(node, "the profile") {
            draft.origins.insert(entry.key.clone(), entry.value.at.clone());
            self.profile_key(&mut draft, entry);
        }
        draft
    }

    fn profile_key(&mut self, draft: &mut Draft, entry: &Entry) {
        match entry.key.as_str() {
            "kernel" => draft.kernel = self.value(entry, true),
            "initrd" => draft.initrd = self.value(entry, true),
            "modules" => draft.modules = self.value(entry, true),
            "vmlinux" => draft.vmlinux = self.value(entry, true),
            "cmdline" => draft.cmdline = self.text(entry),
            "cmdline_file" => draft.cmdline_file = self.value(entry, true),
            "fast_boot" => draft.fast_boot = self.flag(entry),
            "guest_os" => draft.guest_os = self.choice(entry, &[("linux", GuestOs::Linux), ("peios", GuestOs::Peios)]),
            "arch" => draft.arch = self.choice(entry, &[("x86_64", Arch::X86_64), ("aarch64", Arch::Aarch64)]),
            "memory" => draft.memory = self.size(entry).filter(|bytes| self.enough_memory(entry, *bytes)),
            "cpus" => draft.cpus = self.cpus(entry),
            "timeout_scale" => draft.timeout_scale = self.factor(entry),
            "splats" => draft.splats = self.choice(entry, &[("log", Splats::Log), ("fail", Splats::Fail)]),
            "machine" => draft.machine = self.text(entry),
            "cpu" => draft.cpu = self.text(entry),
            "qemu_args" => draft.qemu_args = self.texts(entry),
            "disks" => draft.disks = self.disks(entry),
            "inject_agent" => draft.inject_agent = self.flag(entry),
            "build" => draft.build = self.text(entry),
            "build_out" => draft.build_out = self.path(entry),
            "extends" => {
                let origin = entry.value.at.clone();
                draft.extends = self.text(entry).map(|value| Setting { value, origin });
            }
            _ => self.unknown(entry, &PROFILE_KEYS, "key"),
        }
    }

    fn enough_memory(&mut self, entry: &Entry, bytes: u64) -> bool {
        let enough = bytes >= 16 << 20;
        if !enough {
            let message = format!("`memory`: expected at least 16M, found {}", entry.value.data.describe());
            self.mistake(&entry.value.at, message, None);
        }
        enough
    }

    pub(super) fn table<'a>(&mut self, node: &'a Node, what: &str) -> &'a [Entry] {
        match &node.data {
            Data::Table(entries) => entries,
            other => {
                self.mistake(&node.at, format!("{what}: expected a table, found {}", other.describe()), None);
                &[]
            }
        }
    }

    pub(super) fn unknown(&mut self, entry: &Entry, known: &[&str], kind: &str) {
        let hint = suggest::hint(&entry.key, known);
        self.mistake(&entry.key_at, format!("unknown {kind} `{}`", entry.key), Some(hint));
    }

    pub(super) fn wrong(&mut self, entry: &Entry, expected: &str) {
        let message = format!("`{}`: expected {expected}, found {}", entry.key, entry.value.data.describe());
        self.mistake(&entry.value.at, message, None);
    }

    pub(super) fn text(&mut self, entry: &Entry) -> Option<String> {
        match &entry.value.data {
            Data::Text(text) => Some(text.clone()),
            _ => {
                self.wrong(entry, "a string");
                None
            }
        }
    }

    fn path(&mut self, entry: &Entry) -> Option<PathBuf> {
        self.text(entry).map(|path| join(directory(&entry.value), path))
    }

    fn texts(&mut self, entry: &Entry) -> Option<Vec<String>> {
        let Data::List(items) = &entry.value.data else {
            self.wrong(entry, "an array of strings");
            return None;
        };
        let mut texts = Vec::new();
        for item in items {
            match &item.data {
                Data::Text(text) => texts.push(text.clone()),
                other => {
                    let message = format!("`{}`: expected strings in the array, found {}", entry.key, other.describe());
                    self.mistake(&item.at, message, None);
                }
            }
        }
        Some(texts)
    }

    pub(super) fn flag(&mut self, entry: &Entry) -> Option<bool> {
        match &entry.value.data {
            Data::Boolean(flag) => Some(*flag),
            _ => {
                self.wrong(entry, "true or false");
                None
            }
        }
    }

    pub(super) fn size(&mut self, entry: &Entry) -> Option<u64> {
        match &entry.value.data {
            Data::Integer(bytes) if *bytes >= 0 => u64::try_from(*bytes).ok(),
            Data::Text(text) => match size::parse_size(text) {
                Ok(bytes) => Some(bytes),
                Err(error) => {
                    self.mistake(&entry.value.at, format!("`{}`: {error}", entry.key), None);
                    None
                }
            },
            _ => {
                self.wrong(entry, "a size (bytes, or a string such as \"512M\")");
                None
            }
        }
    }

    fn cpus(&mut self, entry: &Entry) -> Option<u32> {
        match &entry.value.data {
            Data::Integer(count) if (1..=255).contains(count) => u32::try_from(*count).ok(),
            _ => {
                self.wrong(entry, "a whole number from 1 to 255");
                None
            }
        }
    }

    fn factor(&mut self, entry: &Entry) -> Option<f64> {
        let factor = match &entry.value.data {
            Data::Float(factor) => *factor,
            #[expect(clippy::cast_precision_loss, reason = "checked to be small below")]
            Data::Integer(factor) => *factor as f64,
            _ => 0.0,
        };
        if factor > 0.0 && factor <= 1000.0 {
            return Some(factor);
        }
        self.wrong(entry, "a number above 0, at most 1000");
        None
    }

    pub(super) fn choice<T: Copy>(&mut self, entry: &Entry, choices: &[(&str, T)]) -> Option<T> {
        if let Data::Text(text) = &entry.value.data
            && let Some((_, choice)) = choices.iter().find(|(name, _)| name == text)
        {
            return Some(*choice);
        }
        let names: Vec<String> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        self.wrong(entry, &names.join(" or "));
        None
    }

    /// A path or Nix value, in its string form or one of its table forms.
    pub(super) fn value(&mut self, entry: &Entry, out_allowed: bool) -> Option<Setting<Value>> {
        let origin = entry.value.at.clone();
        let base = directory(&entry.value);
        let value = match &entry.value.data {
            Data::Text(text) => match Value::parse(text) {
                // `{out}` is put in when all profiles are known.
                Ok(Value::Path(path)) if out_allowed && path.to_string_lossy().contains("{out}") => {
                    Ok(Value::Path(path))
                }
                Ok(Value::Path(path)) => Ok(Value::Path(join(base, path))),
                other => other,
            },
            Data::Table(entries) => return self.value_table(entry, entries).map(|value| Setting { value, origin }),
            _ => {
                self.wrong(entry, "a path or a Nix value (a string or a table)");
                return None;
            }
        };
        match value {
            Ok(value) => Some(Setting { value, origin }),
            Err(error) => {
                self.mistake(&origin, format!("`{}`: {}", entry.key, error.message), Some(error.hint));
                None
            }
        }
    }

    fn value_table(&mut self, outer: &Entry, entries: &[Entry]) -> Option<Value> {
        let mut found: [Option<String>; 4] = Default::default();
        let names = ["nix", "path", "file", "attr"];
        for entry in entries {
            match names.iter().position(|name| *name == entry.key) {
                Some(at) => found[at] = Some(self.text(entry)?),
                None => {
                    self.unknown(entry, &names, "key");
                    return None;
                }
            }
        }
        let base = directory(&outer.value);
        match found {
            [Some(nix), None, file, None] => match NixValue::with_file(&nix, file.as_deref()) {
                Ok(value) => Some(Value::Nix(value)),
                Err(error) => {
                    self.mistake(&outer.value.at, format!("`{}`: {}", outer.key, error.message), Some(error.hint));
                    None
                }
            },
            [None, Some(path), None, None] => Some(Value::Path(join(base, path))),
            [None, None, Some(file), Some(attr)] if !attr.is_empty() => {
                Some(Value::Nix(NixValue { source: NixSource::Attr { file: join(base, file), attr }, file: None }))
            }
            _ => {
                self.mistake(
                    &outer.value.at,
                    format!("`{}`: these keys make no value together", outer.key),
                    Some(
                        "write { nix = \"…\" }, { nix = \"…\", file = \"…\" }, { path = \"…\" } or { file = \"default.nix\", attr = \"…\" }"
                            .to_owned(),
                    ),
                );
                None
            }
        }
    }
}

/// The directory that relative paths of a value are relative to: that of the file it stands in.
pub fn directory(node: &Node) -> &Path {
    node.at.file.parent().unwrap_or(Path::new("/"))
}
