//! Lines from QEMU, and what they say.

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::foundation::path_error::describe_io;

/// The longest line taken; the longest known answer, of `query-qmp-schema`, has a few hundred kilobytes.
pub(super) const LONGEST_LINE: usize = 16 << 20;

/// What a line says.
#[derive(Debug, PartialEq)]
pub(super) enum Message {
    Greeting,
    Event {
        /// QEMU's name of it, `SHUTDOWN` for example.
        name: String,
        /// `Null` where it has none.
        data: Value,
    },
    /// To the command with this number.
    Answer {
        id: u64,
        result: Result<Value, Refusal>,
    },
}

/// QEMU's error object.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) class: String,
    pub(super) description: String,
}

/// Reads a line's JSON.
///
/// # Errors
/// A fragment that says what is wrong with it.
pub(super) fn parse(line: &[u8]) -> Result<Message, String> {
    let excerpt = || String::from_utf8_lossy(&line[..line.len().min(200)]).into_owned();
    let value: Value = serde_json::from_slice(line).map_err(|_| format!("it sent what is no JSON: `{}`", excerpt()))?;
    let Value::Object(mut object) = value else { return Err(format!("it sent no JSON object: `{}`", excerpt())) };
    if object.contains_key("QMP") {
        return Ok(Message::Greeting);
    }
    if let Some(Value::String(name)) = object.get("event") {
        let name = name.clone();
        return Ok(Message::Event { name, data: object.remove("data").unwrap_or_default() });
    }
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let error = object
        .get("error")
        .map(|error| Refusal { class: text(error.get("class")), description: text(error.get("desc")) });
    let result = match (object.remove("return"), error) {
        (_, Some(refusal)) => Err(refusal),
        (Some(value), None) => Ok(value),
        (None, None) => return Err(format!("it sent neither answer nor event: `{}`", excerpt())),
    };
    match (object.get("id").and_then(Value::as_u64), result) {
        (Some(id), result) => Ok(Message::Answer { id, result }),
        (None, Err(refusal)) => Err(format!("it reported `{}` about no command", refusal.description)),
        (None, Ok(_)) => Err(format!("it sent an answer to no command: `{}`", excerpt())),
    }
}

/// Cuts a stream into lines.
pub(super) struct Lines<R> {
    stream: R,
    buffer: Vec<u8>,
    /// How much of `buffer` is known to hold no line end.
    searched: usize,
    longest: usize,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(super) fn new(stream: R, longest: usize) -> Lines<R> {
        Lines { stream, buffer: Vec::new(), searched: 0, longest }
    }

    /// The next line without its end.
    ///
    /// # Errors
    /// A fragment: the stream's end, a failure to read, or a line that is too long.
    pub(super) async fn next(&mut self) -> Result<Vec<u8>, String> {
        loop {
            if let Some(at) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                let rest = self.buffer.split_off(self.searched + at + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                self.searched = 0;
                line.truncate(line.trim_ascii_end().len());
                if line.is_empty() {
                    continue;
                }
                return Ok(line);
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > self.longest {
                return Err(format!("it sent a line of more than {} bytes", self.longest));
            }
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) => return Err("QEMU closed it".to_owned()),
                Ok(_) => {}
                Err(error) => return Err(describe_io(&error)),
            }
        }
    }
}
