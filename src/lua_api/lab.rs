//! Labs: the file's root lab, `provium`, which owns VMs.

use std::sync::Arc;

use mlua::{AnyUserData, IntoLua, Lua, MetaMethod, UserData, UserDataFields, UserDataMethods, Value};

use super::args::Args;
use super::error::ApiError;
use super::file_state::FileState;
use super::place;
use super::register::{Class, class};
use super::render::short;
use super::vm::{VmHandle, options};
use crate::testbed::Vm;

/// Registry key of the class.
const CLASS: &str = "provium.Lab";

/// A lab as Lua holds it.
pub struct LabHandle;

impl UserData for LabHandle {
    fn add_fields<F: UserDataFields<Self>>(fields: &mut F) {
        fields.add_meta_field("__name", "Lab");
    }

    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_meta_function(MetaMethod::Index, |lua, (_, key): (AnyUserData, Value)| {
            let method: Value = class(lua, CLASS)?.raw_get(key.clone())?;
            if !method.is_nil() {
                return Ok(method);
            }
            let Value::String(name) = key else { return Ok(Value::Nil) };
            let state = FileState::of(lua)?;
            match find(&state, &name.to_string_lossy()) {
                Some(vm) => VmHandle(vm).into_lua(lua),
                None => Ok(Value::Nil),
            }
        });
    }
}

/// The VM `name`: the test's own, else the file's.
fn find(state: &FileState, name: &str) -> Option<Arc<Vm>> {
    if let Some(test) = &*state.current.borrow()
        && let Some(vm) = test.scope.find(name)
    {
        return Some(vm);
    }
    state.scope.borrow().find(name)
}

/// Makes the class known to a Lua state.
///
/// # Errors
/// Those of Lua's allocator.
pub fn install(lua: &Lua) -> mlua::Result<()> {
    Class::new(lua)?
        .method("lab:vm", |lua, state, args| vm(lua, state, args))?
        .method("lab:name", |_, _, mut args| {
            args.this::<LabHandle>()?;
            Ok("provium")
        })?
        .method("lab:vm_names", |_, state, mut args| {
            args.this::<LabHandle>()?;
            Ok(state.with_scope(|scope| scope.names()))
        })?
        .waits("lab:boot", |_, state, mut args| {
            let lab = args.next();
            let vms = state.with_scope(|scope| scope.vms());
            Ok(async move {
                crate::testbed::boot_all(vms).await?;
                Ok(lab)
            })
        })?
        .waits("lab:shutdown", |_, state, mut args| {
            let lab = args.next();
            let vms = state.with_scope(|scope| scope.vms());
            Ok(async move {
                crate::testbed::shutdown_all(vms).await?;
                Ok(lab)
            })
        })?
        .store(CLASS)
}

/// `lab:vm(name)` looks up, `lab:vm(name, profile, opts?)` creates.
fn vm(lua: &Lua, state: &FileState, mut args: Args) -> Result<VmHandle, ApiError> {
    args.this::<LabHandle>()?;
    let name = args.text("name")?;
    let profile = match args.next() {
        Value::Nil if args.is_empty() => {
            return find(state, &name).map(VmHandle).ok_or_else(|| unknown(state, &name));
        }
        Value::String(profile) => profile.to_string_lossy(),
        Value::Nil => return Err(args.bad("profile", "expected a profile's name, found nil")),
        other => return Err(args.bad("profile", &format!("expected a profile's name, found {}", short(&other)))),
    };
    check_name(lua, &args, &name)?;
    let place = place::caller(lua).map(|place| place.to_string());
    let taken = state.with_scope(|scope| scope.place_of(&name)).or_else(|| state.scope.borrow().place_of(&name));
    if let Some(first) = taken {
        return Err(args.bad("name", &format!("there is a VM `{name}` already, created at {first}")));
    }
    let options = options(&mut args)?;
    let test = state.current.borrow().as_ref().map(|test| test.name.clone());
    let vm = state.bed.vm(&name, &profile, options, &state.display, test.as_deref())?;
    state.with_scope(|scope| scope.insert(Arc::clone(&vm), place));
    Ok(VmHandle(vm))
}

fn check_name(lua: &Lua, args: &Args, name: &str) -> Result<(), ApiError> {
    let fine = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if name.is_empty() || name.len() > 63 || !fine {
        return Err(args.bad("name", &format!("expected 1 to 63 letters, digits, `-`, `_` or `.`, found `{name}`")));
    }
    if !class(lua, CLASS)?.raw_get::<Value>(name)?.is_nil() {
        return Err(args.bad("name", &format!("`{name}` is a method of labs, and so can't be the name of a VM")));
    }
    Ok(())
}

fn unknown(state: &FileState, name: &str) -> ApiError {
    let mut names = state.with_scope(|scope| scope.names());
    if state.in_test() {
        names.extend(state.scope.borrow().names());
    }
    let known = if names.is_empty() { "there is none".to_owned() } else { format!("there are {}", names.join(", ")) };
    ApiError::new(format!(
        "lab:vm: no VM `{name}` here: {known}\nhint: to create one, name its profile: provium:vm(\"{name}\", \"PROFILE\")"
    ))
}
