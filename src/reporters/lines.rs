//! Writing to a reader that may go away.

use std::io::{self, Write};

use crate::foundation::path_error::describe_io;
use crate::run_events::ConsumerError;

/// Text output that stops quietly when its reader has gone (`provium test | head`), and remembers any other failure.
pub(super) struct LineWriter<W> {
    output: &'static str,
    writer: W,
    state: State,
}

enum State {
    Open,
    Gone,
    Failed(io::Error),
}

impl<W: Write> LineWriter<W> {
    /// `output` is the name in messages.
    pub(super) fn new(output: &'static str, writer: W) -> Self {
        Self { output, writer, state: State::Open }
    }

    pub(super) fn output(&self) -> &'static str {
        self.output
    }

    /// Writes and flushes; nothing once the reader has gone or an error has come.
    pub(super) fn write(&mut self, text: &str) {
        if !matches!(self.state, State::Open) || text.is_empty() {
            return;
        }
        match self.writer.write_all(text.as_bytes()).and_then(|()| self.writer.flush()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.state = State::Gone,
            Err(error) => self.state = State::Failed(error),
        }
    }

    /// The failure, if there was one; a reader that has gone is none.
    pub(super) fn finish(self) -> Result<(), ConsumerError> {
        match self.state {
            State::Open | State::Gone => Ok(()),
            State::Failed(error) => Err(ConsumerError::new(self.output, describe_io(&error))),
        }
    }
}

#[cfg(test)]
pub(super) mod test_writers {
    use std::io;
    use std::sync::{Arc, Mutex};

    /// Keeps what is written, for several owners.
    #[derive(Clone, Default)]
    pub(in crate::reporters) struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Shared {
        pub(in crate::reporters) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl io::Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Fails each write with this error.
    pub(in crate::reporters) struct Failing(pub(in crate::reporters) i32);

    impl io::Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::Error::from_raw_os_error(self.0))
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::test_writers::{Failing, Shared};
    use super::*;

    #[test]
    fn a_reader_that_has_gone_is_no_error() {
        let mut lines = LineWriter::new("terminal output", Failing(libc::EPIPE));
        lines.write("a\n");
        lines.write("b\n");
        assert!(lines.finish().is_ok());
    }

    #[test]
    fn a_full_disk_is_one() {
        let mut lines = LineWriter::new("terminal output", Failing(libc::ENOSPC));
        lines.write("a\n");
        let error = lines.finish().unwrap_err();
        assert_eq!(error.to_string(), "terminal output is not complete: no space left on device");
    }

    #[test]
    fn text_arrives() {
        let shared = Shared::default();
        let mut lines = LineWriter::new("x", shared.clone());
        lines.write("a\n");
        lines.write("");
        assert_eq!(shared.text(), "a\n");
    }
}
