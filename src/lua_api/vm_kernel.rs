//! `vm:load_module`, `vm:unload_module`.

use super::register::Class;
use super::vm::VmHandle;

/// Adds the methods.
///
/// # Errors
/// Those of Lua's allocator.
pub fn methods(class: Class<'_>) -> mlua::Result<Class<'_>> {
    class
        .waits("vm:load_module", |_, _, mut args| {
            let guest = args.this::<VmHandle>()?.guest();
            let name = args.text("module")?;
            let params = args.text_opt("params")?.unwrap_or_default();
            Ok(async move { Ok(guest.load_profile_module(&name, &params).await?) })
        })?
        .waits("vm:unload_module", |_, _, mut args| {
            let guest = args.this::<VmHandle>()?.guest();
            let name = args.text("name")?;
            Ok(async move { Ok(guest.unload_module(&name).await?) })
        })
}
