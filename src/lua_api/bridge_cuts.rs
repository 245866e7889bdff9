//! Partitions and isolation.

use std::sync::Arc;

use mlua::Value;

use super::args::{Args, Options};
use super::bridge_args::{Groups, groups, member, pair, pair_in, this};
use super::error::ApiError;
use super::register::Class;
use crate::testbed::network::Bridge;
use crate::testbed::{Pair, Policy};

/// What a partition cuts.
enum Cut {
    Pairs(Vec<Pair>),
    Groups(Groups),
}

/// `(a, b)`, `({from=, to=})` or `({{a, b}, {c}})`.
fn cut(args: &mut Args, bridge: &Bridge) -> Result<Cut, ApiError> {
    match args.next() {
        Value::Table(table) if table.raw_len() > 0 => groups(args, bridge, &table).map(Cut::Groups),
        Value::Table(table) => {
            let options = Options::checked(args.function(), table.clone(), &["from", "to"])?;
            match pair_in(args, bridge, &options)? {
                Some(pair) => Ok(Cut::Pairs(vec![pair])),
                None => Err(args.wrong("a", "a member, {from=, to=} or {{a, b}, {c}}", &Value::Table(table))),
            }
        }
        a => {
            let a = member(args, bridge, "a", &a)?.port();
            let b = args.next();
            let (a, b) = pair(args, a, member(args, bridge, "b", &b)?.port())?;
            Ok(Cut::Pairs(vec![(a, b), (b, a)]))
        }
    }
}

fn change(args: &mut Args, act: impl FnOnce(&mut Policy, Cut)) -> Result<Value, ApiError> {
    let object = args.peek();
    let bridge = this(args)?;
    let cut = cut(args, &bridge)?;
    bridge.switch().change(|policy| act(policy, cut));
    Ok(object)
}

/// The methods of this file.
///
/// # Errors
/// Those of Lua's allocator.
pub fn methods(class: Class<'_>) -> mlua::Result<Class<'_>> {
    class
        .method("bridge:partition", |_, _, mut args| {
            change(&mut args, |policy, cut| match cut {
                Cut::Pairs(pairs) => policy.cut.extend(pairs),
                Cut::Groups(groups) => policy.split(&groups),
            })
        })?
        .method("bridge:unpartition", |_, _, mut args| {
            change(&mut args, |policy, cut| match cut {
                Cut::Pairs(pairs) => policy.cut.retain(|pair| !pairs.contains(pair)),
                Cut::Groups(groups) => policy.join(&groups),
            })
        })?
        .method("bridge:partition_all", |_, _, mut args| {
            let object = args.peek();
            let bridge = this(&mut args)?;
            let alone: Groups = bridge.ports().into_iter().map(|port| vec![port]).collect();
            bridge.switch().change(|policy| policy.split(&alone));
            Ok(object)
        })?
        .method("bridge:restore_all", |_, _, mut args| {
            let object = args.peek();
            this(&mut args)?.switch().change(|policy| policy.cut.clear());
            Ok(object)
        })?
        .method("bridge:is_partitioned", |_, _, mut args| {
            let bridge = this(&mut args)?;
            let pairs = match cut(&mut args, &bridge)? {
                // The direction that is asked for.
                Cut::Pairs(pairs) => pairs.into_iter().take(1).collect::<Vec<_>>(),
                Cut::Groups(groups) => {
                    let mut all = Policy::default();
                    all.split(&groups);
                    all.cut.into_iter().collect()
                }
            };
            let policy = bridge.policy();
            Ok(pairs.iter().all(|pair| policy.cut.contains(pair)))
        })?
        .method("bridge:isolate", |_, _, mut args| isolation(&mut args, true))?
        .method("bridge:unisolate", |_, _, mut args| isolation(&mut args, false))?
        .method("bridge:is_isolated", |_, _, mut args| {
            let bridge = this(&mut args)?;
            let vm = args.next();
            let port = member(&args, &bridge, "vm", &vm)?.port();
            Ok(bridge.policy().isolated.contains(&port))
        })?
        .method("bridge:reset", |_, _, mut args| {
            let object = args.peek();
            let bridge: Arc<Bridge> = this(&mut args)?;
            bridge.switch().change(|policy| *policy = Policy::default());
            Ok(object)
        })
}

fn isolation(args: &mut Args, alone: bool) -> Result<Value, ApiError> {
    let object = args.peek();
    let bridge = this(args)?;
    let vm = args.next();
    let port = member(args, &bridge, "vm", &vm)?.port();
    bridge.switch().change(|policy| {
        if alone {
            policy.isolated.insert(port);
        } else {
            policy.isolated.remove(&port);
        }
    });
    Ok(object)
}
