//! The `provium` command.

fn main() -> std::process::ExitCode {
    provium::cli::main()
}
