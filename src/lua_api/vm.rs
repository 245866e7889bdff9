//! The VM handle.

use std::sync::Arc;

use mlua::{Lua, MetaMethod, UserData, UserDataFields, UserDataMethods, Value};

use super::args::{Args, Options};
use super::console::ConsoleHandle;
use super::error::ApiError;
use super::file_state::FileState;
use super::register::{Class, class};
use super::{disk_options, nic, snapshot, vm_calls, vm_disks, vm_files, vm_inspect, vm_kernel, vm_power};
use crate::foundation::size::format_size;
use crate::testbed::{BootFile, Guest, Vm, VmOptions};

/// Registry key of the class.
pub const CLASS: &str = "provium.VM";
/// Options at creation and at boot.
const OPTIONS: &[&str] = &[
    "memory",
    "cpus",
    "kernel_cmdline",
    "kernel_cmdline_append",
    "agent_timeout",
    "rng_seed",
    "initial_time",
    "hostname",
    "files",
    "load_modules",
    "disks",
];

/// The last second of the year 9999, the last that a PC's clock can be set to.
const LATEST_TIME: i64 = 253_402_300_799;

/// Less than this no kernel boots in, in bytes.
const LEAST_MEMORY: u64 = 16 * 1024 * 1024;
/// What Linux takes as a host name at most, in bytes.
const LONGEST_HOSTNAME: usize = 64;

/// A VM as Lua holds it.
pub struct VmHandle(pub Arc<Vm>);

impl VmHandle {
    /// Where its operations happen.
    pub fn guest(&self) -> Guest {
        Guest::new(Arc::clone(&self.0))
    }
}

impl UserData for VmHandle {
    fn add_fields<F: UserDataFields<Self>>(fields: &mut F) {
        fields.add_meta_field_with(MetaMethod::Index.name(), |lua| class(lua, CLASS));
        fields.add_meta_field("__name", "VM");
    }

    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_meta_method(MetaMethod::ToString, |_, this, ()| Ok(format!("vm `{}`", this.0.name())));
        methods.add_meta_method(MetaMethod::Eq, |_, this, other: Value| {
            Ok(other
                .as_userdata()
                .and_then(|other| other.borrow::<Self>().ok())
                .is_some_and(|other| Arc::ptr_eq(&this.0, &other.0)))
        });
    }
}

/// Decodes the options of `lab:vm` and `vm:boot`.
///
/// # Errors
/// An unknown option or a bad value.
pub fn options(lua: &Lua, state: &FileState, args: &mut Args) -> Result<VmOptions, ApiError> {
    let options = args.options(OPTIONS)?;
    Ok(VmOptions {
        memory: memory(args, &options)?,
        cpus: options.integer("cpus", 1, 255)?.and_then(|cpus| u32::try_from(cpus).ok()),
        kernel_cmdline: options.text("kernel_cmdline")?,
        kernel_cmdline_append: options.text("kernel_cmdline_append")?,
        agent_timeout: agent_timeout(args, &options)?,
        rng_seed: options.integer("rng_seed", 0, i64::MAX)?.and_then(|seed| u64::try_from(seed).ok()),
        initial_time: options.integer("initial_time", 0, LATEST_TIME)?,
        hostname: hostname(args, &options)?,
        files: files(args, &options)?,
        load_modules: names(args, &options)?,
        network: false,
        disks: disk_options::disks(lua, state, args, options.value("disks")?)?,
    })
}

fn memory(args: &Args, options: &Options) -> Result<Option<u64>, ApiError> {
    match options.size("memory")? {
        Some(bytes) if bytes < LEAST_MEMORY => {
            let found = super::render::short(&options.value("memory")?);
            Err(args.bad("memory", &format!("expected {} at least, found {found}", format_size(LEAST_MEMORY))))
        }
        bytes => Ok(bytes),
    }
}

/// The option `hostname`.
///
/// # Errors
/// What Linux does not take as one.
pub fn hostname(args: &Args, options: &Options) -> Result<Option<String>, ApiError> {
    match options.text("hostname")? {
        Some(name) if name.is_empty() || name.len() > LONGEST_HOSTNAME || name.bytes().any(|byte| byte <= b' ') => {
            let expected = format!("expected 1 to {LONGEST_HOSTNAME} bytes without white space");
            Err(args.bad("hostname", &format!("{expected}, found {}", super::render::quote(name.as_bytes()))))
        }
        name => Ok(name),
    }
}

/// The option `agent_timeout`.
///
/// # Errors
/// What is no time above 0.
pub fn agent_timeout(args: &Args, options: &Options) -> Result<Option<std::time::Duration>, ApiError> {
    match options.duration("agent_timeout")? {
        Some(time) if time.is_zero() => {
            let function = args.function();
            Err(ApiError::new(format!("{function}: option `agent_timeout`: expected a time above 0, found 0")))
        }
        time => Ok(time),
    }
}

fn names(args: &Args, options: &Options) -> Result<Option<Vec<String>>, ApiError> {
    let Some(list) = options.byte_list("load_modules")? else { return Ok(None) };
    list.into_iter()
        .map(|name| String::from_utf8(name).map_err(|_| args.bad("load_modules", "a module's name is not text")))
        .collect::<Result<_, _>>()
        .map(Some)
}

fn files(args: &Args, options: &Options) -> Result<Option<Vec<BootFile>>, ApiError> {
    let list = match options.value("files")? {
        Value::Nil => return Ok(None),
        Value::Table(list) => list,
        other => return Err(args.wrong("files", "an array of {path=, content=, mode=}", &other)),
    };
    let mut files = Vec::new();
    for entry in list.sequence_values::<Value>() {
        let entry = match entry? {
            Value::Table(entry) => Options::checked(args.function(), entry, &["path", "content", "mode"])?,
            other => return Err(args.wrong("files", "an array of {path=, content=, mode=}", &other)),
        };
        let path = entry.text("path")?.ok_or_else(|| args.bad("files", "an entry has no `path`"))?;
        if !path.starts_with('/') {
            return Err(args.bad("files", &format!("expected an absolute path, found `{path}`")));
        }
        let content = entry.bytes("content")?.ok_or_else(|| args.bad("files", "an entry has no `content`"))?;
        let mode = entry.integer("mode", 0, 0o7777)?.and_then(|mode| u32::try_from(mode).ok());
        files.push(BootFile { path, content, mode: mode.unwrap_or(0o644) });
    }
    Ok(Some(files))
}

/// Makes the class known to a Lua state.
///
/// # Errors
/// Those of Lua's allocator.
pub fn install(lua: &Lua, batch: mlua::Function) -> mlua::Result<()> {
    let class = vm_power::methods(Class::new(lua)?)?;
    let class = vm_inspect::methods(class)?;
    let class = snapshot::methods(class)?;
    let class = console(class)?;
    let class = vm_files::methods(class)?;
    let class = accessors(class)?;
    let class = vm_kernel::methods(class)?;
    let class = vm_calls::methods(class)?;
    let class = nic::vm_methods(class)?;
    let class = vm_disks::methods(class)?;
    class.in_lua("batch", batch)?.store(CLASS)
}

fn console(class: Class<'_>) -> mlua::Result<Class<'_>> {
    class.method("vm:console", |_, _, mut args| {
        let vm = Arc::clone(&args.this::<VmHandle>()?.0);
        let name = args.text_opt("name")?;
        ConsoleHandle::open(vm, name.as_deref())
    })
}

fn accessors(class: Class<'_>) -> mlua::Result<Class<'_>> {
    class
        .method("vm:name", |_, _, mut args| Ok(args.this::<VmHandle>()?.0.name().to_owned()))?
        .method("vm:profile", |_, _, mut args| Ok(args.this::<VmHandle>()?.0.profile().to_owned()))?
        .method("vm:state", |_, _, mut args| Ok(args.this::<VmHandle>()?.0.state().name()))?
        .method("vm:memory", |_, _, mut args| Ok(args.this::<VmHandle>()?.0.memory()))?
        .method("vm:cpus", |_, _, mut args| Ok(args.this::<VmHandle>()?.0.cpus()))?
        .method("vm:pid", |_, _, mut args| Ok(args.this::<VmHandle>()?.0.pid()))?
        .method("vm:cid", |_, _, mut args| {
            args.this::<VmHandle>()?;
            Ok(Value::Nil) // no vsock device
        })
}

/// The VM that `object` is a handle of.
///
/// # Errors
/// When it is something else.
pub fn borrow(args: &Args, object: &Value) -> Result<Arc<Vm>, ApiError> {
    match object.as_userdata().and_then(|object| object.borrow::<VmHandle>().ok()) {
        Some(handle) => Ok(Arc::clone(&handle.0)),
        None => Err(args.wrong("self", "a VM (call methods with a colon)", object)),
    }
}
