//! What a Lua call can fail with.

use std::fmt;

use crate::testbed::VmError;
use crate::testbed::network::BridgeError;

/// A failed call, on its way to being raised in Lua as a string that begins with the test's own line.
#[derive(Debug)]
pub enum ApiError {
    /// A message; the caller's file and line are put before it.
    Message(String),
    /// Raised as it is.
    Value(mlua::Value),
    /// The test's deadline has passed or the run was interrupted: nothing catches this for good.
    Cancelled,
}

impl ApiError {
    /// A message from anything that displays as one.
    pub fn new(message: impl fmt::Display) -> Self {
        Self::Message(message.to_string())
    }
}

impl From<VmError> for ApiError {
    fn from(error: VmError) -> Self {
        match error {
            VmError::Cancelled => Self::Cancelled,
            other => Self::new(other),
        }
    }
}

impl From<BridgeError> for ApiError {
    fn from(error: BridgeError) -> Self {
        match error {
            BridgeError::Vm(error) => error.into(),
            other => Self::new(other),
        }
    }
}

impl From<mlua::Error> for ApiError {
    fn from(error: mlua::Error) -> Self {
        Self::Message(lua_message(&error))
    }
}

/// The message of a Lua error without the traceback that mlua appends.
pub fn lua_message(error: &mlua::Error) -> String {
    match error {
        mlua::Error::CallbackError { cause, .. } => lua_message(cause),
        mlua::Error::SyntaxError { message, .. } => message.clone(),
        mlua::Error::RuntimeError(message) => match message.find("\nstack traceback:") {
            Some(end) => message[..end].to_owned(),
            None => message.clone(),
        },
        other => other.to_string(),
    }
}
