//! The VM's disks, and its power.

use std::sync::Arc;

use mlua::Value;

use super::disk::{DiskHandle, chance};
use super::disk_options::disk;
use super::register::Class;
use super::vm::{VmHandle, borrow};
use crate::testbed::DiskOptions;

/// The methods of this file.
///
/// # Errors
/// Those of Lua's allocator.
pub fn methods(class: Class<'_>) -> mlua::Result<Class<'_>> {
    class
        .waits("vm:attach_disk", |lua, state, mut args| {
            let vm = Arc::clone(&args.this::<VmHandle>()?.0);
            let options = match args.next() {
                Value::Nil => DiskOptions::default(),
                Value::Table(table) => disk(lua, state, args.function(), table)?,
                other => return Err(args.wrong("options", "a table", &other)),
            };
            Ok(async move {
                let disk = vm.attach_disk(options).await?;
                Ok(DiskHandle::new(vm, disk))
            })
        })?
        .waits("vm:disk", |_, _, mut args| {
            let vm = Arc::clone(&args.this::<VmHandle>()?.0);
            let id = args.text("id")?;
            Ok(async move {
                let disk = vm.disk(&id).await?;
                Ok(DiskHandle::new(vm, disk))
            })
        })?
        .waits("vm:power_cut", |_, _, mut args| {
            let object = args.next();
            let vm = borrow(&args, &object)?;
            let chance = chance(&mut args, None)?;
            Ok(async move {
                vm.power_cut(chance).await?;
                Ok(object)
            })
        })
}
