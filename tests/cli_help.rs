//! The whole help, and what the command does before it does anything.
//!
//! `PROVIUM_UPDATE_SNAPSHOTS=1 cargo test --test cli_help` writes the snapshot anew.

#![cfg(feature = "host")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use clap::CommandFactory;

/// Columns; the help must not depend on the terminal that the test runs in.
const WIDTH: usize = 100;

fn provium(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_provium")).args(words).env_remove("PROVIUM_LOG").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn describe(command: &mut clap::Command, path: &str, out: &mut String) {
    let help = command.clone().bin_name(path).term_width(WIDTH).render_long_help().to_string();
    let help: String = help.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    write!(out, "\n## `{path}`\n\n```text\n{help}```\n").unwrap();
    for below in command.get_subcommands_mut().filter(|below| below.get_name() != "help" && !below.is_hide_set()) {
        let path = format!("{path} {}", below.get_name());
        describe(below, &path, out);
    }
}

#[test]
fn the_reference_is_up_to_date() {
    let mut command = provium::cli::args::Args::command();
    // Puts global options and the version into the subcommands.
    command.build();
    let mut reference = String::from("# The command line\n\nWritten by `tests/cli_help.rs`.\n");
    describe(&mut command, "provium", &mut reference);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots/cli-reference.md");
    if std::env::var_os("PROVIUM_UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, &reference).unwrap();
    }
    let saved = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        saved == reference,
        "the help has changed: look at it with PROVIUM_UPDATE_SNAPSHOTS=1 and `git diff`\n{reference}"
    );
}

#[test]
fn help_and_version_succeed_on_standard_output() {
    let version = provium(&["--version"]);
    assert_eq!(version.status.code(), Some(0));
    assert_eq!(text(&version.stdout), format!("provium {}\n", env!("CARGO_PKG_VERSION")));
    let help = provium(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(text(&help.stdout).contains("Usage: provium"));
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for words in
        [&[][..], &["--bogus"], &["bogus"], &["completions", "bogus"], &["--log", "a=b", "completions", "bash"]]
    {
        let output = provium(words);
        assert_eq!(output.status.code(), Some(2), "{words:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{words:?}");
    }
}

#[test]
fn completions_know_the_commands() {
    let output = provium(&["completions", "bash"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains("--override-input"));
}

#[test]
fn a_reader_that_has_gone_is_no_error() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_provium"));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    command.args(["completions", "bash"]).stdout(writer).stderr(Stdio::piped());
    let output = command.output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}

#[test]
fn each_command_has_a_manual_page() {
    let directory = tempfile::tempdir().unwrap();
    let pages = directory.path().join("man1");
    let made = provium(&["man", pages.to_str().unwrap()]);
    assert_eq!(made.status.code(), Some(0), "{}", text(&made.stderr));
    let page = |name: &str| std::fs::read_to_string(pages.join(name)).unwrap();
    let mut expected = vec!["provium.1".to_owned()];
    let mut command = provium::cli::args::Args::command();
    command.build();
    fn names(command: &clap::Command, path: &str, out: &mut Vec<String>) {
        for below in command.get_subcommands().filter(|below| below.get_name() != "help" && !below.is_hide_set()) {
            let path = format!("{path}-{}", below.get_name());
            out.push(format!("{path}.1"));
            names(below, &path, out);
        }
    }
    names(&command, "provium", &mut expected);
    let mut found: Vec<String> =
        std::fs::read_dir(&pages).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
    assert!(page("provium.1").contains(".TH provium 1") && page("provium.1").contains("provium\\-test(1)"));
    let test = page("provium-test.1");
    assert!(test.contains("\\-\\-include\\-slow") && test.contains("provium test"), "{test}");
    let nowhere = provium(&["man", "/proc/none"]);
    assert_eq!(nowhere.status.code(), Some(3));
    assert!(text(&nowhere.stderr).contains("can't write `/proc/none/provium.1`"));
}
