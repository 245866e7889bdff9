//! `provium build`: everything that profiles name, without booting.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::path::Path;

use super::args::{BuildArgs, GlobalArgs};
use super::error::{CommandError, Problem};
use super::exit_code::Exit;
use super::images::ImageFinder;
use super::{output, session};
use crate::foundation::cancel::CancelToken;
use crate::foundation::nix_value::Value;
use crate::nix_realiser::Cancel;
use crate::project::{Profile, Project};
use crate::reporters::{ColourContext, Options, Terminal};
use crate::run_events::{Consumer, ConsumerError, Event, EventKind, EventSink};
use crate::scheduler;
use crate::testbed::{ProfileImages, check_images};

/// Realises Nix values, runs `build` commands, and checks that files are there.
///
/// # Errors
/// Usage, configuration; a value that can't be realised.
pub fn run(global: &GlobalArgs, args: &BuildArgs) -> Result<Exit, CommandError> {
    let cwd = session::working_directory()?;
    let project = session::need_project(global, &cwd)?;
    let profiles = chosen(&project, &args.profiles)?;
    let options = session::nix_options(global, &project.directory, false)?;
    let err = std::io::stderr();
    let colour = global.colour.choice().decide(ColourContext::of_process(err.is_terminal()));
    let terminal = Progress(Terminal::new(Options { verbosity: global.verbosity(), colour, closing: false }, err));
    let sink = EventSink::new(vec![Box::new(terminal)])
        .map_err(|error| CommandError::environment(format!("can't start the reporters: {error}")))?;
    let (interrupt, cancel) = (CancelToken::new(), Cancel::new());
    let on_signal = cancel.clone();
    scheduler::watch_signals(interrupt.clone(), move |_| on_signal.cancel())?;
    let finder = ImageFinder::new(project.directory.clone(), options, sink.clone(), cancel);
    let result = build(&project, &profiles, &finder);
    let exit = match &result {
        _ if interrupt.is_cancelled() => Exit::Interrupted,
        Ok(_) => Exit::Success,
        Err(error) => error.exit(),
    };
    drop(finder);
    sink.finish()?;
    match result {
        Ok(text) => output::print(text).map(|()| exit),
        Err(_) if exit == Exit::Interrupted => Ok(exit),
        Err(error) => Err(error),
    }
}

/// The progress of realising; no run is told of, and a failure is the command's own error.
struct Progress(Terminal<std::io::Stderr>);

impl Consumer for Progress {
    fn output(&self) -> String {
        self.0.output()
    }

    fn event(&mut self, event: &Event) {
        let told = matches!(
            event.kind,
            EventKind::ProfileRealiseStarted(_)
                | EventKind::ProfileRealiseProgress(_)
                | EventKind::ProfileRealiseDone(_)
                | EventKind::Warning(_)
        );
        if told {
            self.0.event(event);
        }
    }

    fn finish(self: Box<Self>) -> Result<(), ConsumerError> {
        Box::new(self.0).finish()
    }
}

fn chosen<'a>(project: &'a Project, names: &[String]) -> Result<Vec<&'a Profile>, CommandError> {
    if names.is_empty() {
        return Ok(project.profiles.values().collect());
    }
    names.iter().map(|name| project.profile(name).map_err(CommandError::usage)).collect()
}

fn build(project: &Project, profiles: &[&Profile], finder: &ImageFinder) -> Result<String, CommandError> {
    let names: BTreeSet<String> = profiles.iter().map(|profile| profile.name.clone()).collect();
    finder.realise(project, &names).map_err(CommandError::environment)?;
    let mut text = String::new();
    let mut problems = Vec::new();
    let mut exit = Exit::Usage;
    for profile in profiles {
        let images = finder.find(profile).map_err(|error| CommandError::environment(error.message))?;
        let wrong = check_images(&images, profile.arch.name());
        for (key, path) in files(&images).into_iter().filter(|(key, _)| wrong.iter().all(|(of, _)| of != key)) {
            text.push_str(&format!("{} {key} {}\n", profile.name, path.display()));
        }
        for (key, error) in wrong {
            if profile.values().into_iter().any(|(of, setting)| of == key && matches!(setting.value, Value::Nix(_))) {
                exit = Exit::Environment;
            }
            let message = format!("profile `{}`: `{key}`: {error}", profile.name);
            problems.push(Problem { message, hints: Vec::new() });
        }
    }
    if problems.is_empty() { Ok(text) } else { Err(CommandError::several(exit, problems)) }
}

fn files(images: &ProfileImages) -> Vec<(&'static str, &Path)> {
    let optional = [
        ("initrd", images.initrd.as_deref()),
        ("modules", images.modules.as_deref()),
        ("vmlinux", images.vmlinux.as_deref()),
        ("cmdline_file", images.cmdline_file.as_deref()),
    ];
    let optional = optional.into_iter().filter_map(|(key, path)| Some((key, path?)));
    std::iter::once(("kernel", images.kernel.as_path())).chain(optional).collect()
}
