//! Text as it may stand on a terminal: nothing that a guest or a test wrote can move the cursor or ring the bell.

use std::iter::Peekable;
use std::str::Chars;

const ESCAPE: char = '\x1b';
const BELL: char = '\x07';

/// Drops escape sequences and carriage returns and replaces other control characters but newline and tab.
pub(super) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            ESCAPE => skip_sequence(&mut chars),
            '\r' => {}
            '\n' | '\t' => out.push(c),
            c if c.is_control() => out.push(char::REPLACEMENT_CHARACTER),
            c => out.push(c),
        }
    }
    out
}

/// What follows the escape character, by ECMA-48: a control sequence up to its final byte, a string up to its
/// terminator (or the line's end, so that a cut one does not swallow the rest), or one character after intermediates.
fn skip_sequence(chars: &mut Peekable<Chars<'_>>) {
    match chars.next_if(|c| !c.is_control()) {
        Some('[') => {
            while chars.next_if(|c| ('\x20'..='\x3f').contains(c)).is_some() {}
            chars.next_if(|c| ('\x40'..='\x7e').contains(c));
        }
        Some(']' | 'P' | 'X' | '^' | '_') => {
            while chars.next_if(|c| !matches!(*c, ESCAPE | BELL | '\n')).is_some() {}
            if chars.next_if(|c| matches!(*c, ESCAPE | BELL)) == Some(ESCAPE) {
                chars.next_if_eq(&'\\');
            }
        }
        Some('\x20'..='\x2f') => {
            while chars.next_if(|c| ('\x20'..='\x2f').contains(c)).is_some() {}
            chars.next_if(|c| ('\x30'..='\x7e').contains(c));
        }
        _ => {}
    }
}

/// As [`plain`], on one line.
pub(super) fn one_line(text: &str) -> String {
    plain(text.trim_end()).replace('\n', "\\n").replace('\t', " ")
}

/// The end of `text` within `limit` bytes, beginning at a line's start where there is one.
pub(super) fn tail(text: &str, limit: usize) -> &str {
    if text.len() <= limit {
        return text;
    }
    let end = text.get(text.ceil_char_boundary(text.len() - limit)..).unwrap_or_default();
    match end.split_once('\n') {
        Some((_, whole_lines)) if !whole_lines.is_empty() => whole_lines,
        _ => end,
    }
}

/// Each line of the plain text behind `prefix`, without trailing empty lines.
pub(super) fn indent(text: &str, prefix: &str) -> String {
    let text = plain(text);
    text.trim_end().lines().map(|line| format!("{}\n", format!("{prefix}{line}").trim_end())).collect()
}

/// `0.25s`, `12.34s`, `2m 05s`.
pub(super) fn duration(seconds: f64) -> String {
    if seconds < 59.995 { format!("{seconds:.2}s") } else { minutes(seconds) }
}

/// `12.3s`, `2m 05s`: for the whole run.
pub(super) fn long_duration(seconds: f64) -> String {
    if seconds < 59.95 { format!("{seconds:.1}s") } else { minutes(seconds) }
}

fn minutes(seconds: f64) -> String {
    let whole = seconds.round();
    format!("{:.0}m {:02.0}s", (whole / 60.0).floor(), whole % 60.0)
}

/// `1 file`, `2 files`.
pub(super) fn plural(count: u64, noun: &str) -> String {
    if count == 1 { format!("{count} {noun}") } else { format!("{count} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sequences_and_controls_are_taken_out() {
        assert_eq!(plain("\x1b[1;31mred\x1b[0m\r\n"), "red\n");
        assert_eq!(plain("\x1b]0;title\x07a\x1b]0;t\x1b\\b"), "ab");
        assert_eq!(plain("\x1b]0;cut\nnext"), "\nnext");
        assert_eq!(plain("\x1b(Ba\x1bcb\x1b"), "ab");
        assert_eq!(plain("a\tb\x07\u{9b}"), "a\tb\u{fffd}\u{fffd}");
    }

    #[test]
    fn one_line_stays_one() {
        assert_eq!(one_line("a\nb\tc\n"), "a\\nb c");
    }

    #[test]
    fn the_tail_begins_with_a_whole_line() {
        assert_eq!(tail("one\ntwo\nthree\n", 100), "one\ntwo\nthree\n");
        assert_eq!(tail("one\ntwo\nthree\n", 8), "three\n");
        assert_eq!(tail("ööööö", 3), "ö");
        assert_eq!(tail("abcdef\n", 3), "ef\n");
    }

    #[test]
    fn durations() {
        assert_eq!([0.0, 1.234, 59.99].map(duration), ["0.00s", "1.23s", "59.99s"]);
        assert_eq!([59.999, 125.0, 3600.0].map(duration), ["1m 00s", "2m 05s", "60m 00s"]);
        assert_eq!([12.34, 119.7].map(long_duration), ["12.3s", "2m 00s"]);
    }

    proptest! {
        #[test]
        fn plain_text_has_no_controls(text in any::<String>()) {
            let plain = plain(&text);
            prop_assert!(plain.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\t')));
        }

        #[test]
        fn a_tail_is_the_end_and_short_enough(text in any::<String>(), limit in 0_usize..50) {
            let tail = tail(&text, limit);
            prop_assert!(tail.len() <= limit || tail.len() == text.len());
            prop_assert!(text.ends_with(tail));
        }
    }
}
