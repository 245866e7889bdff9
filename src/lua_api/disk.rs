//! A VM's disks.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

use mlua::{Function, Lua, MetaMethod, UserData, UserDataFields, UserDataMethods, Value};

use super::args::{Args, Options};
use super::disk_state::{DiskStateHandle, MOST_SECTORS, sector};
use super::error::ApiError;
use super::register::{Class, class, function};
use super::render::short;
use crate::foundation::suggest;
use crate::testbed::{AttachedDisk, Chance, DiskError, Exploration, Explorer, Fault, Mode, Order, SECTOR, Vm};

/// Registry key of the class.
const CLASS: &str = "provium.Disk";
/// Registry key of the iterator of `crash_states`.
const NEXT_STATE: &str = "provium.Disk.crash_states";
/// How many states are sampled, and how many are tried one by one at most, where nothing else is said.
const SAMPLES: u64 = 100;
const LIMIT: u64 = 10_000;

/// A disk as Lua holds it.
pub struct DiskHandle {
    vm: Arc<Vm>,
    disk: Arc<AttachedDisk>,
}

impl DiskHandle {
    /// `disk` of `vm`.
    pub fn new(vm: Arc<Vm>, disk: Arc<AttachedDisk>) -> Self {
        Self { vm, disk }
    }

    fn parts(args: &mut Args) -> Result<(Arc<Vm>, Arc<AttachedDisk>), ApiError> {
        let this = args.this::<Self>()?;
        Ok((Arc::clone(&this.vm), Arc::clone(&this.disk)))
    }
}

impl UserData for DiskHandle {
    fn add_fields<F: UserDataFields<Self>>(fields: &mut F) {
        fields.add_meta_field_with(MetaMethod::Index.name(), |lua| class(lua, CLASS));
        fields.add_meta_field("__name", "Disk");
    }

    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_meta_method(MetaMethod::ToString, |_, this, ()| {
            Ok(format!("disk `{}` of vm `{}`", this.disk.id(), this.vm.name()))
        });
        methods.add_meta_method(MetaMethod::Eq, |_, this, other: Value| {
            let other = other.as_userdata().and_then(|other| other.borrow::<Self>().ok());
            Ok(other.is_some_and(|other| Arc::ptr_eq(&this.disk, &other.disk)))
        });
    }
}

/// The states of a recording as Lua iterates over them.
struct StatesHandle {
    explorer: RefCell<Explorer>,
    vm: Arc<Vm>,
    id: String,
}

impl UserData for StatesHandle {}

/// Makes the class known to a Lua state.
///
/// # Errors
/// Those of Lua's allocator.
pub fn install(lua: &Lua) -> mlua::Result<()> {
    let next = function(lua, "disk:crash_states", |_, _, mut args| {
        let states = args.this::<StatesHandle>()?;
        let next = states.explorer.borrow_mut().advance();
        let state = next.map_err(|error| states.vm.disk_error("crash_states", &states.id, &error))?;
        Ok(state.map(|state| DiskStateHandle { content: Arc::new(state.content), point: Some(state.point) }))
    })?;
    lua.set_named_registry_value(NEXT_STATE, next)?;
    let class = plug(Class::new(lua)?)?;
    let class = sectors(class)?;
    let class = faults(class)?;
    let class = log(class)?;
    crashes(class)?.store(CLASS)
}

fn plug(class: Class<'_>) -> mlua::Result<Class<'_>> {
    class
        .method("disk:id", |_, _, mut args| Ok(args.this::<DiskHandle>()?.disk.id().to_owned()))?
        .method("disk:size", |_, _, mut args| Ok(args.this::<DiskHandle>()?.disk.disk().size()))?
        .method("disk:is_detached", |_, _, mut args| Ok(args.this::<DiskHandle>()?.disk.is_detached()))?
        .waits("disk:device", |_, _, mut args| {
            let (vm, disk) = DiskHandle::parts(&mut args)?;
            Ok(async move { Ok(vm.disk_device(&disk).await?) })
        })?
        .waits("disk:detach", |_, _, mut args| {
            let (vm, disk) = DiskHandle::parts(&mut args)?;
            Ok(async move { Ok(vm.detach_disk(&disk).await?) })
        })?
        .waits("disk:resize", |_, _, mut args| {
            let (vm, disk) = DiskHandle::parts(&mut args)?;
            let bytes = args.size("n")?;
            Ok(async move { Ok(vm.resize_disk(&disk, bytes).await?) })
        })
}

fn sectors(class: Class<'_>) -> mlua::Result<Class<'_>> {
    class
        .waits("disk:read_sectors", |lua, _, mut args| {
            let (vm, disk) = DiskHandle::parts(&mut args)?;
            let (first, count) = (sector(&mut args, "first", 0)?, sector(&mut args, "n", 1)?);
            if count > MOST_SECTORS {
                return Err(args.bad("n", &format!("expected {MOST_SECTORS} sectors at most, found {count}")));
            }
            let lua = lua.clone();
            Ok(async move {
                let bytes = vm.disk_request("read_sectors", &disk, Order::Read { first, count }).await?;
                Ok(lua.create_string(bytes)?)
            })
        })?
        .waits("disk:write_sectors", |_, _, mut args| {
            let (vm, disk) = DiskHandle::parts(&mut args)?;
            let first = sector(&mut args, "first", 0)?;
            let bytes = match args.next() {
                Value::String(text) => text.as_bytes().to_vec(),
                other => return Err(args.wrong("bytes", "a string", &other)),
            };
            if bytes.is_empty() || !(bytes.len() as u64).is_multiple_of(SECTOR) {
                let why = format!("expected whole sectors of {SECTOR} bytes, found {} bytes", bytes.len());
                return Err(args.bad("bytes", &why));
            }
            Ok(async move {
                let order = Order::Write { first, bytes, durable: true };
                vm.disk_request("write_sectors", &disk, order).await?;
                Ok(())
            })
        })
}

fn faults(class: Class<'_>) -> mlua::Result<Class<'_>> {
    class
        .method("disk:fault_inject", |_, _, mut args| {
            let (_, disk) = DiskHandle::parts(&mut args)?;
            disk.disk().inject(fault(&mut args)?);
            Ok(())
        })?
        .method("disk:clear_faults", |_, _, mut args| {
            args.this::<DiskHandle>()?.disk.disk().clear_faults();
            Ok(())
        })?
        .method("disk:active_faults", |_, _, mut args| Ok(args.this::<DiskHandle>()?.disk.disk().active_faults()))
}

/// A mode, or a table with one.
fn fault(args: &mut Args) -> Result<Fault, ApiError> {
    let options = match args.next() {
        Value::String(name) => return Ok(Fault::plain(mode(args, &name.to_string_lossy())?)),
        Value::Table(table) => {
            let keys = ["mode", "first", "count", "p", "after", "times", "delay", "seed"];
            Options::checked(args.function(), table, &keys)?
        }
        other => return Err(args.wrong("mode", "the name of a mode, or a table with `mode`", &other)),
    };
    let name =
        options.text("mode")?.ok_or_else(|| args.bad("mode", &format!("expected one of {}, found nil", modes())))?;
    let natural = |key: &str, least: i64| {
        let number = options.integer(key, least, i64::MAX);
        number.map(|number| number.map(|number| u64::try_from(number).unwrap_or_default()))
    };
    let plain = Fault::plain(mode(args, &name)?);
    let delay = options.duration("delay")?;
    if delay.is_some() && plain.mode != Mode::Slow {
        return Err(args.bad("delay", &format!("it belongs to the mode `slow`, found the mode `{name}`")));
    }
    Ok(Fault {
        sectors: range(natural("first", 0)?, natural("count", 1)?),
        p: probability(args, &options)?,
        after: natural("after", 0)?.unwrap_or_default(),
        times: natural("times", 1)?,
        delay: delay.unwrap_or(plain.delay),
        seed: options.integer("seed", i64::MIN, i64::MAX)?.map_or(plain.seed, i64::cast_unsigned),
        ..plain
    })
}

fn range(first: Option<u64>, count: Option<u64>) -> Option<Range<u64>> {
    if first.is_none() && count.is_none() {
        return None;
    }
    let first = first.unwrap_or_default();
    Some(first..count.map_or(u64::MAX, |count| first.saturating_add(count)))
}

fn probability(args: &Args, options: &Options) -> Result<f64, ApiError> {
    #[expect(clippy::cast_precision_loss, reason = "only 0 and 1 pass")]
    let p = match options.value("p")? {
        Value::Nil => return Ok(1.0),
        Value::Integer(number) => number as f64,
        Value::Number(number) => number,
        other => return Err(args.wrong("p", "a probability from 0 to 1", &other)),
    };
    match (0.0..=1.0).contains(&p) {
        true => Ok(p),
        false => Err(args.wrong("p", "a probability from 0 to 1", &options.value("p")?)),
    }
}

fn modes() -> String {
    Mode::ALL.map(|mode| format!("`{}`", mode.name())).join(", ")
}

fn mode(args: &Args, name: &str) -> Result<Mode, ApiError> {
    Mode::parse(name).ok_or_else(|| {
        let hint = match suggest::nearest(name, Mode::ALL.map(Mode::name)) {
            Some(nearest) => format!("\nhint: did you mean `{nearest}`?"),
            None => String::new(),
        };
        args.bad("mode", &format!("expected one of {}, found `{name}`{hint}", modes()))
    })
}

fn log(class: Class<'_>) -> mlua::Result<Class<'_>> {
    class
        .method("disk:stats", |lua, _, mut args| {
            let stats = args.this::<DiskHandle>()?.disk.disk().stats();
            let table = lua.create_table()?;
            for (key, value) in [
                ("requests", stats.reads + stats.writes + stats.flushes),
                ("bytes", stats.read_bytes.saturating_add(stats.written_bytes)),
                ("reads", stats.reads),
                ("writes", stats.writes),
                ("flushes", stats.flushes),
                ("read_bytes", stats.read_bytes),
                ("written_bytes", stats.written_bytes),
                ("errors", stats.errors),
            ] {
                table.raw_set(key, value)?;
            }
            Ok(table)
        })?
        .method("disk:log", |_, _, mut args| {
            let (vm, disk) = DiskHandle::parts(&mut args)?;
            let on = match args.next() {
                Value::Boolean(on) => on,
                other => return Err(args.wrong("on", "true or false", &other)),
            };
            disk.disk().record(on).map_err(|error| vm.disk_error("log", disk.id(), &error))?;
            Ok(())
        })?
        .method("disk:requests", |lua, _, mut args| {
            let recorded = args.this::<DiskHandle>()?.disk.disk().recorded();
            let list = lua.create_table_with_capacity(recorded.len(), 0)?;
            for request in recorded {
                let entry = lua.create_table()?;
                entry.raw_set("kind", request.kind.name())?;
                entry.raw_set("sector", request.sector)?;
                entry.raw_set("count", request.count)?;
                entry.raw_set("time", request.time)?;
                list.raw_push(entry)?;
            }
            Ok(list)
        })
}

/// The chance that options ask for; `usual` where no seed is given.
///
/// # Errors
/// A bad option.
pub fn chance(args: &mut Args, usual: Option<u64>) -> Result<Chance, ApiError> {
    let options = args.options(&["seed", "torn"])?;
    let torn = options.flag("torn")?;
    let seed = options.integer("seed", i64::MIN, i64::MAX)?.map(i64::cast_unsigned).or(usual);
    match (seed, torn) {
        (Some(seed), torn) => Ok(Chance::Seed { seed, torn: torn.unwrap_or(true) }),
        (None, Some(true)) => {
            Err(args.bad("torn", "it needs a `seed`: without one, nothing that was not flushed is left"))
        }
        (None, _) => Ok(Chance::Nothing),
    }
}

fn exploration(args: &mut Args) -> Result<Exploration, ApiError> {
    let options = args.options(&["seed", "samples", "torn", "exhaustive", "limit"])?;
    let number = |key: &str| {
        let number = options.integer(key, 1, i64::MAX);
        number.map(|number| number.map(|number| u64::try_from(number).unwrap_or_default()))
    };
    if options.flag("exhaustive")?.unwrap_or_default() {
        for key in ["seed", "samples", "torn"] {
            let value = options.value(key)?;
            if !value.is_nil() {
                return Err(args.bad(key, &format!("it has no meaning beside `exhaustive`, found {}", short(&value))));
            }
        }
        return Ok(Exploration::All { limit: number("limit")?.unwrap_or(LIMIT) });
    }
    if number("limit")?.is_some() {
        return Err(args.bad("limit", "it belongs to `exhaustive = true`; the number of samples is `samples`"));
    }
    Ok(Exploration::Sampled {
        seed: options.integer("seed", i64::MIN, i64::MAX)?.map_or(1, i64::cast_unsigned),
        samples: number("samples")?.unwrap_or(SAMPLES),
        torn: options.flag("torn")?.unwrap_or(true),
    })
}

fn crashes(class: Class<'_>) -> mlua::Result<Class<'_>> {
    let refused = |vm: &Vm, disk: &AttachedDisk, op: &'static str, error: &DiskError| -> ApiError {
        vm.disk_error(op, disk.id(), error).into()
    };
    class
        .method("disk:crash", move |_, _, mut args| {
            let (vm, disk) = DiskHandle::parts(&mut args)?;
            let chance = chance(&mut args, Some(1))?;
            let content = disk.disk().crash(chance).map_err(|error| refused(&vm, &disk, "crash", &error))?;
            Ok(DiskStateHandle { content: Arc::new(content), point: None })
        })?
        .method("disk:state", move |_, _, mut args| {
            let (vm, disk) = DiskHandle::parts(&mut args)?;
            let content = disk.disk().content().map_err(|error| refused(&vm, &disk, "state", &error))?;
            Ok(DiskStateHandle { content: Arc::new(content), point: None })
        })?
        .method("disk:restore", move |_, _, mut args| {
            let (vm, disk) = DiskHandle::parts(&mut args)?;
            let state = args.next();
            let content = match state.as_userdata().and_then(|state| state.borrow::<DiskStateHandle>().ok()) {
                Some(state) => Arc::clone(&state.content),
                None => return Err(args.wrong("state", "a state of a disk", &state)),
            };
            disk.disk().restore(&content).map_err(|error| refused(&vm, &disk, "restore", &error))?;
            Ok(())
        })?
        .method("disk:power_cut", move |_, _, mut args| {
            let (vm, disk) = DiskHandle::parts(&mut args)?;
            let chance = chance(&mut args, None)?;
            disk.disk().power_cut(chance).map_err(|error| refused(&vm, &disk, "power_cut", &error))?;
            Ok(())
        })?
        .method("disk:crash_states", move |lua, _, mut args| {
            let (vm, disk) = DiskHandle::parts(&mut args)?;
            let wanted = exploration(&mut args)?;
            let explorer = disk.disk().states(wanted).map_err(|error| refused(&vm, &disk, "crash_states", &error))?;
            let states = StatesHandle { explorer: RefCell::new(explorer), vm, id: disk.id().to_owned() };
            Ok(lua.named_registry_value::<Function>(NEXT_STATE)?.bind(lua.create_userdata(states)?)?)
        })
}
