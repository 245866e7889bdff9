//! Runs the tests of one file and tells what became of each.

use std::rc::Rc;
use std::time::{Duration, Instant};

use mlua::{Function, IntoLua, Lua, Table, Value};

use super::error::lua_message;
use super::file_runner::{FileRun, FileSettings, relax};
use super::file_state::{CurrentTest, FileState};
use super::json;
use super::place::Place;
use super::render::short;
use super::test_context::TestHandle;
use crate::foundation::cancel::CancelReason;
use crate::foundation::duration::{format_duration, from_seconds, parse_duration};
use crate::run_events::{
    ConsoleTail, EventKind, FileError, FilePhase, FileStatus, SourceLine, TestDone, TestStarted, TestStatus, Warning,
};
use crate::testbed::{Belongings, ConsolePort, Scope};

/// How much of a console stands in a summary, in bytes.
const CONSOLE_TAIL: usize = 4096;

type Meta = serde_json::Map<String, serde_json::Value>;

/// Runs the selected tests in the order of registration.
pub fn run_tests(lua: &Lua, prelude: &Table, state: &Rc<FileState>, settings: &FileSettings, run: &mut FileRun) {
    let todo = state.todo.borrow().clone();
    let count = state.tests.borrow().len();
    for index in 0..count {
        let (name, meta, body) = match state.tests.borrow().get(index) {
            Some(test) => (test.name.clone(), test.meta.clone(), test.body.clone()),
            None => break,
        };
        if !(settings.select)(&name, &meta) {
            continue;
        }
        if let Some(reason) = settings.token.reason() {
            run.status = Some(status_of(reason));
            break;
        }
        run.selected += 1;
        let started = TestStarted { file: settings.display.clone(), name: name.clone(), profile: None };
        settings.sink.emit(EventKind::TestStarted(started));
        let skip = todo.clone().or_else(|| skip_reason(&meta));
        let done = match skip {
            Some(reason) => {
                TestDone { message: Some(reason), ..TestDone::new(&settings.display, &name, TestStatus::Skipped, 0.0) }
            }
            None => run_test(lua, prelude, state, settings, &name, &meta, &body),
        };
        let failed = done.status.is_failure();
        settings.sink.emit(EventKind::TestDone(Box::new(TestDone { meta: meta.into(), ..done })));
        if failed {
            run.failed += 1;
            if settings.fail_fast {
                break;
            }
        }
        if let Some(broken) = state.bed.broken() {
            run.error = Some(FileError { phase: FilePhase::Environment, message: broken, trace: Vec::new() });
            break;
        }
    }
    if let Some(reason) = settings.token.reason() {
        run.status = Some(status_of(reason));
    }
}

fn status_of(reason: CancelReason) -> FileStatus {
    match reason {
        CancelReason::Interrupted => FileStatus::Interrupted,
        CancelReason::FileTimeout | CancelReason::TestTimeout => FileStatus::TimedOut,
    }
}

fn skip_reason(meta: &Meta) -> Option<String> {
    match meta.get("skip") {
        Some(serde_json::Value::Bool(true)) => Some("skip".to_owned()),
        Some(serde_json::Value::String(reason)) => Some(reason.clone()),
        _ => None,
    }
}

fn time_limit(meta: &Meta, default: Option<Duration>) -> Option<Duration> {
    match meta.get("timeout") {
        Some(serde_json::Value::String(text)) => parse_duration(text).ok(),
        Some(serde_json::Value::Number(seconds)) => seconds.as_f64().and_then(|seconds| from_seconds(seconds).ok()),
        _ => default,
    }
    .filter(|limit| !limit.is_zero())
}

fn run_test(
    lua: &Lua,
    prelude: &Table,
    state: &Rc<FileState>,
    settings: &FileSettings,
    name: &str,
    meta: &Meta,
    body: &Function,
) -> TestDone {
    let limit = time_limit(meta, settings.test_timeout);
    let token = match limit {
        Some(limit) => settings.token.child_with_deadline(limit, CancelReason::TestTimeout),
        None => settings.token.child(),
    };
    *state.current.borrow_mut() = Some(CurrentTest {
        name: name.to_owned(),
        scope: Scope::default(),
        belongings: Belongings::default(),
        token: token.clone(),
        failures: Vec::new(),
        raises_depth: 0,
        skipped: None,
        log: String::new(),
        stopped_at: Vec::new(),
    });
    state.bed.artifacts().begin_test(&settings.display, name);
    let begun = Instant::now();
    let outcome = call_body(lua, prelude, name, meta, body);
    let duration = begun.elapsed();
    let Some(test) = state.current.borrow_mut().take() else {
        return TestDone::new(&settings.display, name, TestStatus::Failed, duration.as_secs_f64());
    };
    let CurrentTest { mut scope, belongings, failures, skipped, log, stopped_at, .. } = test;
    let mut done = TestDone::new(&settings.display, name, TestStatus::Passed, duration.as_secs_f64());
    done.log = log;
    judge(&mut done, limit, token.reason().map(|reason| (reason, stopped_at)), failures, skipped, outcome);
    if done.status.is_failure() {
        done.consoles = consoles(state, &scope, settings, name);
        done.source = done.trace.first().and_then(|place| source_line(state, place));
    }
    // A cancelled test leaves the hook raising at every instruction.
    if token.is_cancelled() && relax(lua).is_err() {
        done.message.get_or_insert_default().push_str("\nthe Lua state could not be used any more");
    }
    state.bed.block_on(belongings.end());
    state.bed.block_on(Scope::stop(scope.take(), &token));
    done.attachments = state.bed.artifacts().end_test(&settings.display);
    done
}

/// What the body came to: nothing, or the error with the author's frames.
type Outcome = Result<(), (String, Vec<String>)>;

fn call_body(lua: &Lua, prelude: &Table, name: &str, meta: &Meta, body: &Function) -> Outcome {
    let result = || -> mlua::Result<(bool, Value, Option<Vec<String>>)> {
        let meta = json::from_json(lua, &serde_json::Value::Object(meta.clone()))?;
        let handle = TestHandle { name: name.to_owned(), meta }.into_lua(lua)?;
        prelude.get::<Function>("run_body")?.call((body, handle))
    };
    match result() {
        Ok((true, ..)) => Ok(()),
        Ok((false, value, trace)) => Err((raised_message(lua, &value), trace.unwrap_or_default())),
        Err(error) => Err((lua_message(&error), Vec::new())),
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

fn judge(
    done: &mut TestDone,
    limit: Option<Duration>,
    stopped: Option<(CancelReason, Vec<Place>)>,
    failures: Vec<super::file_state::Failure>,
    skipped: Option<String>,
    outcome: Outcome,
) {
    if let Some((reason, stopped_at)) = stopped {
        // An assertion that failed before the test was stopped is told as well.
        done.status = if reason == CancelReason::Interrupted { TestStatus::Failed } else { TestStatus::TimedOut };
        let mut message = match (reason, limit) {
            (CancelReason::TestTimeout, Some(limit)) => {
                done.limit = Some(limit.as_secs_f64());
                format!("timed out after {}", format_duration(limit))
            }
            (reason, _) => reason.to_string(),
        };
        for failure in &failures {
            message.push_str(&format!("\nbefore that: {}", failure.message));
        }
        done.message = Some(message);
        done.trace = stopped_at.iter().map(ToString::to_string).collect();
        return;
    }
    if let Some(failure) = failures.into_iter().next() {
        done.status = TestStatus::Failed;
        done.message = Some(failure.message);
        done.trace = failure.trace.iter().map(ToString::to_string).collect();
        return;
    }
    if let Some(reason) = skipped {
        done.status = TestStatus::Skipped;
        done.message = Some(reason);
        return;
    }
    if let Err((message, trace)) = outcome {
        done.status = TestStatus::Failed;
        done.message = Some(without_place(&message, &trace).to_owned());
        done.trace = trace;
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
