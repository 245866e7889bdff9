//! `provium man DIR`: what packages install beside the program.

use std::path::PathBuf;

use clap::CommandFactory;

use super::args::Args;
use super::error::CommandError;
use super::exit_code::Exit;
use super::lsp_setup::write;

/// Write the manual pages of provium and of each of its commands
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  provium man ~/.local/share/man/man1")]
pub struct ManArgs {
    /// The directory for them, which is made where it is missing
    pub dir: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// A page can't be written.
pub fn run(args: &ManArgs) -> Result<Exit, CommandError> {
    let mut command = Args::command();
    // Puts global options and the version into the subcommands.
    command.build();
    page(&command, "provium", args)?;
    Ok(Exit::Success)
}

/// The page of a command, `provium-test.1`, and those of the commands below it.
fn page(command: &clap::Command, name: &str, args: &ManArgs) -> Result<(), CommandError> {
    let mut text = Vec::new();
    let file = args.dir.join(format!("{name}.1"));
    clap_mangen::Man::new(command.clone()).render(&mut text).map_err(CommandError::environment)?;
    write(&file, &String::from_utf8_lossy(&text))?;
    let below = command.get_subcommands().filter(|below| !below.is_hide_set() && below.get_name() != "help");
    below.into_iter().try_for_each(|below| page(below, &format!("{name}-{}", below.get_name()), args))
}
