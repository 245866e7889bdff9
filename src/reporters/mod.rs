//! Consumers of the event stream. They only read events.

mod error;
mod event_file;
mod json_lines;
mod lines;
mod terminal;

pub use error::ReporterError;
pub use event_file::EventFile;
pub use json_lines::JsonLines;
pub use terminal::{ColourChoice, ColourContext, Options, Terminal, Verbosity, render};
