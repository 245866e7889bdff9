//! Diagnostics on standard error: `--log FILTER`, `PROVIUM_LOG`.

use tracing_subscriber::EnvFilter;

use super::error::CommandError;

/// Without a filter only provium's own errors show.
const DEFAULT_FILTER: &str = "provium=error";

/// Starts logging for the rest of the process's life.
///
/// # Errors
/// When `filter` is none; usage.
pub fn start(filter: Option<&str>, colour: bool) -> Result<(), CommandError> {
    let given = filter.filter(|filter| !filter.is_empty());
    let parsed = EnvFilter::try_new(given.unwrap_or(DEFAULT_FILTER)).map_err(|error| {
        CommandError::usage(format!("can't read the log filter `{}`: {error}", given.unwrap_or_default()))
            .hint("a filter is a level, or targets with levels: `debug`, `provium::qemu=trace,warn`")
    })?;
    // Only a second start in one process fails, and then the first one stays.
    let _ = tracing_subscriber::fmt().with_env_filter(parsed).with_writer(std::io::stderr).with_ansi(colour).try_init();
    Ok(())
}
