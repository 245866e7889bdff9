//! `syscall`, `syscall_async`, `ioctl`, `read_mem`: what the kernel answers is a result.

use std::rc::Rc;
use std::str::FromStr;
use std::sync::Arc;

use mlua::{Lua, MultiValue, Table, Value};

use super::args::{Args, Options, to_word};
use super::call::CallHandle;
use super::error::ApiError;
use super::file_state::FileState;
use super::guest_object::guest;
use super::place;
use super::render::short;
use super::vm_files::{FdOrFile, fd_or_file};
use crate::agent_protocol::{errno_name, errno_text};
use crate::foundation::suggest;
use crate::testbed::{Guest, IoctlArgument, IoctlRequest, Nested, SyscallOutcome, SyscallRequest};

/// How much all buffers of a call may hold together, in bytes: they travel in one message.
const LARGEST_BUFFERS: usize = 15 * 1024 * 1024;
/// How much memory is read at once, in bytes.
const LARGEST_READ: u64 = 1024 * 1024 * 1024;
/// Size of an address in the guest, in bytes.
const ADDRESS: usize = 8;
/// A slot that is no argument: its buffer's address is passed nowhere.
const NO_SLOT: u8 = u8::MAX;

/// `syscall`: makes a call and waits for it.
///
/// # Errors
/// A bad argument, a call that the agent does not make, a dead guest.
pub fn syscall(
    lua: &Lua,
    _: &Rc<FileState>,
    mut args: Args,
) -> Result<impl Future<Output = Result<Table, ApiError>> + use<>, ApiError> {
    let guest = guest(&mut args)?;
    let (call, _) = decode(&mut args, || Ok(guest.arch("syscall")?))?;
    let lua = lua.clone();
    Ok(async move { outcome(&lua, guest.syscall(call).await?) })
}

/// `syscall_async`: begins a call.
///
/// # Errors
/// A bad argument, a dead guest.
pub fn syscall_async(
    lua: &Lua,
    state: &Rc<FileState>,
    mut args: Args,
) -> Result<impl Future<Output = Result<CallHandle, ApiError>> + use<>, ApiError> {
    let guest = guest(&mut args)?;
    let (call, what) = decode(&mut args, || Ok(guest.arch("syscall_async")?))?;
    let place = place::caller(lua).map(|place| place.to_string());
    let state = Rc::clone(state);
    Ok(async move {
        let call = guest.syscall_async(call, what, place).await?;
        state.with_belongings(|belongings| belongings.add_call(Arc::clone(&call)));
        Ok(CallHandle(call))
    })
}

/// The result table.
///
/// # Errors
/// Those of Lua's allocator.
pub fn outcome(lua: &Lua, outcome: SyscallOutcome) -> Result<Table, ApiError> {
    let table = lua.create_table()?;
    table.raw_set("ret", outcome.ret)?;
    table.raw_set("result", outcome.ret)?;
    table.raw_set("errno", outcome.errno)?;
    let bufs = lua.create_table()?;
    for buf in outcome.bufs {
        bufs.raw_push(lua.create_string(buf)?)?;
    }
    table.raw_set("out_bufs", bufs)?;
    Ok(table)
}

/// Decodes `(nr, a1..a6)` or `(nr, {args=, bufs=, ptrs=, nested=})`; the call and how messages show it.
fn decode(
    args: &mut Args,
    arch: impl FnOnce() -> Result<String, ApiError>,
) -> Result<(SyscallRequest, String), ApiError> {
    let nr = args.next();
    let (number, what) = match &nr {
        Value::String(name) => {
            let name = name.to_string_lossy();
            (by_name(&name, &arch()?).map_err(|why| args.bad("nr", &why))?, name)
        }
        other => match to_word(other) {
            Ok(number) => (number.cast_signed(), number.cast_signed().to_string()),
            Err(_) => return Err(args.wrong("nr", "the number or name of a system call", other)),
        },
    };
    let mut call = SyscallRequest { number, args: [0; 6], bufs: Vec::new(), ptrs: Vec::new(), nested: Vec::new() };
    if matches!(args.peek(), Value::Table(_)) {
        let options = args.options(&["args", "bufs", "ptrs", "nested"])?;
        call.args = words(args, &options)?;
        call.bufs = buffers(args, &options)?;
        call.ptrs = slots(args, &options, call.bufs.len())?;
        call.nested = nested(args, &options, &call.bufs)?;
        if !args.is_empty() {
            return Err(args.bad("nr", "expected its arguments in the table or behind the number, found both"));
        }
        return Ok((call, what));
    }
    for (index, slot) in call.args.iter_mut().enumerate() {
        *slot = word(args, &format!("a{}", index + 1))?;
    }
    if !args.is_empty() {
        return Err(args.bad("a7", "a system call has at most 6 arguments"));
    }
    Ok((call, what))
}

fn word(args: &mut Args, name: &str) -> Result<u64, ApiError> {
    match args.next() {
        Value::Nil => Ok(0),
        value => as_word(&value).map_err(|why| args.bad(name, &why)),
    }
}

fn as_word(value: &Value) -> Result<u64, String> {
    to_word(value).map_err(|why| match value {
        Value::String(_) => format!("{why}\nhint: bytes are passed in `bufs`, with the argument's place in `ptrs`"),
        _ => why,
    })
}

fn by_name(name: &str, arch: &str) -> Result<i64, String> {
    let (found, names): (Option<i32>, fn() -> Vec<&'static str>) = match arch {
        "aarch64" => (syscalls::aarch64::Sysno::from_str(name).ok().map(|call| call.id()), || {
            syscalls::aarch64::Sysno::iter().map(|call| call.name()).collect()
        }),
        _ => (syscalls::x86_64::Sysno::from_str(name).ok().map(|call| call.id()), || {
            syscalls::x86_64::Sysno::iter().map(|call| call.name()).collect()
        }),
    };
    found.map(i64::from).ok_or_else(|| {
        let hint = match suggest::nearest(name, names()) {
            Some(nearest) => format!("did you mean `{nearest}`?"),
            None => "one that is too new to be known can be called by its number".to_owned(),
        };
        format!("there is no system call `{name}` on {arch}\nhint: {hint}")
    })
}

/// The entries of an array option.
fn list(args: &Args, options: &Options, name: &str, what: &str) -> Result<Vec<Value>, ApiError> {
    let table = match options.value(name)? {
        Value::Nil => return Ok(Vec::new()),
        Value::Table(table) => table,
        other => return Err(args.wrong(name, what, &other)),
    };
    let mut highest = 0;
    for pair in table.pairs::<Value, Value>() {
        match pair?.0 {
            Value::Integer(index) if (1..=1 << 16).contains(&index) => highest = highest.max(index),
            key => return Err(args.bad(name, &format!("expected {what}, found the key {}", short(&key)))),
        }
    }
    let entries = (1..=highest).map(|index| table.get(index)).collect::<mlua::Result<Vec<Value>>>()?;
    Ok(entries)
}

fn words(args: &Args, options: &Options) -> Result<[u64; 6], ApiError> {
    let mut words = [0; 6];
    let values = list(args, options, "args", "an array of numbers")?;
    if values.len() > words.len() {
        return Err(args.bad("args", &format!("a system call has at most 6 arguments, found {}", values.len())));
    }
    for (index, (word, value)) in words.iter_mut().zip(&values).enumerate() {
        if !value.is_nil() {
            *word = as_word(value).map_err(|why| args.bad("args", &format!("entry {}: {why}", index + 1)))?;
        }
    }
    Ok(words)
}

fn buffers(args: &Args, options: &Options) -> Result<Vec<Vec<u8>>, ApiError> {
    let mut bufs = Vec::new();
    for (index, value) in list(args, options, "bufs", "an array of strings")?.into_iter().enumerate() {
        match &value {
            Value::String(bytes) => bufs.push(bytes.as_bytes().to_vec()),
            other => {
                let why = format!("entry {}: expected a string, found {}", index + 1, short(other));
                return Err(args.bad("bufs", &why));
            }
        }
    }
    check_size(args, "bufs", bufs.iter().map(Vec::len).sum())?;
    Ok(bufs)
}

fn check_size(args: &Args, name: &str, bytes: usize) -> Result<(), ApiError> {
    if bytes > LARGEST_BUFFERS {
        let most = LARGEST_BUFFERS / (1024 * 1024);
        return Err(args.bad(name, &format!("expected at most {most} MiB in all, found {bytes} bytes")));
    }
    Ok(())
}

/// `ptrs`: the argument that receives the address of the buffer at the same place; `false` for none.
fn slots(args: &Args, options: &Options, bufs: usize) -> Result<Vec<u8>, ApiError> {
    let mut slots: Vec<u8> = Vec::new();
    let values = list(args, options, "ptrs", "an array of argument slots")?;
    if values.len() > bufs {
        let why = format!("expected at most one for each of the {bufs} `bufs`, found {}", values.len());
        return Err(args.bad("ptrs", &why));
    }
    for (index, value) in values.iter().enumerate() {
        let slot = match value {
            Value::Boolean(false) => NO_SLOT,
            other => to_word(other).ok().filter(|slot| *slot < 6).and_then(|slot| u8::try_from(slot).ok()).ok_or_else(
                || {
                    let why =
                        format!("entry {}: expected an argument's slot from 0 to 5, found {}", index + 1, short(other));
                    args.bad("ptrs", &why)
                },
            )?,
        };
        if slot != NO_SLOT && slots.contains(&slot) {
            return Err(args.bad("ptrs", &format!("entry {}: slot {slot} is given twice", index + 1)));
        }
        slots.push(slot);
    }
    Ok(slots)
}

fn nested(args: &Args, options: &Options, bufs: &[Vec<u8>]) -> Result<Vec<Nested>, ApiError> {
    let what = "an array of {parent=, child=, offset=}";
    let mut all = Vec::new();
    for (index, value) in list(args, options, "nested", what)?.into_iter().enumerate() {
        let Value::Table(entry) = value else { return Err(args.wrong("nested", what, &value)) };
        let entry = Options::checked(args.function(), entry, &["parent", "child", "offset"])?;
        let most = i64::from(u32::MAX);
        let field = |name: &str, otherwise: Option<i64>| -> Result<i64, ApiError> {
            entry
                .integer(name, i64::MIN, i64::MAX)?
                .or(otherwise)
                .ok_or_else(|| args.bad("nested", &format!("entry {}: `{name}` is missing", index + 1)))
        };
        let buffer = |name: &str| -> Result<usize, ApiError> {
            let number = field(name, None)?;
            usize::try_from(number).ok().filter(|number| (1..=bufs.len()).contains(number)).ok_or_else(|| {
                let why = format!(
                    "entry {}: `{name}`: expected a buffer from 1 to {}, found {number}",
                    index + 1,
                    bufs.len()
                );
                args.bad("nested", &why)
            })
        };
        let (parent, child, offset) = (buffer("parent")?, buffer("child")?, field("offset", Some(0))?);
        place_in(offset, bufs[parent - 1].len())
            .map_err(|why| args.bad("nested", &format!("entry {}: `offset`: {why} of buffer {parent}", index + 1)))?;
        let number = |number: i64| u32::try_from(number.clamp(0, most)).unwrap_or(u32::MAX);
        all.push(Nested { parent: number(parent as i64 - 1), child: number(child as i64 - 1), offset: number(offset) });
    }
    Ok(all)
}

/// Whether an address fits at `offset`.
fn place_in(offset: i64, length: usize) -> Result<(), String> {
    let end = usize::try_from(offset).ok().and_then(|offset| offset.checked_add(ADDRESS));
    match end {
        Some(end) if end <= length => Ok(()),
        _ => Err(format!("an address of {ADDRESS} bytes at offset {offset} is outside of the {length} bytes")),
    }
}

/// `ioctl`: makes the call and waits for it.
///
/// # Errors
/// A bad argument, a dead guest.
pub fn ioctl(
    lua: &Lua,
    _: &Rc<FileState>,
    mut args: Args,
) -> Result<impl Future<Output = Result<Table, ApiError>> + use<>, ApiError> {
    let guest = guest(&mut args)?;
    let fd = descriptor(&mut args)?;
    let command = args.word("cmd")?;
    let (argument, length) = match args.next() {
        Value::Nil => (IoctlArgument::Number(0), None),
        Value::String(data) => (IoctlArgument::Data(data.as_bytes().to_vec()), Some(data.as_bytes().len())),
        value => match to_word(&value) {
            Ok(number) => (IoctlArgument::Number(number), None),
            Err(_) => return Err(args.wrong("data", "a string, a number or nil", &value)),
        },
    };
    let options = args.options(&["bufs", "ptr_offsets"])?;
    let bufs = buffers(&args, &options)?;
    check_size(&args, "data", length.unwrap_or_default() + bufs.iter().map(Vec::len).sum::<usize>())?;
    let ptr_offsets = offsets(&args, &options, bufs.len(), length)?;
    let call = IoctlRequest { fd, command, argument, bufs, ptr_offsets };
    let lua = lua.clone();
    Ok(async move {
        let mut result = guest.ioctl(call).await?;
        let data = std::mem::take(&mut result.data);
        let table = outcome(&lua, result)?;
        if length.is_some() {
            table.raw_set("out_data", lua.create_string(data)?)?;
        }
        Ok(table)
    })
}

/// A descriptor: its number, or a File.
fn descriptor(args: &mut Args) -> Result<i32, ApiError> {
    if let Value::Integer(fd) = args.peek() {
        // Also one that can't be open: what the kernel says of it is a result.
        args.next();
        return i32::try_from(fd).map_err(|_| args.bad("fd", &format!("expected a descriptor, found {fd}")));
    }
    match fd_or_file(args)? {
        FdOrFile::Fd(fd) => Ok(fd),
        FdOrFile::File(file) => match file.fd() {
            0 => Err(args.bad("fd", &format!("`{}`: file is closed", file.path()))),
            fd => Ok(fd),
        },
    }
}

fn offsets(args: &Args, options: &Options, bufs: usize, length: Option<usize>) -> Result<Vec<u32>, ApiError> {
    let name = "ptr_offsets";
    let values = list(args, options, name, "an array of offsets in `data`")?;
    if values.len() > bufs {
        return Err(
            args.bad(name, &format!("expected at most one for each of the {bufs} `bufs`, found {}", values.len()))
        );
    }
    let mut offsets = Vec::new();
    for (index, value) in values.iter().enumerate() {
        let Value::Integer(offset) = value else {
            return Err(args.bad(name, &format!("entry {}: expected an offset, found {}", index + 1, short(value))));
        };
        place_in(*offset, length.unwrap_or_default())
            .map_err(|why| args.bad(name, &format!("entry {}: {why} of `data`", index + 1)))?;
        offsets.push(u32::try_from(*offset).unwrap_or(u32::MAX));
    }
    Ok(offsets)
}

/// `read_mem`: bytes of the agent's memory, or nil and errno.
///
/// # Errors
/// A bad argument, a dead guest.
pub fn read_mem(
    lua: &Lua,
    _: &Rc<FileState>,
    mut args: Args,
) -> Result<impl Future<Output = Result<MultiValue, ApiError>> + use<>, ApiError> {
    let (guest, address, count) = memory(&mut args)?;
    let lua = lua.clone();
    Ok(async move {
        Ok(match guest.read_mem(address, count).await? {
            Ok(bytes) => MultiValue::from_iter([Value::String(lua.create_string(bytes)?)]),
            Err(errno) => MultiValue::from_iter([Value::Nil, Value::Integer(errno.into())]),
        })
    })
}

/// `read_mem` in a batch, where a fault is the entry's error.
///
/// # Errors
/// A bad argument; a fault, a dead guest.
pub fn read_mem_or_fail(
    lua: &Lua,
    _: &Rc<FileState>,
    mut args: Args,
) -> Result<impl Future<Output = Result<mlua::LuaString, ApiError>> + use<>, ApiError> {
    let (guest, address, count) = memory(&mut args)?;
    let lua = lua.clone();
    Ok(async move {
        match guest.read_mem(address, count).await? {
            Ok(bytes) => Ok(lua.create_string(bytes)?),
            Err(errno) => {
                let (name, text) = (errno_name(errno), errno_text(errno));
                Err(ApiError::new(format!("vm `{}`: read_mem: `{address:#x}`: {name} ({text})", guest.name())))
            }
        }
    })
}

/// Decodes `(addr, n)`.
fn memory(args: &mut Args) -> Result<(Guest, u64, u64), ApiError> {
    let guest = guest(args)?;
    let address = args.word("addr")?;
    let count = args.next();
    match &count {
        Value::Integer(number) if u64::try_from(*number).is_ok_and(|number| number <= LARGEST_READ) => {
            Ok((guest, address, number.unsigned_abs()))
        }
        other => {
            let expected = format!("a number of bytes up to {} MiB", LARGEST_READ / (1024 * 1024));
            Err(args.wrong("n", &expected, other))
        }
    }
}
