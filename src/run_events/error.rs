//! What can go wrong between the stream and its readers.

use std::fmt;

/// A consumer that could not do its work to the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerError {
    /// What was to be made: `event file`, `terminal output`.
    pub output: String,
    /// Why not, with the path where there is one.
    pub message: String,
    /// The consumer panicked, which is a bug in provium.
    pub bug: bool,
}

impl ConsumerError {
    /// A failure of the outside world.
    pub fn new(output: impl Into<String>, message: impl fmt::Display) -> Self {
        Self { output: output.into(), message: message.to_string(), bug: false }
    }
}

impl fmt::Display for ConsumerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not complete: {}", self.output, self.message)
    }
}

impl std::error::Error for ConsumerError {}
