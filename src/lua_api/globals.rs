//! The globals: `test`, `todo`, `wait_until`, `sleep`, `print`, `json`, `provium`, `require`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use mlua::{Function, Lua, Table, UserData};

use super::error::ApiError;
use super::lab::LabHandle;
use super::register::{function, step, waiting, waiting_step};
use super::{
    batch, bridge, call, clock, console, disk, disk_state, expect_splat, file, hook, json, lab, modules, nic, parallel,
    place, popen, process, register, registration, run_result, snapshot, std_io, steps, stream, test_context, vm,
    worker,
};
use crate::foundation::duration::format_duration;

/// Defaults of `wait_until`.
const WAIT_TIMEOUT: Duration = Duration::from_secs(10);
const WAIT_INTERVAL: Duration = Duration::from_millis(100);

/// Puts the whole API into a Lua state; `roots` are searched by `require`.
///
/// # Errors
/// Those of Lua's allocator.
pub fn install(lua: &Lua, roots: Vec<PathBuf>) -> mlua::Result<Table> {
    register::install(lua)?;
    let natives = lua.create_table()?;
    wait_natives(lua, &natives)?;
    test_context::natives(lua, &natives)?;
    batch::natives(lua, &natives)?;
    expect_splat::natives(lua, &natives)?;
    natives.raw_set(
        "stack",
        lua.create_function(|lua, ()| Ok(place::stack(lua).iter().map(ToString::to_string).collect::<Vec<_>>()))?,
    )?;
    steps::natives(lua, &natives)?;
    let prelude = include_str!("prelude.lua");
    let prelude: Table = lua.load(prelude).set_name(register::CHUNK).call((natives, register::branches(lua)?))?;
    vm::install(lua, prelude.get("batch")?)?;
    process::install(lua)?;
    call::install(lua)?;
    worker::install(lua)?;
    batch::install(lua)?;
    expect_splat::install(lua, prelude.get("expect_splat")?)?;
    clock::install(lua)?;
    run_result::install(lua)?;
    console::install(lua)?;
    stream::install(lua)?;
    file::install(lua)?;
    disk::install(lua)?;
    disk_state::install(lua)?;
    lab::install(lua)?;
    snapshot::install(lua)?;
    bridge::install(lua)?;
    nic::install(lua)?;
    test_context::install(lua, &prelude)?;

    let globals = lua.globals();
    registration::install(lua)?;
    globals.set("wait_until", prelude.get::<Function>("wait_until")?)?;
    globals.set(
        "sleep",
        waiting(lua, "sleep", |_, _, mut args| {
            let time = args.duration_opt("t")?.ok_or_else(|| args.bad("t", "expected a time, found nil"))?;
            Ok(pause(time))
        })?,
    )?;
    globals.set("parallel", parallel::function(lua, prelude.get("branch")?)?)?;
    globals.set("json", json::module(lua)?)?;
    globals.set("provium", LabHandle::root())?;
    hook::install(lua)?;
    std_io::install(lua)?;
    popen::install(lua)?;
    modules::install(lua, roots, prelude.get("loader")?)?;
    Ok(prelude)
}

async fn pause(time: Duration) -> Result<(), ApiError> {
    tokio::time::sleep(time).await;
    Ok(())
}

/// One `wait_until` under way.
struct Wait {
    timeout: Duration,
    interval: Duration,
    deadline: Instant,
    desc: String,
}

impl UserData for Wait {}

fn wait_natives(lua: &Lua, natives: &Table) -> mlua::Result<()> {
    natives.raw_set(
        "wait_begin",
        step(lua, "wait_until", |_, _, mut args| {
            args.callable("fn")?;
            let options = args.options(&["timeout", "interval", "desc"])?;
            let timeout = options.duration("timeout")?.unwrap_or(WAIT_TIMEOUT);
            Ok(Wait {
                timeout,
                interval: options.duration("interval")?.unwrap_or(WAIT_INTERVAL),
                deadline: Instant::now() + timeout,
                desc: options.text("desc")?.unwrap_or_else(|| "condition".to_owned()),
            })
        })?,
    )?;
    natives.raw_set(
        "wait_again",
        waiting_step(lua, "wait_until", |_, _, mut args| {
            let wait = args.this::<Wait>()?;
            let left = wait.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ApiError::new(format!(
                    "wait_until: {} not met within {}",
                    wait.desc,
                    format_duration(wait.timeout)
                )));
            }
            Ok(pause(wait.interval.min(left)))
        })?,
    )?;
    natives.raw_set("wait_end", function(lua, "wait_until", |_, _, _| Ok(()))?)
}
