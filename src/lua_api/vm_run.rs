//! `vm:run` in all its forms.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mlua::{Lua, Table, Value};

use super::args::{Args, Options, list_of_bytes};
use super::error::ApiError;
use super::file_state::FileState;
use super::guest_object::guest;
use super::place;
use super::process::ProcessHandle;
use super::render::{quote, short};
use super::run_result::RunResult;
use crate::testbed::{Program, RunSpec};

/// Options of the options form.
const OPTIONS: &[&str] = &["args", "env", "env_clear", "cwd", "stdin", "timeout", "timeout_ms", "user"];

/// Names and values of environment variables.
type Variables = Vec<(Vec<u8>, Vec<u8>)>;

/// `run`: runs a command and waits for it.
///
/// # Errors
/// A bad argument, a program that can't be started, a dead guest.
pub fn run(
    _: &Lua,
    _: &Rc<FileState>,
    mut args: Args,
) -> Result<impl Future<Output = Result<RunResult, ApiError>> + use<>, ApiError> {
    let guest = guest(&mut args)?;
    let spec = decode(&mut args)?;
    let command = describe(&spec.program);
    Ok(async move {
        let outcome = guest.run(spec).await?;
        Ok(RunResult::new(guest.name(), command, outcome))
    })
}

/// `run_async`: starts a command that goes on.
///
/// # Errors
/// As `run`; a time-out among the options.
pub fn run_async(
    lua: &Lua,
    state: &Rc<FileState>,
    mut args: Args,
) -> Result<impl Future<Output = Result<ProcessHandle, ApiError>> + use<>, ApiError> {
    let guest = guest(&mut args)?;
    refuse_time_out(&args)?;
    let spec = decode(&mut args)?;
    let command = describe(&spec.program);
    let place = place::caller(lua).map(|place| place.to_string());
    let state = Rc::clone(state);
    Ok(async move {
        let process = guest.run_async(spec, command, place).await?;
        state.with_belongings(|belongings| belongings.add_process(Arc::clone(&process)));
        Ok(ProcessHandle(process))
    })
}

/// A time-out belongs to `:wait`; `args` holds the command, then what may be options.
fn refuse_time_out(args: &Args) -> Result<(), ApiError> {
    let Some(Value::Table(options)) = args.peek_at(1) else { return Ok(()) };
    for name in ["timeout", "timeout_ms"] {
        if !options.get::<Value>(name)?.is_nil() {
            let function = args.function();
            return Err(ApiError::new(format!(
                "{function}: option `{name}`: a process that goes on has no time-out\nhint: `:wait(timeout)` waits that long"
            )));
        }
    }
    Ok(())
}

/// Decodes `(cmd, args or opts?)`.
///
/// # Errors
/// A bad argument, an unknown option.
pub fn decode(args: &mut Args) -> Result<RunSpec, ApiError> {
    let command = args.next();
    let more = args.next();
    if !args.is_empty() {
        return Err(args.bad("options", "expected at most two arguments: a command, then its arguments or the options"));
    }
    match (&command, more) {
        (Value::String(line), Value::Nil) => Ok(plain(Program::Shell(line.as_bytes().to_vec()))),
        (Value::String(program), Value::Table(table)) if has_string_key(&table)? => {
            with_options(args, Some(program.as_bytes().to_vec()), table)
        }
        (Value::String(program), Value::Table(list)) => {
            let mut argv = vec![program.as_bytes().to_vec()];
            argv.extend(list_of_bytes(&list).map_err(|why| args.bad("args", &why))?);
            Ok(plain(Program::Argv(argv)))
        }
        (Value::Table(list), more) => {
            let argv = list_of_bytes(list).map_err(|why| args.bad("cmd", &why))?;
            if argv.is_empty() {
                return Err(args.bad("cmd", "expected a program, found an empty table"));
            }
            match more {
                Value::Nil => Ok(plain(Program::Argv(argv))),
                Value::Table(table) => {
                    let mut spec = with_options(args, None, table)?;
                    if matches!(&spec.program, Program::Argv(extra) if !extra.is_empty()) {
                        return Err(args.bad("args", "given twice: in the command's table and as an option"));
                    }
                    spec.program = Program::Argv(argv);
                    Ok(spec)
                }
                other => Err(args.wrong("options", "a table", &other)),
            }
        }
        (Value::String(_), other) => Err(args.wrong("options", "a table of arguments or of options", &other)),
        (other, _) => Err(args.wrong("cmd", "a string, or a table {program, arguments…}", other)),
    }
}

fn plain(program: Program) -> RunSpec {
    RunSpec { program, ..RunSpec::default() }
}

fn has_string_key(table: &Table) -> Result<bool, ApiError> {
    for pair in table.pairs::<Value, Value>() {
        if matches!(pair?.0, Value::String(_)) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn with_options(args: &Args, program: Option<Vec<u8>>, table: Table) -> Result<RunSpec, ApiError> {
    if table.raw_len() > 0 {
        return Err(args.bad(
            "options",
            &format!(
                "holds positional entries beside named ones: {}\nhint: put the arguments into `args`",
                short(&Value::Table(table))
            ),
        ));
    }
    let options = Options::checked(args.function(), table, OPTIONS)?;
    let arguments = options.byte_list("args")?;
    let program = match (program, arguments) {
        (Some(program), Some(arguments)) => Program::Argv(std::iter::once(program).chain(arguments).collect()),
        (Some(line), None) => Program::Shell(line),
        (None, Some(arguments)) => Program::Argv(arguments),
        (None, None) => Program::Argv(Vec::new()),
    };
    Ok(RunSpec {
        program,
        env: environment(args, &options)?,
        env_clear: options.flag("env_clear")?.unwrap_or(false),
        cwd: options.bytes("cwd")?,
        stdin: options.bytes("stdin")?,
        timeout: timeout(args, &options)?,
        user: options.text("user")?,
    })
}

fn timeout(args: &Args, options: &Options) -> Result<Option<Duration>, ApiError> {
    let timeout = options.duration("timeout")?;
    let milliseconds = options.integer("timeout_ms", 0, i64::MAX)?.map(i64::unsigned_abs).map(Duration::from_millis);
    match (timeout, milliseconds) {
        (Some(_), Some(_)) => Err(args.bad("timeout", "given twice: `timeout` and `timeout_ms`")),
        (Some(time), None) | (None, Some(time)) if time.is_zero() => {
            Err(args.bad("timeout", "expected a time above 0, found 0"))
        }
        (timeout, milliseconds) => Ok(timeout.or(milliseconds)),
    }
}

fn environment(args: &Args, options: &Options) -> Result<Variables, ApiError> {
    let table = match options.value("env")? {
        Value::Nil => return Ok(Vec::new()),
        Value::Table(table) => table,
        other => return Err(args.wrong("env", "a table of names and values", &other)),
    };
    let mut variables = Vec::new();
    for pair in table.pairs::<Value, Value>() {
        let (name, value) = pair?;
        let Value::String(name) = &name else {
            return Err(args.wrong("env", "a table of names and values", &name));
        };
        let name = name.as_bytes().to_vec();
        if name.is_empty() || name.contains(&b'=') || name.contains(&0) {
            return Err(args.bad("env", &format!("{} is no name of a variable", quote(&name))));
        }
        let value = match &value {
            Value::String(text) => text.as_bytes().to_vec(),
            Value::Integer(_) | Value::Number(_) | Value::Boolean(_) => short(&value).into_bytes(),
            other => return Err(args.wrong("env", "values that are strings", other)),
        };
        variables.push((name, value));
    }
    variables.sort();
    Ok(variables)
}

/// The command as errors show it.
fn describe(program: &Program) -> String {
    match program {
        Program::Shell(line) => String::from_utf8_lossy(line).into_owned(),
        Program::Worker => "a worker".to_owned(),
        Program::Argv(argv) => {
            let words: Vec<String> = argv.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect();
            words.join(" ")
        }
    }
}
