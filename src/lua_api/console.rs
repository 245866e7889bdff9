//! The guest's consoles.

use std::sync::Arc;

use mlua::{Lua, MetaMethod, UserData, UserDataFields};

use super::error::ApiError;
use super::register::{Class, class};
use crate::foundation::suggest;
use crate::testbed::{ConsolePort, Vm};

/// Registry key of the class.
const CLASS: &str = "provium.Console";

/// A console as Lua holds it.
pub struct ConsoleHandle {
    vm: Arc<Vm>,
    port: ConsolePort,
}

impl ConsoleHandle {
    /// The console `name` of `vm`; the serial port when no name is given.
    ///
    /// # Errors
    /// An unknown name.
    pub fn open(vm: Arc<Vm>, name: Option<&str>) -> Result<Self, ApiError> {
        let port = match name {
            None | Some("ttyS0" | "ttyAMA0") => ConsolePort::Serial,
            Some("hvc0") => ConsolePort::Virtio,
            Some(other) => {
                let hint =
                    suggest::nearest(other, ["ttyS0", "hvc0"]).map(|name| format!("\nhint: did you mean `{name}`?"));
                return Err(ApiError::new(format!(
                    "vm:console: unknown console `{other}`, expected `ttyS0` or `hvc0`{}",
                    hint.unwrap_or_default()
                )));
            }
        };
        Ok(Self { vm, port })
    }
}

impl UserData for ConsoleHandle {
    fn add_fields<F: UserDataFields<Self>>(fields: &mut F) {
        fields.add_meta_field_with(MetaMethod::Index.name(), |lua| class(lua, CLASS));
        fields.add_meta_field("__name", "Console");
    }
}

/// Makes the class known to a Lua state.
///
/// # Errors
/// Those of Lua's allocator.
pub fn install(lua: &Lua) -> mlua::Result<()> {
    Class::new(lua)?
        .method("console:read_log", |lua, _, mut args| {
            let this = args.this::<ConsoleHandle>()?;
            Ok(lua.create_string(this.vm.console_log(this.port)?)?)
        })?
        .store(CLASS)
}
