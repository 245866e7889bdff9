//! Looking into a VM from outside: QMP, gdb, memory dumps, screenshots.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use mlua::{Lua, Value};

use super::args::Args;
use super::error::ApiError;
use super::file_state::FileState;
use super::register::Class;
use super::vm::VmHandle;
use super::{json, place};

/// The methods of this file.
///
/// # Errors
/// Those of Lua's allocator.
pub fn methods(class: Class<'_>) -> mlua::Result<Class<'_>> {
    class
        .waits("vm:qmp", |lua, _, mut args| {
            let vm = Arc::clone(&args.this::<VmHandle>()?.0);
            let command = args.text("command")?;
            let arguments = match args.next() {
                Value::Nil => serde_json::Value::Null,
                Value::Table(table) => match json::to_json(lua, &Value::Table(table)) {
                    Ok(object @ serde_json::Value::Object(_)) => object,
                    Ok(_) => return Err(args.bad("args", "expected a table with named keys, found an array")),
                    Err(why) => return Err(args.bad("args", &why)),
                },
                other => return Err(args.wrong("args", "a table", &other)),
            };
            let lua = lua.clone();
            Ok(async move { Ok(json::from_json(&lua, &vm.qmp(&command, arguments).await?)?) })
        })?
        .waits("vm:gdb", |_, state, mut args| {
            let vm = Arc::clone(&args.this::<VmHandle>()?.0);
            let state = Rc::clone(state);
            Ok(async move {
                let stub = vm.gdb().await?;
                state.log(&format!("{}\n", stub.command));
                Ok(stub.socket.display().to_string())
            })
        })?
        .waits("vm:dump", |lua, state, mut args| {
            let vm = Arc::clone(&args.this::<VmHandle>()?.0);
            let path = host_path(lua, state, &mut args)?;
            Ok(async move { Ok(vm.dump(path).await?.display().to_string()) })
        })?
        .waits("vm:screenshot", |lua, state, mut args| {
            let vm = Arc::clone(&args.this::<VmHandle>()?.0);
            let path = host_path(lua, state, &mut args)?;
            Ok(async move { Ok(vm.screenshot(path).await?.display().to_string()) })
        })
}

/// An optional path on the host, relative to the calling file.
fn host_path(lua: &Lua, state: &FileState, args: &mut Args) -> Result<Option<PathBuf>, ApiError> {
    let Some(path) = args.text_opt("path")? else { return Ok(None) };
    if path.is_empty() || path.ends_with('/') {
        return Err(args.bad("path", &format!("expected the path of a file, found `{path}`")));
    }
    let file = place::caller(lua).map_or_else(|| state.path.clone(), |place| state.bed.absolute(&place.file));
    Ok(Some(file.parent().map_or_else(|| PathBuf::from(&path), |directory| directory.join(&path))))
}
