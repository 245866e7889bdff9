//! The kernel's release (`uname -r`), found in its image.

use std::io::{self, Read};

/// How the kernel's banner begins (Linux `init/version-timestamp.c`); the release follows.
const BANNER: &[u8] = b"Linux version ";
/// The longest release there is: `__NEW_UTS_LEN` (Linux `include/uapi/linux/utsname.h`).
const LONGEST: usize = 64;
const CHUNK: usize = 256 * 1024;

/// The first word of a bzImage's version string.
pub(super) fn first_word(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|byte| byte.is_ascii_whitespace() || *byte == 0)?;
    let word = bytes.get(..end.min(LONGEST + 1))?;
    let plausible = (1..=LONGEST).contains(&word.len())
        && word[0].is_ascii_digit()
        && word.iter().all(|byte| byte.is_ascii_graphic());
    plausible.then(|| String::from_utf8_lossy(word).into_owned())
}

/// Searches a stream for the banner; stops at the first one. A format string with `%s` is none.
pub(super) fn from_banner(mut stream: impl Read) -> io::Result<Option<String>> {
    let keep = BANNER.len() + LONGEST + 1;
    let mut window: Vec<u8> = Vec::with_capacity(CHUNK + keep);
    loop {
        let before = window.len();
        stream.by_ref().take(CHUNK as u64).read_to_end(&mut window)?;
        let at_end = window.len() == before;
        if let Some(release) = in_window(&window) {
            return Ok(Some(release));
        }
        if at_end {
            return Ok(None);
        }
        window.drain(..window.len().saturating_sub(keep));
    }
}

fn in_window(window: &[u8]) -> Option<String> {
    let mut rest = window;
    while let Some(at) = rest.iter().position(|byte| *byte == BANNER[0]) {
        rest = &rest[at..];
        if let Some(release) = rest.strip_prefix(BANNER).and_then(first_word) {
            return Some(release);
        }
        rest = &rest[1..];
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_first_word() {
        assert_eq!(first_word(b"6.1.0-56-cloud-amd64 (debian) #1\0"), Some("6.1.0-56-cloud-amd64".into()));
        assert_eq!(first_word(b"6.12\0"), Some("6.12".into()));
        assert_eq!(first_word(b"%s (x)\0"), None);
        assert_eq!(first_word(b"\0"), None);
        assert_eq!(first_word(b"6.1 without an end"), Some("6.1".into()));
        assert_eq!(first_word(b"6.1-cut"), None);
        assert_eq!(first_word(&[b'6'; 200]), None);
    }

    #[test]
    fn finds_the_banner_across_chunks() {
        for padding in [0, 1, CHUNK - 30, CHUNK - 20, CHUNK - 14, CHUNK - 1, CHUNK, 3 * CHUNK - 5] {
            let mut file = vec![b'L'; padding];
            file.extend_from_slice(b"Linux version %s (%s)\0Linux version 6.12.1-test (me) #1\0");
            file.extend_from_slice(&[0; 100]);
            assert_eq!(from_banner(&file[..]).unwrap(), Some("6.12.1-test".into()), "{padding}");
        }
        assert_eq!(from_banner(&b"nothing here"[..]).unwrap(), None);
    }
}
