//! The command line: a value in, words out.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use super::accelerator::Accel;

/// Ports that are left free for devices plugged in later.
const FREE_PORTS: u8 = 4;

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
    /// Where the serial console's bytes go.
    pub serial_log: PathBuf,
    /// Where the bytes of `hvc0` go.
    pub virtio_log: PathBuf,
    /// The name of the agent's port.
    pub agent_port: String,
    /// Put behind all others.
    pub extra: Vec<String>,
}

/// The words of the command line, without the program.
pub fn arguments(spec: &MachineSpec, qmp: RawFd, agent: RawFd) -> Vec<OsString> {
    let mut words = Words::default();
    let arm = spec.arch == "aarch64";
    words.text("-name", &format!("provium-{}", escape(&spec.name)));
    words.text(
        "-accel",
        match spec.accel {
            Accel::Kvm => "kvm",
            Accel::Tcg => "tcg,thread=multi",
        },
    );
    words.text("-machine", spec.machine.as_deref().unwrap_or(if arm { "virt" } else { "q35" }));
    words.text("-cpu", spec.cpu_model.as_deref().unwrap_or("max"));
    words.text("-smp", &spec.cpus.max(1).to_string());
    words.text("-m", &format!("{}k", spec.memory / 1024));
    for word in ["-display", "none", "-nodefaults", "-no-user-config", "-sandbox", "on"] {
        words.0.push(word.into());
    }
    // A guest that resets, powers off or panics stops where it is: it can be looked at, and QMP tells which it was.
    words.text("-action", "reboot=shutdown,shutdown=pause,panic=pause");
    words.path("-kernel", "", &spec.kernel, "");
    words.path("-initrd", "", &spec.initrd, "");
    words.text("-append", &spec.cmdline);
    words.text("-chardev", &format!("socket,id=qmp,fd={qmp}"));
    words.text("-mon", "chardev=qmp,mode=control");
    words.path("-chardev", "file,id=serial,path=", &spec.serial_log, "");
    words.text("-serial", "chardev:serial");
    words.text("-device", "virtio-serial-pci,id=channels,max_ports=8");
    words.text("-chardev", &format!("socket,id=agent,fd={agent}"));
    words.text(
        "-device",
        &format!("virtserialport,bus=channels.0,nr=1,chardev=agent,name={}", escape(&spec.agent_port)),
    );
    words.path("-chardev", "file,id=hvc0,path=", &spec.virtio_log, "");
    words.text("-device", "virtconsole,bus=channels.0,nr=2,chardev=hvc0");
    words.text("-device", "virtio-rng-pci");
    if !arm {
        words.text("-device", "pvpanic-pci");
    }
    for port in 0..FREE_PORTS {
        words.text("-device", &format!("pcie-root-port,id=free{port},chassis={},slot={port}", port + 1));
    }
    words.0.extend(spec.extra.iter().map(OsString::from));
    words.0
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
            serial_log: "/logs,x/s".into(),
            virtio_log: "/logs,x/v".into(),
            agent_port: "org.x".to_owned(),
            extra: vec!["-device".to_owned(), "foo".to_owned()],
            ..MachineSpec::default()
        }
    }

    fn line(spec: &MachineSpec) -> String {
        let words = arguments(spec, 7, 8);
        words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn commas_are_doubled_only_inside_lists() {
        let line = line(&spec());
        for part in [
            "-name provium-a,,b",
            "-kernel /k,1/bzImage",
            "path=/logs,,x/s",
            "-m 524288k",
            "-smp 2",
            "-accel tcg,thread=multi",
            "-machine q35",
            "socket,id=qmp,fd=7",
            "socket,id=agent,fd=8",
            "-sandbox on",
        ] {
            assert!(line.contains(part), "{part} is missing in {line}");
        }
        assert!(line.ends_with("-device foo"));
        assert!(!line.contains("-netdev"));
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
        assert!(!line.contains("pvpanic"));
    }
}
