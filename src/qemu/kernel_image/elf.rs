//! Whether an ELF file is a kernel that QEMU can enter through PVH.

use std::fs::File;

use object::endian::LittleEndian;
use object::read::ReadCache;
use object::read::elf::{FileHeader, ProgramHeader};
use object::{ReadRef, elf};

/// `XEN_ELFNOTE_PHYS32_ENTRY` (Linux `include/xen/interface/elfnote.h`): the 32-bit entry point.
const PHYS32_ENTRY: elf::NoteType = elf::NoteType(18);
/// Notes of a kernel take a few hundred bytes; a longer segment is not worth reading.
const MOST_NOTE_BYTES: u64 = 1 << 20;

/// What an ELF file is, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ElfKind {
    /// Has the PVH note, for x86-64.
    PvhKernel,
    /// Is for x86-64 and has no such note.
    WithoutNote,
    /// Is for x86-64 and needs a dynamic loader, or is one that a loader takes in.
    Program,
    /// Is for another machine, 32-bit or big-endian.
    Foreign,
    /// Is cut short or damaged.
    Damaged,
}

/// Looks at a file's headers and notes; reads nothing else.
pub(super) fn classify_file(file: File) -> ElfKind {
    classify(&ReadCache::new(file))
}

/// Looks at headers and notes.
pub(super) fn classify<'data, R: ReadRef<'data>>(data: R) -> ElfKind {
    let Ok(header) = elf::FileHeader64::<LittleEndian>::parse(data) else { return ElfKind::Damaged };
    if header.e_machine(LittleEndian) != elf::EM_X86_64 || !header.is_class_64() || !header.is_little_endian() {
        return ElfKind::Foreign;
    }
    let Ok(segments) = header.program_headers(LittleEndian, data) else { return ElfKind::Damaged };
    for segment in segments.iter().filter(|segment| segment.p_filesz(LittleEndian) <= MOST_NOTE_BYTES) {
        let Ok(Some(mut notes)) = segment.notes(LittleEndian, data) else { continue };
        while let Ok(Some(note)) = notes.next() {
            if note.name() == b"Xen" && note.n_type(LittleEndian) == PHYS32_ENTRY {
                return ElfKind::PvhKernel;
            }
        }
    }
    let of_a_program = |kind: elf::ProgramType| kind == elf::PT_INTERP || kind == elf::PT_DYNAMIC;
    if segments.iter().any(|segment| of_a_program(segment.p_type(LittleEndian))) {
        return ElfKind::Program;
    }
    ElfKind::WithoutNote
}
