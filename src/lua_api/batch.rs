//! `vm:batch(fn)`: operations that are recorded, then sent all at once and done in order.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use mlua::{IntoLuaMulti, Lua, MetaMethod, MultiValue, Table, UserData, UserDataFields, Value};

use super::args::Args;
use super::error::ApiError;
use super::file_state::FileState;
use super::guest_object::guest;
use super::register::{Class, class, step, waiting};
use super::vm::VmHandle;
use super::{syscalls, vm_files, vm_run};
use crate::testbed::{Guest, Turn};

/// Registry key of the class.
const CLASS: &str = "provium.Batch";

/// An operation that is not begun.
type Recorded = Pin<Box<dyn Future<Output = Result<MultiValue, ApiError>>>>;

/// A batch as Lua holds it.
pub struct BatchHandle {
    guest: Guest,
    turns: RefCell<Box<dyn FnMut() -> Turn>>,
    operations: RefCell<Vec<Recorded>>,
    over: Cell<bool>,
}

impl BatchHandle {
    /// The guest in which the next operation is done, in its turn.
    ///
    /// # Errors
    /// When the batch is over.
    pub fn next_guest(&self, args: &Args) -> Result<Guest, ApiError> {
        if self.over.get() {
            let message = "the batch is over\nhint: operations are recorded inside the function that `vm:batch` calls";
            return Err(ApiError::new(format!("{}: {message}", args.function())));
        }
        Ok(self.guest.in_turn((self.turns.borrow_mut())()))
    }
}

impl UserData for BatchHandle {
    fn add_fields<F: UserDataFields<Self>>(fields: &mut F) {
        fields.add_meta_field_with(MetaMethod::Index.name(), |lua| class(lua, CLASS));
        fields.add_meta_field("__name", "Batch");
    }
}

/// What `vm:batch` is made of in the prelude.
///
/// # Errors
/// Those of Lua's allocator.
pub fn natives(lua: &Lua, natives: &Table) -> mlua::Result<()> {
    let begin = step(lua, "vm:batch", |_, _, mut args| {
        let guest = args.this::<VmHandle>()?.guest();
        args.callable("fn")?;
        let turns = RefCell::new(Box::new(Turn::sequence()) as Box<dyn FnMut() -> Turn>);
        Ok(BatchHandle { guest, turns, operations: RefCell::default(), over: Cell::new(false) })
    })?;
    natives.raw_set("batch_begin", begin)?;
    let run = waiting(lua, "vm:batch", |lua, _, mut args| {
        let batch = args.this::<BatchHandle>()?;
        batch.over.set(true);
        let operations: Vec<Recorded> = batch.operations.take();
        let lua = lua.clone();
        Ok(async move {
            let results = All::new(operations).await;
            let list = lua.create_table()?;
            for result in results {
                let entry = lua.create_table()?;
                match result {
                    Ok(values) => {
                        let value = values.into_iter().next().unwrap_or(Value::Nil);
                        entry.raw_set("ok", if value.is_nil() { Value::Boolean(true) } else { value })?;
                    }
                    Err(ApiError::Message(message)) => entry.raw_set("err", message)?,
                    Err(other) => return Err(other),
                }
                list.raw_push(entry)?;
            }
            Ok(list)
        })
    })?;
    natives.raw_set("batch_run", run)
}

/// All operations, begun in their order; each waits for its turn to send, and for its own answer.
struct All {
    operations: Vec<Option<Recorded>>,
    results: Vec<Option<Result<MultiValue, ApiError>>>,
    left: usize,
}

impl All {
    fn new(operations: Vec<Recorded>) -> Self {
        let left = operations.len();
        let results = operations.iter().map(|_| None).collect();
        Self { operations: operations.into_iter().map(Some).collect(), results, left }
    }
}

impl Future for All {
    type Output = Vec<Result<MultiValue, ApiError>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        for (operation, result) in this.operations.iter_mut().zip(&mut this.results) {
            if let Some(future) = operation
                && let Poll::Ready(value) = future.as_mut().poll(context)
            {
                // Dropped at once: that may be what the next one waits for.
                *operation = None;
                *result = Some(value);
                this.left -= 1;
            }
        }
        match this.left {
            0 => Poll::Ready(this.results.drain(..).flatten().collect()),
            _ => Poll::Pending,
        }
    }
}

/// Adds a method that records what `body`, the method of a VM, would do. It returns the place of its result.
fn records<'lua, R, F>(
    class: Class<'lua>,
    name: &'static str,
    body: impl Fn(&Lua, &Rc<FileState>, Args) -> Result<F, ApiError> + 'static,
) -> mlua::Result<Class<'lua>>
where
    R: IntoLuaMulti,
    F: Future<Output = Result<R, ApiError>> + 'static,
{
    class.method(name, move |lua, state, args| {
        let object = args.peek();
        let future = body(lua, state, args)?;
        let batch = Args::new(name, MultiValue::from_iter([object])).this::<BatchHandle>()?;
        let lua = lua.clone();
        let mut operations = batch.operations.borrow_mut();
        operations.push(Box::pin(async move { Ok(future.await?.into_lua_multi(&lua)?) }));
        Ok(operations.len())
    })
}

/// Makes the class known to a Lua state.
///
/// # Errors
/// Those of Lua's allocator.
pub fn install(lua: &Lua) -> mlua::Result<()> {
    let class = Class::new(lua)?;
    let class = records(class, "batch:run", vm_run::run)?;
    let class =
        records(class, "batch:read_file", |lua, _, mut args| vm_files::read_file(lua, guest(&mut args)?, args))?;
    let class = records(class, "batch:write_file", |_, _, mut args| vm_files::write_file(guest(&mut args)?, args))?;
    let class = records(class, "batch:stat", |lua, _, mut args| vm_files::stat(lua, guest(&mut args)?, args, true))?;
    let class = records(class, "batch:lstat", |lua, _, mut args| vm_files::stat(lua, guest(&mut args)?, args, false))?;
    let class = records(class, "batch:exists", |_, _, mut args| vm_files::exists(guest(&mut args)?, args))?;
    let class = records(class, "batch:listdir", |lua, _, mut args| vm_files::listdir(lua, guest(&mut args)?, args))?;
    let class = records(class, "batch:mkdir", |_, _, mut args| vm_files::mkdir(guest(&mut args)?, args))?;
    let class = records(class, "batch:unlink", |_, _, mut args| vm_files::unlink(guest(&mut args)?, args))?;
    let class = records(class, "batch:rename", |_, _, mut args| vm_files::rename(guest(&mut args)?, args))?;
    let class = records(class, "batch:syscall", syscalls::syscall)?;
    let class = records(class, "batch:ioctl", syscalls::ioctl)?;
    let class = records(class, "batch:read_mem", syscalls::read_mem_or_fail)?;
    class.store(CLASS)
}
