//! The guest's consoles.

use std::cell::Cell;
use std::sync::Arc;

use mlua::{Lua, MetaMethod, MultiValue, UserData, UserDataFields, UserDataMethods};

use super::args::Args;
use super::error::ApiError;
use super::register::{Class, class};
use super::stream::{StreamHandle, matcher};
use crate::foundation::suggest;
use crate::testbed::{ConsolePort, Vm};

/// Registry key of the class.
const CLASS: &str = "provium.Console";

/// A console as Lua holds it.
pub struct ConsoleHandle {
    vm: Arc<Vm>,
    /// None where none was named: the one that the guest uses.
    port: Option<ConsolePort>,
    closed: Cell<bool>,
}

impl ConsoleHandle {
    /// The console `name` of `vm`; the serial port when no name is given, or `hvc0` where the guest has no serial port.
    ///
    /// # Errors
    /// An unknown name.
    pub fn open(vm: Arc<Vm>, name: Option<&str>) -> Result<Self, ApiError> {
        let port = match name {
            None => None,
            Some("ttyS0" | "ttyAMA0") => Some(ConsolePort::Serial),
            Some("hvc0") => Some(ConsolePort::Virtio),
            Some(other) => {
                let hint =
                    suggest::nearest(other, ["ttyS0", "hvc0"]).map(|name| format!("\nhint: did you mean `{name}`?"));
                return Err(ApiError::new(format!(
                    "vm:console: unknown console `{other}`, expected `ttyS0` or `hvc0`{}",
                    hint.unwrap_or_default()
                )));
            }
        };
        Ok(Self { vm, port, closed: Cell::new(false) })
    }
}

impl UserData for ConsoleHandle {
    fn add_fields<F: UserDataFields<Self>>(fields: &mut F) {
        fields.add_meta_field_with(MetaMethod::Index.name(), |lua| class(lua, CLASS));
        fields.add_meta_field("__name", "Console");
    }

    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_meta_method(MetaMethod::ToString, |_, this, ()| {
            Ok(match this.port {
                None => format!("console of vm `{}`", this.vm.name()),
                Some(port) => format!("console `{}` of vm `{}`", port.name(), this.vm.name()),
            })
        });
    }
}

/// The VM and the port of the console a method was called on.
fn this(args: &mut Args) -> Result<(Arc<Vm>, Option<ConsolePort>), ApiError> {
    let this = args.this::<ConsoleHandle>()?;
    if this.closed.get() {
        let name = this.vm.name();
        return Err(ApiError::new(format!("vm `{name}`: {}: the console handle is closed", args.function())));
    }
    Ok((Arc::clone(&this.vm), this.port))
}

/// Makes the class known to a Lua state.
///
/// # Errors
/// Those of Lua's allocator.
pub fn install(lua: &Lua) -> mlua::Result<()> {
    Class::new(lua)?
        .method("console:read_log", |lua, _, mut args| {
            let (vm, port) = this(&mut args)?;
            Ok(lua.create_string(vm.console_read_log(port)?)?)
        })?
        .method("console:read", |lua, _, mut args| {
            let (vm, port) = this(&mut args)?;
            let (stream, port) = vm.console_listen(port)?;
            Ok(StreamHandle::new(lua, &vm, stream, format!("console `{}`", port.name())))
        })?
        .waits("console:expect", |lua, _, mut args| {
            let (vm, port) = this(&mut args)?;
            let pattern = args.next();
            let function = args.function();
            let make = || matcher(lua, &mut Args::new(function, MultiValue::from_iter([pattern.clone()])));
            let ((first, shown), (second, _)) = (make()?, make()?);
            let timeout = args.duration_opt("timeout")?;
            Ok(async move { Ok(vm.console_expect(port, timeout, &shown, [first, second]).await?) })
        })?
        .waits("console:write", |_, _, mut args| {
            let (vm, port) = this(&mut args)?;
            let bytes = args.bytes("s")?;
            let timeout = args.options(&["timeout"])?.duration("timeout")?;
            Ok(async move { Ok(vm.console_write(port, &bytes, timeout).await?) })
        })?
        .method("console:close", |_, _, mut args| {
            args.this::<ConsoleHandle>()?.closed.set(true);
            Ok(())
        })?
        .store(CLASS)
}
