//! First pass: TOML text to a tree that knows where everything stands, and laying one tree over another.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::Diagnostic;
use super::profile::Origin;

/// A value and its place.
#[derive(Debug, Clone)]
pub struct Node {
    /// Where it stands.
    pub at: Origin,
    /// What it is.
    pub data: Data,
}

/// A value of TOML.
#[derive(Debug, Clone)]
pub enum Data {
    /// Text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// Another number.
    Float(f64),
    /// A truth value.
    Boolean(bool),
    /// A list.
    List(Vec<Node>),
    /// A table.
    Table(Vec<Entry>),
    /// A date, or a number beyond 64 bits.
    Other(String),
}

/// A key and its value.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub key_at: Origin,
    /// Its value.
    pub value: Node,
}

impl Data {
    /// What it is, for messages: `the string "x"`.
    pub fn describe(&self) -> String {
        match self {
            Self::Text(text) => format!("the string {text:?}"),
            Self::Integer(number) => format!("the number {number}"),
            Self::Float(number) => format!("the number {number}"),
            Self::Boolean(flag) => format!("{flag}"),
            Self::List(_) => "an array".to_owned(),
            Self::Table(_) => "a table".to_owned(),
            Self::Other(text) => format!("`{text}`"),
        }
    }
}

/// Line and column of byte offsets in one file.
struct Lines {
    file: Arc<PathBuf>,
    starts: Vec<usize>,
    text: String,
}

impl Lines {
    fn new(file: &Path, text: &str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { file: Arc::new(file.to_owned()), starts, text: text.to_owned() }
    }

    fn place(&self, offset: usize) -> Origin {
        let line = self.starts.partition_point(|start| *start <= offset).max(1);
        let start = self.starts[line - 1];
        let column = self.text.get(start..offset).map_or(1, |before| before.chars().count() + 1);
        Origin { file: Arc::clone(&self.file), line, column }
    }
}

/// Parses a file's text. All mistakes of syntax are told; what could be read is returned beside them.
pub fn parse(file: &Path, text: &str) -> (Node, Vec<Diagnostic>) {
    let lines = Lines::new(file, text);
    let (table, errors) = DeTable::parse_recoverable(text);
    let mistakes = errors
        .iter()
        .map(|error| {
            let at = lines.place(error.span().map_or(0, |span| span.start));
            let source = lines.text.lines().nth(at.line - 1).unwrap_or_default();
            let caret = " ".repeat(at.column - 1);
            Diagnostic { message: format!("{}\n  | {source}\n  | {caret}^", error.message()), at, hint: None }
        })
        .collect();
    (Node { at: lines.place(0), data: Data::Table(entries(&lines, table.get_ref())) }, mistakes)
}

/// What stands for a file that is no UTF-8 behind the text `before`.
pub fn not_text(file: &Path, before: &str) -> (Node, Vec<Diagnostic>) {
    let lines = Lines::new(file, before);
    let mistake = Diagnostic {
        at: lines.place(before.len()),
        message: "expected UTF-8 text, found other bytes".to_owned(),
        hint: None,
    };
    (Node { at: lines.place(0), data: Data::Table(Vec::new()) }, vec![mistake])
}

fn entries(lines: &Lines, table: &DeTable<'_>) -> Vec<Entry> {
    let mut entries: Vec<(usize, Entry)> = table
        .iter()
        .map(|(key, value)| {
            let start = key.span().start;
            let entry = Entry { key: key.get_ref().to_string(), key_at: lines.place(start), value: node(lines, value) };
            (start, entry)
        })
        .collect();
    // In the order of the file, so that mistakes are told in that order.
    entries.sort_by_key(|(start, _)| *start);
    entries.into_iter().map(|(_, entry)| entry).collect()
}

fn node(lines: &Lines, value: &Spanned<DeValue<'_>>) -> Node {
    let data = match value.get_ref() {
        DeValue::String(text) => Data::Text(text.to_string()),
        DeValue::Integer(number) => {
            let digits = number.as_str();
            i64::from_str_radix(digits, number.radix()).map_or_else(|_| Data::Other(digits.to_owned()), Data::Integer)
        }
        DeValue::Float(number) => {
            number.as_str().parse().map_or_else(|_| Data::Other(number.as_str().to_owned()), Data::Float)
        }
        DeValue::Boolean(flag) => Data::Boolean(*flag),
        DeValue::Datetime(date) => Data::Other(date.to_string()),
        DeValue::Array(items) => Data::List(items.iter().map(|item| node(lines, item)).collect()),
        DeValue::Table(table) => Data::Table(entries(lines, table)),
    };
    Node { at: lines.place(value.span().start), data }
}

/// A value that did not come from a file's text; all of it stands at `at`.
pub fn from_json(value: &serde_json::Value, at: &Origin) -> Node {
    let data = match value {
        serde_json::Value::Null => Data::Other("null".to_owned()),
        serde_json::Value::Bool(flag) => Data::Boolean(*flag),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(number), _) => Data::Integer(number),
            (None, Some(number)) => Data::Float(number),
            (None, None) => Data::Other(number.to_string()),
        },
        serde_json::Value::String(text) => Data::Text(text.clone()),
        serde_json::Value::Array(items) => Data::List(items.iter().map(|item| from_json(item, at)).collect()),
        serde_json::Value::Object(members) => {
            let entry = |(key, value): (&String, &serde_json::Value)| Entry {
                key: key.clone(),
                key_at: at.clone(),
                value: from_json(value, at),
            };
            Data::Table(members.iter().map(entry).collect())
        }
    };
    Node { at: at.clone(), data }
}

/// Lays `over` over `base`, key by key: tables are merged down to the single values of `[provium]` and of each profile.
pub fn overlay(base: &mut Node, over: Node) {
    merge(base, over, 3);
}

/// `depth`: how many levels of tables are merged; below that a value replaces a value.
fn merge(base: &mut Node, over: Node, depth: usize) {
    match (&mut base.data, over) {
        (Data::Table(old), Node { data: Data::Table(new), .. }) if depth > 0 => {
            for entry in new {
                match old.iter_mut().find(|known| known.key == entry.key) {
                    Some(known) => {
                        known.key_at = entry.key_at;
                        merge(&mut known.value, entry.value, depth - 1);
                    }
                    None => old.push(entry),
                }
            }
        }
        (_, over) => *base = over,
    }
}
