//! `provium completions SHELL`.

use clap::CommandFactory;
use clap_complete::Shell;

use super::args::Args;
use super::error::CommandError;
use super::exit_code::Exit;
use super::output;

/// Print a completion script for a shell
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  provium completions bash > ~/.local/share/bash-completion/completions/provium
  provium completions zsh > ~/.zfunc/_provium")]
pub struct CompletionsArgs {
    /// The shell
    pub shell: Shell,
}

/// Runs the command.
///
/// # Errors
/// When standard output can't be written to.
pub fn run(args: &CompletionsArgs) -> Result<Exit, CommandError> {
    // Into memory first: the generator panics when its output goes away.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "provium", &mut script);
    output::print(script)?;
    Ok(Exit::Success)
}
