//! System calls under way in a guest.

use std::sync::Arc;

use mlua::{Lua, MetaMethod, UserData, UserDataFields};

use super::register::{Class, class};
use super::syscalls::outcome;
use crate::testbed::Call;

/// Registry key of the class.
const CLASS: &str = "provium.Call";

/// A call as Lua holds it. It goes on when Lua drops it, until its scope ends.
pub struct CallHandle(pub Arc<Call>);

impl UserData for CallHandle {
    fn add_fields<F: UserDataFields<Self>>(fields: &mut F) {
        fields.add_meta_field_with(MetaMethod::Index.name(), |lua| class(lua, CLASS));
        fields.add_meta_field("__name", "Call");
    }
}

/// Makes the class known to a Lua state.
///
/// # Errors
/// Those of Lua's allocator.
pub fn install(lua: &Lua) -> mlua::Result<()> {
    Class::new(lua)?
        .waits("call:await", |lua, _, mut args| {
            let call = Arc::clone(&args.this::<CallHandle>()?.0);
            let timeout = args.duration_opt("timeout")?;
            let lua = lua.clone();
            Ok(async move { outcome(&lua, call.wait(timeout).await?) })
        })?
        .store(CLASS)
}
