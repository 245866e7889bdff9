//! A machine's card on a bridge.

use std::sync::Arc;

use mlua::{Lua, MetaMethod, UserData, UserDataFields, UserDataMethods, Value};

use super::args::Args;
use super::bridge::{BridgeHandle, capture};
use super::error::ApiError;
use super::register::{Class, class};
use super::vm::VmHandle;
use crate::testbed::network::{self, Nic};

/// Registry key of the class.
const CLASS: &str = "provium.Nic";

/// A card as Lua holds it.
pub struct NicHandle(pub Arc<Nic>);

impl UserData for NicHandle {
    fn add_fields<F: UserDataFields<Self>>(fields: &mut F) {
        fields.add_meta_field_with(MetaMethod::Index.name(), |lua| class(lua, CLASS));
        fields.add_meta_field("__name", "Nic");
    }

    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_meta_method(MetaMethod::ToString, |_, this, ()| {
            Ok(format!("nic of vm `{}` on the bridge `{}`", this.0.vm_name(), this.0.bridge_name()))
        });
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
    Class::new(lua)?
        .method("nic:vm_name", |_, _, mut args| Ok(args.this::<NicHandle>()?.0.vm_name().to_owned()))?
        .method("nic:bridge", |_, _, mut args| Ok(args.this::<NicHandle>()?.0.bridge_name().to_owned()))?
        .method("nic:mac", |_, _, mut args| Ok(args.this::<NicHandle>()?.0.addresses().mac.to_string()))?
        .method("nic:counters", |lua, _, mut args| {
            let counters = args.this::<NicHandle>()?.0.counters();
            let table = lua.create_table()?;
            for (name, count) in [
                ("rx_bytes", counters.rx_bytes),
                ("tx_bytes", counters.tx_bytes),
                ("rx_packets", counters.rx_packets),
                ("tx_packets", counters.tx_packets),
                ("dropped", counters.dropped),
                ("errors", counters.errors),
            ] {
                table.raw_set(name, i64::try_from(count).unwrap_or(i64::MAX))?;
            }
            Ok(table)
        })?
        .method("nic:capture", |lua, state, mut args| {
            let nic = Arc::clone(&args.this::<NicHandle>()?.0);
            let what = format!("capture of the card on the bridge `{}`", nic.bridge_name());
            let bridge = nic.bridge().filter(|_| nic.is_attached()).ok_or_else(|| detached(&args, &nic))?;
            capture(lua, state, &mut args, &bridge, Some(nic.port()), &[Arc::clone(&nic)], what)
        })?
        .waits("nic:disconnect", |_, _, mut args| connect(&mut args, false))?
        .waits("nic:reconnect", |_, _, mut args| connect(&mut args, true))?
        .store(CLASS)
}

fn detached(args: &Args, nic: &Nic) -> ApiError {
    let (vm, bridge) = (nic.vm_name(), nic.bridge_name());
    ApiError::new(format!("{}: vm `{vm}` is no member of the bridge `{bridge}` any more", args.function()))
}

fn connect(args: &mut Args, up: bool) -> Result<impl Future<Output = Result<Value, ApiError>> + use<>, ApiError> {
    let object = args.peek();
    let nic = Arc::clone(&args.this::<NicHandle>()?.0);
    Ok(async move {
        network::connect(&nic, up).await?;
        Ok(object)
    })
}

/// Methods of VMs about cards.
///
/// # Errors
/// Those of Lua's allocator.
pub fn vm_methods(class: Class<'_>) -> mlua::Result<Class<'_>> {
    class.method("vm:nic", |_, _, mut args| {
        let vm = Arc::clone(&args.this::<VmHandle>()?.0);
        let value = args.next();
        let nics = vm.network().nics();
        let wanted = match &value {
            Value::String(name) => name.to_string_lossy(),
            other => match other.as_userdata().and_then(|object| object.borrow::<BridgeHandle>().ok()) {
                Some(bridge) => bridge.0.name().to_owned(),
                None => return Err(args.wrong("bridge", "a bridge, its name or `ethN`", other)),
            },
        };
        let is_it = |nic: &&Arc<Nic>| match &value {
            Value::String(_) => nic.bridge_name() == wanted || format!("eth{}", nic.index()) == wanted,
            other => other
                .as_userdata()
                .and_then(|object| object.borrow::<BridgeHandle>().ok())
                .is_some_and(|handle| nic.bridge().is_some_and(|bridge| Arc::ptr_eq(&bridge, &handle.0))),
        };
        nics.iter().find(is_it).map(|nic| NicHandle(Arc::clone(nic))).ok_or_else(|| {
            let known: Vec<String> =
                nics.iter().map(|nic| format!("`eth{}` on `{}`", nic.index(), nic.bridge_name())).collect();
            let known =
                if known.is_empty() { "it has none".to_owned() } else { format!("it has {}", known.join(", ")) };
            args.bad("bridge", &format!("vm `{}` has no card `{wanted}`: {known}", vm.name()))
        })
    })
}
