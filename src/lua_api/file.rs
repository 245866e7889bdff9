//! A file that is open in a guest.

use std::sync::Arc;

use mlua::{Lua, MetaMethod, UserData, UserDataFields, UserDataMethods, Value};

use super::args::Args;
use super::error::ApiError;
use super::place;
use super::register::{Class, class};
use super::stream::StreamHandle;
use crate::agent_protocol::Whence;
use crate::foundation::suggest;
use crate::testbed::OpenFile;

/// Registry key of the class.
const CLASS: &str = "provium.File";
/// What an offset counts from.
const WHENCE: [(&str, Whence); 3] = [("set", Whence::Set), ("cur", Whence::Current), ("end", Whence::End)];

/// A File as Lua holds it; when nothing refers to it any more it is closed in the guest as well.
pub struct FileHandle(Arc<OpenFile>);

impl FileHandle {
    /// A file just opened.
    pub fn new(file: OpenFile) -> Self {
        Self(Arc::new(file))
    }

    /// The file.
    pub fn file(&self) -> Arc<OpenFile> {
        Arc::clone(&self.0)
    }
}

impl UserData for FileHandle {
    fn add_fields<F: UserDataFields<Self>>(fields: &mut F) {
        fields.add_meta_field_with(MetaMethod::Index.name(), |lua| class(lua, CLASS));
        // `local f <close> = vm:open_file(…)`.
        fields
            .add_meta_field_with(MetaMethod::Close.name(), |lua| class(lua, CLASS)?.raw_get::<mlua::Function>("close"));
        fields.add_meta_field("__name", "File");
    }

    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_meta_method(MetaMethod::ToString, |_, this, ()| {
            Ok(format!("file `{}` of vm `{}`", this.0.path(), this.0.guest().name()))
        });
    }
}

/// Makes the class known to a Lua state.
///
/// # Errors
/// Those of Lua's allocator.
pub fn install(lua: &Lua) -> mlua::Result<()> {
    let class = content(Class::new(lua)?)?;
    let class = offsets(class)?;
    class
        .waits("file:sync", |_, _, mut args| {
            let file = args.this::<FileHandle>()?.file();
            Ok(async move { Ok(file.sync().await?) })
        })?
        .waits("file:close", |_, _, mut args| {
            let file = args.this::<FileHandle>()?.file();
            Ok(async move { Ok(file.close().await?) })
        })?
        .method("file:fd", |_, _, mut args| Ok(args.this::<FileHandle>()?.0.fd()))?
        .waits("file:tail_stream", |lua, _, mut args| {
            let file = args.this::<FileHandle>()?.file();
            let place = place::caller(lua);
            Ok(async move {
                let stream = file.tail().await?;
                let what = format!("tail of `{}`", file.path());
                Ok(StreamHandle::opened_at(place, file.guest().vm(), stream, what))
            })
        })?
        .store(CLASS)
}

fn content(class: Class<'_>) -> mlua::Result<Class<'_>> {
    class
        .waits("file:read", |lua, _, mut args| {
            let file = args.this::<FileHandle>()?.file();
            let count = args.size("n")?;
            let lua = lua.clone();
            Ok(async move { Ok(lua.create_string(file.read(Some(count)).await?)?) })
        })?
        .waits("file:read_all", |lua, _, mut args| {
            let file = args.this::<FileHandle>()?.file();
            let lua = lua.clone();
            Ok(async move { Ok(lua.create_string(file.read(None).await?)?) })
        })?
        .waits("file:write", |_, _, mut args| {
            let file = args.this::<FileHandle>()?.file();
            let data = args.bytes("data")?;
            Ok(async move { Ok(file.write(&data).await?) })
        })
}

fn offsets(class: Class<'_>) -> mlua::Result<Class<'_>> {
    class
        .waits("file:seek", |_, _, mut args| {
            let file = args.this::<FileHandle>()?.file();
            let offset = offset(&mut args)?;
            let whence = whence(&mut args)?;
            Ok(async move { Ok(file.seek("seek", offset, whence).await?) })
        })?
        .waits("file:tell", |_, _, mut args| {
            let file = args.this::<FileHandle>()?.file();
            Ok(async move { Ok(file.seek("tell", 0, Whence::Current).await?) })
        })?
        .waits("file:truncate", |_, _, mut args| {
            let file = args.this::<FileHandle>()?.file();
            let length = args.size("n")?;
            Ok(async move { Ok(file.truncate(length).await?) })
        })
}

fn offset(args: &mut Args) -> Result<i64, ApiError> {
    let value = args.next();
    match &value {
        Value::Integer(offset) => Ok(*offset),
        // Exact below 2^53, as is every whole number that Lua's `/` gives.
        Value::Number(number) if number.fract() == 0.0 && number.abs() < 9e15 => Ok(*number as i64),
        other => Err(args.wrong("off", "a whole number", other)),
    }
}

fn whence(args: &mut Args) -> Result<Whence, ApiError> {
    let Some(word) = args.text_opt("whence")? else { return Ok(Whence::Set) };
    if let Some((_, whence)) = WHENCE.iter().find(|(known, _)| *known == word) {
        return Ok(*whence);
    }
    let names = WHENCE.map(|(name, _)| name);
    let hint = suggest::nearest(&word, names.iter()).map(|name| format!("\nhint: did you mean `{name}`?"));
    Err(args.bad("whence", &format!("expected `set`, `cur` or `end`, found `{word}`{}", hint.unwrap_or_default())))
}
