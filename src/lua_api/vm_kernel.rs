//! The kernel of a VM's guest: modules, log, clock, and what is waited for inside.

use std::path::Path;
use std::sync::Arc;

use mlua::{Lua, Value};

use super::args::Args;
use super::clock::ClockHandle;
use super::error::ApiError;
use super::file_state::FileState;
use super::place;
use super::register::Class;
use super::render::short;
use super::vm::VmHandle;

/// Adds the methods.
///
/// # Errors
/// Those of Lua's allocator.
pub fn methods(class: Class<'_>) -> mlua::Result<Class<'_>> {
    waits(modules(class)?)?
        .waits("vm:dmesg", |lua, _, mut args| {
            let vm = Arc::clone(&args.this::<VmHandle>()?.0);
            let part = match args.next() {
                Value::Nil => Vec::new(),
                Value::String(part) => part.as_bytes().to_vec(),
                other => return Err(args.wrong("pattern", "a string", &other)),
            };
            let lua = lua.clone();
            Ok(async move { Ok(lua.create_string(vm.dmesg(&part).await?)?) })
        })?
        .method("vm:clock", |_, _, mut args| Ok(ClockHandle::new(Arc::clone(&args.this::<VmHandle>()?.0))))
}

fn modules(class: Class<'_>) -> mlua::Result<Class<'_>> {
    class
        .waits("vm:load_module", |lua, state, mut args| {
            let guest = args.this::<VmHandle>()?.guest();
            let module = args.text("module")?;
            let params = params(&mut args)?;
            let is_path = module.contains('/')
                || [".ko", ".ko.gz", ".ko.xz", ".ko.zst"].iter().any(|ending| module.ends_with(ending));
            let path = is_path.then(|| beside_caller(lua, state, &module));
            Ok(async move {
                match path {
                    Some(path) => guest.load_module_file(&path, &params).await?,
                    None => guest.load_profile_module(&module, &params).await?,
                }
                Ok(())
            })
        })?
        .waits("vm:unload_module", |_, _, mut args| {
            let guest = args.this::<VmHandle>()?.guest();
            let name = args.text("name")?;
            Ok(async move { Ok(guest.unload_module(&name).await?) })
        })
}

/// A host path, relative to the calling Lua file.
fn beside_caller(lua: &Lua, state: &FileState, path: &str) -> std::path::PathBuf {
    let caller = place::caller(lua).map(|place| state.bed.absolute(&place.file));
    let directory = caller.as_deref().and_then(Path::parent).or_else(|| state.path.parent());
    directory.unwrap_or(Path::new("")).join(path)
}

/// A module's parameters as `insmod` takes them: a string as it is, or a table of names and values.
fn params(args: &mut Args) -> Result<String, ApiError> {
    let table = match args.next() {
        Value::Nil => return Ok(String::new()),
        Value::String(text) => return args.as_text("params", &Value::String(text)),
        Value::Table(table) => table,
        other => return Err(args.wrong("params", "a string or a table of names and values", &other)),
    };
    let mut words = Vec::new();
    for pair in table.pairs::<Value, Value>() {
        let (name, value) = pair?;
        let name = match &name {
            Value::String(name) => args.as_text("params", &Value::String(name.clone()))?,
            other => return Err(args.wrong("params", "names that are strings", other)),
        };
        words.push(format!("{name}={}", param(args, &value)?));
    }
    words.sort();
    Ok(words.join(" "))
}

fn param(args: &Args, value: &Value) -> Result<String, ApiError> {
    match value {
        Value::Boolean(flag) => Ok(if *flag { "1" } else { "0" }.to_owned()),
        Value::Integer(_) | Value::Number(_) => Ok(short(value)),
        Value::String(text) => {
            let text = args.as_text("params", &Value::String(text.clone()))?;
            if text.contains('"') {
                return Err(args.bad("params", &format!("the kernel takes no `\"` in a value: {}", short(value))));
            }
            Ok(if text.is_empty() || text.contains(char::is_whitespace) { format!("\"{text}\"") } else { text })
        }
        Value::Table(list) => {
            let items: Vec<Value> = list.sequence_values::<Value>().collect::<mlua::Result<_>>()?;
            if items.iter().any(|item| matches!(item, Value::Table(_))) {
                return Err(args.wrong("params", "arrays of plain values", value));
            }
            Ok(items.iter().map(|item| param(args, item)).collect::<Result<Vec<_>, _>>()?.join(","))
        }
        other => Err(args.wrong("params", "values that are strings, numbers, booleans or arrays", other)),
    }
}

fn waits(class: Class<'_>) -> mlua::Result<Class<'_>> {
    class
        .waits("vm:wait_for_port", |_, _, mut args| {
            let guest = args.this::<VmHandle>()?.guest();
            let port = match args.next() {
                Value::Integer(port) if (1..=65535).contains(&port) => u16::try_from(port).unwrap_or_default(),
                other => return Err(args.wrong("n", "a port from 1 to 65535", &other)),
            };
            let timeout = args.duration_opt("timeout")?;
            Ok(async move {
                guest.wait_for_port(port, timeout).await?;
                Ok(true)
            })
        })?
        .waits("vm:wait_for_file", |_, _, mut args| {
            let guest = args.this::<VmHandle>()?.guest();
            let path = args.bytes("path")?;
            let timeout = args.duration_opt("timeout")?;
            Ok(async move {
                guest.wait_for_file(&path, timeout).await?;
                Ok(true)
            })
        })?
        .waits("vm:wait_for_unit", |_, _, mut args| {
            let guest = args.this::<VmHandle>()?.guest();
            let unit = args.text("name")?;
            let timeout = args.duration_opt("timeout")?;
            Ok(async move {
                guest.wait_for_unit(&unit, timeout).await?;
                Ok(true)
            })
        })
}
