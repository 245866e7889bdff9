//! Writing a command's result to standard output.

use std::io::{ErrorKind, Write};

use super::error::CommandError;
use crate::foundation::path_error::describe_io;

/// Writes all of `bytes`. A reader that has gone (`provium … | head`) is no error.
///
/// # Errors
/// Any other failure, of the environment's family.
pub fn print(bytes: impl AsRef<[u8]>) -> Result<(), CommandError> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes.as_ref()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(CommandError::environment(format!("can't write to standard output: {}", describe_io(&error))))
        }
        _ => Ok(()),
    }
}
