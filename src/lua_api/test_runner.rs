//! Runs the tests of one file and tells what became of each.

use std::rc::Rc;
use std::time::{Duration, Instant};

use mlua::{Function, IntoLua, Lua, Table, Value};

use super::error::ApiError;
use super::error::lua_message;
use super::file_runner::{FileRun, FileSettings};
use super::file_state::{CurrentTest, FileState};
use super::hook;
use super::json;
use super::lab_snapshot::Baseline;
use super::place::Place;
use super::registration::{Meta, Variant, selectable, skip_reason, time_limit};
use super::render::short;
use super::steps::Steps;
use super::test_context::TestHandle;
use super::test_splats;
use crate::foundation::cancel::CancelReason;
use crate::foundation::duration::format_duration;
use crate::run_events::{
    ConsoleTail, EventKind, FileError, FilePhase, FileStatus, SourceLine, TestDone, TestStarted, TestStatus, Warning,
};
use crate::testbed::{Belongings, ConsolePort, HostProcesses, Scope};

/// How much of a console stands in a summary, in bytes.
const CONSOLE_TAIL: usize = 4096;

/// Runs the selected tests in the order of registration.
pub fn run_tests(lua: &Lua, prelude: &Table, state: &Rc<FileState>, settings: &FileSettings, run: &mut FileRun) {
    let todo = state.todo.borrow().clone();
    let count = state.tests.borrow().len();
    let mut serial = 0;
    let mut baseline = None;
    'tests: for index in 0..count {
        let Some((test, variants)) = case(state, index) else { break };
        for variant in variants {
            if !(settings.select)(&variant.name, &selectable(&test.meta, &variant)) {
                continue;
            }
            if settings.token.is_cancelled() {
                break 'tests;
            }
            if state.resets.get() && baseline.is_none() {
                match state.wait(Baseline::take(state)) {
                    Ok(taken) => baseline = Some(taken),
                    Err(_) if settings.token.is_cancelled() => break 'tests,
                    Err(error) => {
                        run.error = Some(no_baseline(error));
                        break 'tests;
                    }
                }
            }
            run.selected += 1;
            serial += 1;
            let case = Case { serial, name: variant.name, profile: variant.profile, ..test.clone() };
            let done = run_case(lua, prelude, state, settings, &case, todo.as_ref(), baseline.as_ref());
            let failed = done.status.is_failure();
            settings.sink.emit(EventKind::TestDone(Box::new(TestDone { meta: case.meta.into(), ..done })));
            run.failed += usize::from(failed);
            if failed && settings.fail_fast {
                break 'tests;
            }
            if let Some(broken) = state.bed.broken() {
                run.error = Some(FileError { phase: FilePhase::Environment, message: broken, trace: Vec::new() });
                break 'tests;
            }
        }
    }
    if let Some(reason) = settings.token.reason() {
        run.status = Some(status_of(reason));
    }
}

/// One run of a test's body.
#[derive(Clone)]
struct Case {
    serial: u64,
    name: String,
    profile: Option<String>,
    meta: Meta,
    body: Function,
    place: Option<Place>,
}

fn no_baseline(error: ApiError) -> FileError {
    let why = match error {
        ApiError::Message(why) => why,
        ApiError::Value(_) | ApiError::Cancelled => "cancelled".to_owned(),
    };
    let message = format!("provium.reset_between_tests: the file's VMs can't be kept as they are: {why}");
    FileError { phase: FilePhase::Load, message, trace: Vec::new() }
}

fn case(state: &FileState, index: usize) -> Option<(Case, Vec<Variant>)> {
    let tests = state.tests.borrow();
    let test = tests.get(index)?;
    let case = Case {
        serial: 0,
        name: test.name.clone(),
        profile: None,
        meta: test.meta.clone(),
        body: test.body.clone(),
        place: test.place.clone(),
    };
    Some((case, test.variants()))
}

fn status_of(reason: CancelReason) -> FileStatus {
    match reason {
        CancelReason::Interrupted => FileStatus::Interrupted,
        CancelReason::FileTimeout | CancelReason::TestTimeout => FileStatus::TimedOut,
    }
}

/// Tells that a test begins, and gives what became of it.
fn run_case(
    lua: &Lua,
    prelude: &Table,
    state: &Rc<FileState>,
    settings: &FileSettings,
    case: &Case,
    todo: Option<&String>,
    baseline: Option<&Baseline>,
) -> TestDone {
    let file = settings.display.clone();
    let (name, profile) = (case.name.clone(), case.profile.clone());
    settings.sink.emit(EventKind::TestStarted(TestStarted { file, name, profile: profile.clone() }));
    let without_body = |status, message| TestDone {
        message: Some(message),
        ..TestDone::new(&settings.display, &case.name, status, 0.0)
    };
    let unknown = || profile.as_ref().and_then(|profile| state.bed.check_profile(profile).err());
    let done = match todo.cloned().or_else(|| skip_reason(&case.meta)) {
        Some(reason) => without_body(TestStatus::Skipped, reason),
        None => match unknown() {
            Some(error) => TestDone {
                trace: case.place.iter().map(ToString::to_string).collect(),
                ..without_body(TestStatus::Failed, format!("`meta.profiles`: {error}"))
            },
            None => match baseline.map(|baseline| state.wait(baseline.reset())) {
                Some(Err(ApiError::Message(why))) => {
                    without_body(TestStatus::Failed, format!("provium.reset_between_tests: {why}"))
                }
                _ => run_test(lua, prelude, state, settings, case),
            },
        },
    };
    TestDone { profile, ..done }
}

fn run_test(lua: &Lua, prelude: &Table, state: &Rc<FileState>, settings: &FileSettings, case: &Case) -> TestDone {
    let limit = time_limit(&case.meta, state.test_timeout.get());
    let token = match limit {
        Some(limit) => settings.token.child_with_deadline(limit, CancelReason::TestTimeout),
        None => settings.token.child(),
    };
    *state.current.borrow_mut() = Some(CurrentTest {
        name: case.name.clone(),
        serial: case.serial,
        place: case.place.clone(),
        scope: Scope::default(),
        belongings: Belongings::default(),
        host_processes: HostProcesses::default(),
        token: token.clone(),
        failures: Vec::new(),
        failed_steps: Vec::new(),
        steps: Steps::default(),
        raised: None,
        skipped: None,
        log: String::new(),
        stopped_at: Vec::new(),
    });
    state.bed.artifacts().begin_test(&settings.display, &case.name);
    let author_hook = state.author_hook.borrow().clone();
    let splats = state.bed.splats();
    splats.begin_test(&settings.display, &case.name, test_splats::policy(&case.meta));
    let begun = Instant::now();
    let outcome = call_body(lua, prelude, case);
    let duration = begun.elapsed();
    let mut done = TestDone::new(&settings.display, &case.name, TestStatus::Failed, duration.as_secs_f64());
    let Some(mut test) = state.current.borrow_mut().take() else { return done };
    let outcome = outcome.map_err(|raised| raised.at(&test));
    let visible = test.scope.vms().into_iter().chain(state.scope.borrow().vms()).collect();
    state.bed.block_on(test_splats::settle(visible));
    judge(&mut done, limit, token.reason(), &mut test, outcome);
    test_splats::judge(&mut done, &splats.failing(&settings.display));
    done.steps = std::mem::take(&mut test.steps).into_events(done.status);
    let words = state.bed.block_on(test.host_processes.end());
    done.log = std::mem::take(&mut test.log);
    done.log.push_str(&String::from_utf8_lossy(&words));
    if done.status.is_failure() {
        let bridges = state.scope.borrow().bridges().into_iter().chain(test.scope.bridges());
        for bridge in bridges {
            // As `bridge:seed()` tells and takes it.
            let (name, seed) = (bridge.name(), bridge.switch().seed().cast_signed());
            done.log.push_str(&format!("bridge `{name}`: the seed of its random decisions is {seed}\n"));
        }
        if done.trace.is_empty() {
            done.trace.extend(case.place.iter().map(ToString::to_string));
        }
        done.consoles = consoles(state, &test.scope, settings, &case.name);
        done.source = done.trace.first().and_then(|place| source_line(state, place));
    }
    // A cancelled test leaves the hook raising at every instruction, and any may have set one of its own.
    *state.author_hook.borrow_mut() = author_hook;
    if hook::watch(lua).is_err() {
        done.message.get_or_insert_default().push_str("\nthe Lua state could not be used any more");
    }
    state.bed.block_on(test.belongings.end());
    state.lab.end_layer(case.serial);
    state.barriers.borrow_mut().clear();
    state.bed.block_on(Scope::stop(test.scope.take(), &token));
    state.bed.block_on(Scope::close(test.scope.take_bridges()));
    state.pins.borrow_mut().retain(|(layer, _)| *layer != case.serial);
    // What came while its machines went down.
    test_splats::judge(&mut done, &splats.failing(&settings.display));
    splats.end_test(&settings.display);
    done.attachments = state.bed.artifacts().end_test(&settings.display);
    done
}

/// An error that left the body.
struct Raised {
    value: Value,
    message: String,
    trace: Vec<String>,
}

impl Raised {
    /// With the frames in the branch of `parallel` where it was raised, if it was.
    fn at(mut self, test: &CurrentTest) -> Self {
        if let Some((value, trace)) = &test.raised
            && *value == self.value
            && !trace.is_empty()
        {
            let outer = std::mem::replace(&mut self.trace, trace.clone());
            self.trace.extend(outer);
        }
        self
    }
}

fn call_body(lua: &Lua, prelude: &Table, case: &Case) -> Result<(), Raised> {
    let result = || -> mlua::Result<(bool, Value, Option<Vec<String>>)> {
        let meta = json::from_json(lua, &serde_json::Value::Object(case.meta.clone()))?;
        let handle = TestHandle { name: case.name.clone(), meta, profile: case.profile.clone(), serial: case.serial };
        prelude.get::<Function>("run_body")?.call((&case.body, handle.into_lua(lua)?))
    };
    match result() {
        Ok((true, ..)) => Ok(()),
        Ok((false, value, trace)) => {
            let message = raised_message(lua, &value);
            Err(Raised { value, message, trace: trace.unwrap_or_default() })
        }
        Err(error) => Err(Raised { value: Value::Nil, message: lua_message(&error), trace: Vec::new() }),
    }
}

/// An error value as text.
pub fn raised_message(lua: &Lua, value: &Value) -> String {
    match value {
        Value::String(text) => text.to_string_lossy(),
        Value::Error(error) => lua_message(error),
        Value::Table(table) if table.metatable().is_some() => {
            let tostring: mlua::Result<Function> = lua.globals().get("tostring");
            tostring
                .and_then(|tostring| tostring.call::<mlua::LuaString>(value.clone()))
                .map_or_else(|_| short(value), |text| text.to_string_lossy())
        }
        other => format!("error raised: {}", short(other)),
    }
}

/// What became of a test: that it was stopped weighs most, then failed assertions, `t:skip`, the error that left its body,
/// and a step whose error was swallowed.
fn judge(
    done: &mut TestDone,
    limit: Option<Duration>,
    stopped: Option<CancelReason>,
    test: &mut CurrentTest,
    outcome: Result<(), Raised>,
) {
    let strings = |trace: &[Place]| trace.iter().map(ToString::to_string).collect();
    if let Some(reason) = stopped {
        // An assertion that failed before the test was stopped is told as well.
        done.status = if reason == CancelReason::Interrupted { TestStatus::Failed } else { TestStatus::TimedOut };
        let mut message = match (reason, limit) {
            (CancelReason::TestTimeout, Some(limit)) => {
                done.limit = Some(limit.as_secs_f64());
                format!("timed out after {}", format_duration(limit))
            }
            (reason, _) => reason.to_string(),
        };
        for failure in &test.failures {
            message.push_str(&format!("\nbefore that: {}", failure.message));
        }
        done.message = Some(message);
        done.trace = strings(&test.stopped_at);
        return;
    }
    if !test.failures.is_empty() {
        let failure = test.failures.swap_remove(0);
        done.status = TestStatus::Failed;
        done.message = Some(failure.message);
        done.trace = strings(&failure.trace);
    } else if let Some(reason) = test.skipped.take() {
        done.status = TestStatus::Skipped;
        done.message = Some(reason);
    } else if let Err(raised) = outcome {
        done.status = TestStatus::Failed;
        done.message = Some(without_place(&raised.message, &raised.trace).to_owned());
        done.trace = raised.trace;
    } else if !test.failed_steps.is_empty() {
        let failure = test.failed_steps.swap_remove(0);
        done.status = TestStatus::Failed;
        done.message = Some(failure.message);
        done.trace = strings(&failure.trace);
    } else {
        done.status = TestStatus::Passed;
    }
}

/// The message without the `file:line: ` that the trace says anyway.
fn without_place<'a>(message: &'a str, trace: &[String]) -> &'a str {
    trace
        .first()
        .and_then(|place| message.strip_prefix(place.as_str()))
        .and_then(|rest| rest.strip_prefix(": "))
        .unwrap_or(message)
}

/// The consoles of all machines that the test could see. The whole logs of both ports are kept with the report.
fn consoles(state: &FileState, scope: &Scope, settings: &FileSettings, test: &str) -> Vec<ConsoleTail> {
    let mut vms = scope.vms();
    vms.extend(state.scope.borrow().vms());
    vms.iter()
        .filter_map(|vm| {
            let tail = vm.console_tail(CONSOLE_TAIL)?;
            let mut log = None;
            for (port, name) in [(ConsolePort::Serial, "ttyS0"), (ConsolePort::Virtio, "hvc0")] {
                let bytes = vm.console_log(port).unwrap_or_default();
                if bytes.trim_ascii().is_empty() {
                    continue;
                }
                let name = format!("console-{}.{name}.log", vm.name());
                match state.bed.artifacts().keep(&settings.display, Some(test), &name, &bytes) {
                    Ok(path) => log = log.or(path),
                    Err(error) => {
                        let message = format!("the console log of vm `{}` is not kept: {error}", vm.name());
                        settings.sink.emit(EventKind::Warning(Warning { message, hint: None }));
                    }
                }
            }
            let log = log.map(|path| path.display().to_string());
            Some(ConsoleTail { vm: vm.name().to_owned(), tail, log })
        })
        .collect()
}

fn source_line(state: &FileState, place: &str) -> Option<SourceLine> {
    let (file, line) = place.rsplit_once(':')?;
    let text = std::fs::read_to_string(state.bed.absolute(file)).ok()?;
    SourceLine::pick(file, line.parse().ok()?, &text)
}
