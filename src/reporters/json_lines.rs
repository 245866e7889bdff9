//! `--format json`: the stream itself, one JSON object a line.

use std::io::Write;

use super::lines::LineWriter;
use crate::run_events::{Consumer, ConsumerError, Event};

/// Writes each event as a line, as it comes.
pub struct JsonLines<W> {
    lines: LineWriter<W>,
}

impl<W: Write + Send> JsonLines<W> {
    /// Writes to `writer`, for `--format json` standard output.
    pub fn new(writer: W) -> Self {
        Self { lines: LineWriter::new("json output", writer) }
    }
}

impl<W: Write + Send> Consumer for JsonLines<W> {
    fn output(&self) -> String {
        self.lines.output().to_owned()
    }

    fn event(&mut self, event: &Event) {
        match event.to_json_line() {
            Ok(line) => self.lines.write(&format!("{line}\n")),
            Err(error) => tracing::error!("event {} has no JSON form: {error}", event.seq),
        }
    }

    fn finish(self: Box<Self>) -> Result<(), ConsumerError> {
        self.lines.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::lines::test_writers::Shared;
    use super::*;
    use crate::run_events::{EventKind, EventSink, FileRef, RunStatus};

    #[test]
    fn each_line_is_an_event() {
        let out = Shared::default();
        let sink = EventSink::new(vec![Box::new(JsonLines::new(out.clone()))]).unwrap();
        sink.emit(EventKind::FileDiscovered(FileRef { file: "a\nb".into() }));
        sink.end_run(RunStatus::Passed, 0);
        sink.finish().unwrap();
        let events: Vec<Event> = out.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(events.iter().map(|event| event.seq).collect::<Vec<_>>(), [0, 1, 2]);
        assert!(out.text().ends_with('\n'));
    }
}
