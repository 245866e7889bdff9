//! The formats of Lua's `file:read` over any source of bytes.

use std::io;

use mlua::{Lua, MultiValue, Value};

/// The longest numeral that is read, as in Lua's own library.
const NUMERAL: usize = 200;

/// One format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `"l"`: a line without its end.
    Line,
    /// `"L"`: a line with its end.
    WholeLine,
    /// `"a"`: the rest.
    All,
    /// `"n"`: a numeral.
    Number,
    /// That many bytes.
    Count(usize),
}

impl Format {
    /// As an author writes it; a `*` before a letter is passed over.
    pub fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Integer(count) => usize::try_from(*count).ok().map(Self::Count),
            Value::Number(count) if count.fract() == 0.0 && (0.0..1e15).contains(count) => {
                // Whole and in range: the cast is exact.
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "see above")]
                Some(Self::Count(*count as usize))
            }
            Value::String(text) => {
                let text = text.as_bytes();
                match text.strip_prefix(b"*").unwrap_or(&text).first()? {
                    b'l' => Some(Self::Line),
                    b'L' => Some(Self::WholeLine),
                    b'a' => Some(Self::All),
                    b'n' => Some(Self::Number),
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

/// Bytes that come bit by bit.
pub trait Source {
    /// What came and was not read.
    fn unread(&mut self) -> &mut Vec<u8>;

    /// Waits for more; false at the end.
    async fn more(&mut self) -> io::Result<bool>;
}

/// Reads by `formats` until one of them finds nothing, for which nil stands.
///
/// # Errors
/// Those of the source.
pub async fn read(lua: &Lua, source: &mut impl Source, formats: &[Format]) -> io::Result<mlua::Result<MultiValue>> {
    let mut values = MultiValue::new();
    for format in formats {
        let found = match format {
            Format::Number => match numeral(source).await? {
                Some(text) => match lua.create_string(text).and_then(|text| lua.coerce_number_of(text)) {
                    Ok(number) => number,
                    Err(error) => return Ok(Err(error)),
                },
                None => Value::Nil,
            },
            other => match bytes(source, *other).await? {
                Some(bytes) => match lua.create_string(bytes) {
                    Ok(text) => Value::String(text),
                    Err(error) => return Ok(Err(error)),
                },
                None => Value::Nil,
            },
        };
        let nothing = found.is_nil();
        values.push_back(found);
        if nothing {
            break;
        }
    }
    Ok(Ok(values))
}

/// A numeral as the number it is, integer or float.
trait CoerceNumber {
    fn coerce_number_of(&self, text: mlua::LuaString) -> mlua::Result<Value>;
}

impl CoerceNumber for Lua {
    fn coerce_number_of(&self, text: mlua::LuaString) -> mlua::Result<Value> {
        self.globals().get::<mlua::Function>("tonumber")?.call(text)
    }
}

async fn bytes(source: &mut impl Source, format: Format) -> io::Result<Option<Vec<u8>>> {
    match format {
        Format::All => {
            while source.more().await? {}
            Ok(Some(std::mem::take(source.unread())))
        }
        Format::Count(count) => {
            while source.unread().len() < count.max(1) && source.more().await? {}
            let unread = source.unread();
            if unread.is_empty() {
                return Ok(None);
            }
            let count = count.min(unread.len());
            Ok(Some(unread.drain(..count).collect()))
        }
        Format::Line | Format::WholeLine | Format::Number => {
            let mut searched = 0;
            let end = loop {
                let unread = source.unread();
                if let Some(at) = unread[searched..].iter().position(|byte| *byte == b'\n') {
                    break Some(searched + at);
                }
                searched = unread.len();
                if !source.more().await? {
                    break None;
                }
            };
            let unread = source.unread();
            match end {
                None if unread.is_empty() => Ok(None),
                None => Ok(Some(std::mem::take(unread))),
                Some(end) => {
                    let mut line: Vec<u8> = unread.drain(..=end).collect();
                    if format == Format::Line {
                        line.pop();
                    }
                    Ok(Some(line))
                }
            }
        }
    }
}

/// The next byte, unread.
async fn peek(source: &mut impl Source, at: usize) -> io::Result<Option<u8>> {
    while source.unread().len() <= at {
        if !source.more().await? {
            return Ok(None);
        }
    }
    Ok(source.unread().get(at).copied())
}

/// The longest text that looks like a numeral, after white space; none where it is none.
async fn numeral(source: &mut impl Source) -> io::Result<Option<String>> {
    while peek(source, 0).await?.is_some_and(|byte| byte.is_ascii_whitespace()) {
        source.unread().remove(0);
    }
    let mut text = Numeral::default();
    while text.length < NUMERAL {
        match peek(source, text.length).await? {
            Some(byte) if text.takes(byte) => text.length += 1,
            _ => break,
        }
    }
    let bytes: Vec<u8> = source.unread().drain(..text.length).collect();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let digits = text.trim_start_matches(['+', '-']);
    let digits = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")).unwrap_or(digits);
    Ok(digits.bytes().any(|byte| byte.is_ascii_hexdigit()).then_some(text))
}

/// How far a numeral has come.
#[derive(Default)]
struct Numeral {
    length: usize,
    hexadecimal: bool,
    digits: usize,
    point: bool,
    exponent: bool,
    last: u8,
    first_zero: bool,
}

impl Numeral {
    fn takes(&mut self, byte: u8) -> bool {
        let after_sign = self.length > 0 && matches!(self.last, b'+' | b'-');
        let begins = self.length == 0 || (self.length == 1 && after_sign);
        let takes = match byte {
            b'+' | b'-' => self.length == 0 || (self.exponent && matches!(self.last, b'e' | b'E' | b'p' | b'P')),
            b'x' | b'X' => self.first_zero && self.digits == 1 && !self.hexadecimal && !self.point,
            b'.' => !self.point && !self.exponent,
            b'e' | b'E' if !self.hexadecimal => self.digits > 0 && !self.exponent,
            b'p' | b'P' => self.hexadecimal && self.digits > 0 && !self.exponent,
            byte if self.exponent => byte.is_ascii_digit(),
            byte if self.hexadecimal => byte.is_ascii_hexdigit(),
            byte => byte.is_ascii_digit(),
        };
        if !takes {
            return false;
        }
        match byte {
            b'x' | b'X' => {
                self.hexadecimal = true;
                self.digits = 0;
            }
            b'.' => self.point = true,
            b'e' | b'E' if !self.hexadecimal => self.exponent = true,
            b'p' | b'P' => self.exponent = true,
            b'+' | b'-' => {}
            byte => {
                self.first_zero |= begins && byte == b'0';
                self.digits += 1;
            }
        }
        self.last = byte;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    struct Pieces {
        unread: Vec<u8>,
        left: VecDeque<Vec<u8>>,
    }

    impl Source for Pieces {
        fn unread(&mut self) -> &mut Vec<u8> {
            &mut self.unread
        }

        async fn more(&mut self) -> io::Result<bool> {
            let piece = self.left.pop_front();
            self.unread.extend(piece.iter().flatten());
            Ok(piece.is_some())
        }
    }

    /// What `formats` read of a text that comes byte by byte, as Lua shows it.
    fn reads(text: &str, formats: &str) -> String {
        let lua = Lua::new();
        let mut source = Pieces { unread: Vec::new(), left: text.bytes().map(|byte| vec![byte]).collect() };
        let values: MultiValue = lua.load(format!("return {formats}")).eval().unwrap();
        let formats: Vec<Format> = values.iter().map(|value| Format::of(value).unwrap()).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let found = runtime.block_on(read(&lua, &mut source, &formats)).unwrap().unwrap();
        found.iter().map(crate::lua_api::render::short).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn formats_as_in_lua() {
        assert_eq!(reads("a\nb\n", "'l', 'L', 'l'"), "\"a\" \"b\\n\" nil");
        assert_eq!(reads("a\nb", "'*a', 'a', 'l'"), "\"a\\nb\" \"\" nil");
        assert_eq!(reads("abc", "0, 2, 5, 1"), "\"\" \"ab\" \"c\" nil");
        assert_eq!(reads("", "0"), "nil");
        assert_eq!(reads("", "'a'"), "\"\"");
        assert_eq!(reads("x", "'l', 'l', 'l'"), "\"x\" nil");
    }

    #[test]
    fn numerals_as_in_lua() {
        assert_eq!(reads(" 12 -0x1F 1.5e3 .5 7", "'n', 'n', 'n', 'n', 'n'"), "12 -31 1500.0 0.5 7");
        assert_eq!(reads("12abc", "'n', 'l'"), "12 \"abc\"");
        assert_eq!(reads("abc", "'n', 'l'"), "nil");
        assert_eq!(reads("0xp", "'n'"), "nil");
        assert_eq!(reads("1-2", "'n', 'n'"), "1 -2");
    }
}
