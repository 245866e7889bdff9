//! Options of disks, as `vm:attach_disk` and the option `disks` take them.

use std::sync::Arc;

use mlua::{Lua, Table, Value};

use super::args::{Args, Options};
use super::disk_state::DiskStateHandle;
use super::error::ApiError;
use super::file_state::FileState;
use super::place;
use super::render::{quote, short};
use crate::testbed::{Bus, Cache, ContentOption, DiskOptions, DiskSource, Format, LARGEST_SIZE, files_of_image};

/// All keys.
const KEYS: &[&str] = &[
    "id",
    "size",
    "image",
    "format",
    "readonly",
    "serial",
    "bus",
    "cache",
    "write_through",
    "scratch",
    "template",
    "path",
    "mediated",
];
/// What names a source.
const SOURCES: [&str; 4] = ["scratch", "image", "template", "path"];
/// The longest id of a disk whose serial number is another, in bytes.
const LONGEST_ID: usize = 64;

/// The disk of one table.
///
/// # Errors
/// An unknown key, a bad value, more than one source.
pub fn disk(lua: &Lua, state: &FileState, function: &'static str, table: Table) -> Result<DiskOptions, ApiError> {
    let options = Options::checked(function, table, KEYS)?;
    let bad = |key: &str, why: String| ApiError::new(format!("{function}: option `{key}`: {why}"));
    let given = given(&options)?;
    if let [first, second, ..] = given[..] {
        return Err(bad(second, format!("a disk has one source, and `{first}` is another")));
    }
    options.flag("mediated")?;
    let bus = choice(&options, function, "bus", &Bus::NAMES, Bus::parse)?.unwrap_or_default();
    let serial = name(&options, function, "serial", bus.longest_serial())?;
    let longest = if serial.is_some() { LONGEST_ID } else { bus.longest_serial() };
    let id = name(&options, function, "id", longest)?;
    let readonly = options.flag("readonly")?.unwrap_or_default();
    let write_through = options.flag("write_through")?;
    let source = match given.first() {
        None | Some(&"scratch") if write_through == Some(true) => {
            return Err(bad("write_through", "it needs an `image` that is written".to_owned()));
        }
        None | Some(&"scratch") => DiskSource::Blank,
        Some(key) => {
            let through = write_through.unwrap_or(*key == "path");
            image(lua, state, &options, function, key, through)?
        }
    };
    Ok(DiskOptions {
        id,
        serial,
        source,
        size: match size(&options, function, "size")? {
            None => size(&options, function, "scratch")?,
            size => size,
        },
        format: choice(&options, function, "format", &Format::NAMES, Format::parse)?,
        readonly,
        bus,
        cache: choice(&options, function, "cache", &Cache::NAMES, Cache::parse)?.unwrap_or_default(),
    })
}

/// The disks of the option `disks`.
///
/// # Errors
/// As `disk`; one without a source.
pub fn disks(lua: &Lua, state: &FileState, args: &Args, value: Value) -> Result<Option<Vec<DiskOptions>>, ApiError> {
    let list = match value {
        Value::Nil => return Ok(None),
        Value::Table(list) => list,
        other => return Err(args.wrong("disks", "an array of tables", &other)),
    };
    let mut disks = Vec::new();
    let mut entries = 0;
    for entry in list.sequence_values::<Value>() {
        let table = match entry? {
            Value::Table(table) => table,
            other => return Err(args.wrong("disks", "an array of tables", &other)),
        };
        let has_source = ["size"].iter().chain(&SOURCES).any(|key| table.contains_key(*key).unwrap_or_default());
        // A key that is not known tells more than what it was meant for.
        let disk = disk(lua, state, args.function(), table)?;
        if !has_source {
            let why = "each disk has exactly one source: `scratch` (or `size`), `template` (or `image`), or `path`";
            return Err(args.bad("disks", &format!("entry {}: {why}", disks.len() + 1)));
        }
        disks.push(disk);
        entries += 1;
    }
    if list.pairs::<Value, Value>().count() != entries {
        return Err(args.bad("disks", "expected an array of tables, found other keys in it"));
    }
    Ok(Some(disks))
}

/// The sources that are named.
fn given(options: &Options) -> Result<Vec<&'static str>, ApiError> {
    let mut given = Vec::new();
    for key in SOURCES {
        if !options.value(key)?.is_nil() {
            given.push(key);
        }
    }
    Ok(given)
}

fn image(
    lua: &Lua,
    state: &FileState,
    options: &Options,
    function: &str,
    key: &str,
    write_through: bool,
) -> Result<DiskSource, ApiError> {
    let bad = |why: String| ApiError::new(format!("{function}: option `{key}`: {why}"));
    match options.value(key)? {
        Value::String(path) if path.as_bytes().is_empty() => {
            Err(bad("expected a path, found an empty string".to_owned()))
        }
        Value::String(path) => {
            let path = path.to_str().map_err(|_| bad("expected a path in UTF-8".to_owned()))?;
            let path = place::host_path(lua, state, &path);
            if !write_through {
                // One that guests write to is another one after each.
                // A qcow2 image is nothing without those behind it.
                files_of_image(&path).iter().for_each(|file| state.depend_on(file));
            }
            Ok(DiskSource::Image { path, write_through })
        }
        value => match value.as_userdata().and_then(|object| object.borrow::<DiskStateHandle>().ok()) {
            Some(_) if write_through => Err(bad("a state of a disk can't be written through".to_owned())),
            Some(handle) => Ok(DiskSource::Content(ContentOption(Arc::clone(&handle.content)))),
            None => Err(bad(format!("expected a path or a state of a disk, found {}", short(&value)))),
        },
    }
}

fn name(options: &Options, function: &str, key: &str, longest: usize) -> Result<Option<String>, ApiError> {
    let Some(text) = options.text(key)? else { return Ok(None) };
    if text.is_empty() || text.bytes().any(|byte| !byte.is_ascii_graphic()) {
        let why = format!("expected printable ASCII characters without blanks, found {}", quote(text.as_bytes()));
        return Err(ApiError::new(format!("{function}: option `{key}`: {why}")));
    }
    if text.len() > longest {
        let why = format!(
            "expected {longest} bytes at most, since it is the disk's serial number, found `{text}` ({} bytes)",
            text.len()
        );
        return Err(ApiError::new(format!("{function}: option `{key}`: {why}")));
    }
    Ok(Some(text))
}

fn size(options: &Options, function: &str, key: &str) -> Result<Option<u64>, ApiError> {
    let Some(bytes) = options.size(key)? else { return Ok(None) };
    if bytes == 0 || !bytes.is_multiple_of(512) || bytes > LARGEST_SIZE {
        let found = short(&options.value(key)?);
        let why = format!("expected whole sectors of 512 bytes, at least one and 1024T at most, found {found}");
        return Err(ApiError::new(format!("{function}: option `{key}`: {why}")));
    }
    Ok(Some(bytes))
}

fn choice<T>(
    options: &Options,
    function: &str,
    key: &str,
    names: &[&str],
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, ApiError> {
    let Some(text) = options.text(key)? else { return Ok(None) };
    parse(&text).map(Some).ok_or_else(|| {
        let names: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
        ApiError::new(format!(
            "{function}: option `{key}`: expected {}, found {}",
            names.join(" or "),
            quote(text.as_bytes())
        ))
    })
}
