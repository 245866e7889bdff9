//! The consumer around the renderer.

use std::io::Write;

use super::super::lines::LineWriter;
use super::render::{Options, Renderer};
use crate::run_events::{Consumer, ConsumerError, Event};

/// Writes the human output, as events come.
pub struct Terminal<W> {
    renderer: Renderer,
    lines: LineWriter<W>,
}

impl<W: Write + Send> Terminal<W> {
    /// Writes to `writer`: standard output, or standard error where that carries the stream itself.
    pub fn new(options: Options, writer: W) -> Self {
        Self { renderer: Renderer::new(options), lines: LineWriter::new("terminal output", writer) }
    }
}

impl<W: Write + Send> Consumer for Terminal<W> {
    fn output(&self) -> String {
        self.lines.output().to_owned()
    }

    fn event(&mut self, event: &Event) {
        let text = self.renderer.event(&event.kind);
        self.lines.write(&text);
    }

    fn finish(self: Box<Self>) -> Result<(), ConsumerError> {
        self.lines.finish()
    }
}
