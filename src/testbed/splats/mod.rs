//! Kernel reports ("splats"): finding them in a kernel's log. Pure: lines in, reports out.

mod console;
mod kind;
mod recogniser;
#[cfg(test)]
mod tests;

pub use console::{kernel_lines, reports_on_console};
pub use kind::SplatKind;
pub use recogniser::{Recogniser, Report};
