//! What a disk holds, or would hold after a power cut.

use std::path::PathBuf;
use std::sync::Arc;

use mlua::{Lua, MetaMethod, UserData, UserDataFields, UserDataMethods, Value};

use super::args::Args;
use super::error::ApiError;
use super::place;
use super::register::{Class, class};
use crate::testbed::{Content, SECTOR};

/// Registry key of the class.
const CLASS: &str = "provium.DiskState";

/// A state as Lua holds it.
pub struct DiskStateHandle {
    /// What it holds.
    pub content: Arc<Content>,
    /// How many writes and flushes had happened, where it comes from a recording.
    pub point: Option<usize>,
}

impl UserData for DiskStateHandle {
    fn add_fields<F: UserDataFields<Self>>(fields: &mut F) {
        fields.add_meta_field_with(MetaMethod::Index.name(), |lua| class(lua, CLASS));
        fields.add_meta_field("__name", "DiskState");
    }

    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_meta_method(MetaMethod::ToString, |_, this, ()| {
            Ok(match this.point {
                None => format!("state of a disk of {} sectors", this.content.sectors()),
                Some(point) => {
                    format!("state of a disk after a power cut {point} writes and flushes into the recording")
                }
            })
        });
    }
}

/// A number of sectors, or the first of them.
///
/// # Errors
/// It is something else.
pub fn sector(args: &mut Args, name: &str, least: i64) -> Result<u64, ApiError> {
    match args.next() {
        Value::Integer(number) if number >= least => Ok(u64::try_from(number).unwrap_or_default()),
        Value::Number(number) if number.fract() == 0.0 && (least as f64..9e15).contains(&number) => Ok(number as u64),
        other => Err(args.wrong(name, &format!("a whole number, at least {least}"), &other)),
    }
}

/// The most that is read at once, in sectors: 256 MiB.
pub const MOST_SECTORS: u64 = 1 << 19;

/// Makes the class known to a Lua state.
///
/// # Errors
/// Those of Lua's allocator.
pub fn install(lua: &Lua) -> mlua::Result<()> {
    let refused = |error: crate::testbed::DiskError, method: &str| ApiError::new(format!("state:{method}: {error}"));
    Class::new(lua)?
        .method("state:size", |_, _, mut args| Ok(args.this::<DiskStateHandle>()?.content.sectors() * SECTOR))?
        .method("state:point", |_, _, mut args| Ok(args.this::<DiskStateHandle>()?.point))?
        .method("state:read_sectors", move |lua, _, mut args| {
            let content = Arc::clone(&args.this::<DiskStateHandle>()?.content);
            let (first, count) = (sector(&mut args, "first", 0)?, sector(&mut args, "n", 1)?);
            if count > MOST_SECTORS {
                return Err(args.bad("n", &format!("expected {MOST_SECTORS} sectors at most, found {count}")));
            }
            let bytes = content.read(first, count).map_err(|error| refused(error, "read_sectors"))?;
            Ok(lua.create_string(bytes)?)
        })?
        .waits("state:save", move |lua, state, mut args| {
            let content = Arc::clone(&args.this::<DiskStateHandle>()?.content);
            let path: PathBuf = match args.text("path")? {
                path if path.is_empty() => return Err(args.bad("path", "expected a path, found an empty string")),
                path => place::host_path(lua, state, &path),
            };
            let bed = state.bed.clone();
            Ok(async move {
                let shown = path.display().to_string();
                let saved = bed.blocking(move || content.save(&path)).await;
                saved
                    .map_err(|why| ApiError::new(format!("state:save: {why}")))?
                    .map_err(|error| refused(error, "save"))?;
                Ok(shown)
            })
        })?
        .store(CLASS)
}
