use std::time::Duration;

use clap::CommandFactory;

use super::*;

/// A command's arguments beside the global ones, as they stand together on a command line.
#[derive(Debug, Parser)]
struct Line<T: clap::Args> {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(flatten)]
    own: T,
}

fn line<T: clap::Args>(words: &[&str]) -> Result<Line<T>, clap::Error> {
    Line::try_parse_from([&["provium"], words].concat())
}

fn test(words: &[&str]) -> TestArgs {
    line(words).unwrap().own
}

#[test]
fn clap_finds_no_fault() {
    Args::command().debug_assert();
    Line::<TestArgs>::command().debug_assert();
    Line::<BuildArgs>::command().debug_assert();
    Line::<ProfileArgs>::command().debug_assert();
}

#[test]
fn defaults() {
    let args = test(&[]);
    assert_eq!(args.running.options(), RunOptions { file_timeout: Some(Duration::from_secs(300)), fail_fast: false });
    assert_eq!(args.selection.selection(), Selection::default());
    assert_eq!((args.running.accel, args.output.format), (AccelArg::Auto, OutputFormat::Human));
    assert_eq!(args.running.test_timeout, None);
}

#[test]
fn zero_is_no_limit() {
    assert_eq!(test(&["--timeout", "0"]).running.timeout, TimeLimit(None));
    assert_eq!(test(&["--test-timeout=500ms"]).running.test_timeout, Some(TimeLimit(Some(Duration::from_millis(500)))));
}

#[test]
fn selection_options_repeat() {
    let args = test(&["--filter=a", "--tag=x", "--tag", "y", "--no-tag", "z", "--tag-meta", "k=v=w", "--include-slow"]);
    let selection = args.selection.selection();
    assert_eq!(selection.tags, ["x", "y"]);
    assert_eq!(selection.tag_meta, [MetaPair { key: "k".into(), value: "v=w".into() }]);
    assert_eq!(selection.slow, SlowTests::Include);
    assert_eq!(test(&["--only-slow", "--include-slow"]).selection.selection().slow, SlowTests::Only);
}

#[test]
fn global_options() {
    let args: Line<BuildArgs> = line(&[
        "stable",
        "--nix-arg",
        "--impure",
        "--nix-arg=-L",
        "--override-input",
        "a",
        "path:b",
        "--override-input",
        "c",
        "d",
        "-v",
        "--color",
        "never",
    ])
    .unwrap();
    assert_eq!(args.own.profiles, ["stable"]);
    assert_eq!(args.global.nix_arg, ["--impure", "-L"]);
    assert_eq!(args.global.input_overrides().collect::<Vec<_>>(), [("a", "path:b"), ("c", "d")]);
    assert_eq!(args.global.verbosity(), Verbosity::Verbose);
    assert_eq!(args.global.colour.choice(), ColourChoice::Never);
}

#[test]
fn faults_name_the_argument_and_what_was_expected() {
    let fault = |words: &[&str]| line::<TestArgs>(words).unwrap_err().to_string();
    assert!(
        fault(&["--timeout", "5d"])
            .contains("invalid value '5d' for '--timeout <DUR>': `5d` is not a time, expected seconds")
    );
    assert!(fault(&["--tag-meta", "x"]).contains("expected `KEY=VALUE`, found `x`"));
    assert!(fault(&["-v", "-q"]).contains("cannot be used with"));
    assert!(fault(&["--acel", "kvm"]).contains("--accel"));
    assert!(fault(&["--override-input", "a"]).contains("2 values"));
}

#[test]
fn profile_commands() {
    let args: Line<ProfileArgs> = line(&["list", "--format", "json"]).unwrap();
    assert!(matches!(args.own.command, ProfileCommand::List { format: OutputFormat::Json }));
    let args: Line<ProfileArgs> = line(&["show", "stable"]).unwrap();
    assert!(matches!(args.own.command, ProfileCommand::Show { name } if name == "stable"));
}
