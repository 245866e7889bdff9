//! Lua values as a person reads them, and what differs between two.

use std::collections::HashSet;
use std::ffi::c_void;
use std::fmt::Write as _;
use std::time::Duration;

use mlua::{Table, Value};
use similar::{ChangeTag, TextDiff};

/// Longest rendering of a value inside a sentence, in characters.
const SHORT: usize = 120;
/// Longer strings than this, in bytes, are not shown whole where they differ.
const LONG: usize = 16 * 1024;
/// How much of them is shown on each side of the first difference, in bytes.
const AROUND: usize = 40;
/// How long the search for the smallest difference may take.
const DIFF_TIME: Duration = Duration::from_secs(1);

/// A value inside a sentence: one line, cut where it is long.
pub fn short(value: &Value) -> String {
    let text = match value {
        Value::Nil => "nil".to_owned(),
        Value::Table(_) => pretty(value).split_whitespace().collect::<Vec<_>>().join(" "),
        other => pretty(other),
    };
    if text.chars().count() <= SHORT {
        return text;
    }
    let head: String = text.chars().take(SHORT).collect();
    format!("{head}…")
}

/// A value over as many lines as it needs: tables one entry a line, keys sorted.
pub fn pretty(value: &Value) -> String {
    let mut out = String::new();
    write_value(&mut out, value, 0, &mut HashSet::new());
    out
}

fn write_value(out: &mut String, value: &Value, depth: usize, above: &mut HashSet<*const c_void>) {
    match value {
        Value::Nil => out.push_str("nil"),
        Value::Boolean(flag) => {
            let _ = write!(out, "{flag}");
        }
        Value::Integer(number) => {
            let _ = write!(out, "{number}");
        }
        Value::Number(number) => out.push_str(&number_text(*number)),
        Value::String(text) => out.push_str(&quote(&text.as_bytes())),
        Value::Table(table) => write_table(out, table, depth, above),
        Value::Function(_) => out.push_str("a function"),
        Value::Thread(_) => out.push_str("a coroutine"),
        other => match other.to_string() {
            Ok(text) => out.push_str(&text),
            Err(_) => out.push_str(other.type_name()),
        },
    }
}

fn write_table(out: &mut String, table: &Table, depth: usize, above: &mut HashSet<*const c_void>) {
    if depth > 20 || !above.insert(table.to_pointer()) {
        out.push_str("{…}");
        return;
    }
    let mut entries: Vec<(Value, Value)> = table.pairs().filter_map(Result::ok).collect();
    entries.sort_by_key(|(key, _)| sort_key(key));
    if entries.is_empty() {
        out.push_str("{}");
    } else {
        out.push_str("{\n");
        let mut expected = 1;
        for (key, value) in &entries {
            out.push_str(&"  ".repeat(depth + 1));
            if key.as_integer() == Some(expected) {
                expected += 1;
            } else {
                match key {
                    Value::String(text) if is_name(&text.as_bytes()) => out.push_str(&text.to_string_lossy()),
                    other => {
                        out.push('[');
                        write_value(out, other, depth + 1, above);
                        out.push(']');
                    }
                }
                out.push_str(" = ");
            }
            write_value(out, value, depth + 1, above);
            out.push_str(",\n");
        }
        out.push_str(&"  ".repeat(depth));
        out.push('}');
    }
    above.remove(&table.to_pointer());
}

fn sort_key(key: &Value) -> (u8, i64, String) {
    match key {
        Value::Integer(number) => (0, *number, String::new()),
        Value::String(text) => (1, 0, text.to_string_lossy()),
        other => (2, 0, other.to_string().unwrap_or_default()),
    }
}

fn is_name(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|first| first.is_ascii_alphabetic() || *first == b'_')
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
}

fn number_text(number: f64) -> String {
    if number.fract() == 0.0 && number.abs() < 1e15 { format!("{number:.1}") } else { format!("{number}") }
}

/// Bytes as a Lua string literal; what is not printable text is escaped.
pub fn quote(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 2);
    out.push('"');
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                control if control.is_control() => {
                    let _ = write!(out, "\\x{:02x}", u32::from(control));
                }
                other => out.push(other),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out.push('"');
    out
}

/// Whether two values are equal, tables by content (keys and values, at any depth).
pub fn deep_equal(left: &Value, right: &Value) -> bool {
    equal(left, right, &mut HashSet::new())
}

fn equal(left: &Value, right: &Value, assumed: &mut HashSet<(*const c_void, *const c_void)>) -> bool {
    // `equals` honours __eq; an error in it counts as different.
    if left.equals(right).unwrap_or(false) {
        return true;
    }
    let (Value::Table(left), Value::Table(right)) = (left, right) else { return false };
    if !assumed.insert((left.to_pointer(), right.to_pointer())) {
        return true; // Already being compared further up: equal unless something else differs.
    }
    let entries: Vec<(Value, Value)> = left.pairs().filter_map(Result::ok).collect();
    let others = right.pairs::<Value, Value>().count();
    entries.len() == others
        && entries.iter().all(|(key, value)| match right.raw_get::<Value>(key.clone()) {
            Ok(other) => equal(value, &other, assumed),
            Err(_) => false,
        })
}

/// The two values, and line by line what differs where either takes more than one line.
pub fn difference(left: &Value, right: &Value) -> String {
    if let (Value::String(left), Value::String(right)) = (left, right)
        && left.as_bytes().len().max(right.as_bytes().len()) > LONG
    {
        return long_strings(&left.as_bytes(), &right.as_bytes());
    }
    let (left, right) = (lines_of(left), lines_of(right));
    if !left.contains('\n') && !right.contains('\n') {
        return format!("  left:  {left}\n  right: {right}");
    }
    let mut out = String::from("  - left, + right\n");
    let diff = TextDiff::configure().timeout(DIFF_TIME).diff_lines(&left, &right);
    for (index, group) in diff.grouped_ops(3).iter().enumerate() {
        if index > 0 {
            out.push_str("    …\n");
        }
        for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
            let sign = match change.tag() {
                ChangeTag::Delete => '-',
                ChangeTag::Insert => '+',
                ChangeTag::Equal => ' ',
            };
            let _ = writeln!(out, "  {sign} {}", change.value().trim_end_matches('\n'));
        }
    }
    out.trim_end().to_owned()
}

/// Two strings of which at least one is too long to be shown whole: where they part.
fn long_strings(left: &[u8], right: &[u8]) -> String {
    let at = left.iter().zip(right).take_while(|(left, right)| left == right).count();
    let from = at.saturating_sub(AROUND);
    let excerpt = |bytes: &[u8]| {
        let cut = &bytes[from..bytes.len().min(at + AROUND)];
        let (before, after) = (if from > 0 { "…" } else { "" }, if bytes.len() > at + AROUND { "…" } else { "" });
        format!("{before}{}{after} ({} bytes)", quote(cut), bytes.len())
    };
    format!("  first difference at byte {}\n  left:  {}\n  right: {}", at + 1, excerpt(left), excerpt(right))
}

/// Text with line breaks is compared by its own lines, everything else as it is written in Lua.
fn lines_of(value: &Value) -> String {
    match value {
        Value::String(text) => match std::str::from_utf8(&text.as_bytes()) {
            Ok(text) if text.trim_end_matches('\n').contains('\n') => text.to_owned(),
            _ => pretty(value),
        },
        other => pretty(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlua::Lua;

    fn value(lua: &Lua, code: &str) -> Value {
        lua.load(code).eval().unwrap()
    }

    #[test]
    fn tables_compare_by_content() {
        let lua = Lua::new();
        let cases = [
            ("{1, 2, {a = 'x'}}", "{1, 2, {a = 'x'}}", true),
            ("{1, 2}", "{1, 2, 3}", false),
            ("{a = 1}", "{a = 1, b = false}", false),
            ("{1.0}", "{1}", true),
            ("'1'", "1", false),
            ("{}", "{}", true),
        ];
        for (left, right, same) in cases {
            assert_eq!(deep_equal(&value(&lua, left), &value(&lua, right)), same, "{left} {right}");
        }
    }

    #[test]
    fn cyclic_tables_are_compared_and_shown() {
        let lua = Lua::new();
        let left = value(&lua, "local t = {1}; t.me = t; return t");
        let right = value(&lua, "local t = {1}; t.me = t; return t");
        assert!(deep_equal(&left, &right));
        assert!(pretty(&left).contains("me = {…}"));
    }

    #[test]
    fn a_difference_shows_both_sides() {
        let lua = Lua::new();
        assert_eq!(difference(&value(&lua, "'a'"), &value(&lua, "1")), "  left:  \"a\"\n  right: 1");
        let text = difference(&value(&lua, "{a = 1, b = 2}"), &value(&lua, "{a = 1, b = 3}"));
        assert_eq!(text, "  - left, + right\n    {\n      a = 1,\n  -   b = 2,\n  +   b = 3,\n    }");
    }

    #[test]
    fn of_long_strings_only_where_they_part() {
        let lua = Lua::new();
        let text = difference(
            &value(&lua, "('x'):rep(1 << 20) .. 'a'"),
            &value(&lua, "('x'):rep(1 << 20) .. 'b' .. ('c'):rep(99)"),
        );
        assert!(text.starts_with("  first difference at byte 1048577\n  left:  …\"xxx"), "{text}");
        assert!(
            text.contains("xa\" (1048577 bytes)\n  right: …")
                && text.contains("c\"… (1048676 bytes)")
                && text.len() < 400
        );
    }

    #[test]
    fn bytes_are_quoted() {
        assert_eq!(quote(b"a\n\xff\"\x01"), "\"a\\n\\xff\\\"\\x01\"");
    }
}
