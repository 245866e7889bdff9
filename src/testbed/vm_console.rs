//! A machine's consoles as tests use them.

use std::sync::Arc;
use std::time::Duration;

use super::console::{Console, ConsolePort, WriteError};
use super::error::VmError;
use super::stream::{ByteStream, StreamError};
use super::vm::Vm;
use crate::foundation::duration::format_duration;

/// How long `expect` waits, before the accelerator's factor.
const EXPECT: Duration = Duration::from_secs(30);
/// How long `write` waits, before the accelerator's factor.
const WRITE: Duration = Duration::from_secs(10);
/// How long a console must have been silent before something is typed, before the accelerator's factor.
const SILENCE: Duration = Duration::from_millis(50);
/// How much of what came last an error shows, in bytes.
const SHOWN: usize = 200;

impl Vm {
    fn console_error(&self, port: ConsolePort, op: &str, why: String) -> VmError {
        VmError::Console { vm: self.name().to_owned(), port: port.name(), op: op.to_owned(), why }
    }

    /// Everything that a console said since the first byte of firmware, over resets too.
    ///
    /// # Errors
    /// A machine that was never booted, a log that can't be read.
    pub fn console_read_log(&self, port: Option<ConsolePort>) -> Result<Vec<u8>, VmError> {
        let running = self.ever_running("console:read_log")?;
        running.consoles().get(port).1.read_log().map_err(VmError::File)
    }

    /// A stream of what a console says from now on, and which console it is.
    ///
    /// # Errors
    /// A machine that was never booted.
    pub fn console_listen(&self, port: Option<ConsolePort>) -> Result<(Arc<ByteStream>, ConsolePort), VmError> {
        let running = self.ever_running("console:read")?;
        let (port, console) = running.consoles().get(port);
        Ok((console.listen(), port))
    }

    /// Waits for a match in what a console says, from where the last match of this boot ended. `find` is made anew for each
    /// console that is looked at: where none is named, `hvc0` counts as long as the serial port is silent.
    ///
    /// # Errors
    /// A machine that was never booted, a match that does not come.
    pub async fn console_expect<F>(
        &self,
        port: Option<ConsolePort>,
        timeout: Option<Duration>,
        shown: &str,
        find: [F; 2],
    ) -> Result<(), VmError>
    where
        F: FnMut(&[u8]) -> Result<Option<usize>, String>,
    {
        let running = self.soon_running("console:expect").await?;
        let timeout = timeout.unwrap_or_else(|| self.scaled(EXPECT));
        let [first, second] = find;
        let result = match port {
            Some(port) => {
                let (port, console) = running.consoles().get(Some(port));
                console.expect(timeout, first).await.map_err(|error| (port, error))
            }
            None => {
                let (serial, virtio) = (&running.consoles().serial, &running.consoles().virtio);
                expect_either(serial, virtio, timeout, first, second).await
            }
        };
        result.map_err(|(port, error)| self.console_error(port, &format!("expect {shown}"), error.to_string()))
    }

    /// Writes to a console once it is silent, and waits until QEMU has taken all of it.
    ///
    /// # Errors
    /// A machine without a QEMU, a guest that does not read.
    pub async fn console_write(
        &self,
        port: Option<ConsolePort>,
        bytes: &[u8],
        timeout: Option<Duration>,
    ) -> Result<(), VmError> {
        let running = self.with_qemu("console:write")?;
        let timeout = timeout.unwrap_or_else(|| self.scaled(WRITE));
        let (port, console) = running.consoles().get(port);
        let why = match console.write(bytes, self.scaled(SILENCE), timeout).await {
            Ok(()) => return Ok(()),
            Err(WriteError::Ended) => "QEMU is gone".to_owned(),
            Err(WriteError::Full) => format!(
                "timed out after {}: the guest did not take all {} bytes\nhint: something in the guest must read the \
                 console, a getty for example",
                format_duration(timeout),
                bytes.len()
            ),
        };
        Err(self.console_error(port, "write", why))
    }
}

async fn expect_either(
    serial: &Console,
    virtio: &Console,
    timeout: Duration,
    find_serial: impl FnMut(&[u8]) -> Result<Option<usize>, String>,
    find_virtio: impl FnMut(&[u8]) -> Result<Option<usize>, String>,
) -> Result<(), (ConsolePort, StreamError)> {
    let silent = || serial.heard_now().length == 0;
    let instead = async {
        match virtio.search(timeout, find_virtio).await {
            Ok(end) if silent() => end,
            _ => std::future::pending().await,
        }
    };
    tokio::select! {
        found = serial.expect(timeout, find_serial) => match found {
            Ok(()) => Ok(()),
            Err(error) if silent() && virtio.heard_now().length > 0 => {
                Err((ConsolePort::Virtio, with_end_of(virtio, error)))
            }
            Err(error) => Err((ConsolePort::Serial, error)),
        },
        end = instead => {
            virtio.read_up_to(end);
            Ok(())
        }
    }
}

fn with_end_of(console: &Console, error: StreamError) -> StreamError {
    let last = console.tail(SHOWN).unwrap_or_default().into_bytes();
    match error {
        StreamError::TimedOut { waited, .. } => StreamError::TimedOut { waited, last },
        StreamError::Ended { .. } => StreamError::Ended { last },
        other => other,
    }
}
