//! The human output: plain lines, readable without colour.

mod closing;
mod colour;
mod failure;
mod fixture_lines;
mod render;
mod summary;
mod text;
mod writer;

pub use colour::{ColourChoice, ColourContext};
pub use render::{Options, Verbosity, render};
pub use writer::Terminal;

#[cfg(test)]
mod tests;
