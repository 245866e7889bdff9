//! What can go wrong before anything is scheduled.

use std::fmt;

use crate::foundation::path_error::describe_io;

/// A failure of the scheduler itself.
#[derive(Debug)]
pub enum SchedulerError {
    /// The signals can't be listened to.
    Signals(std::io::Error),
    /// `KEY=VALUE` without a key or without `=`; the text as given.
    MetaPair(String),
    /// No part of a whole; the text as given.
    Shard(String),
}

impl fmt::Display for SchedulerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signals(source) => write!(f, "can't listen to signals: {}", describe_io(source)),
            Self::Shard(text) => write!(f, "expected `I/N` with I from 1 to N, such as `1/4`, found `{text}`"),
            Self::MetaPair(text) => write!(f, "expected `KEY=VALUE`, found `{text}`"),
        }
    }
}

impl std::error::Error for SchedulerError {}
