//! `vm:expect_splat`: a function that must cause a kernel report.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use mlua::{Function, Lua, MultiValue, Table, UserData, Value};
use tokio::time::Instant;

use super::args::Args;
use super::error::ApiError;
use super::register::{waiting, waiting_step};
use super::stream::{Matcher, matcher};
use super::test_runner::raised_message;
use crate::foundation::duration::format_duration;
use crate::testbed::{Expectation, Vm, VmState};

/// How long the report is waited for once the function has returned, before the accelerator's factor.
const WAIT: Duration = Duration::from_secs(10);

/// How long it is waited for once the function has raised, before the accelerator's factor.
const EXPLAINED: Duration = Duration::from_secs(1);

/// One call under way.
struct Call {
    vm: Arc<Vm>,
    /// What is looked for, as messages show it.
    shown: String,
    timeout: Duration,
    waiting: RefCell<Option<(Expectation, Value)>>,
}

impl UserData for Call {}

/// The natives behind the prelude's `expect_splat`.
///
/// # Errors
/// Those of Lua's allocator.
pub fn natives(lua: &Lua, table: &Table) -> mlua::Result<()> {
    table.raw_set(
        "splat_begin",
        waiting_step(lua, "vm:expect_splat", |lua, _, mut args| {
            let vm = Arc::clone(&args.this::<super::vm::VmHandle>()?.0);
            let pattern = args.next();
            let (_, shown) = search(lua, &pattern)?;
            args.callable("fn")?;
            let timeout = args.options(&["timeout"])?.duration("timeout")?;
            let timeout = timeout.unwrap_or_else(|| vm.scaled(WAIT));
            Ok(async move {
                // What was reported before is not this function's.
                vm.settle_log().await;
                let waiting = RefCell::new(Some((vm.expect_reports()?, pattern)));
                Ok(Call { vm, shown, timeout, waiting })
            })
        })?,
    )?;
    table.raw_set(
        "splat_end",
        waiting(lua, "vm:expect_splat", |lua, _, mut args| {
            let (vm, shown, timeout, waiting) = {
                let call = args.this::<Call>()?;
                (Arc::clone(&call.vm), call.shown.clone(), call.timeout, call.waiting.borrow_mut().take())
            };
            let (expected, pattern) = waiting.ok_or_else(|| ApiError::new("vm:expect_splat: ended twice"))?;
            let raised = match args.next() {
                Value::Boolean(true) => None,
                _ => Some(raised_message(lua, &args.next())),
            };
            let lua = lua.clone();
            Ok(async move {
                let handle = lua.clone();
                let search = Search { lua, vm, pattern, shown, timeout, expected, raised, others: Vec::new() };
                Ok(match search.run().await? {
                    Some(text) => Value::String(handle.create_string(text)?),
                    None => Value::Nil,
                })
            })
        })?,
    )
}

/// What finds `pattern` in a text from its beginning on, and the pattern as messages show it.
fn search(lua: &Lua, pattern: &Value) -> Result<(Matcher, String), ApiError> {
    matcher(lua, &mut Args::new("vm:expect_splat", MultiValue::from_vec(vec![pattern.clone()])))
}

struct Search {
    lua: Lua,
    vm: Arc<Vm>,
    pattern: Value,
    shown: String,
    timeout: Duration,
    expected: Expectation,
    /// What the function raised.
    raised: Option<String>,
    /// Titles of reports that do not match.
    others: Vec<String>,
}

impl Search {
    /// The report's text; none where the function's own error is to be raised instead.
    async fn run(mut self) -> Result<Option<String>, ApiError> {
        if !self.is_forgivable() {
            return Ok(None);
        }
        // What explains an error was reported before it was raised.
        let explained = self.raised.is_some().then(|| self.vm.scaled(EXPLAINED));
        let deadline = Instant::now() + explained.unwrap_or(self.timeout).min(self.timeout);
        self.vm.settle_log().await;
        loop {
            if let Some(text) = self.look()? {
                return Ok(Some(text));
            }
            let vm = Arc::clone(&self.vm);
            let gone = tokio::select! {
                found = self.expected.next() => {
                    if let Some(text) = self.take(&found)? {
                        return Ok(Some(text));
                    }
                    continue;
                }
                () = vm.wait_for_end() => true,
                () = tokio::time::sleep_until(deadline) => false,
            };
            // The last words may be on their way.
            self.vm.settle_log().await;
            return match self.look()? {
                Some(text) => Ok(Some(text)),
                None => Err(self.failure(gone)),
            };
        }
    }

    /// Whether the function returned, or raised what a report may well cause: the end of the guest, or a failed operation on it.
    fn is_forgivable(&self) -> bool {
        match &self.raised {
            None => true,
            Some(raised) => {
                self.vm.state() != VmState::Booted || raised.contains(&format!("vm `{}`: ", self.vm.name()))
            }
        }
    }

    /// Looks at what has come.
    fn look(&mut self) -> Result<Option<String>, ApiError> {
        while let Some(found) = self.expected.try_next() {
            if let Some(text) = self.take(&found)? {
                return Ok(Some(text));
            }
        }
        Ok(None)
    }

    fn take(&mut self, found: &crate::testbed::FoundReport) -> Result<Option<String>, ApiError> {
        let text = &found.report.text;
        let (mut find, _) = search(&self.lua, &self.pattern)?;
        match find(text.as_bytes()).map_err(|why| ApiError::new(format!("vm:expect_splat: {why}")))? {
            Some(_) => {
                self.expected.excuse(found);
                Ok(Some(text.clone()))
            }
            None => {
                self.others.push(found.report.title.clone());
                Ok(None)
            }
        }
    }

    fn failure(&self, gone: bool) -> ApiError {
        let name = self.vm.name();
        let when = match (gone, &self.raised) {
            (true, _) => "before the guest went away".to_owned(),
            (false, None) => format!("within {}", format_duration(self.timeout)),
            (false, Some(_)) => "before the function raised".to_owned(),
        };
        let mut message = format!("vm `{name}`: expect_splat {}: no kernel report matched {when}: ", self.shown);
        if self.others.is_empty() {
            message.push_str("none came");
        } else {
            message.push_str("these came instead:");
            self.others.iter().for_each(|title| message.push_str(&format!("\n  {title}")));
        }
        if let Some(raised) = &self.raised {
            message.push_str(&format!("\nthe function raised: {raised}"));
        }
        ApiError::new(message)
    }
}

/// Makes `expect_splat` of the prelude a method of VMs.
///
/// # Errors
/// Those of Lua's allocator.
pub fn install(lua: &Lua, expect_splat: Function) -> mlua::Result<()> {
    super::register::class(lua, super::vm::CLASS)?.raw_set("expect_splat", expect_splat)
}
