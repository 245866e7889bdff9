//! Consumers of the event stream. They only read events.

mod error;
mod event_file;
mod html;
mod json_lines;
mod junit;
mod lines;
mod report;
mod spool;
mod terminal;

pub use error::ReporterError;
pub use event_file::EventFile;
pub use html::HtmlFile;
pub use json_lines::JsonLines;
pub use junit::JunitFile;
pub use terminal::{ColourChoice, ColourContext, Options, Terminal, Verbosity, render};
