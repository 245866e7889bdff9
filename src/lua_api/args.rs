//! Decoding of arguments and option tables, with errors that name the argument and repeat the value.

use std::time::Duration;

use mlua::{AnyUserData, Function, MultiValue, Table, UserDataRef, Value};

use super::error::ApiError;
use super::render::short;
use crate::foundation::{duration, size, suggest};

/// The arguments of one call, taken in order.
pub struct Args {
    function: &'static str,
    values: std::collections::VecDeque<Value>,
}

impl Args {
    /// The arguments of `function` (`vm:run`).
    pub fn new(function: &'static str, values: MultiValue) -> Self {
        Self { function, values: values.into_iter().collect() }
    }

    /// The name of the called function, for messages.
    pub fn function(&self) -> &'static str {
        self.function
    }

    /// The next argument, `nil` past the end.
    pub fn next(&mut self) -> Value {
        self.values.pop_front().unwrap_or(Value::Nil)
    }

    /// All arguments that are left.
    pub fn rest(&mut self) -> MultiValue {
        self.values.drain(..).collect()
    }

    /// Whether anything but `nil` is left.
    pub fn is_empty(&self) -> bool {
        self.values.iter().all(Value::is_nil)
    }

    /// The object a method was called on.
    ///
    /// # Errors
    /// When the method was called with a dot, or on something else.
    pub fn this<T: 'static>(&mut self) -> Result<UserDataRef<T>, ApiError> {
        let value = self.next();
        let object: Option<&AnyUserData> = value.as_userdata();
        object.and_then(|object| object.borrow::<T>().ok()).ok_or_else(|| self.wrong_object(&value))
    }

    /// The error for a method that was called on something else than its object.
    pub fn wrong_object(&self, value: &Value) -> ApiError {
        let method = self.function.rsplit(':').next().unwrap_or_default();
        ApiError::new(format!(
            "{}: called on {}\nhint: methods are called with a colon: `x:{method}(…)`",
            self.function,
            short(value),
        ))
    }

    /// The next argument, which stays.
    pub fn peek(&self) -> Value {
        self.values.front().cloned().unwrap_or(Value::Nil)
    }

    /// The argument `index` places on (0 is the next), which stays.
    pub fn peek_at(&self, index: usize) -> Option<Value> {
        self.values.get(index).cloned()
    }

    /// A required 64-bit word, signed or unsigned.
    ///
    /// # Errors
    /// When it is missing or no whole number of 64 bits.
    pub fn word(&mut self, name: &str) -> Result<u64, ApiError> {
        let value = self.next();
        to_word(&value).map_err(|why| self.bad(name, &why))
    }

    /// A required string; any bytes.
    ///
    /// # Errors
    /// When it is missing or not a string.
    pub fn bytes(&mut self, name: &str) -> Result<Vec<u8>, ApiError> {
        let value = self.next();
        match &value {
            Value::String(text) => Ok(text.as_bytes().to_vec()),
            Value::Integer(_) | Value::Number(_) => Ok(short(&value).into_bytes()),
            other => Err(self.wrong(name, "a string", other)),
        }
    }

    /// A required path: a string that is not empty and holds no NUL.
    ///
    /// # Errors
    /// When it is something else.
    pub fn path(&mut self, name: &str) -> Result<Vec<u8>, ApiError> {
        match self.next() {
            Value::String(text) if text.as_bytes().is_empty() => {
                Err(self.bad(name, "expected a path, found an empty string"))
            }
            Value::String(text) if text.as_bytes().contains(&0) => {
                let shown = short(&Value::String(text));
                Err(self.bad(name, &format!("expected a path, found {shown}, which holds a NUL byte")))
            }
            Value::String(text) => Ok(text.as_bytes().to_vec()),
            other => Err(self.wrong(name, "a path", &other)),
        }
    }

    /// A required size: bytes, or a string with a unit.
    ///
    /// # Errors
    /// When it is not one.
    pub fn size(&mut self, name: &str) -> Result<u64, ApiError> {
        let value = self.next();
        to_size(&value).map_err(|why| self.bad(name, &why))
    }

    /// A required string of text.
    ///
    /// # Errors
    /// When it is missing, not a string, or not UTF-8.
    pub fn text(&mut self, name: &str) -> Result<String, ApiError> {
        let value = self.next();
        self.as_text(name, &value)
    }

    /// An optional string of text.
    ///
    /// # Errors
    /// As `text`.
    pub fn text_opt(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        match self.next() {
            Value::Nil => Ok(None),
            value => self.as_text(name, &value).map(Some),
        }
    }

    /// `value` as text.
    ///
    /// # Errors
    /// When it is something else.
    pub fn as_text(&self, name: &str, value: &Value) -> Result<String, ApiError> {
        match value {
            Value::String(text) => match text.to_str() {
                Ok(text) => Ok(text.to_owned()),
                Err(_) => Err(self.wrong(name, "text in UTF-8", value)),
            },
            other => Err(self.wrong(name, "a string", other)),
        }
    }

    /// A required function.
    ///
    /// # Errors
    /// When it is something else.
    pub fn callable(&mut self, name: &str) -> Result<Function, ApiError> {
        match self.next() {
            Value::Function(function) => Ok(function),
            other => Err(self.wrong(name, "a function", &other)),
        }
    }

    /// An optional table of options, whose keys must all be among `known`.
    ///
    /// # Errors
    /// When it is not a table, or has an unknown key (the nearest known one is named).
    pub fn options(&mut self, known: &[&str]) -> Result<Options, ApiError> {
        match self.next() {
            Value::Nil => Ok(Options { function: self.function, table: None }),
            Value::Table(table) => Options::checked(self.function, table, known),
            other => Err(self.wrong("options", "a table", &other)),
        }
    }

    /// An optional time: seconds, or a string with a unit.
    ///
    /// # Errors
    /// When it is neither, or negative.
    pub fn duration_opt(&mut self, name: &str) -> Result<Option<Duration>, ApiError> {
        match self.next() {
            Value::Nil => Ok(None),
            value => to_duration(&value).map(Some).map_err(|why| self.bad(name, &why)),
        }
    }

    /// The error for an argument of the wrong type.
    pub fn wrong(&self, name: &str, expected: &str, found: &Value) -> ApiError {
        self.bad(name, &format!("expected {expected}, found {}", short(found)))
    }

    /// The error for an argument with a bad value.
    pub fn bad(&self, name: &str, why: &str) -> ApiError {
        ApiError::new(format!("{}: `{name}`: {why}", self.function))
    }
}

/// A table of options with known keys; absent when the caller gave none.
pub struct Options {
    function: &'static str,
    table: Option<Table>,
}

impl Options {
    /// `table` with its keys checked against `known`.
    ///
    /// # Errors
    /// An unknown key, with the nearest known one.
    pub fn checked(function: &'static str, table: Table, known: &[&str]) -> Result<Self, ApiError> {
        for pair in table.pairs::<Value, Value>() {
            let (key, _) = pair?;
            let name = match &key {
                Value::String(text) => text.to_string_lossy(),
                other => short(other),
            };
            if !matches!(key, Value::String(_)) || !known.contains(&name.as_str()) {
                let hint = match suggest::nearest(&name, known.iter()) {
                    Some(nearest) => format!("did you mean `{nearest}`?"),
                    None => format!("known options: {}", known.join(", ")),
                };
                return Err(ApiError::new(format!("{function}: unknown option `{name}`\nhint: {hint}")));
            }
        }
        Ok(Self { function, table: Some(table) })
    }

    /// The raw value of an option, `nil` when absent.
    ///
    /// # Errors
    /// Those of the table's own metamethods.
    pub fn value(&self, name: &str) -> Result<Value, ApiError> {
        match &self.table {
            Some(table) => Ok(table.get(name)?),
            None => Ok(Value::Nil),
        }
    }

    fn decode<T>(&self, name: &str, decode: impl FnOnce(&Value) -> Result<T, String>) -> Result<Option<T>, ApiError> {
        match self.value(name)? {
            Value::Nil => Ok(None),
            value => decode(&value)
                .map(Some)
                .map_err(|why| ApiError::new(format!("{}: option `{name}`: {why}", self.function))),
        }
    }

    /// A string of text.
    ///
    /// # Errors
    /// When it is something else.
    pub fn text(&self, name: &str) -> Result<Option<String>, ApiError> {
        self.decode(name, |value| match value {
            Value::String(text) => {
                text.to_str().map(|text| text.to_owned()).map_err(|_| "expected text in UTF-8".to_owned())
            }
            other => Err(format!("expected a string, found {}", short(other))),
        })
    }

    /// A string of bytes.
    ///
    /// # Errors
    /// When it is something else.
    pub fn bytes(&self, name: &str) -> Result<Option<Vec<u8>>, ApiError> {
        self.decode(name, |value| match value {
            Value::String(text) => Ok(text.as_bytes().to_vec()),
            other => Err(format!("expected a string, found {}", short(other))),
        })
    }

    /// A boolean.
    ///
    /// # Errors
    /// When it is something else.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, ApiError> {
        self.decode(name, |value| match value {
            Value::Boolean(flag) => Ok(*flag),
            other => Err(format!("expected true or false, found {}", short(other))),
        })
    }

    /// A time.
    ///
    /// # Errors
    /// When it is not one.
    pub fn duration(&self, name: &str) -> Result<Option<Duration>, ApiError> {
        self.decode(name, to_duration)
    }

    /// A size in bytes.
    ///
    /// # Errors
    /// When it is not one.
    pub fn size(&self, name: &str) -> Result<Option<u64>, ApiError> {
        self.decode(name, to_size)
    }

    /// A whole number from `least` to `most`.
    ///
    /// # Errors
    /// When it is something else or outside.
    pub fn integer(&self, name: &str, least: i64, most: i64) -> Result<Option<i64>, ApiError> {
        self.decode(name, |value| match value {
            Value::Integer(number) if (least..=most).contains(number) => Ok(*number),
            Value::Number(number) if number.fract() == 0.0 && (least as f64..=most as f64).contains(number) => {
                // In range and whole: the cast is exact.
                Ok(*number as i64)
            }
            other => Err(format!("expected a whole number from {least} to {most}, found {}", short(other))),
        })
    }

    /// A list of strings; a lone string is a list of one.
    ///
    /// # Errors
    /// When it is something else.
    pub fn byte_list(&self, name: &str) -> Result<Option<Vec<Vec<u8>>>, ApiError> {
        self.decode(name, |value| match value {
            Value::Table(list) => list_of_bytes(list),
            other => Err(format!("expected an array of strings, found {}", short(other))),
        })
    }
}

/// An array of strings (numbers are written as Lua writes them).
///
/// # Errors
/// A message when an entry is something else, or the table has other keys.
pub fn list_of_bytes(list: &Table) -> Result<Vec<Vec<u8>>, String> {
    let mut items = Vec::new();
    for pair in list.pairs::<Value, Value>() {
        let (key, _) = pair.map_err(|error| error.to_string())?;
        if !matches!(key, Value::Integer(_)) {
            return Err(format!("expected an array of strings, found the key {}", short(&key)));
        }
    }
    for (index, item) in list.sequence_values::<Value>().enumerate() {
        match item.map_err(|error| error.to_string())? {
            Value::String(text) => items.push(text.as_bytes().to_vec()),
            value @ (Value::Integer(_) | Value::Number(_)) => items.push(short(&value).into_bytes()),
            other => return Err(format!("entry {}: expected a string, found {}", index + 1, short(&other))),
        }
    }
    Ok(items)
}

/// A size: bytes, or text with a unit.
fn to_size(value: &Value) -> Result<u64, String> {
    match value {
        Value::Integer(bytes) => {
            u64::try_from(*bytes).map_err(|_| format!("expected a size, found the negative number {bytes}"))
        }
        Value::String(text) => size::parse_size(&text.to_string_lossy()).map_err(|error| error.to_string()),
        // Exact below 2^53.
        Value::Number(number) if number.fract() == 0.0 && (0.0..9e15).contains(number) => Ok(*number as u64),
        other => Err(format!("expected a size (bytes, or text such as `512M`), found {}", short(other))),
    }
}

/// A 64-bit word; a negative number is its two's complement.
///
/// # Errors
/// A message that repeats the value.
pub fn to_word(value: &Value) -> Result<u64, String> {
    match value {
        Value::Integer(number) => Ok(number.cast_unsigned()),
        // Whole and in range: the casts are exact.
        Value::Number(number) if number.fract() == 0.0 && (0.0..18_446_744_073_709_551_616.0).contains(number) => {
            Ok(*number as u64)
        }
        Value::Number(number) if number.fract() == 0.0 && (-9_223_372_036_854_775_808.0..0.0).contains(number) => {
            Ok((*number as i64).cast_unsigned())
        }
        other => Err(format!("expected a whole number of 64 bits, found {}", short(other))),
    }
}

/// A time: seconds as a number, or text with a unit.
///
/// # Errors
/// A message that repeats the value.
pub fn to_duration(value: &Value) -> Result<Duration, String> {
    match value {
        #[expect(clippy::cast_precision_loss, reason = "seconds beyond 2^53 are refused below as too long")]
        Value::Integer(seconds) => duration::from_seconds(*seconds as f64).map_err(|error| error.to_string()),
        Value::Number(seconds) => duration::from_seconds(*seconds).map_err(|error| error.to_string()),
        Value::String(text) => duration::parse_duration(&text.to_string_lossy()).map_err(|error| error.to_string()),
        other => Err(format!("expected a time (seconds, or text such as `500ms`), found {}", short(other))),
    }
}
