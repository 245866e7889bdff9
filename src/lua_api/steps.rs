//! `t:step` and `t:ktap`: sub-results of a test.

use std::rc::Rc;
use std::time::{Duration, Instant};

use mlua::{Lua, MetaMethod, Table, UserData, UserDataMethods, UserDataRef, Value};

use super::args::Args;
use super::error::ApiError;
use super::file_state::{Failure, FileState};
use super::ktap::{self, Outcome};
use super::place;
use super::register::{Class, function, step};
use super::test_context::{self, context};
use super::test_runner::raised_message;
use crate::run_events::{Step, TestStatus};

/// Between the names of a step and of a step inside it.
const INSIDE: &str = " > ";
/// How many names an error lists.
const LISTED: usize = 10;

/// A step that was begun.
#[derive(Debug)]
pub struct StepRecord {
    /// With the names of the steps around it.
    name: String,
    parent: Option<usize>,
    begun: Instant,
    /// The first failed assertion in it, also one that was swallowed.
    failed: Option<String>,
    ended: Option<(TestStatus, Duration, Option<String>)>,
}

/// All steps of a test, in the order in which they began.
#[derive(Debug, Default)]
pub struct Steps {
    records: Vec<StepRecord>,
}

impl Steps {
    fn begin(&mut self, name: &str, parent: Option<usize>) -> usize {
        let parent = self.open(parent);
        let name = match parent.and_then(|parent| self.records.get(parent)) {
            Some(outer) => format!("{}{INSIDE}{name}", outer.name),
            None => name.to_owned(),
        };
        self.records.push(StepRecord { name, parent, begun: Instant::now(), failed: None, ended: None });
        self.records.len() - 1
    }

    /// The step itself where it has not ended, else the innermost around it that has not.
    fn open(&self, mut step: Option<usize>) -> Option<usize> {
        while let Some(record) = step.and_then(|index| self.records.get(index)) {
            if record.ended.is_none() {
                return step;
            }
            step = record.parent;
        }
        None
    }

    /// Notes a failed assertion in a step, and in those around it.
    pub fn fail(&mut self, step: Option<usize>, message: &str) {
        let mut next = step;
        while let Some(record) = next.and_then(|index| self.records.get_mut(index)) {
            record.failed.get_or_insert_with(|| message.to_owned());
            next = record.parent;
        }
    }

    fn end(&mut self, step: usize, status: TestStatus, message: Option<String>) {
        if let Some(record) = self.records.get_mut(step) {
            record.ended.get_or_insert((status, record.begun.elapsed(), message));
        }
    }

    fn add(&mut self, name: &str, parent: Option<usize>, status: TestStatus, message: Option<String>) {
        let step = self.begin(name, parent);
        if let Some(record) = self.records.get_mut(step) {
            record.ended = Some((status, Duration::ZERO, message));
        }
    }

    /// As events tell it; what has not ended is given `status`.
    pub fn into_events(self, status: TestStatus) -> Vec<Step> {
        let event = |record: StepRecord| {
            let (status, duration, message) = record.ended.unwrap_or_else(|| (status, record.begun.elapsed(), None));
            Step { name: record.name, status, duration: duration.as_secs_f64(), message }
        };
        self.records.into_iter().map(event).collect()
    }
}

/// A step as the prelude holds it; closed when its function is left.
pub struct StepHandle {
    index: usize,
    serial: u64,
}

impl UserData for StepHandle {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_meta_method(MetaMethod::Close, |lua, this, raised: Value| {
            let state = FileState::of(lua)?;
            this.left(lua, &state, &raised);
            Ok(())
        });
    }
}

impl StepHandle {
    /// The function was left with an error, or its coroutine was closed.
    fn left(&self, lua: &Lua, state: &FileState, raised: &Value) {
        let (inside, _) = test_context::enclosing(lua);
        let Some(test) = &mut *state.current.borrow_mut() else { return };
        if test.serial != self.serial || test.steps.records.get(self.index).is_none_or(|step| step.ended.is_some()) {
            return;
        }
        if test.token.is_cancelled() {
            return; // Still open: it is told with the test's own end.
        }
        if let (Some(reason), true) = (&test.skipped, test.failures.is_empty()) {
            let reason = reason.clone();
            test.steps.end(self.index, TestStatus::Skipped, Some(reason));
            return;
        }
        if raised.is_nil() {
            let message = "given up: another branch of `parallel` failed".to_owned();
            test.steps.end(self.index, TestStatus::Skipped, Some(message));
            return;
        }
        let message = raised_message(lua, raised);
        test.steps.end(self.index, TestStatus::Failed, Some(message.clone()));
        if !inside {
            test.failed_steps.push(Failure { message, trace: place::stack(lua) });
        }
    }
}

/// The index of a step of the running test.
pub fn index_of(state: &FileState, step: Option<&UserDataRef<StepHandle>>) -> Option<usize> {
    let serial = state.current.borrow().as_ref().map(|test| test.serial);
    step.filter(|step| Some(step.serial) == serial).map(|step| step.index)
}

/// The natives behind the prelude's `step`.
///
/// # Errors
/// Those of Lua's allocator.
pub fn natives(lua: &Lua, table: &Table) -> mlua::Result<()> {
    table.raw_set("step_begin", step(lua, "t:step", |_, state, args| begin(state, args))?)?;
    table.raw_set(
        "step_end",
        function(lua, "t:step", |_, state, mut args| {
            let step = args.this::<StepHandle>()?;
            let mut current = state.current.borrow_mut();
            let Some(test) = &mut *current else { return Ok(()) };
            match test.steps.records.get(step.index).and_then(|record| record.failed.clone()) {
                None => test.steps.end(step.index, TestStatus::Passed, None),
                Some(message) => {
                    test.steps.end(step.index, TestStatus::Failed, Some(message.clone()));
                    return Err(ApiError::Message(message));
                }
            }
            Ok(())
        })?,
    )
}

fn begin(state: &Rc<FileState>, mut args: Args) -> Result<StepHandle, ApiError> {
    context(&mut args, state)?;
    let name = args.text("name")?;
    if name.trim().is_empty() {
        return Err(args.bad("name", "expected a name, found an empty string"));
    }
    args.callable("fn")?;
    let outer = args.next();
    let outer = outer.as_userdata().and_then(|step| step.borrow::<StepHandle>().ok());
    let parent = index_of(state, outer.as_ref());
    let mut current = state.current.borrow_mut();
    let test = current.as_mut().ok_or_else(|| ApiError::new("t:step: no test runs"))?;
    Ok(StepHandle { index: test.steps.begin(&name, parent), serial: test.serial })
}

/// Adds `ktap` to the class of `t`.
///
/// # Errors
/// Those of Lua's allocator.
pub fn methods(class: Class<'_>) -> mlua::Result<Class<'_>> {
    class.method("t:ktap", |lua, state, mut args| {
        context(&mut args, state)?;
        let text = args.bytes("text")?;
        let report = ktap::parse(&String::from_utf8_lossy(&text));
        if report.results.is_empty() {
            let what = "ktap: the text has no KTAP or TAP result (expected lines such as `ok 1 name`)";
            return Err(test_context::fail(lua, state, what, None));
        }
        let (_, outer) = test_context::enclosing(lua);
        let parent = index_of(state, outer.as_ref());
        if let Some(test) = &mut *state.current.borrow_mut() {
            for result in &report.results {
                let status = match result.outcome {
                    Outcome::Passed => TestStatus::Passed,
                    Outcome::Failed => TestStatus::Failed,
                    Outcome::Skipped => TestStatus::Skipped,
                };
                test.steps.add(&result.name, parent, status, result.message.clone());
            }
        }
        let failed: Vec<&ktap::TestResult> = report.of(Outcome::Failed).collect();
        if failed.is_empty() {
            return Ok(summary(lua, &report)?);
        }
        let mut what = format!("ktap: {} of {} failed", failed.len(), report.results.len());
        for result in failed.iter().take(LISTED) {
            what.push_str(&format!("\n  {}", result.name));
            if let Some(message) = &result.message {
                what.push_str(&format!(": {}", message.replace('\n', "\n    ")));
            }
        }
        if failed.len() > LISTED {
            what.push_str(&format!("\n  … and {} more", failed.len() - LISTED));
        }
        Err(test_context::fail(lua, state, &what, None))
    })
}

/// `{total, passed, failed, skipped, results}`, each result `{name, status, message}`.
fn summary(lua: &Lua, report: &ktap::Report) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    let results = lua.create_table()?;
    for result in &report.results {
        let entry = lua.create_table()?;
        entry.raw_set("name", result.name.as_str())?;
        entry.raw_set("status", result.outcome.name())?;
        entry.raw_set("message", result.message.as_deref())?;
        results.raw_push(entry)?;
    }
    table.raw_set("total", report.results.len())?;
    for outcome in [Outcome::Passed, Outcome::Failed, Outcome::Skipped] {
        table.raw_set(outcome.name(), report.of(outcome).count())?;
    }
    table.raw_set("results", results)?;
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_nest_and_a_step_that_ended_holds_nothing_more() {
        let mut steps = Steps::default();
        let outer = steps.begin("outer", None);
        let inner = steps.begin("inner", Some(outer));
        steps.end(inner, TestStatus::Passed, None);
        let after = steps.begin("after", Some(inner));
        steps.fail(Some(after), "why");
        steps.end(after, TestStatus::Failed, Some("why".to_owned()));
        let events = steps.into_events(TestStatus::TimedOut);
        let names: Vec<(&str, TestStatus)> = events.iter().map(|step| (step.name.as_str(), step.status)).collect();
        assert_eq!(
            names,
            [
                ("outer", TestStatus::TimedOut),
                ("outer > inner", TestStatus::Passed),
                ("outer > after", TestStatus::Failed)
            ]
        );
    }

    #[test]
    fn a_failure_belongs_to_all_steps_around_it() {
        let mut steps = Steps::default();
        let outer = steps.begin("outer", None);
        let inner = steps.begin("inner", Some(outer));
        steps.fail(Some(inner), "first");
        steps.fail(Some(outer), "second");
        assert_eq!(steps.records[outer].failed.as_deref(), Some("first"));
    }
}
