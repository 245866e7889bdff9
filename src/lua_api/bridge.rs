//! The bridge handle: members, routes, the way out, captures.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use mlua::{Lua, MetaMethod, UserData, UserDataFields, UserDataMethods, Value};

use super::args::{Args, Options};
use super::bridge_args::{member, this, vm_of};
use super::error::ApiError;
use super::file_state::FileState;
use super::lab_tree::Thing;
use super::nic::NicHandle;
use super::register::{Class, class};
use super::stream::StreamHandle;
use super::{bridge_cuts, bridge_rates, place};
use crate::testbed::network::{self, Addresses, Bridge, Nic};
use crate::testbed::{Port, Vm};

/// Registry key of the class.
const CLASS: &str = "provium.Bridge";

/// A bridge as Lua holds it.
pub struct BridgeHandle(pub Arc<Bridge>);

impl UserData for BridgeHandle {
    fn add_fields<F: UserDataFields<Self>>(fields: &mut F) {
        fields.add_meta_field_with(MetaMethod::Index.name(), |lua| class(lua, CLASS));
        fields.add_meta_field("__name", "Bridge");
    }

    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_meta_method(MetaMethod::ToString, |_, this, ()| Ok(format!("bridge `{}`", this.0.name())));
        methods.add_meta_method(MetaMethod::Eq, |_, this, other: Value| {
            let other = other.as_userdata().and_then(|other| other.borrow::<Self>().ok());
            Ok(other.is_some_and(|other| Arc::ptr_eq(&this.0, &other.0)))
        });
    }
}

/// Makes the class known to a Lua state.
///
/// # Errors
/// Those of Lua's allocator.
pub fn install(lua: &Lua) -> mlua::Result<()> {
    let class = members(Class::new(lua)?)?;
    let class = routes(class)?;
    let class = frames(class)?;
    let class = bridge_cuts::methods(class)?;
    bridge_rates::methods(class)?.store(CLASS)
}

fn members(class: Class<'_>) -> mlua::Result<Class<'_>> {
    class
        .method("bridge:name", |_, _, mut args| Ok(args.this::<BridgeHandle>()?.0.name().to_owned()))?
        .method("bridge:members", |_, _, mut args| {
            Ok(this(&mut args)?.nics().iter().map(|nic| nic.vm_name().to_owned()).collect::<Vec<_>>())
        })?
        .waits("bridge:attach", |_, _, mut args| {
            let object = args.peek();
            let bridge = this(&mut args)?;
            let vms = vms(&args.next(), &args)?;
            if !args.is_empty() {
                return Err(args.bad(
                    "vm",
                    "expected one VM or an array of VMs\nhint: several go into an array: `:attach({a, b})`",
                ));
            }
            Ok(async move {
                network::attach(bridge, vms).await?;
                Ok(object)
            })
        })?
        .waits("bridge:detach", |_, _, mut args| {
            let object = args.peek();
            let bridge = this(&mut args)?;
            let value = args.next();
            let vm = match &value {
                Value::String(_) => member(&args, &bridge, "vm", &value)?.vm(),
                other => Some(vm_of(&args, "vm", other)?),
            };
            Ok(async move {
                if let Some(vm) = vm {
                    network::detach(bridge, vm).await?;
                }
                Ok(object)
            })
        })?
        .method("bridge:nic", |_, _, mut args| {
            let bridge = this(&mut args)?;
            let value = args.next();
            member(&args, &bridge, "vm", &value).map(NicHandle)
        })?
        .method("bridge:address", |lua, _, mut args| {
            let bridge = this(&mut args)?;
            let value = args.next();
            let nic = member(&args, &bridge, "vm", &value)?;
            Ok(addresses(lua, nic.addresses())?)
        })?
        .waits("bridge:close", |_, state, mut args| {
            let bridge = Arc::clone(&args.this::<BridgeHandle>()?.0);
            state.lab.forget(&Thing::Bridge(Arc::clone(&bridge)));
            Ok(async move {
                network::close(&bridge).await;
                Ok(())
            })
        })
}

fn addresses(lua: &Lua, addresses: Addresses) -> mlua::Result<mlua::Table> {
    let table = lua.create_table()?;
    table.raw_set("ipv4", addresses.ipv4.to_string())?;
    table.raw_set("ipv6", addresses.ipv6.map(|address| address.to_string()))?;
    table.raw_set("mac", addresses.mac.to_string())?;
    table.raw_set("prefix", addresses.prefix)?;
    Ok(table)
}

/// One VM, or an array of them.
fn vms(value: &Value, args: &Args) -> Result<Vec<Arc<Vm>>, ApiError> {
    let Value::Table(list) = value else { return Ok(vec![vm_of(args, "vm", value)?]) };
    let mut vms: Vec<Arc<Vm>> = Vec::new();
    for (index, item) in list.sequence_values::<Value>().enumerate() {
        let item = item?;
        let vm = vm_of(args, "vms", &item)?;
        if vms.iter().any(|other| Arc::ptr_eq(other, &vm)) {
            return Err(args.bad("vms", &format!("entry {}: vm `{}` is named twice", index + 1, vm.name())));
        }
        vms.push(vm);
    }
    if vms.is_empty() {
        return Err(args.wrong("vms", "a VM or an array of VMs", value));
    }
    Ok(vms)
}

/// One other bridge, or an array of them.
fn others(bridge: &Arc<Bridge>, value: &Value, args: &Args) -> Result<Vec<Arc<Bridge>>, ApiError> {
    let one = |value: &Value| match value.as_userdata().and_then(|object| object.borrow::<BridgeHandle>().ok()) {
        Some(other) if other.0.is_closed() => {
            Err(args.bad("bridge", &format!("the bridge `{}` is closed", other.0.name())))
        }
        Some(other) if Arc::ptr_eq(&other.0, bridge) => {
            Err(args.bad("bridge", "expected another bridge than this one"))
        }
        Some(other) => Ok(Arc::clone(&other.0)),
        None => Err(args.wrong("bridge", "a bridge or an array of bridges", value)),
    };
    match value {
        Value::Table(list) if list.raw_len() > 0 => list.sequence_values::<Value>().map(|item| one(&item?)).collect(),
        other => Ok(vec![one(other)?]),
    }
}

fn routes(class: Class<'_>) -> mlua::Result<Class<'_>> {
    class
        .waits("bridge:route", |_, _, mut args| {
            let object = args.peek();
            let bridge = this(&mut args)?;
            let others = others(&bridge, &args.next(), &args)?;
            Ok(async move {
                for other in &others {
                    network::route(&bridge, other, true).await?;
                }
                Ok(object)
            })
        })?
        .waits("bridge:unroute", |_, _, mut args| {
            let object = args.peek();
            let bridge = this(&mut args)?;
            let others = match args.next() {
                Value::Nil => bridge.routes(),
                value => others(&bridge, &value, &args)?,
            };
            let known = bridge.routes();
            if let Some(other) = others.iter().find(|other| !known.iter().any(|known| Arc::ptr_eq(known, other))) {
                return Err(args.bad("bridge", &format!("there is no route to the bridge `{}`", other.name())));
            }
            Ok(async move {
                for other in &others {
                    network::route(&bridge, other, false).await?;
                }
                Ok(object)
            })
        })?
        .method("bridge:routes", |_, _, mut args| {
            Ok(this(&mut args)?.routes().iter().map(|other| other.name().to_owned()).collect::<Vec<_>>())
        })?
        .waits("bridge:enable_uplink", |_, _, mut args| uplink(&mut args, true))?
        .waits("bridge:disable_uplink", |_, _, mut args| uplink(&mut args, false))
}

fn uplink(args: &mut Args, on: bool) -> Result<impl Future<Output = Result<Value, ApiError>> + use<>, ApiError> {
    let object = args.peek();
    let bridge = this(args)?;
    Ok(async move {
        network::set_uplink(&bridge, on).await?;
        Ok(object)
    })
}

fn frames(class: Class<'_>) -> mlua::Result<Class<'_>> {
    class
        .method("bridge:capture", |lua, state, mut args| {
            let bridge = this(&mut args)?;
            let nics = bridge.nics();
            let what = format!("capture of the bridge `{}`", bridge.name());
            capture(lua, state, &mut args, &bridge, None, &nics, what)
        })?
        .method("bridge:inject", |_, _, mut args| {
            let object = args.peek();
            let bridge = this(&mut args)?;
            bridge.inject(&args.bytes("bytes")?)?;
            Ok(object)
        })?
        .method("bridge:seed", |_, _, mut args| {
            let object = args.peek();
            let bridge = this(&mut args)?;
            if args.peek().is_nil() {
                return Ok(Value::Integer(bridge.switch().seed().cast_signed()));
            }
            bridge.switch().reseed(args.word("n")?);
            Ok(object)
        })
}

/// A stream of what passes, or a file.
///
/// # Errors
/// Bad options, a file that can't be written.
pub fn capture(
    lua: &Lua,
    state: &Rc<FileState>,
    args: &mut Args,
    bridge: &Bridge,
    port: Option<Port>,
    members: &[Arc<Nic>],
    what: String,
) -> Result<StreamHandle, ApiError> {
    let options: Options = args.options(&["path"])?;
    let path = options.text("path")?;
    let vms: Vec<Arc<Vm>> = members.iter().filter_map(|nic| nic.vm()).collect();
    let Some(path) = path else {
        return Ok(StreamHandle::shared(lua, &vms, bridge.capture(port), what, false));
    };
    if path.is_empty() || path.ends_with('/') {
        return Err(args.bad("path", &format!("expected the path of a file, found `{path}`")));
    }
    let file = place::caller(lua).map_or_else(|| state.path.clone(), |place| state.bed.absolute(&place.file));
    let path = file.parent().map_or_else(|| PathBuf::from(&path), |directory| directory.join(&path));
    let stream = bridge.capture_file(port, &path)?;
    Ok(StreamHandle::shared(lua, &vms, stream, format!("{what} into `{}`", path.display()), true))
}
