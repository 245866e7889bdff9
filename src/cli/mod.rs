//! Subcommands, wiring, exit codes.

/// Entry of the `provium` binary.
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
