//! The command line. The comments on arguments are the help that users read.

use std::path::PathBuf;

use clap::{ArgAction, Parser, Subcommand, ValueEnum};

use super::completions::CompletionsArgs;
use super::fixture::args::FixtureArgs;
use super::lsp_setup::LspSetupArgs;
use super::man::ManArgs;
use super::time_limit::TimeLimit;
use crate::foundation::size::{SizeError, parse_size};
use crate::reporters::{ColourChoice, Verbosity};
use crate::scheduler::{MetaPair, RunOptions, Selection, Shard, SlowTests};

/// Boots real virtual machines under QEMU and runs Lua tests against them
#[derive(Debug, Clone, Parser)]
#[command(
    name = "provium",
    version,
    after_help = "Examples:
  provium test                       run every test of the project
  provium test tests/net -v          run a directory, and show what its machines do
  provium test --tag net --no-tag slow-disk
  provium completions bash

Exit codes: 0 all passed or skipped, 1 a test failed, 2 usage or configuration, 3 the environment,
4 nothing selected, 70 a bug in provium, 130 interrupted."
)]
pub struct Args {
    /// What every command takes.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[expect(missing_docs, reason = "each command's arguments say what it is, and users read that")]
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    Test(Box<TestArgs>),
    Build(BuildArgs),
    Profile(ProfileArgs),
    Fixture(FixtureArgs),
    LspSetup(LspSetupArgs),
    Completions(CompletionsArgs),
    #[command(hide = true)]
    Man(ManArgs),
}

/// What every command takes.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Global options")]
pub struct GlobalArgs {
    /// Use this configuration instead of the nearest provium.toml
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Show more: machines, logs of tests that pass, builders' logs
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    pub verbose: bool,
    /// Show only failures and the summary
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// When to colour the output
    #[arg(long = "color", global = true, value_name = "WHEN", value_enum, default_value_t)]
    pub colour: ColourArg,
    /// Log provium's own doings to standard error: a level, or targets with levels
    #[arg(long, global = true, value_name = "FILTER", env = "PROVIUM_LOG", hide_env_values = true)]
    pub log: Option<String>,
    /// Keep Nix off the network
    #[arg(long, global = true)]
    pub offline: bool,
    /// Pass an argument to nix (repeatable)
    #[arg(long, global = true, value_name = "ARG", allow_hyphen_values = true)]
    pub nix_arg: Vec<String>,
    /// Use another flake for an input of the project's flake (repeatable)
    #[arg(long, global = true, value_names = ["NAME", "REF"], num_args = 2, action = ArgAction::Append)]
    pub override_input: Vec<String>,
}

impl GlobalArgs {
    /// How much to show.
    pub fn verbosity(&self) -> Verbosity {
        match (self.quiet, self.verbose) {
            (true, _) => Verbosity::Quiet,
            (_, true) => Verbosity::Verbose,
            _ => Verbosity::Normal,
        }
    }

    /// The overrides as pairs of an input's name and a flake reference.
    pub fn input_overrides(&self) -> impl Iterator<Item = (&str, &str)> {
        // clap takes the values in pairs.
        self.override_input.as_chunks::<2>().0.iter().map(|[name, reference]| (name.as_str(), reference.as_str()))
    }
}

/// `--color`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ColourArg {
    /// On a terminal, unless `NO_COLOR` is set
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl ColourArg {
    /// As the reporters take it.
    pub fn choice(self) -> ColourChoice {
        match self {
            Self::Auto => ColourChoice::Auto,
            Self::Always => ColourChoice::Always,
            Self::Never => ColourChoice::Never,
        }
    }
}

/// `--format`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// For people
    #[default]
    Human,
    /// For programs
    Json,
}

/// `--accel`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum AccelArg {
    /// KVM where it can run a stock kernel, else TCG
    #[default]
    Auto,
    /// Hardware virtualisation; an error where it does not work
    Kvm,
    /// Emulation; works everywhere
    Tcg,
}

/// Run tests
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  provium test                                  every test under the roots of provium.toml
  provium test tests/boot.test.lua              one file
  provium test --tag net --tag disk             tests with either tag
  provium test --tag-meta spec=4.1 --include-slow
  provium test --accel tcg --timeout 10m
  provium test --format json > events.jsonl")]
pub struct TestArgs {
    /// Test files, or directories to look for *.test.lua in [default: the roots of provium.toml]
    #[arg(value_name = "PATHS")]
    pub paths: Vec<PathBuf>,
    /// Which tests.
    #[command(flatten)]
    pub selection: SelectionArgs,
    /// How they run.
    #[command(flatten)]
    pub running: RunningArgs,
    /// What comes out.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Which tests.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Selection")]
pub struct SelectionArgs {
    /// Only files whose path contains this (repeatable: either)
    #[arg(long, value_name = "SUBSTRING")]
    pub filter: Vec<String>,
    /// Only tests with this tag (repeatable: either)
    #[arg(long, value_name = "TAG")]
    pub tag: Vec<String>,
    /// No tests with this tag, whatever else selects them (repeatable: any)
    #[arg(long, value_name = "TAG")]
    pub no_tag: Vec<String>,
    /// Only tests with this metadata (repeatable: of one key either, of different keys all); a list matches by member
    #[arg(long, value_name = "KEY=VALUE")]
    pub tag_meta: Vec<MetaPair>,
    /// No tests with this metadata (repeatable: any)
    #[arg(long, value_name = "KEY=VALUE")]
    pub no_tag_meta: Vec<MetaPair>,
    /// Also slow tests: those with `slow` in their metadata or tags, which are left out otherwise
    #[arg(long)]
    pub include_slow: bool,
    /// Only slow tests
    #[arg(long)]
    pub only_slow: bool,
    /// Only the files of part I of N, by a hash of their path in the project; together the parts are everything
    #[arg(long, value_name = "I/N")]
    pub shard: Option<Shard>,
    /// Succeed when nothing is selected, instead of exit code 4
    #[arg(long)]
    pub allow_empty: bool,
}

impl SelectionArgs {
    /// As the scheduler takes it.
    pub fn selection(&self) -> Selection {
        Selection {
            filters: self.filter.clone(),
            tags: self.tag.clone(),
            no_tags: self.no_tag.clone(),
            tag_meta: self.tag_meta.clone(),
            no_tag_meta: self.no_tag_meta.clone(),
            slow: match (self.only_slow, self.include_slow) {
                (true, _) => SlowTests::Only,
                (_, true) => SlowTests::Include,
                _ => SlowTests::Exclude,
            },
        }
    }
}

fn memory(text: &str) -> Result<u64, SizeError> {
    parse_size(text)
}

/// How tests run.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Running")]
pub struct RunningArgs {
    /// Time for each file, such as `90s` or `10m`; 0 for no limit
    #[arg(long, value_name = "DUR", default_value = "5m")]
    pub timeout: TimeLimit,
    /// Time for each test that sets none itself; 0 for no limit
    #[arg(long, value_name = "DUR")]
    pub test_timeout: Option<TimeLimit>,
    /// Stop at the first failure
    #[arg(long)]
    pub fail_fast: bool,
    /// Build nothing: fail where a profile's Nix value is not there yet
    #[arg(long)]
    pub no_build: bool,
    /// Memory that the machines of the run may use together [default: what there is]
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    pub memory: Option<u64>,
    /// How virtual machines run
    #[arg(long, value_name = "HOW", value_enum, default_value_t)]
    pub accel: AccelArg,
    /// The QEMU to run, before PROVIUM_QEMU, provium.toml and PATH
    #[arg(long, value_name = "PATH")]
    pub qemu: Option<PathBuf>,
}

impl RunningArgs {
    /// As the scheduler takes it.
    pub fn options(&self) -> RunOptions {
        RunOptions { file_timeout: self.timeout.0, fail_fast: self.fail_fast }
    }
}

/// What comes out of a run.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Show the selected files and run nothing
    #[arg(long)]
    pub list: bool,
    /// The format on standard output; with `json`, the human output goes to standard error
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub format: OutputFormat,
    /// Save the event stream as JSON lines, whole or not at all
    #[arg(long, value_name = "FILE")]
    pub save_events: Option<PathBuf>,
    /// Save the results as JUnit XML
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Save the results as a page for browsers
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Keep what tests attach, and the console logs of tests that fail, in this directory: DIR/FILE/TEST/NAME
    #[arg(long, value_name = "DIR")]
    pub artifacts: Option<PathBuf>,
}

/// Build what profiles name: Nix values and `build` commands; nothing boots
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  provium build                every profile
  provium build stable debug   these two
  provium build --offline")]
pub struct BuildArgs {
    /// The profiles [default: all]
    #[arg(value_name = "PROFILE")]
    pub profiles: Vec<String>,
}

/// Show the profiles of provium.toml; nothing is built
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  provium profile list
  provium profile show stable")]
pub struct ProfileArgs {
    /// What to show.
    #[command(subcommand)]
    pub command: ProfileCommand,
}

/// What `provium profile` shows.
#[derive(Debug, Clone, Subcommand)]
pub enum ProfileCommand {
    /// List the profiles
    #[command(after_help = "Examples:
  provium profile list
  provium profile list --format json")]
    List {
        /// The format on standard output
        #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
        format: OutputFormat,
    },
    /// Show one profile: where each value comes from, and the effective kernel command line
    #[command(after_help = "Examples:
  provium profile show stable")]
    Show {
        /// The profile
        name: String,
    },
}

#[cfg(test)]
#[path = "args_tests.rs"]
mod tests;
