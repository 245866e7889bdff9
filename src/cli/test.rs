//! `provium test`.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::args::{GlobalArgs, OutputFormat, TestArgs};
use super::error::CommandError;
use super::exit_code::Exit;
use super::host_info::host_info;
use super::images::{self, ImageFinder};
use super::{output, session};
use crate::foundation::cancel::CancelToken;
use crate::foundation::runtime_dir::RuntimeDir;
use crate::lua_api::{self, CallRecord, FileSettings};
use crate::nix_realiser::{Cancel, Environment};
use crate::project::{self, Project, TestFile};
use crate::reporters::{ColourContext, EventFile, HtmlFile, JsonLines, JunitFile, Options, Terminal};
use crate::run_events::{Consumer, EventKind, EventSink, FileStatus, RunStarted};
use crate::scheduler::{self, Decision, FileContext, FileJob, FileOutcome, RunOutcome, Selection};
use crate::testbed::{Artifacts, Pool, Testbed, TestbedSettings};

/// Runs tests.
///
/// # Errors
/// Usage, configuration, an output that can't be written.
pub fn run(global: &GlobalArgs, args: &TestArgs) -> Result<Exit, CommandError> {
    let cwd = session::working_directory()?;
    let project = session::find_project(global, args.paths.first().map(PathBuf::as_path), &cwd)?;
    let selection = args.selection.selection();
    let mut files = project::discover(project.as_deref(), &args.paths, &cwd).map_err(CommandError::usage)?;
    let found = files.len();
    files.retain(|file| selection.selects_file(&file.display));
    if let Some(shard) = args.selection.shard {
        files.retain(|file| shard.takes(&path_in_project(file, project.as_deref())));
    }
    if args.output.list {
        return list(&files, args.selection.allow_empty);
    }
    let directory = project.as_ref().map_or(cwd.clone(), |project| project.directory.clone());
    let nix_options = session::nix_options(global, &directory, args.running.no_build)?;
    let agent = session::find_agent()?;
    let artifacts = match &args.output.artifacts {
        Some(directory) => Artifacts::in_directory(directory).map_err(CommandError::usage)?,
        None => Artifacts::default(),
    };
    let runtime = session::runtime()?;
    let base = RuntimeDir::default_base();
    let runtime_dir = RuntimeDir::create(&base).map_err(CommandError::environment)?;

    let sink = EventSink::new(consumers(global, args)?)
        .map_err(|error| CommandError::environment(format!("can't start the reporters: {error}")))?;
    let interrupt = CancelToken::new();
    let cancel = Cancel::new();
    let on_signal = cancel.clone();
    scheduler::watch_signals(interrupt.clone(), move |_| on_signal.cancel())?;
    sink.emit(run_started(project.as_deref()));
    let finder = Arc::new(ImageFinder::new(directory, nix_options, sink.clone(), cancel));
    let ended = match realise(&finder, project.as_deref(), &files) {
        Err(_) if interrupt.is_cancelled() => Ok(Exit::Interrupted),
        Err(message) => Err(CommandError::environment(message)),
        Ok(()) => {
            let fixtures = images::fixture_settings(&finder, project.as_deref(), runtime_dir.path());
            let bed = Testbed::new(TestbedSettings {
                fixtures,
                runtime: runtime.handle().clone(),
                images: images::as_source(&finder),
                machine: session::machine(
                    args.running.accel,
                    args.running.qemu.as_deref(),
                    &finder,
                    project.as_deref(),
                ),
                agent,
                runtime_dir: runtime_dir.path().to_owned(),
                cache_dir: session::base_directory("XDG_CACHE_HOME", ".cache").join("provium"),
                sink: sink.clone(),
                cwd,
                project: project.clone(),
                artifacts,
                pool: pool(args),
            });
            bed.tidy_fixtures();
            let ran = run_files(args, &selection, project.as_deref(), &files, &bed, &sink, &interrupt);
            bed.block_on(bed.end());
            ran.and_then(|(exit, outcome)| {
                let empty = exit == Exit::NothingSelected;
                if empty {
                    Err(nothing_selected(&outcome, files.len(), found, args.selection.shard.is_some()))
                } else {
                    Ok(exit)
                }
            })
        }
    };
    let exit = ended.as_ref().map_or_else(CommandError::exit, |exit| *exit);
    sink.end_run(exit.run_status(), exit.code());
    drop((finder, runtime_dir));
    sink.finish()?;
    ended
}

/// The same on every machine that has the project.
fn path_in_project(file: &TestFile, project: Option<&Project>) -> String {
    let directory = project.map(|project| project.directory.as_path());
    match directory.and_then(|directory| file.path.strip_prefix(directory).ok()) {
        Some(path) => path.display().to_string(),
        None => file.display.clone(),
    }
}

/// What the machines of the run may use together.
fn pool(args: &TestArgs) -> Pool {
    let machine = Pool::of_machine();
    Pool { memory: args.running.memory.map_or(machine.memory, |memory| memory.min(machine.memory)), ..machine }
}

/// QEMU and the accelerator are told once they are chosen: at the first boot.
fn run_started(project: Option<&Project>) -> EventKind {
    EventKind::RunStarted(RunStarted {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        qemu: None,
        accelerator: None,
        host: host_info(),
        config: project.map(|project| project.config.display().to_string()),
    })
}

fn list(files: &[TestFile], allow_empty: bool) -> Result<Exit, CommandError> {
    output::print(files.iter().map(|file| format!("{}\n", file.display)).collect::<String>())?;
    Ok(if files.is_empty() && !allow_empty { Exit::NothingSelected } else { Exit::Success })
}

/// Why nothing ran, where nothing did: of `found` files the selection has `files`.
fn nothing_selected(outcome: &RunOutcome, files: usize, found: usize, sharded: bool) -> CommandError {
    let option = if sharded { "`--shard` or `--filter`" } else { "`--filter`" };
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    let message = match (files, found) {
        (0, 0) => "no test file is selected: there is none".to_owned(),
        (0, found) => {
            format!("no test file is selected: {option} leaves none of the {found} file{} found", plural(found))
        }
        (files, _) => format!("no test of {files} file{} is selected", plural(files)),
    };
    let error = CommandError::new(Exit::NothingSelected, message);
    match (outcome.left_out_as_slow, found) {
        (0, 0) => error.hint("test files are called `*.test.lua`; --allow-empty makes this no error"),
        (0, _) => error.hint("--allow-empty makes this no error"),
        (1, _) => error.hint("a slow one was left out: --include-slow runs it"),
        (slow, _) => error.hint(format!("{slow} slow ones were left out: --include-slow runs them")),
    }
}

fn consumers(global: &GlobalArgs, args: &TestArgs) -> Result<Vec<Box<dyn Consumer>>, CommandError> {
    let mut consumers: Vec<Box<dyn Consumer>> = Vec::new();
    let options = |is_terminal| Options {
        verbosity: global.verbosity(),
        colour: global.colour.choice().decide(ColourContext::of_process(is_terminal)),
        closing: Environment::of_this_process().inside_build,
    };
    match args.output.format {
        OutputFormat::Human => {
            let out = std::io::stdout();
            consumers.push(Box::new(Terminal::new(options(out.is_terminal()), out)));
        }
        OutputFormat::Json => {
            let err = std::io::stderr();
            consumers.push(Box::new(JsonLines::new(output::reserve_stdout()?)));
            consumers.push(Box::new(Terminal::new(options(err.is_terminal()), err)));
        }
    }
    if let Some(path) = &args.output.save_events {
        consumers.push(Box::new(EventFile::create(path)?));
    }
    if let Some(path) = &args.output.junit {
        consumers.push(Box::new(JunitFile::create(path)?));
    }
    if let Some(path) = &args.output.html {
        consumers.push(Box::new(HtmlFile::create(path)?));
    }
    Ok(consumers)
}

/// Realises what the selected files can reach, before the first of them runs.
fn realise(finder: &ImageFinder, project: Option<&Project>, files: &[TestFile]) -> Result<(), String> {
    let Some(project) = project else { return Ok(()) };
    if files.is_empty() {
        return Ok(());
    }
    let paths: Vec<PathBuf> = files.iter().map(|file| file.path.clone()).collect();
    let reach = project::profiles_named_in(project, &paths);
    finder.realise(project, &reach.profiles)?;
    // Not where all profiles are but a guess: most of them may never be booted.
    if !reach.guessed {
        finder.build_ahead(project.profiles.values().filter(|profile| reach.profiles.contains(&profile.name)));
    }
    Ok(())
}

fn run_files(
    args: &TestArgs,
    selection: &Selection,
    project: Option<&Project>,
    files: &[TestFile],
    bed: &Testbed,
    sink: &EventSink,
    interrupt: &CancelToken,
) -> Result<(Exit, RunOutcome), CommandError> {
    let plan: Vec<FileJob> =
        files.iter().map(|file| FileJob { file: file.display.clone(), path: file.path.clone() }).collect();
    let roots = project.map(|project| project.roots.clone()).unwrap_or_default();
    let record = session::call_record()?;
    let bodies = Files { args, selection, roots: &roots, bed, sink, record };
    let outcome =
        scheduler::run(&plan, args.running.options(), interrupt, sink, |job, context| bodies.run(job, context));
    Ok((Exit::of_run(&outcome, args.selection.allow_empty), outcome))
}

/// What all files of a run share.
struct Files<'a> {
    args: &'a TestArgs,
    selection: &'a Selection,
    roots: &'a [PathBuf],
    bed: &'a Testbed,
    sink: &'a EventSink,
    record: Option<Arc<CallRecord>>,
}

impl Files<'_> {
    fn run(&self, job: &FileJob, context: &FileContext) -> FileOutcome {
        let slow = Arc::new(AtomicUsize::new(0));
        let select = {
            let (selection, slow) = (self.selection.clone(), Arc::clone(&slow));
            Arc::new(move |_: &str, meta: &serde_json::Map<String, serde_json::Value>| {
                match selection.decide(&serde_json::Value::Object(meta.clone())) {
                    Decision::Run => true,
                    Decision::LeftOut => false,
                    Decision::LeftOutAsSlow => {
                        slow.fetch_add(1, Ordering::Relaxed);
                        false
                    }
                }
            })
        };
        let run = lua_api::run_file(FileSettings {
            path: job.path.clone(),
            display: job.file.clone(),
            bed: self.bed.clone(),
            sink: self.sink.clone(),
            token: context.cancel.clone(),
            select,
            test_timeout: self.args.running.test_timeout.and_then(|limit| limit.0),
            roots: self.roots.to_vec(),
            fail_fast: context.fail_fast,
            record: self.record.clone(),
        });
        FileOutcome {
            status: run.status.unwrap_or(FileStatus::Failed),
            error: run.error,
            log: run.log,
            selected: run.selected,
            left_out_as_slow: slow.load(Ordering::Relaxed),
        }
    }
}
