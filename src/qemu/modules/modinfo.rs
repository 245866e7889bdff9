//! The `.modinfo` section of a module: `key=value` strings, each ended by a zero byte.

use object::{Object, ObjectSection};

/// What a module says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModInfo {
    /// The modules it can't be loaded without, names as written.
    pub depends: Vec<String>,
    /// The release it was built for, the first word of `vermagic`.
    pub release: Option<String>,
    /// The kernel's name of it; old kernels' modules don't tell.
    pub name: Option<String>,
}

/// Reads a module's bytes.
///
/// # Errors
/// A fragment: it is no ELF file, or has no `.modinfo`.
pub fn modinfo(module: &[u8]) -> Result<ModInfo, String> {
    let file = object::File::parse(module).map_err(|_| "not an ELF file".to_owned())?;
    let section = file.section_by_name(".modinfo").ok_or("an ELF file without `.modinfo`, not a kernel module")?;
    let data = section.data().map_err(|_| "a damaged `.modinfo` section".to_owned())?;
    Ok(parse(data))
}

fn parse(section: &[u8]) -> ModInfo {
    let mut info = ModInfo::default();
    for entry in section.split(|byte| *byte == 0) {
        let entry = String::from_utf8_lossy(entry);
        match entry.split_once('=') {
            Some(("depends", names)) => {
                info.depends = names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
            }
            Some(("name", name)) if !name.is_empty() => info.name = Some(name.to_owned()),
            Some(("vermagic", magic)) => info.release = magic.split_whitespace().next().map(str::to_owned),
            _ => {}
        }
    }
    info
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_entries() {
        let info = parse(b"license=GPL\0depends=virtio_ring,virtio\0\0vermagic=6.1.0-56 SMP preempt \0name=x\0");
        assert_eq!(info.depends, ["virtio_ring", "virtio"]);
        assert_eq!(info.release.as_deref(), Some("6.1.0-56"));
        assert_eq!(info.name.as_deref(), Some("x"));
        assert_eq!(parse(b"depends=\0"), ModInfo::default());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            parse(&bytes);
            let _ = modinfo(&bytes);
            let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
            elf.extend_from_slice(&bytes);
            let _ = modinfo(&elf);
        }
    }
}
