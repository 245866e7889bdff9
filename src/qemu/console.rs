//! Console logs: their ends, and the lines that tell why a guest died.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// How far back the reasons of an end are looked for, in bytes.
const FAR: usize = 64 * 1024;

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

/// The kernel's own line of a panic, without its time stamp.
pub fn panic_line(path: &Path) -> Option<String> {
    let text = tail(path, FAR).ok()?;
    let line = text.lines().rev().find(|line| line.contains("Kernel panic - not syncing"))?;
    let at = line.find("Kernel panic")?;
    Some(line[at..].trim().to_owned())
}

/// What the launcher in the guest could not do, where it said so.
pub fn launcher_complaint(path: &Path) -> Option<String> {
    const MARK: &str = "provium-agent: fatal: ";
    let text = tail(path, FAR).ok()?;
    let lines: Vec<&str> = text.lines().filter_map(|line| line.split_once(MARK)).map(|(_, rest)| rest.trim()).collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// Text as it can be shown: no escape sequences, no control bytes but line breaks and tabs.
pub fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\u{1b}' => match characters.peek() {
                Some('[') => {
                    characters.next();
                    for next in characters.by_ref() {
                        if ('@'..='~').contains(&next) {
                            break;
                        }
                    }
                }
                _ => {
                    characters.next();
                }
            },
            '\n' | '\t' => out.push(character),
            control if control.is_control() => {}
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_eat_is_left_out() {
        assert_eq!(plain(b"\x1b[2J\x1b[01;1Ha\r\nb\x07\tc\xff\x1bc"), "a\nb\tc\u{fffd}");
    }

    #[test]
    fn ends_and_reasons() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let text = "first\nsecond\n[    1.5] Kernel panic - not syncing: sysrq triggered crash\r\n[    1.6] CPU: 0\n\
                    provium-agent: fatal: no port\r\nprovium-agent: fatal: hint: build it in\r\n";
        std::fs::write(&path, text).unwrap();
        assert_eq!(tail(&path, 25).unwrap().lines().count(), 0);
        assert!(tail(&path, 60).unwrap().starts_with("provium-agent: fatal: hint"));
        assert_eq!(panic_line(&path).unwrap(), "Kernel panic - not syncing: sysrq triggered crash");
        assert_eq!(launcher_complaint(&path).unwrap(), "no port\nhint: build it in");
    }
}
