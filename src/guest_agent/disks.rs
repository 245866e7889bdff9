//! Finding a disk by its serial number, without udev: sysfs tells, and the kernel announces each new one.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use super::port::names;
use super::sys::{self, c_string, check};
use crate::agent_protocol::OpReply;

/// Where disks tell their serial number: virtio; NVMe, and SCSI of newer kernels; SCSI as its page 0x80, behind four bytes.
const SERIALS: [(&str, usize); 3] = [("serial", 0), ("device/serial", 0), ("device/vpd_pg80", 4)];

/// The name of the disk with this serial number, such as `vda`. `sysfs` is one that nobody else can unmount.
pub fn find(serial: &[u8], sysfs: Option<&OwnedFd>) -> io::Result<Option<String>> {
    let directory = open("block", libc::O_RDONLY | libc::O_DIRECTORY, sysfs)?;
    Ok(names(directory).into_iter().find(|name| {
        SERIALS.iter().any(|(attribute, skip)| {
            let text = read(&format!("block/{name}/{attribute}"), sysfs).unwrap_or_default();
            text.get(*skip..).is_some_and(|text| trimmed(text) == serial)
        })
    }))
}

/// The path of the disk's node, which is made where the guest's `/dev` lacks it; with `rescan` the kernel first asks the disk
/// for its size.
pub fn node(serial: &[u8], rescan: bool, sysfs: Option<&OwnedFd>) -> io::Result<OpReply> {
    let Some(name) = find(serial, sysfs)? else { return Ok(OpReply::Device(None)) };
    if rescan && let Ok(file) = open(&format!("block/{name}/device/rescan"), libc::O_WRONLY, sysfs) {
        sys::write(file.as_fd(), b"1")?;
    }
    let path = format!("/dev/{name}");
    let node = c_string(path.as_bytes())?;
    // SAFETY: a C string.
    if unsafe { libc::access(node.as_ptr(), libc::F_OK) } != 0 {
        make_node(&node, &read(&format!("block/{name}/dev"), sysfs)?)?;
    }
    Ok(OpReply::Device(Some(path)))
}

fn make_node(node: &CString, numbers: &[u8]) -> io::Result<()> {
    let text = String::from_utf8_lossy(numbers);
    let mut numbers = text.trim().split(':').map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        return Err(io::Error::from_raw_os_error(libc::ENXIO));
    };
    // SAFETY: C strings and numbers. A directory that is there already is fine.
    unsafe {
        libc::mkdir(c"/dev".as_ptr(), 0o755);
        match check(libc::mknod(node.as_ptr(), libc::S_IFBLK | 0o600, libc::makedev(major, minor))) {
            Err(error) if error.raw_os_error() != Some(libc::EEXIST) => Err(error),
            _ => Ok(()),
        }
    }
}

fn open(path: &str, flags: i32, sysfs: Option<&OwnedFd>) -> io::Result<OwnedFd> {
    match sysfs {
        Some(sysfs) => sys::openat(sysfs.as_raw_fd(), &c_string(path.as_bytes())?, flags, 0),
        None => sys::open(format!("/sys/{path}").as_bytes(), flags, 0),
    }
}

fn read(path: &str, sysfs: Option<&OwnedFd>) -> io::Result<Vec<u8>> {
    let file = open(path, libc::O_RDONLY, sysfs)?;
    let mut buffer = [0; 256];
    let count = sys::read(file.as_fd(), &mut buffer)?;
    Ok(buffer[..count].to_vec())
}

/// Without the blanks and NUL bytes that fill it up.
fn trimmed(text: &[u8]) -> &[u8] {
    let fills = |byte: &u8| *byte == 0 || byte.is_ascii_whitespace();
    let begin = text.iter().position(|byte| !fills(byte)).unwrap_or(text.len());
    let end = text.iter().rposition(|byte| !fills(byte)).map_or(begin, |at| at + 1);
    &text[begin..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_disk_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let file = |path: &str, content: &[u8]| {
            let path = dir.path().join("block").join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        };
        file("vda/serial", b"data");
        file("vdb/serial", b"data2\n");
        file("nvme0n1/device/serial", b"fast                \n");
        file("sda/device/vpd_pg80", b"\0\x80\0\x04disk");
        file("loop0/size", b"0");
        let sysfs = sys::open(dir.path().to_str().unwrap().as_bytes(), libc::O_RDONLY | libc::O_DIRECTORY, 0).unwrap();
        let name = |serial: &[u8]| find(serial, Some(&sysfs)).unwrap();
        assert_eq!(name(b"data").as_deref(), Some("vda"));
        assert_eq!(name(b"data2").as_deref(), Some("vdb"));
        assert_eq!(name(b"fast").as_deref(), Some("nvme0n1"));
        assert_eq!(name(b"disk").as_deref(), Some("sda"));
        assert_eq!(name(b"dat"), None);
        assert_eq!(node(b"no", true, Some(&sysfs)).unwrap(), OpReply::Device(None));
    }
}
