//! Events to lines. Pure: the same events give the same text.

use super::closing::Closing;
use super::colour::{Paint, Style};
use super::summary::summary;
use super::text::{duration, indent, one_line, plural};
use super::{failure, fixture_lines};
use crate::foundation::duration::{format_duration, from_seconds};
use crate::run_events::{
    AcceleratorChosen, Event, EventKind, FileDone, FilePhase, FileStatus, ProfileRealiseProgress, QemuInfo,
    RealiseStep, RunStarted, TestDone, TestStatus, VmReady, VmRef, VmStarted, VmStopped, Warning,
};

/// How much is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// `-q`: failures and the summary.
    Quiet,
    /// Every test's result.
    #[default]
    Normal,
    /// `-v`: virtual machines, the logs of tests that pass, builders' logs.
    Verbose,
}

/// How a run is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// How much.
    pub verbosity: Verbosity,
    /// With colour.
    pub colour: bool,
    /// Ends with what failed and why: only the last lines of this text are shown to people, as of a build by nix.
    pub closing: bool,
}

/// The whole text of a recorded run.
pub fn render(events: &[Event], options: Options) -> String {
    let mut renderer = Renderer::new(options);
    events.iter().map(|event| renderer.event(&event.kind)).collect()
}

/// Remembers what later lines need of earlier events.
pub(super) struct Renderer {
    paint: Paint,
    verbosity: Verbosity,
    qemu: Option<QemuInfo>,
    failures: Vec<String>,
    /// Where it is asked for.
    closing: Option<Closing>,
    has_built: bool,
}

impl Renderer {
    pub(super) fn new(options: Options) -> Self {
        Self {
            paint: Paint { colour: options.colour },
            verbosity: options.verbosity,
            qemu: None,
            failures: Vec::new(),
            closing: options.closing.then(Closing::default),
            has_built: false,
        }
    }

    /// The lines for an event, often none.
    pub(super) fn event(&mut self, kind: &EventKind) -> String {
        match kind {
            EventKind::FileDone(done) => self.file_done(done),
            EventKind::TestDone(done) => self.test_done(done),
            EventKind::RunDone(done) => {
                summary(done, &self.failures, self.paint)
                    + &self.closing.as_ref().map(Closing::text).unwrap_or_default()
            }
            _ if self.verbosity == Verbosity::Quiet => String::new(),
            EventKind::RunStarted(run) => self.run_started(run),
            EventKind::AcceleratorChosen(chosen) => self.accelerator(chosen),
            EventKind::ProfileRealiseProgress(progress) => self.realise_progress(progress),
            EventKind::ProfileRealiseDone(done) if self.has_built || self.is_verbose() => {
                format!("realised in {}\n", duration(done.duration))
            }
            EventKind::ProfileRealiseFailed(failed) => {
                format!("{} after {}\n", self.paint.paint(Style::Bad, "realising failed"), duration(failed.duration))
            }
            EventKind::GuestPanic(panic) => {
                format!("  {}: the guest's kernel panicked: {}\n", vm_label(&panic.vm), one_line(&panic.message))
            }
            EventKind::GuestSplat(splat) => {
                format!("  vm `{}`: kernel report: {}\n", one_line(&splat.vm), one_line(&splat.title))
            }
            EventKind::Warning(warning) => self.warning(warning),
            kind => match fixture_lines::line(kind, self.is_verbose(), self.paint) {
                Some(line) => line,
                None if self.is_verbose() => self.verbose(kind),
                None => String::new(),
            },
        }
    }

    fn is_verbose(&self) -> bool {
        self.verbosity == Verbosity::Verbose
    }

    /// What is shown only with `-v`.
    fn verbose(&self, kind: &EventKind) -> String {
        match kind {
            EventKind::ProfileRealiseStarted(started) => {
                let values = plural(started.values.len() as u64, "value");
                format!("realising {values} for {}\n", one_line(&started.profiles.join(", ")))
            }
            EventKind::FileStarted(file) => format!("file {}\n", one_line(&file.file)),
            EventKind::TestStarted(test) => format!("RUN  {}: {}\n", one_line(&test.file), one_line(&test.name)),
            EventKind::VmStarted(started) => vm_started(started),
            EventKind::VmReady(ready) => vm_ready(ready),
            EventKind::VmStopped(stopped) => vm_stopped(stopped),
            _ => String::new(),
        }
    }

    fn run_started(&mut self, run: &RunStarted) -> String {
        self.qemu.clone_from(&run.qemu);
        match &run.accelerator {
            Some(accelerator) => format!("accelerator: {}{}\n", one_line(accelerator), self.qemu_part()),
            None => String::new(),
        }
    }

    fn accelerator(&mut self, chosen: &AcceleratorChosen) -> String {
        if chosen.qemu.is_some() {
            self.qemu.clone_from(&chosen.qemu);
        }
        let reason = one_line(&chosen.reason);
        let reason = if reason.is_empty() { reason } else { format!(" ({reason})") };
        format!("accelerator: {}{reason}{}\n", one_line(&chosen.accelerator), self.qemu_part())
    }

    fn qemu_part(&self) -> String {
        let Some(qemu) = &self.qemu else { return String::new() };
        let origin = match qemu.origin.as_str() {
            "PATH" => "found on PATH".to_owned(),
            origin => format!("from {}", one_line(origin)),
        };
        format!("; QEMU {} ({}, {origin})", one_line(&qemu.version), one_line(&qemu.path))
    }

    fn realise_progress(&mut self, progress: &ProfileRealiseProgress) -> String {
        let verb = match progress.step {
            RealiseStep::Log if self.is_verbose() => return indent(&progress.text, "  | "),
            RealiseStep::Log => return String::new(),
            RealiseStep::Building => "building",
            RealiseStep::Fetching => "fetching",
            RealiseStep::Hook => "running the build command:",
        };
        self.has_built = true;
        let count = match (progress.done, progress.expected) {
            (Some(done), Some(expected)) => format!(" ({done}/{expected})"),
            _ => String::new(),
        };
        format!("{verb} {}{count}\n", one_line(&progress.text))
    }

    fn warning(&self, warning: &Warning) -> String {
        let word = self.paint.paint(Style::Careful, "warning");
        let hint = warning.hint.as_ref().map(|hint| format!("hint: {}\n", one_line(hint))).unwrap_or_default();
        format!("{word}: {}\n{hint}", one_line(&warning.message))
    }

    fn test_done(&mut self, test: &TestDone) -> String {
        let label = format!("{}: {}", one_line(&test.file), one_line(&test.name));
        let took = duration(test.duration);
        match test.status {
            TestStatus::Failed | TestStatus::TimedOut => {
                let how = match test.status {
                    TestStatus::TimedOut => format!("timed out after {}", time_limit(test)),
                    _ => format!("({took})"),
                };
                self.failures.push(label.clone());
                if let Some(closing) = &mut self.closing {
                    closing.test(test);
                }
                let word = self.paint.paint(Style::Bad, "FAIL");
                format!("{word} {label} {how}\n{}", failure::failed_test(test, self.paint))
            }
            _ if self.verbosity == Verbosity::Quiet => String::new(),
            TestStatus::Skipped => {
                let reason = test.message.as_ref().map(|text| format!(" ({})", one_line(text))).unwrap_or_default();
                format!(
                    "{} {label}{reason}\n{}",
                    self.paint.paint(Style::Careful, "SKIP"),
                    failure::steps(test, self.paint)
                )
            }
            TestStatus::Passed | TestStatus::Flaky => {
                let flaky = if test.status == TestStatus::Flaky { ", flaky" } else { "" };
                let details = match self.is_verbose() {
                    true => failure::details(test, self.paint),
                    false => failure::steps(test, self.paint),
                };
                format!("{} {label} ({took}{flaky})\n{details}", self.paint.paint(Style::Good, "PASS"))
            }
        }
    }

    fn file_done(&mut self, done: &FileDone) -> String {
        let file = one_line(&done.file);
        let what = match (&done.error, done.status) {
            (Some(error), _) => match error.phase {
                FilePhase::Load => "could not load".to_owned(),
                FilePhase::Run => "failed outside of its tests".to_owned(),
                FilePhase::Config => "could not run with this configuration".to_owned(),
                FilePhase::Environment => "could not run on this machine".to_owned(),
                FilePhase::Internal => "could not run: this is a bug in provium".to_owned(),
            },
            (None, FileStatus::TimedOut) => format!("timed out after {}", duration(done.duration)),
            (None, _) if self.is_verbose() => return indent(&done.log, "  | "),
            (None, _) => return String::new(),
        };
        let label = format!("{file}: {what}");
        let below = done.error.as_ref().map(|error| failure::broken_file(error, &done.log, self.paint));
        let text = format!("{} {label}\n{}", self.paint.paint(Style::Bad, "FAIL"), below.unwrap_or_default());
        if let Some(closing) = &mut self.closing {
            closing.file(&label, &done.file, done.error.as_ref());
        }
        self.failures.push(label);
        text
    }
}

/// The limit that the test ran into or, where it was not its own, how long it ran.
fn time_limit(test: &TestDone) -> String {
    let seconds = test.limit.unwrap_or(test.duration);
    from_seconds(seconds).map_or_else(|_| duration(seconds), format_duration)
}

fn vm_label(vm: &VmRef) -> String {
    format!("vm `{}`", one_line(&vm.vm))
}

fn vm_started(started: &VmStarted) -> String {
    let VmStarted { vm, profile, pid, accelerator, .. } = started;
    format!("  {}: started (profile `{}`, {}, pid {pid})\n", vm_label(vm), one_line(profile), one_line(accelerator))
}

fn vm_ready(ready: &VmReady) -> String {
    let phases: Vec<String> =
        ready.phases.iter().map(|(name, seconds)| format!("{} {}", one_line(name), duration(*seconds))).collect();
    let phases = if phases.is_empty() { String::new() } else { format!(" ({})", phases.join(", ")) };
    format!(
        "  {}: ready after {}{phases}, Linux {}\n",
        vm_label(&ready.vm),
        duration(ready.duration),
        one_line(&ready.kernel_release)
    )
}

fn vm_stopped(stopped: &VmStopped) -> String {
    let detail = stopped.detail.as_ref().map(|text| format!(": {}", one_line(text))).unwrap_or_default();
    format!("  {}: stopped ({}{detail})\n", vm_label(&stopped.vm), stopped.reason.describe())
}
