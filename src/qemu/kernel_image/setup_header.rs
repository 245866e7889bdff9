//! The header of an x86 bzImage (Linux `Documentation/arch/x86/boot.rst`).

/// How much of a bzImage holds every field that is read here.
pub(super) const HEADER_BYTES: usize = 0x1000;

const BOOT_FLAG: usize = 0x1fe;
const MAGIC: usize = 0x202;
const VERSION: usize = 0x206;
const KERNEL_VERSION: usize = 0x20e;
const SETUP_SECTS: usize = 0x1f1;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
/// The first protocol with `payload_offset` and `payload_length`.
const PROTOCOL_WITH_PAYLOAD: u16 = 0x0208;

/// The fields of a setup header that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetupHeader {
    /// Where the release string stands in the file.
    pub(super) release_offset: Option<u64>,
    /// Where the compressed kernel stands in the file, and its length.
    pub(super) payload: Option<(u64, u64)>,
}

impl SetupHeader {
    /// Reads a file's first bytes; `None` where they are no bzImage's.
    pub(super) fn parse(head: &[u8]) -> Option<SetupHeader> {
        if head.get(BOOT_FLAG..BOOT_FLAG + 2)? != [0x55, 0xAA] || head.get(MAGIC..MAGIC + 4)? != b"HdrS" {
            return None;
        }
        let release_pointer = u16_at(head, KERNEL_VERSION)?;
        let release_offset = (release_pointer != 0).then(|| u64::from(release_pointer) + 0x200);
        // 0 means 4, for compatibility with the oldest loaders.
        let sectors = match *head.get(SETUP_SECTS)? {
            0 => 4,
            sectors => u64::from(sectors),
        };
        let payload = (u16_at(head, VERSION)? >= PROTOCOL_WITH_PAYLOAD)
            .then(|| Some((u64::from(u32_at(head, PAYLOAD_OFFSET)?), u64::from(u32_at(head, PAYLOAD_LENGTH)?))))
            .flatten()
            .filter(|(_, length)| *length > 0)
            .map(|(offset, length)| ((sectors + 1) * 512 + offset, length));
        Some(SetupHeader { release_offset, payload })
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}
