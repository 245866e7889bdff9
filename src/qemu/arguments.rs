//! The command line: a value in, words out.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use super::accelerator::Accel;
use super::disks::{self, DiskLayout};

/// Ports that are left free for devices plugged in later.
pub(super) const FREE_PORTS: u8 = 4;

/// The id of the RAM, which is part of a snapshot's format.
const RAM_ID: &str = "ram";
/// QEMU rounds RAM up to a multiple of this, in bytes.
const RAM_UNIT: u64 = 8192;
/// The device that network cards are.
pub const CARD_DRIVER: &str = "virtio-net-pci";

/// The id of the agent's port: QMP tells when something in the guest opens or closes it.
pub const AGENT_PORT_ID: &str = "agent";

/// Where a machine's RAM lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RamKind {
    /// In QEMU's own memory: the profile's own arguments choose a backend. No snapshot can be taken.
    #[default]
    Own,
    /// In a file that QEMU writes to, so that a snapshot need only keep the file.
    Shared,
    /// Copy-on-write over a file that nobody writes to.
    Private,
}

/// The CPU model of guests whose profile names none.
pub const CPU_MODEL: &str = "max";

/// One machine to start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MachineSpec {
    /// Its name, for people who look at processes.
    pub name: String,
    /// `x86_64` or `aarch64`.
    pub arch: String,
    /// What runs its instructions.
    pub accel: Accel,
    /// Bytes of RAM.
    pub memory: u64,
    /// Number of CPUs.
    pub cpus: u32,
    /// QEMU's CPU model; `max` where none is given.
    pub cpu_model: Option<String>,
    /// QEMU's machine; `q35` (aarch64: `virt`) where none is given.
    pub machine: Option<String>,
    /// The kernel.
    pub kernel: PathBuf,
    /// The initrd.
    pub initrd: PathBuf,
    /// The kernel's command line.
    pub cmdline: String,
    /// The name of the agent's port.
    pub agent_port: String,
    /// Makes virtio-rng, `RDRAND` under TCG and the kernel's boot seed deterministic.
    pub rng_seed: Option<u64>,
    /// Seconds since the epoch that the machine's clock begins at; the host's time where none is given.
    pub initial_time: Option<i64>,
    /// The disks that it starts with.
    pub disks: DiskLayout,
    /// Where TCG tells of a CPU that was reset, and why.
    pub reset_log: PathBuf,
    /// Network cards that are there from the start.
    pub cards: Vec<CardSpec>,
    /// Put behind all others.
    pub extra: Vec<String>,
    /// Where its RAM lies.
    pub ram: RamKind,
    /// Whether it waits for the state of another machine instead of booting.
    pub incoming: bool,
}

/// A network card that is there from the start, in a port of its own so that it can be unplugged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CardSpec {
    /// What QEMU calls it; its other parts are named after it.
    pub id: String,
    /// Its hardware address.
    pub mac: String,
    /// The largest packet.
    pub mtu: u16,
}

impl CardSpec {
    /// What QEMU calls the other end of its cable.
    pub fn netdev(id: &str) -> String {
        format!("{id}-net")
    }

    /// The driver and properties of the device, but for its id and port.
    pub fn properties(&self) -> [(&'static str, String); 4] {
        [
            ("netdev", Self::netdev(&self.id)),
            ("mac", self.mac.clone()),
            // Nothing boots from it: firmware need not look at its ROM.
            ("romfile", String::new()),
            ("host_mtu", self.mtu.to_string()),
        ]
    }
}

/// The ends of socket pairs that QEMU inherits.
#[derive(Debug, Clone, Copy)]
pub struct Channels {
    /// QMP.
    pub qmp: RawFd,
    /// The agent's port.
    pub agent: RawFd,
    /// The serial console.
    pub serial: RawFd,
    /// `hvc0`.
    pub virtio: RawFd,
    /// The file of its RAM, where it has one.
    pub ram: Option<RawFd>,
}

/// The words of the command line, without the program; `disks` are the ends that its disks are served on, `cards` the ends of
/// the cards' cables.
pub fn arguments(spec: &MachineSpec, channels: Channels, disks: &[RawFd], cards: &[RawFd]) -> Vec<OsString> {
    let mut words = Words::default();
    machine(&mut words, spec, channels.ram);
    boot(&mut words, spec);
    devices(&mut words, spec, channels);
    for (option, value) in disks::words(&spec.disks, disks) {
        words.text(option, &value);
    }
    for (number, (card, fd)) in spec.cards.iter().zip(cards).enumerate() {
        network_card(&mut words, number, card, *fd);
    }
    words.0.extend(spec.extra.iter().map(OsString::from));
    words.0
}

fn machine(words: &mut Words, spec: &MachineSpec, ram: Option<RawFd>) {
    words.text("-name", &format!("provium-{}", escape(&spec.name)));
    words.text(
        "-accel",
        match spec.accel {
            Accel::Kvm => "kvm",
            Accel::Tcg => "tcg,thread=multi",
        },
    );
    let kind = spec.machine_kind();
    let size = spec.ram_size();
    match (spec.ram, ram) {
        (RamKind::Own, _) | (_, None) => words.text("-machine", kind),
        (how, Some(fd)) => {
            words.text("-machine", &format!("{kind},memory-backend={RAM_ID}"));
            // The file is opened once more: a name in a directory is not needed, nor is permission to write to it.
            let how = match how {
                RamKind::Shared => "share=on",
                _ => "share=off,readonly=on,rom=off",
            };
            let backend = format!("memory-backend-file,id={RAM_ID},size={size},mem-path=/proc/self/fd/{fd},{how}");
            words.text("-object", &backend);
        }
    }
    words.text("-cpu", spec.cpu_model.as_deref().unwrap_or(CPU_MODEL));
    words.text("-smp", &spec.cpus.max(1).to_string());
    words.text("-m", &format!("{}k", size / 1024));
    for word in ["-display", "none", "-nodefaults", "-no-user-config", "-sandbox", "on"] {
        words.0.push(word.into());
    }
    // A guest that resets, powers off or panics stops where it is: it can be looked at, and QMP tells which it was.
    words.text("-action", "reboot=shutdown,shutdown=pause,panic=pause");
    if spec.accel == Accel::Tcg {
        // A triple fault looks like any other reset, but for this log.
        words.text("-d", "cpu_reset");
        words.path("-D", "", &spec.reset_log, "");
    }
    if spec.incoming {
        words.text("-incoming", "defer");
    }
    if let Some(seed) = spec.rng_seed {
        words.text("-seed", &seed.to_string());
    }
    if let Some(seconds) = spec.initial_time {
        words.text("-rtc", &format!("base={}", date(seconds)));
    }
}

fn boot(words: &mut Words, spec: &MachineSpec) {
    words.path("-kernel", "", &spec.kernel, "");
    words.path("-initrd", "", &spec.initrd, "");
    words.text("-append", &spec.cmdline);
}

fn devices(words: &mut Words, spec: &MachineSpec, channels: Channels) {
    words.text("-chardev", &format!("socket,id=qmp,fd={}", channels.qmp));
    words.text("-mon", "chardev=qmp,mode=control");
    words.text("-chardev", &format!("socket,id=serial,fd={}", channels.serial));
    words.text("-serial", "chardev:serial");
    words.text("-device", "virtio-serial-pci,id=channels,max_ports=8");
    words.text("-chardev", &format!("socket,id=agent,fd={}", channels.agent));
    words.text(
        "-device",
        &format!(
            "virtserialport,id={AGENT_PORT_ID},bus=channels.0,nr=1,chardev=agent,name={}",
            escape(&spec.agent_port)
        ),
    );
    words.text("-chardev", &format!("socket,id=hvc0,fd={}", channels.virtio));
    words.text("-device", "virtconsole,bus=channels.0,nr=2,chardev=hvc0");
    // With `-seed` the built-in generator is deterministic, else its bytes are the host's.
    words.text("-object", "rng-builtin,id=rng");
    words.text("-device", "virtio-rng-pci,rng=rng");
    if !spec.is_arm() {
        words.text("-device", "pvpanic-pci");
    }
    if spec.has_acpi() {
        // Another one in each QEMU: a kernel with the driver reseeds its random numbers in every clone.
        words.text("-device", "vmgenid,guid=auto");
    }
    for (option, value) in disks::ports(&spec.disks) {
        words.text(option, &value);
    }
    for port in 0..FREE_PORTS {
        words.text("-device", &format!("pcie-root-port,id=free{port},chassis={},slot={port}", port + 1));
    }
}

fn network_card(words: &mut Words, number: usize, card: &CardSpec, fd: RawFd) {
    let (id, chassis) = (escape(&card.id), number + 32);
    words.text("-device", &format!("pcie-root-port,id={id}-port,chassis={chassis},slot=0"));
    let netdev = escape(&CardSpec::netdev(&card.id));
    words.text("-netdev", &format!("stream,id={netdev},addr.type=fd,addr.str={fd}"));
    let properties = card.properties().map(|(name, value)| format!(",{name}={}", escape(&value))).concat();
    words.text("-device", &format!("{CARD_DRIVER},id={id},bus={id}-port{properties}"));
}

impl MachineSpec {
    fn is_arm(&self) -> bool {
        self.arch == "aarch64"
    }

    fn machine_kind(&self) -> &str {
        self.machine.as_deref().unwrap_or(if self.is_arm() { "virt" } else { "q35" })
    }

    /// Whether it is one of the ordinary PCs, whose tables can tell of any device.
    fn has_acpi(&self) -> bool {
        let kind = self.machine_kind().split(',').next().unwrap_or_default();
        !self.is_arm() && (kind.contains("q35") || kind == "pc" || kind.starts_with("pc-"))
    }

    /// Bytes of RAM as QEMU counts them: it rounds up as well.
    pub fn ram_size(&self) -> u64 {
        self.memory.next_multiple_of(RAM_UNIT)
    }

    /// Whether the words of the profile choose where the RAM lies.
    pub fn chooses_ram(machine: Option<&str>, extra: &[String]) -> bool {
        let chosen = |text: &str| text.contains("memory-backend") || text.contains("memdev=");
        machine.is_some_and(chosen) || extra.iter().any(|word| chosen(word) || word == "-mem-path")
    }
}

/// Seconds since the epoch as QEMU reads a date, in UTC. The calendar is that of Howard Hinnant's `civil_from_days`.
fn date(seconds: i64) -> String {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
}

#[derive(Default)]
struct Words(Vec<OsString>);

impl Words {
    fn text(&mut self, option: &str, value: &str) {
        self.0.extend([option.into(), value.into()]);
    }

    /// A path inside a list of properties must have its commas doubled; alone (`prefix` empty) it stands as it is.
    fn path(&mut self, option: &str, prefix: &str, path: &Path, suffix: &str) {
        let mut value = OsString::from(prefix);
        match (prefix, path.to_str()) {
            ("", _) | (_, None) => value.push(path),
            (_, Some(text)) => value.push(escape(text)),
        }
        value.push(suffix);
        self.0.extend([option.into(), value]);
    }
}

fn escape(text: &str) -> String {
    text.replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> MachineSpec {
        MachineSpec {
            name: "a,b".to_owned(),
            arch: "x86_64".to_owned(),
            memory: 512 << 20,
            cpus: 2,
            kernel: "/k,1/bzImage".into(),
            initrd: "/i".into(),
            cmdline: "console=hvc0 quiet".to_owned(),
            agent_port: "org,x".to_owned(),
            reset_log: "/run,x/r".into(),
            extra: vec!["-device".to_owned(), "foo".to_owned()],
            ..MachineSpec::default()
        }
    }

    fn line(spec: &MachineSpec) -> String {
        let channels = Channels { qmp: 7, agent: 8, serial: 9, virtio: 10, ram: Some(11) };
        let words = arguments(spec, channels, &[], &[12]);
        words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn commas_are_doubled_only_inside_lists() {
        let line = line(&spec());
        for part in [
            "-name provium-a,,b",
            "-kernel /k,1/bzImage",
            "-D /run,x/r",
            "name=org,,x",
            "-m 524288k",
            "-smp 2",
            "-accel tcg,thread=multi",
            "-machine q35",
            "socket,id=qmp,fd=7",
            "socket,id=agent,fd=8",
            "socket,id=serial,fd=9",
            "socket,id=hvc0,fd=10",
            "-sandbox on",
        ] {
            assert!(line.contains(part), "{part} is missing in {line}");
        }
        assert!(line.ends_with("-device foo"));
        for part in ["-netdev", "-seed", "-rtc"] {
            assert!(!line.contains(part), "{part} in {line}");
        }
    }

    #[test]
    fn cards_have_ports_of_their_own() {
        let card = CardSpec { id: "nic0".to_owned(), mac: "52:54:00:00:00:02".to_owned(), mtu: 1500 };
        let line = line(&MachineSpec { cards: vec![card], ..spec() });
        for part in [
            "pcie-root-port,id=nic0-port,chassis=32,slot=0",
            "-netdev stream,id=nic0-net,addr.type=fd,addr.str=12",
            "virtio-net-pci,id=nic0,bus=nic0-port,netdev=nic0-net,mac=52:54:00:00:00:02,romfile=,host_mtu=1500",
        ] {
            assert!(line.contains(part), "{part} is missing in {line}");
        }
    }

    #[test]
    fn seed_and_time() {
        let line = line(&MachineSpec { rng_seed: Some(u64::MAX), initial_time: Some(951_868_799), ..spec() });
        assert!(line.contains("-seed 18446744073709551615 -rtc base=2000-02-29T23:59:59"), "{line}");
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00"),
            (-1, "1969-12-31T23:59:59"),
            (1_709_164_800, "2024-02-29T00:00:00"),
            (4_107_542_400, "2100-03-01T00:00:00"),
            (253_402_300_799, "9999-12-31T23:59:59"),
        ] {
            assert_eq!(date(seconds), text);
        }
    }

    #[test]
    fn ram_in_a_file() {
        let of = |ram, incoming| line(&MachineSpec { ram, incoming, memory: (512 << 20) + 1, ..spec() });
        let shared = of(RamKind::Shared, false);
        assert!(shared.contains("-machine q35,memory-backend=ram -object memory-backend-file,id=ram,size=536879104,"));
        assert!(shared.contains("mem-path=/proc/self/fd/11,share=on") && shared.contains("-m 524296k"), "{shared}");
        assert!(!shared.contains("-incoming"));
        let private = of(RamKind::Private, true);
        assert!(private.contains("mem-path=/proc/self/fd/11,share=off,readonly=on,rom=off"), "{private}");
        assert!(private.contains("-incoming defer"));
        assert!(MachineSpec::chooses_ram(Some("q35,memory-backend=m"), &[]));
        assert!(MachineSpec::chooses_ram(None, &["node,memdev=m".to_owned()]));
        assert!(!MachineSpec::chooses_ram(Some("q35"), &["-device".to_owned()]));
    }

    #[test]
    fn the_generation_id_is_of_ordinary_machines() {
        for (machine, there) in [(None, true), (Some("pc"), true), (Some("pc-q35-9.0"), true), (Some("microvm"), false)]
        {
            let line = line(&MachineSpec { machine: machine.map(str::to_owned), ..spec() });
            assert_eq!(line.contains("vmgenid"), there, "{line}");
        }
    }

    #[test]
    fn what_the_profile_names_is_used() {
        let spec = MachineSpec {
            accel: Accel::Kvm,
            cpu_model: Some("host".to_owned()),
            machine: Some("pc".to_owned()),
            arch: "aarch64".to_owned(),
            ..spec()
        };
        let line = line(&spec);
        assert!(line.contains("-accel kvm -machine pc -cpu host"), "{line}");
        assert!(!line.contains("pvpanic") && !line.contains("cpu_reset"));
    }
}
