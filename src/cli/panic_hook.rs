//! A panic is a bug in provium, and says so.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::Write;
use std::panic::PanicHookInfo;

pub(super) fn install() {
    std::panic::set_hook(Box::new(|panic| {
        let backtrace = Backtrace::capture();
        let trace = if backtrace.status() == BacktraceStatus::Captured { backtrace.to_string() } else { String::new() };
        // Not `eprintln`, which panics itself where nobody reads.
        let _ = std::io::stderr().lock().write_all(describe(panic, &trace).as_bytes());
    }));
}

fn describe(panic: &PanicHookInfo<'_>, trace: &str) -> String {
    let place = panic.location().map(|at| format!(" at {}:{}", at.file(), at.line())).unwrap_or_default();
    let text = panic.payload_as_str().unwrap_or("no message");
    format!(
        "error: provium panicked{place}: {text}\n{trace}hint: this is a bug in provium: please report it, with the \
         command and this message\n"
    )
}
