//! The agent's program as it comes into a guest.

use std::mem::{offset_of, size_of};
use std::path::Path;

use object::elf::FileHeader64;
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, U16, U64};

use super::error::QemuError;
use crate::foundation::path_error::PathContext;

/// Reads the agent's program and checks that it runs in any guest: a static ELF file. Of the file only that is kept which
/// a guest runs: symbols and debug information can be ten times as much, and every guest would unpack them.
///
/// # Errors
/// Not there, no program, or one that needs a loader.
pub fn read_agent(path: &Path) -> Result<Vec<u8>, QemuError> {
    let mut content = std::fs::read(path).at("read the guest agent", path)?;
    match loaded_length(&content) {
        Ok(length) => cut(&mut content, length),
        Err(why) => {
            return Err(QemuError::Image(format!(
                "`{}` can't be the guest agent: {why}\nhint: build it with the project's own `.cargo/config.toml`, without \
                 RUSTFLAGS",
                path.display()
            )));
        }
    }
    Ok(content)
}

/// How much of the file, from its front, the kernel looks at: the headers and the segments.
fn loaded_length(content: &[u8]) -> Result<usize, &'static str> {
    const BROKEN: &str = "its ELF header is broken";
    let header = FileHeader64::<Endianness>::parse(content).map_err(|_| "it is not a 64-bit ELF program")?;
    let endian = header.endian().map_err(|_| BROKEN)?;
    let segments = header.program_headers(endian, content).map_err(|_| BROKEN)?;
    if segments.iter().any(|segment| segment.p_type(endian) == object::elf::PT_INTERP) {
        return Err("it is linked dynamically, and the guest may not have its libraries");
    }
    let table = u64::try_from(size_of_val(segments)).ok().and_then(|size| header.e_phoff(endian).checked_add(size));
    let ends = segments.iter().map(|segment| segment.p_offset(endian).checked_add(segment.p_filesz(endian)));
    let end = ends
        .chain([table, u64::try_from(size_of::<FileHeader64<Endianness>>()).ok()])
        .try_fold(0, |most, end| Some(most.max(end?)));
    let end = end.and_then(|end| usize::try_from(end).ok()).ok_or(BROKEN)?;
    if end > content.len() { Err("it is cut short") } else { Ok(end) }
}

/// Cuts an ELF file behind what is loaded, and makes its header say that there are no sections.
fn cut(content: &mut Vec<u8>, length: usize) {
    content.truncate(length);
    type Header = FileHeader64<Endianness>;
    for (at, size) in [
        (offset_of!(Header, e_shoff), size_of::<U64<Endianness>>()),
        (offset_of!(Header, e_shnum), size_of::<U16<Endianness>>()),
        (offset_of!(Header, e_shstrndx), size_of::<U16<Endianness>>()),
    ] {
        content[at..at + size].fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn what_no_guest_can_run_is_refused() {
        let text = read_agent(Path::new("/bin/sh")).unwrap_err().to_string();
        assert!(text.contains("linked dynamically"), "{text}");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent");
        std::fs::write(&path, "#!/bin/sh\n").unwrap();
        assert!(read_agent(&path).unwrap_err().to_string().contains("not a 64-bit ELF"));
        let whole = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        std::fs::write(&path, &whole[..whole.len() / 100]).unwrap();
        let text = read_agent(&path).unwrap_err().to_string();
        assert!(text.contains("cut short"), "{text}");
    }

    #[test]
    fn what_is_kept_is_smaller_and_runs() {
        // Like the agent, this test is a static program with debug information.
        let own = std::env::current_exe().unwrap();
        let kept = read_agent(&own).unwrap();
        assert!(kept.len() as u64 * 2 < std::fs::metadata(&own).unwrap().len());
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("kept"), &kept).unwrap();
        assert_eq!(read_agent(&dir.path().join("kept")).unwrap(), kept);
        // Copied by another process: a child of some other test may still have the first file open for writing, which can't
        // be executed then.
        let run = "cp kept agent && chmod 755 agent && exec ./agent --exact 'no such test'";
        let output = Command::new("/bin/sh").args(["-c", run]).current_dir(dir.path()).output().unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).contains("running 0 tests"), "{output:?}");
    }
}
