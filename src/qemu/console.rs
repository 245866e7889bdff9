//! What a console says: its tail, and the lines that tell why a guest died.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// How the kernel begins the message of a panic (Linux `kernel/panic.c`).
const PANIC: &str = "Kernel panic - not syncing";
/// How it begins the last line of one, which says the same again.
const PANIC_END: &str = "---[ end Kernel panic";
/// How the agent begins a line that says why it can't serve.
const FATAL: &str = "provium-agent: fatal: ";
/// How much of a line is looked at, in bytes.
const LONGEST_LINE: usize = 4096;

/// The last `bytes` of a log as text, without control bytes and escape sequences.
///
/// # Errors
/// Those of reading the file.
pub fn tail(path: &Path, bytes: usize) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let skip = length.saturating_sub(u64::try_from(bytes).unwrap_or(u64::MAX));
    file.seek(SeekFrom::Start(skip))?;
    let mut data = Vec::new();
    file.take(u64::try_from(bytes).unwrap_or(u64::MAX)).read_to_end(&mut data)?;
    let text = plain(&data);
    // A line that was cut at its front is left out.
    Ok(match text.split_once('\n') {
        Some((_, rest)) if skip > 0 => rest.to_owned(),
        _ => text,
    })
}

/// A line that says that the guest can't go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Omen {
    /// The kernel panicked; its own words, without the time stamp.
    Panic(String),
    /// The agent can't serve; one line of the reasons.
    Complaint(String),
}

/// Looks at a console's bytes line by line.
#[derive(Debug, Default)]
pub struct LineScanner {
    line: Vec<u8>,
}

impl LineScanner {
    /// The omens in the lines that end in `bytes`.
    pub fn look(&mut self, bytes: &[u8]) -> Vec<Omen> {
        let mut found = Vec::new();
        let mut rest = bytes;
        while let Some(at) = memchr::memchr(b'\n', rest) {
            self.add(&rest[..at]);
            found.extend(omen(&self.line));
            self.line.clear();
            rest = &rest[at + 1..];
        }
        self.add(rest);
        found
    }

    fn add(&mut self, bytes: &[u8]) {
        let room = LONGEST_LINE.saturating_sub(self.line.len());
        self.line.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

fn omen(line: &[u8]) -> Option<Omen> {
    // Most lines are neither: no text is made of them.
    let finder = |words: &str| memchr::memmem::find(line, words.as_bytes()).is_some();
    if !finder(PANIC) && !finder(FATAL) {
        return None;
    }
    let text = plain(line);
    if text.contains(PANIC_END) {
        return None;
    }
    if let Some(at) = text.find(PANIC) {
        return Some(Omen::Panic(text[at..].trim().to_owned()));
    }
    text.split_once(FATAL).map(|(_, rest)| Omen::Complaint(rest.trim().to_owned()))
}

/// A console's bytes for display: terminal control sequences and control characters taken out, line ends made `\n`,
/// bytes that are no UTF-8 replaced.
pub fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut shown = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\x1b' => skip_sequence(&mut chars),
            '\n' | '\t' => shown.push(c),
            c if c.is_control() => {}
            c => shown.push(c),
        }
    }
    shown
}

/// Skips the rest of an escape sequence (ECMA-48): CSI up to its final byte, OSC and its kin up to BEL or ST, else
/// intermediate bytes and one more.
fn skip_sequence(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match chars.next() {
        // An escape sequence never spans a line end; a broken one must not eat the log.
        Some('[') => {
            while let Some(c) = chars.next_if(|c| *c != '\n') {
                if ('\x40'..='\x7e').contains(&c) {
                    break;
                }
            }
        }
        Some(']' | 'P' | 'X' | '^' | '_') => {
            while let Some(c) = chars.next_if(|c| *c != '\n') {
                if c == '\x07' {
                    break;
                }
                if c == '\x1b' {
                    chars.next_if_eq(&'\\');
                    break;
                }
            }
        }
        Some('\x20'..='\x2f') => {
            while chars.next_if(|c| ('\x20'..='\x2f').contains(c)).is_some() {}
            chars.next_if(|c| ('\x30'..='\x7e').contains(c));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_a_terminal_would_eat_is_left_out() {
        assert_eq!(plain(b"\x1b[2J\x1b[01;1Ha\r\nb\x07\tc\xff\x1bc"), "a\nb\tc\u{fffd}");
        assert_eq!(plain(b"\x1b]0;title\x07a\x1b]2;t\x1b\\b\x1b(Bc"), "abc");
        assert_eq!(plain(b"cut \x1b[12"), "cut ");
        assert_eq!(plain(b"\x1b]never ended\nnext"), "\nnext");
    }

    #[test]
    fn tails() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "first\nsecond\nthird\n").unwrap();
        assert_eq!(tail(&path, 12).unwrap(), "third\n");
        assert_eq!(tail(&path, 1000).unwrap(), "first\nsecond\nthird\n");
    }

    #[test]
    fn omens_whatever_the_pieces() {
        let text = b"first\nsecond\n[    1.5] Kernel panic - not syncing: sysrq triggered crash\r\n[    1.6] CPU: 0\n\
                     [    1.7] ---[ end Kernel panic - not syncing: sysrq triggered crash ]---\r\n\
                     provium-agent: fatal: no port\r\nprovium-agent: fatal: hint: build it in\r\nKernel panic - not sync";
        let expected = [
            Omen::Panic("Kernel panic - not syncing: sysrq triggered crash".to_owned()),
            Omen::Complaint("no port".to_owned()),
            Omen::Complaint("hint: build it in".to_owned()),
        ];
        for size in 1..text.len() {
            let mut scanner = LineScanner::default();
            let found: Vec<Omen> = text.chunks(size).flat_map(|piece| scanner.look(piece)).collect();
            assert_eq!(found, expected, "pieces of {size}");
        }
    }

    #[test]
    fn an_endless_line_is_bounded() {
        let mut scanner = LineScanner::default();
        for _ in 0..100 {
            scanner.look(&[b'x'; 1000]);
        }
        assert_eq!(scanner.line.len(), LONGEST_LINE);
        assert_eq!(scanner.look(b"\nKernel panic - not syncing: y\n").len(), 1);
    }

    proptest! {
        #[test]
        fn plain_text_has_no_control_characters(bytes: Vec<u8>) {
            prop_assert!(plain(&bytes).chars().all(|c| c == '\n' || c == '\t' || !c.is_control()));
        }
    }
}
