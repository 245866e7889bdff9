//! KVM where it can run a stock kernel, else TCG.

use std::fs::File;
use std::os::fd::AsRawFd;

use super::error::QemuError;

/// `KVM_GET_API_VERSION` and `KVM_CREATE_VM` of `linux/kvm.h`.
const KVM_GET_API_VERSION: libc::c_ulong = 0xAE00;
const KVM_CREATE_VM: libc::c_ulong = 0xAE01;
/// The only API version there has ever been.
const KVM_API: i32 = 12;

/// What runs the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Accel {
    /// The host's CPU.
    Kvm,
    /// QEMU's translator.
    #[default]
    Tcg,
}

impl Accel {
    /// As QEMU and the events name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AccelRequest {
    /// The best that works.
    #[default]
    Auto,
    /// KVM or nothing.
    Kvm,
    /// TCG.
    Tcg,
}

/// The choice and its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChosenAccel {
    /// What runs the guests.
    pub accel: Accel,
    /// Why, in one line.
    pub reason: String,
}

/// What is known of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Facts {
    /// Whether `/dev/kvm` can be used, or why not.
    device: Result<(), String>,
    /// Whether the CPU shows hardware virtualisation, or the guest's architecture is the host's and needs no flag.
    cpu_flag: bool,
    /// Whether this is a Nix build that was not promised KVM.
    nix_build_without_kvm: bool,
    /// Whether the guest's architecture is the host's.
    same_arch: bool,
}

/// Chooses the accelerator for guests of `arch`.
///
/// # Errors
/// KVM was asked for and can't be used.
pub fn choose(request: AccelRequest, arch: &str) -> Result<ChosenAccel, QemuError> {
    if request == AccelRequest::Tcg {
        return Ok(ChosenAccel { accel: Accel::Tcg, reason: "asked for".to_owned() });
    }
    decide(request, &gather(arch))
}

fn decide(request: AccelRequest, facts: &Facts) -> Result<ChosenAccel, QemuError> {
    let obstacle = if !facts.same_arch {
        Some("the guest's architecture is not the host's".to_owned())
    } else if let Err(why) = &facts.device {
        Some(why.clone())
    } else if !facts.cpu_flag {
        Some(
            "/dev/kvm opens, but the CPU shows neither vmx nor svm: such a KVM may be unable to run a stock kernel"
                .to_owned(),
        )
    } else {
        None
    };
    match (request, obstacle) {
        (AccelRequest::Tcg, _) => Ok(ChosenAccel { accel: Accel::Tcg, reason: "asked for".to_owned() }),
        (AccelRequest::Kvm, None) => Ok(ChosenAccel { accel: Accel::Kvm, reason: "asked for".to_owned() }),
        // Asked for by name, a device that works is taken at its word, whatever the CPU shows.
        (AccelRequest::Kvm, Some(_)) if facts.same_arch && facts.device.is_ok() => Ok(ChosenAccel {
            accel: Accel::Kvm,
            reason: "asked for, though the CPU shows neither vmx nor svm".to_owned(),
        }),
        (AccelRequest::Kvm, Some(why)) => Err(QemuError::NoKvm(why)),
        (AccelRequest::Auto, _) if facts.nix_build_without_kvm => Ok(ChosenAccel {
            accel: Accel::Tcg,
            reason: "inside a Nix build whose requiredSystemFeatures do not hold kvm".to_owned(),
        }),
        (AccelRequest::Auto, Some(reason)) => Ok(ChosenAccel { accel: Accel::Tcg, reason }),
        (AccelRequest::Auto, None) => Ok(ChosenAccel { accel: Accel::Kvm, reason: "/dev/kvm works".to_owned() }),
    }
}

fn gather(arch: &str) -> Facts {
    let features = std::env::var("requiredSystemFeatures").unwrap_or_default();
    Facts {
        device: try_device(),
        cpu_flag: std::env::consts::ARCH != "x86_64" || shows_virtualisation(),
        nix_build_without_kvm: std::env::var_os("NIX_BUILD_TOP").is_some()
            && !features.split_whitespace().any(|feature| feature == "kvm"),
        same_arch: arch == std::env::consts::ARCH,
    }
}

fn shows_virtualisation() -> bool {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = text.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm")
}

fn try_device() -> Result<(), String> {
    let device = File::options().read(true).write(true).open("/dev/kvm");
    let device = device.map_err(|error| {
        let why = crate::foundation::path_error::describe_io(&error);
        format!("/dev/kvm can't be opened: {why}")
    })?;
    // SAFETY: ioctls without arguments on a descriptor that is open.
    let version = unsafe { libc::ioctl(device.as_raw_fd(), KVM_GET_API_VERSION, 0) };
    if version != KVM_API {
        return Err(format!("/dev/kvm speaks version {version} of its API, expected {KVM_API}"));
    }
    // SAFETY: as above; the new machine is closed at once.
    let machine = unsafe { libc::ioctl(device.as_raw_fd(), KVM_CREATE_VM, 0) };
    if machine < 0 {
        let why = crate::foundation::path_error::describe_io(&std::io::Error::last_os_error());
        return Err(format!("/dev/kvm can't make a virtual machine: {why}"));
    }
    // SAFETY: the descriptor was just made, and nothing else has it.
    unsafe { libc::close(machine) };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kvm_only_where_it_runs_a_stock_kernel() {
        let good = Facts { device: Ok(()), cpu_flag: true, nix_build_without_kvm: false, same_arch: true };
        let none = Facts { device: Err("no device".to_owned()), ..good.clone() };
        let para = Facts { cpu_flag: false, ..good.clone() };
        let nix = Facts { nix_build_without_kvm: true, ..good.clone() };
        let foreign = Facts { same_arch: false, ..good.clone() };
        let accel = |request, facts| decide(request, facts).map(|chosen| chosen.accel);
        assert_eq!(accel(AccelRequest::Auto, &good).unwrap(), Accel::Kvm);
        for facts in [&none, &para, &nix, &foreign] {
            assert_eq!(accel(AccelRequest::Auto, facts).unwrap(), Accel::Tcg);
            assert!(!decide(AccelRequest::Auto, facts).unwrap().reason.contains('\n'));
        }
        assert_eq!(accel(AccelRequest::Kvm, &para).unwrap(), Accel::Kvm);
        assert!(accel(AccelRequest::Kvm, &none).unwrap_err().to_string().contains("no device"));
        assert!(accel(AccelRequest::Kvm, &foreign).is_err());
        assert_eq!(accel(AccelRequest::Tcg, &good).unwrap(), Accel::Tcg);
    }
}
