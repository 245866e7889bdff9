//! The guest's files as methods of a VM (and, those that it shares, of a worker).

use std::path::PathBuf;

use mlua::{Lua, Value};

use super::args::{Args, Options};
use super::error::ApiError;
use super::file::FileHandle;
use super::file_state::FileState;
use super::guest_object::guest;
use super::place;
use super::register::Class;
use super::render::short;
use super::stream::StreamHandle;
use super::vm::VmHandle;
use crate::agent_protocol::{FileStat, OpenRequest, TailStart};
use crate::foundation::suggest;
use crate::testbed::{Guest, HandleKind};

/// Adds the methods to the class of VMs.
///
/// # Errors
/// Those of Lua's allocator.
pub fn methods(class: Class<'_>) -> mlua::Result<Class<'_>> {
    let class = whole_files(class)?;
    let class = copies(class)?;
    let class = paths(class)?;
    let class = streams(class)?;
    counts(class)
}

fn whole_files(class: Class<'_>) -> mlua::Result<Class<'_>> {
    class
        .waits("vm:read_file", |lua, _, mut args| read_file(lua, guest(&mut args)?, args))?
        .waits("vm:write_file", |_, _, mut args| write_file(guest(&mut args)?, args))?
        .waits("vm:open_file", |lua, _, mut args| open_file(lua, guest(&mut args)?, args))
}

/// `read_file(path)`.
///
/// # Errors
/// A bad argument.
pub fn read_file(
    lua: &Lua,
    guest: Guest,
    mut args: Args,
) -> Result<impl Future<Output = Result<mlua::LuaString, ApiError>> + 'static + use<>, ApiError> {
    let path = args.path("path")?;
    let lua = lua.clone();
    Ok(async move { Ok(lua.create_string(guest.read_file(&path).await?)?) })
}

/// `write_file(path, data, {mode=} or {perm=})`.
///
/// # Errors
/// A bad argument.
pub fn write_file(
    guest: Guest,
    mut args: Args,
) -> Result<impl Future<Output = Result<(), ApiError>> + 'static + use<>, ApiError> {
    let path = args.path("path")?;
    let data = args.bytes("data")?;
    let options = args.options(&["mode", "perm"])?;
    let mode = permissions(&args, &options)?;
    Ok(async move { Ok(guest.write_file(&path, &data, mode).await?) })
}

/// `open_file(path, {read=, write=, create=, truncate=, append=, exclusive=, perm=})`.
///
/// # Errors
/// A bad argument; no access asked for.
pub fn open_file(
    lua: &Lua,
    guest: Guest,
    mut args: Args,
) -> Result<impl Future<Output = Result<FileHandle, ApiError>> + 'static + use<>, ApiError> {
    let path = args.path("path")?;
    let options = args.options(&["read", "write", "create", "truncate", "append", "exclusive", "perm", "mode"])?;
    let flag = |name| options.flag(name).map(|flag| flag.unwrap_or(false));
    let wanted = OpenRequest {
        path,
        read: flag("read")?,
        write: flag("write")?,
        create: flag("create")?,
        truncate: flag("truncate")?,
        append: flag("append")?,
        exclusive: flag("exclusive")?,
        perm: permissions(&args, &options)?,
    };
    if !wanted.read && !wanted.write && !wanted.append {
        return Err(ApiError::new(format!(
            "vm `{}`: open_file: `{}`: no access is asked for\nhint: give at least one of `read`, `write` and `append`: \
             {{read = true}}",
            guest.name(),
            String::from_utf8_lossy(&wanted.path)
        )));
    }
    let place = place::caller(lua).map(|place| place.to_string());
    Ok(async move { Ok(FileHandle::new(guest.open_file(wanted, place).await?)) })
}

/// `stat(path)` and `lstat(path)`.
///
/// # Errors
/// A bad argument.
pub fn stat(
    lua: &Lua,
    guest: Guest,
    mut args: Args,
    follow: bool,
) -> Result<impl Future<Output = Result<mlua::Table, ApiError>> + 'static + use<>, ApiError> {
    let path = args.path("path")?;
    let lua = lua.clone();
    Ok(async move { Ok(stat_table(&lua, &guest.stat(&path, follow).await?)?) })
}

fn stat_table(lua: &Lua, stat: &FileStat) -> mlua::Result<mlua::Table> {
    let table = lua.create_table()?;
    table.raw_set("size", stat.size)?;
    table.raw_set("mtime", stat.mtime)?;
    table.raw_set("mtime_ns", stat.mtime_ns)?;
    table.raw_set("perm", stat.perm)?;
    table.raw_set("entry_type", stat.entry_type.name())?;
    table.raw_set("uid", stat.uid)?;
    table.raw_set("gid", stat.gid)?;
    // Numbers of inodes use all 64 bits on some file systems: they wrap as they do everywhere in Lua.
    table.raw_set("ino", stat.ino.cast_signed())?;
    table.raw_set("nlink", stat.nlink)?;
    Ok(table)
}

/// Permission bits, called `perm` or `mode`.
fn permissions(args: &Args, options: &Options) -> Result<Option<u32>, ApiError> {
    let (perm, mode) = (options.integer("perm", 0, 0o7777)?, options.integer("mode", 0, 0o7777)?);
    if perm.is_some() && mode.is_some() {
        return Err(args.bad("perm", "given twice: `perm` and `mode` are the same"));
    }
    Ok(perm.or(mode).and_then(|bits| u32::try_from(bits).ok()))
}

/// A path of the host: a relative one counts from the directory of the Lua file that calls.
fn host_path(lua: &Lua, state: &FileState, args: &mut Args) -> Result<PathBuf, ApiError> {
    use std::os::unix::ffi::OsStringExt;
    let path = PathBuf::from(std::ffi::OsString::from_vec(args.path("host")?));
    let file = match place::caller(lua) {
        Some(place) => state.bed.absolute(&place.file),
        None => state.path.clone(),
    };
    Ok(file.parent().map_or(path.clone(), |directory| directory.join(&path)))
}

fn copies(class: Class<'_>) -> mlua::Result<Class<'_>> {
    class
        .waits("vm:push_file", |lua, state, mut args| {
            let guest = guest(&mut args)?;
            let host = host_path(lua, state, &mut args)?;
            let path = args.path("guest")?;
            let options = args.options(&["mode", "perm", "auto_dep"])?;
            let mode = permissions(&args, &options)?;
            if options.flag("auto_dep")? != Some(false) {
                state.depend_on(&host);
            }
            Ok(async move { Ok(guest.push_file(host, &path, mode).await?) })
        })?
        .waits("vm:pull_file", |lua, state, mut args| {
            let guest = guest(&mut args)?;
            let path = args.path("guest")?;
            let host = host_path(lua, state, &mut args)?;
            Ok(async move { Ok(guest.pull_file(&path, host).await?) })
        })?
        .waits("vm:push_dir", |lua, state, mut args| {
            let guest = guest(&mut args)?;
            let host = host_path(lua, state, &mut args)?;
            let path = args.path("guest")?;
            state.depend_on(&host);
            Ok(async move { Ok(guest.push_dir(host, &path).await?) })
        })
}

fn paths(class: Class<'_>) -> mlua::Result<Class<'_>> {
    class
        .waits("vm:stat", |lua, _, mut args| stat(lua, guest(&mut args)?, args, true))?
        .waits("vm:lstat", |lua, _, mut args| stat(lua, guest(&mut args)?, args, false))?
        .waits("vm:exists", |_, _, mut args| exists(guest(&mut args)?, args))?
        .waits("vm:listdir", |lua, _, mut args| listdir(lua, guest(&mut args)?, args))?
        .waits("vm:mkdir", |_, _, mut args| mkdir(guest(&mut args)?, args))?
        .waits("vm:unlink", |_, _, mut args| unlink(guest(&mut args)?, args))?
        .waits("vm:rename", |_, _, mut args| rename(guest(&mut args)?, args))
}

/// `exists(path)`.
///
/// # Errors
/// A bad argument.
pub fn exists(
    guest: Guest,
    mut args: Args,
) -> Result<impl Future<Output = Result<bool, ApiError>> + 'static + use<>, ApiError> {
    let path = args.path("path")?;
    Ok(async move { Ok(guest.exists(&path).await?) })
}

/// `listdir(path)`.
///
/// # Errors
/// A bad argument.
pub fn listdir(
    lua: &Lua,
    guest: Guest,
    mut args: Args,
) -> Result<impl Future<Output = Result<mlua::Table, ApiError>> + 'static + use<>, ApiError> {
    let path = args.path("path")?;
    let lua = lua.clone();
    Ok(async move {
        let list = lua.create_table()?;
        for entry in guest.listdir(&path).await? {
            let table = lua.create_table()?;
            table.raw_set("name", lua.create_string(entry.name)?)?;
            table.raw_set("entry_type", entry.entry_type.name())?;
            list.raw_push(table)?;
        }
        Ok(list)
    })
}

/// `mkdir(path, {parents=, perm=})`.
///
/// # Errors
/// A bad argument.
pub fn mkdir(
    guest: Guest,
    mut args: Args,
) -> Result<impl Future<Output = Result<(), ApiError>> + 'static + use<>, ApiError> {
    let path = args.path("path")?;
    let options = args.options(&["parents", "perm", "mode"])?;
    let (parents, perm) = (options.flag("parents")?.unwrap_or(false), permissions(&args, &options)?);
    Ok(async move { Ok(guest.mkdir(&path, parents, perm).await?) })
}

/// `unlink(path)`.
///
/// # Errors
/// A bad argument.
pub fn unlink(
    guest: Guest,
    mut args: Args,
) -> Result<impl Future<Output = Result<(), ApiError>> + 'static + use<>, ApiError> {
    let path = args.path("path")?;
    Ok(async move { Ok(guest.unlink(&path).await?) })
}

/// `rename(from, to)`.
///
/// # Errors
/// A bad argument.
pub fn rename(
    guest: Guest,
    mut args: Args,
) -> Result<impl Future<Output = Result<(), ApiError>> + 'static + use<>, ApiError> {
    let (from, to) = (args.path("from")?, args.path("to")?);
    Ok(async move { Ok(guest.rename(&from, &to).await?) })
}

fn tail_start(args: &Args, options: &Options) -> Result<TailStart, ApiError> {
    const WORDS: [&str; 3] = ["end", "beginning", "start"];
    match options.value("start")? {
        Value::Nil => Ok(TailStart::End),
        Value::Integer(offset) => Ok(TailStart::Offset(offset)),
        Value::String(text) => match text.to_string_lossy().as_str() {
            "end" => Ok(TailStart::End),
            "beginning" | "start" => Ok(TailStart::Beginning),
            other => {
                let hint = suggest::nearest(other, WORDS.iter()).map(|word| format!("\nhint: did you mean `{word}`?"));
                Err(args.bad(
                    "start",
                    &format!(
                        "expected `end`, `beginning` (or `start`) or an offset, found `{other}`{}",
                        hint.unwrap_or_default()
                    ),
                ))
            }
        },
        other => Err(args
            .bad("start", &format!("expected `end`, `beginning` (or `start`) or an offset, found {}", short(&other)))),
    }
}

fn streams(class: Class<'_>) -> mlua::Result<Class<'_>> {
    class
        .waits("vm:tail_file", |lua, _, mut args| {
            let guest = guest(&mut args)?;
            let path = args.path("path")?;
            let options = args.options(&["start"])?;
            let start = tail_start(&args, &options)?;
            let what = format!("tail of `{}`", String::from_utf8_lossy(&path));
            let place = place::caller(lua);
            Ok(async move {
                let stream = guest.tail_file(&path, start).await?;
                Ok(StreamHandle::opened_at(place, guest.vm(), stream, what))
            })
        })?
        .waits("vm:fd_stream", |lua, _, mut args| {
            let guest = guest(&mut args)?;
            let target = fd_or_file(&mut args)?;
            let place = place::caller(lua);
            Ok(async move {
                let (stream, what) = match target {
                    FdOrFile::File(file) => (file.fd_stream().await?, format!("file `{}`", file.path())),
                    FdOrFile::Fd(fd) => (guest.fd_stream(fd).await?, format!("descriptor {fd}")),
                };
                Ok(StreamHandle::opened_at(place, guest.vm(), stream, what))
            })
        })
}

/// A descriptor's number, or a File.
pub enum FdOrFile {
    /// The number.
    Fd(i32),
    /// The File.
    File(std::sync::Arc<crate::testbed::OpenFile>),
}

/// The next argument as either.
///
/// # Errors
/// When it is neither.
pub fn fd_or_file(args: &mut Args) -> Result<FdOrFile, ApiError> {
    let value = args.next();
    if let Some(file) = value.as_userdata().and_then(|object| object.borrow::<FileHandle>().ok()) {
        return Ok(FdOrFile::File(file.file()));
    }
    match &value {
        Value::Integer(fd) if *fd >= 0 => i32::try_from(*fd)
            .map(FdOrFile::Fd)
            .map_err(|_| args.wrong("fd", "a descriptor's number or a File", &value)),
        _ => Err(args.wrong("fd", "a descriptor's number or a File", &value)),
    }
}

fn counts(class: Class<'_>) -> mlua::Result<Class<'_>> {
    class
        .method("vm:open_file_count", |lua, _, mut args| {
            let vm = args.this::<VmHandle>()?.0.clone();
            forget_unreachable(lua)?;
            Ok(vm.handles().count(HandleKind::File))
        })?
        .method("vm:open_stream_count", |lua, _, mut args| {
            let vm = args.this::<VmHandle>()?.0.clone();
            forget_unreachable(lua)?;
            Ok(vm.handles().count(HandleKind::Stream))
        })?
        .method("vm:is_quiescent", |lua, _, mut args| {
            let vm = args.this::<VmHandle>()?.0.clone();
            forget_unreachable(lua)?;
            Ok(vm.handles().list().is_empty())
        })
}

/// What no variable leads to any more is closed, so that it is not counted: Lua itself would do so at some later time.
fn forget_unreachable(lua: &Lua) -> Result<(), ApiError> {
    Ok(lua.gc_collect()?)
}
