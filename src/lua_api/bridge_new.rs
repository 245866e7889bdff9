//! `lab:bridge(name, opts?)`: looks a bridge up, or makes one.

use std::rc::Rc;
use std::sync::Arc;

use mlua::Lua;

use super::args::{Args, Options};
use super::bridge::BridgeHandle;
use super::error::ApiError;
use super::file_state::FileState;
use super::lab::{check_name, origin, refused, this};
use super::lab_tree::{Refusal, Thing};
use crate::foundation::digest::Digest;
use crate::testbed::network::{BRIDGES, Bridge, BridgeOptions, Plan, parse_subnet};

/// Options at creation.
const OPTIONS: &[&str] = &["subnet", "ipv6", "mtu", "dhcp", "dns", "addresses"];
/// What IPv6 needs at least; IPv4 alone works with less.
const LEAST_MTU_6: i64 = 1280;
const LEAST_MTU_4: i64 = 576;
const LARGEST_MTU: i64 = 65_535;

/// The binding.
///
/// # Errors
/// A name that something else has, bad options, options for a bridge that is there.
pub fn bridge(lua: &Lua, state: &Rc<FileState>, mut args: Args) -> Result<BridgeHandle, ApiError> {
    let lab = this(&mut args, state)?;
    let name = args.text("name")?;
    let layer = state.layer();
    if let Some(member) = lab.find(&name, layer) {
        let given = !args.peek().is_nil();
        let Thing::Bridge(bridge) = member.thing else {
            return Err(refused(&args, &name, Refusal::Taken(member.thing.describe(), member.origin)));
        };
        if given {
            let origin = member.origin;
            return Err(args
                .bad("opts", &format!("the bridge `{name}` is there already ({origin}): options are for a new one")));
        }
        return Ok(BridgeHandle(bridge));
    }
    check_name(&args, &name)?;
    let options = args.options(OPTIONS)?;
    let options = decode(&args, &options)?;
    let plan = plan(&args, state, &options)?;
    let test = state.current.borrow().as_ref().map(|test| test.name.clone());
    let bridge = Bridge::new(&name, plan, options, seed(&state.display, test.as_deref(), &name))?;
    lab.add(&name, Thing::Bridge(Arc::clone(&bridge)), layer, origin(lua, "created"))
        .map_err(|why| refused(&args, &name, why))?;
    state.with_scope(|scope| scope.insert_bridge(Arc::clone(&bridge)));
    Ok(BridgeHandle(bridge))
}

fn decode(args: &Args, options: &Options) -> Result<BridgeOptions, ApiError> {
    let subnet = match options.text("subnet")? {
        None => None,
        Some(text) => Some(parse_subnet(&text).map_err(|why| args.bad("subnet", &why))?),
    };
    let ipv6 = options.flag("ipv6")?;
    let least = if ipv6 == Some(false) { LEAST_MTU_4 } else { LEAST_MTU_6 };
    let mtu = options.integer("mtu", least, LARGEST_MTU)?.and_then(|mtu| u16::try_from(mtu).ok());
    let usual = BridgeOptions::default();
    Ok(BridgeOptions {
        subnet,
        ipv6,
        mtu: mtu.unwrap_or(usual.mtu),
        dhcp: options.flag("dhcp")?.unwrap_or(usual.dhcp),
        dns: options.flag("dns")?.unwrap_or(usual.dns),
        addresses: options.flag("addresses")?.unwrap_or(usual.addresses),
    })
}

/// The networks of a new bridge: those of the first number that no bridge has which the running code can see.
fn plan(args: &Args, state: &FileState, options: &BridgeOptions) -> Result<Plan, ApiError> {
    let mut taken = state.scope.borrow().bridges();
    if let Some(test) = &*state.current.borrow() {
        taken.extend(test.scope.bridges());
    }
    let ipv6 = options.ipv6 != Some(false);
    let free = |number: &u8| taken.iter().all(|bridge| bridge.plan().number != *number);
    let clash = |net| taken.iter().find(|bridge| bridge.plan().overlaps(net));
    let numbers = || (1..=BRIDGES).filter(free);
    let found = match options.subnet {
        Some(net) => match clash(net) {
            Some(other) => {
                let theirs = other.plan().net4;
                let theirs = format!("`{}/{}` of the bridge `{}`", theirs.network(), theirs.prefix, other.name());
                return Err(args.bad("subnet", &format!("`{}/{}` overlaps with {theirs}", net.address, net.prefix)));
            }
            None => numbers().next().map(|number| Plan::with(number, net, ipv6)),
        },
        None => numbers().map(|number| Plan::usual(number, ipv6)).find(|plan| clash(plan.net4).is_none()),
    };
    found.ok_or_else(|| ApiError::new(format!("lab:bridge: there are {BRIDGES} bridges already")))
}

/// The usual seed: the same in every run of the same test. Lua's integers hold it.
fn seed(file: &str, test: Option<&str>, bridge: &str) -> u64 {
    let text = format!("{file}\0{}\0{bridge}", test.unwrap_or_default());
    Digest::of(text.as_bytes()).number() >> 1
}
