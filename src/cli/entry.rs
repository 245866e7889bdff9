//! From the process's arguments to its exit code.

use std::io::IsTerminal;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use clap::Parser;

use super::args::{Args, Command};
use super::error::CommandError;
use super::exit_code::Exit;
use super::logging;
use super::panic_hook;
use super::{build, completions, fixture, lsp_setup, man, profile, test};
use crate::reporters::ColourContext;

/// Entry of the `provium` binary.
pub fn main() -> ExitCode {
    panic_hook::install();
    // The hook has told of the panic; what it left behind is dropped by now.
    catch_unwind(AssertUnwindSafe(run)).unwrap_or(Exit::Bug).into()
}

fn run() -> Exit {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Nobody may be listening; there is no better place to say so.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Success };
        }
    };
    match dispatch(&args) {
        Ok(exit) => exit,
        Err(error) => {
            error.print();
            error.exit()
        }
    }
}

fn dispatch(args: &Args) -> Result<Exit, CommandError> {
    let colour = args.global.colour.choice().decide(ColourContext::of_process(std::io::stderr().is_terminal()));
    logging::start(args.global.log.as_deref(), colour)?;
    match &args.command {
        Command::Test(command) => test::run(&args.global, command),
        Command::Build(command) => build::run(&args.global, command),
        Command::Profile(command) => profile::run(&args.global, command),
        Command::Fixture(command) => fixture::run(&args.global, command),
        Command::LspSetup(command) => lsp_setup::run(&args.global, command),
        Command::Completions(command) => completions::run(command),
        Command::Man(command) => man::run(command),
    }
}
