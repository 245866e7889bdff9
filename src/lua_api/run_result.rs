//! The outcome of a command in a guest, as Lua sees it.

use mlua::{Lua, MetaMethod, UserData, UserDataFields, Value};

use super::error::ApiError;
use super::json;
use super::register::{Class, index};
use crate::testbed::{RunOutcome, RunStatus};

/// Registry key of the class.
const CLASS: &str = "provium.RunResult";
/// How much of an output an error shows, from its end, in bytes.
const SHOWN: usize = 4096;

/// A RunResult.
pub struct RunResult {
    command: String,
    vm: String,
    outcome: RunOutcome,
}

impl RunResult {
    /// The outcome of `command` (as shown in errors) in `vm`.
    pub fn new(vm: String, command: String, outcome: RunOutcome) -> Self {
        Self { command, vm, outcome }
    }

    fn exit_code(&self) -> i32 {
        match self.outcome.status {
            RunStatus::Exited(code) => code,
            RunStatus::Signalled(_) => -1,
            RunStatus::TimedOut => -2,
        }
    }

    fn status(&self) -> &'static str {
        match self.outcome.status {
            RunStatus::Exited(_) => "exited",
            RunStatus::Signalled(_) => "signalled",
            RunStatus::TimedOut => "timed_out",
        }
    }

    fn ok(&self) -> bool {
        self.outcome.status == RunStatus::Exited(0)
    }

    fn describe(&self) -> String {
        let status = match self.outcome.status {
            RunStatus::Exited(code) => format!("exit {code}"),
            RunStatus::Signalled(signal) => format!("signal {signal}"),
            RunStatus::TimedOut => format!("timed out after {:.1}s", self.outcome.duration.as_secs_f64()),
        };
        let mut text = format!("vm `{}`: `{}`: {status}", self.vm, self.command);
        for (name, bytes) in [("stdout", &self.outcome.stdout), ("stderr", &self.outcome.stderr)] {
            text.push_str(&output(name, bytes));
        }
        text
    }
}

fn output(name: &str, bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return format!("\n  {name}: (empty)");
    }
    let (head, shown) = match bytes.len().checked_sub(SHOWN) {
        Some(left) if left > 0 => (format!(" (the last {SHOWN} of {} bytes)", bytes.len()), &bytes[left..]),
        _ => (String::new(), bytes),
    };
    let text = String::from_utf8_lossy(shown);
    let lines: Vec<String> = text.trim_end_matches('\n').lines().map(|line| format!("    {line}")).collect();
    format!("\n  {name}{head}:\n{}", lines.join("\n"))
}

impl UserData for RunResult {
    fn add_fields<F: UserDataFields<Self>>(fields: &mut F) {
        fields.add_meta_field_with(MetaMethod::Index.name(), |lua| index(lua, CLASS));
        fields.add_meta_field("__name", "RunResult");
    }
}

/// Makes the class known to a Lua state.
///
/// # Errors
/// Those of Lua's allocator.
pub fn install(lua: &Lua) -> mlua::Result<()> {
    fields(Class::new(lua)?)?
        .method("result:ok", |_, _, mut args| Ok(args.this::<RunResult>()?.ok()))?
        .method("result:assert_ok", |_, _, mut args| {
            let object = args.next();
            let this = borrow(&object)?;
            if this.ok() { Ok(object.clone()) } else { Err(ApiError::new(this.describe())) }
        })?
        .method("result:assert_fails", |_, _, mut args| {
            let object = args.next();
            let this = borrow(&object)?;
            if this.ok() {
                return Err(ApiError::new(format!("expected a failure, but {}", this.describe())));
            }
            Ok(object.clone())
        })?
        .method("result:json", |lua, _, mut args| {
            let this = args.this::<RunResult>()?;
            json::decode(lua, &this.outcome.stdout).map_err(|why| {
                ApiError::new(format!(
                    "the output of `{}` is not JSON: {why}{}",
                    this.command,
                    output("stdout", &this.outcome.stdout)
                ))
            })
        })?
        .method("result:lines", |lua, _, mut args| {
            let this = args.this::<RunResult>()?;
            let lines = lua.create_table()?;
            let text = this.outcome.stdout.strip_suffix(b"\n").unwrap_or(&this.outcome.stdout);
            if !text.is_empty() {
                for line in text.split(|byte| *byte == b'\n') {
                    lines.raw_push(lua.create_string(line)?)?;
                }
            }
            Ok(lines)
        })?
        .method("result:trim", |lua, _, mut args| {
            let this = args.this::<RunResult>()?;
            Ok(lua.create_string(this.outcome.stdout.trim_ascii())?)
        })?
        .store(CLASS)
}

fn fields(class: Class<'_>) -> mlua::Result<Class<'_>> {
    class
        .field("result.exit_code", |_, this: &RunResult| Ok(this.exit_code()))?
        .field("result.stdout", |lua, this: &RunResult| Ok(lua.create_string(&this.outcome.stdout)?))?
        .field("result.stderr", |lua, this: &RunResult| Ok(lua.create_string(&this.outcome.stderr)?))?
        .field("result.status", |_, this: &RunResult| Ok(this.status()))?
        .field("result.timed_out", |_, this: &RunResult| Ok(this.outcome.status == RunStatus::TimedOut))?
        .field("result.duration", |_, this: &RunResult| Ok(this.outcome.duration.as_secs_f64()))?
        .field("result.signal", |_, this: &RunResult| {
            Ok(match this.outcome.status {
                RunStatus::Signalled(signal) => Some(signal),
                _ => None,
            })
        })
}

fn borrow(object: &Value) -> Result<mlua::UserDataRef<RunResult>, ApiError> {
    object.as_userdata().and_then(|object| object.borrow::<RunResult>().ok()).ok_or_else(|| {
        ApiError::new("called on something that is no run result\nhint: methods are called with a colon")
    })
}
