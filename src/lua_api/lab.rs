//! Labs: the file's root lab, `provium`, and those inside; what they hold and how it is found.

use std::rc::Rc;
use std::sync::Arc;

use mlua::{AnyUserData, Function, IntoLua, Lua, MetaMethod, UserData, UserDataFields, UserDataMethods, Value};

use super::args::Args;
use super::bridge::BridgeHandle;
use super::error::ApiError;
use super::file_state::FileState;
use super::lab_tree::{FILE, Lab, Layer, Refusal, Thing};
use super::place;
use super::register::{CHUNK, Class, class, function, step};
use super::render::short;
use super::vm::{VmHandle, options};
use super::{bridge_new, fixtures, lab_batch, lab_snapshot, lab_tools};
use crate::foundation::suggest;
use crate::testbed::Vm;

/// Registry key of the class.
const CLASS: &str = "provium.Lab";
/// Registry key of the function behind `provium.x = y`.
const ASSIGN_KEY: &str = "provium.Lab.assign";
/// A setting of `provium`, and what is none.
const ASSIGN: &str = "
local timeout, reset_between_tests, refuse = ...
return function(lab, key, value)
  if key == 'timeout' then return timeout(lab, value) end
  if key == 'reset_between_tests' then return reset_between_tests(lab, value) end
  return refuse(lab, key, value)
end";
/// Names that can't be given, since they are called with a dot.
const RESERVED: &[&str] = &["pack", "unpack", "vm_fixture", "lab_fixture"];

/// A machine in a lab.
#[derive(Clone)]
pub struct LabVm(pub Arc<Vm>);

impl PartialEq for LabVm {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// The file's labs.
pub type VmLab = Lab<LabVm>;

/// A lab as Lua holds it; none is the file's root lab.
pub struct LabHandle(Option<Rc<VmLab>>);

impl LabHandle {
    /// `provium`.
    pub fn root() -> Self {
        Self(None)
    }

    /// A lab.
    pub fn of(lab: Rc<VmLab>) -> Self {
        Self(Some(lab))
    }

    fn lab<'a>(&'a self, state: &'a FileState) -> &'a Rc<VmLab> {
        self.0.as_ref().unwrap_or(&state.lab)
    }

    /// The lab, where it is not over.
    fn live(&self, function: &str, state: &FileState) -> Result<Rc<VmLab>, ApiError> {
        let lab = self.lab(state);
        match lab.ended(state.layer()) {
            None => Ok(Rc::clone(lab)),
            Some(test) => {
                let name = lab.name();
                Err(ApiError::new(format!("{function}: the lab `{name}` is of the test `{test}`, which has ended")))
            }
        }
    }
}

/// The lab that a method was called on.
///
/// # Errors
/// It is something else, or the lab of a test that has ended.
pub fn this(args: &mut Args, state: &FileState) -> Result<Rc<VmLab>, ApiError> {
    let function = args.function();
    args.this::<LabHandle>()?.live(function, state)
}

impl UserData for LabHandle {
    fn add_fields<F: UserDataFields<Self>>(fields: &mut F) {
        fields.add_meta_field("__name", "Lab");
        fields.add_meta_field_with(MetaMethod::NewIndex.name(), |lua| lua.named_registry_value::<Function>(ASSIGN_KEY));
    }

    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_meta_function(MetaMethod::Index, |lua, (this, key): (AnyUserData, Value)| {
            let method: Value = class(lua, CLASS)?.raw_get(key.clone())?;
            if !method.is_nil() {
                return Ok(method);
            }
            let Value::String(name) = key else { return Ok(Value::Nil) };
            let (state, name) = (FileState::of(lua)?, name.to_string_lossy());
            let this = this.borrow::<Self>()?;
            if this.0.is_none()
                && let Some(value) = lab_tools::property(lua, &state, &name)?
            {
                return Ok(value);
            }
            // A lab of a test that has ended finds nothing.
            let lab = this.lab(&state);
            let layer = state.layer();
            match lab.find(&name, layer).filter(|_| lab.ended(layer).is_none()) {
                Some(member) => handle(lua, member.thing),
                None => Ok(Value::Nil),
            }
        });
        methods.add_meta_method(MetaMethod::ToString, |lua, this, ()| {
            Ok(format!("lab `{}`", this.lab(&*FileState::of(lua)?).name()))
        });
        methods.add_meta_method(MetaMethod::Eq, |lua, this, other: Value| {
            let state = FileState::of(lua)?;
            let other = other.as_userdata().and_then(|other| other.borrow::<Self>().ok());
            Ok(other.is_some_and(|other| Rc::ptr_eq(this.lab(&state), other.lab(&state))))
        });
    }
}

fn handle(lua: &Lua, thing: Thing<LabVm>) -> mlua::Result<Value> {
    match thing {
        Thing::Vm(vm) => VmHandle(vm.0).into_lua(lua),
        Thing::Bridge(bridge) => BridgeHandle(bridge).into_lua(lua),
        Thing::Lab(lab) => LabHandle(Some(lab)).into_lua(lua),
    }
}

/// Makes the class known to a Lua state.
///
/// # Errors
/// Those of Lua's allocator.
pub fn install(lua: &Lua) -> mlua::Result<()> {
    let timeout = function(lua, "provium.timeout", |_, state, args| set(state, "timeout", args))?;
    let reset = function(lua, "provium.reset_between_tests", |_, state, args| set(state, "reset_between_tests", args))?;
    let refuse = step(lua, "provium.timeout", |_, state, mut args| {
        let is_root = args.this::<LabHandle>()?.0.is_none();
        let key = args.next();
        let name = match &key {
            Value::String(name) => name.to_string_lossy(),
            other => short(other),
        };
        lab_tools::assign(state, is_root, &name, &args.next())
    })?;
    let assign: Function = lua.load(ASSIGN).set_name(CHUNK).call((timeout, reset, refuse))?;
    lua.set_named_registry_value(ASSIGN_KEY, assign)?;
    let class = creation(Class::new(lua)?)?;
    let class = membership(class)?;
    let class = listings(class)?;
    let class = lab_batch::methods(class)?;
    let class = lab_snapshot::methods(class)?;
    let class = fixtures::methods(class)?;
    lab_tools::methods(class)?.store(CLASS)
}

/// One of the settings is given a value.
fn set(state: &FileState, name: &str, mut args: Args) -> Result<(), ApiError> {
    let is_root = args.this::<LabHandle>()?.0.is_none();
    lab_tools::assign(state, is_root, name, &args.next())
}

fn creation(class: Class<'_>) -> mlua::Result<Class<'_>> {
    let class = class.method("lab:bridge", bridge_new::bridge)?;
    class.method("lab:vm", vm)?.method("lab:lab", |lua, state, mut args| {
        let lab = this(&mut args, state)?;
        let name = args.text_opt("name")?;
        if let Some(name) = &name {
            check_name(&args, name)?;
        }
        let test = state.current.borrow().as_ref().map(|test| test.name.clone());
        let made = lab.create(name.as_deref(), state.layer(), test, origin(lua, "created"));
        made.map(|lab| LabHandle(Some(lab))).map_err(|why| refused(&args, name.as_deref().unwrap_or_default(), why))
    })
}

/// `lab:vm(name)` looks up, `lab:vm(name, profile, opts?)` creates.
fn vm(lua: &Lua, state: &Rc<FileState>, mut args: Args) -> Result<VmHandle, ApiError> {
    let lab = this(&mut args, state)?;
    let name = args.text("name")?;
    let layer = state.layer();
    let profile = match args.next() {
        Value::Nil if args.is_empty() => return look_up(&lab, &name, layer),
        Value::String(profile) => profile.to_string_lossy(),
        Value::Nil => return Err(args.bad("profile", "expected a profile's name, found nil")),
        other => return Err(args.bad("profile", &format!("expected a profile's name, found {}", short(&other)))),
    };
    check_name(&args, &name)?;
    if let Some(member) = lab.find(&name, layer) {
        return Err(refused(&args, &name, Refusal::Taken(member.thing.describe(), member.origin)));
    }
    let options = options(lua, state, &mut args)?;
    let test = state.current.borrow().as_ref().map(|test| test.name.clone());
    let vm = state.bed.vm(&name, &profile, options, &state.display, test.as_deref())?;
    lab.add(&name, Thing::Vm(LabVm(Arc::clone(&vm))), layer, origin(lua, "created"))
        .map_err(|why| refused(&args, &name, why))?;
    state.with_scope(|scope| scope.insert(Arc::clone(&vm)));
    Ok(VmHandle(vm))
}

fn look_up(lab: &VmLab, name: &str, layer: Layer) -> Result<VmHandle, ApiError> {
    match lab.find(name, layer).map(|member| member.thing) {
        Some(Thing::Vm(vm)) => Ok(VmHandle(vm.0)),
        Some(thing) => Err(ApiError::new(format!("lab:vm: `{name}` is a {}, not a VM", thing.describe()))),
        None => {
            let names = lab.names(layer);
            let known = match names.is_empty() {
                true => "there is nothing".to_owned(),
                false => format!("there are {}", names.join(", ")),
            };
            let hint = match suggest::nearest(name, &names) {
                Some(nearest) => format!("did you mean `{nearest}`?"),
                None => format!("to create one, name its profile: {}:vm(\"{name}\", \"PROFILE\")", lab.name()),
            };
            let message = format!("lab:vm: no VM `{name}` in the lab `{}`: {known}\nhint: {hint}", lab.name());
            Err(ApiError::new(message))
        }
    }
}

/// # Errors
/// What can be no member's name.
pub fn check_name(args: &Args, name: &str) -> Result<(), ApiError> {
    let fine = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if name.is_empty() || name.len() > 63 || !fine {
        return Err(args.bad("name", &format!("expected 1 to 63 letters, digits, `-`, `_` or `.`, found `{name}`")));
    }
    if RESERVED.contains(&name) {
        return Err(args.bad("name", &format!("`{name}` is reserved: it is a function of labs")));
    }
    Ok(())
}

/// How a member came to be, for messages.
pub fn origin(lua: &Lua, how: &str) -> String {
    match place::caller(lua) {
        Some(place) => format!("{how} at {place}"),
        None => format!("{how} at an unknown place"),
    }
}

/// Why `name` can't become or cease to be a member.
pub fn refused(args: &Args, name: &str, why: Refusal) -> ApiError {
    match why {
        Refusal::Taken(what, origin) => args.bad("name", &format!("there is a {what} `{name}` already, {origin}")),
        Refusal::Circle => args.bad("x", &format!("the lab `{name}` would hold itself")),
        Refusal::NoMember => args.bad("x", &format!("`{name}` is no member of this lab")),
        Refusal::OfTheFile(origin) => {
            let message = format!("`{name}` is a member for the whole file ({origin}): a test can't remove it");
            args.bad("x", &message)
        }
    }
}

/// A VM, bridge or lab that an argument is, with its name.
fn thing_of(args: &Args, state: &FileState, value: &Value) -> Result<(String, Thing<LabVm>), ApiError> {
    if let Some(object) = value.as_userdata() {
        if let Ok(vm) = object.borrow::<VmHandle>() {
            return Ok((vm.0.name().to_owned(), Thing::Vm(LabVm(Arc::clone(&vm.0)))));
        }
        if let Ok(bridge) = object.borrow::<BridgeHandle>() {
            return Ok((bridge.0.name().to_owned(), Thing::Bridge(Arc::clone(&bridge.0))));
        }
        if let Ok(lab) = object.borrow::<LabHandle>() {
            let lab = lab.live(args.function(), state)?;
            return Ok((lab.name().to_owned(), Thing::Lab(lab)));
        }
    }
    Err(args.wrong("x", "a VM, a bridge or a lab", value))
}

fn membership(class: Class<'_>) -> mlua::Result<Class<'_>> {
    class
        .method("lab:include", |lua, state, mut args| {
            let object = args.next();
            let lab = this(&mut Args::new("lab:include", one(&object)), state)?;
            let value = args.next();
            let things = match &value {
                Value::Table(list) => {
                    let items: Vec<Value> = list.sequence_values().collect::<mlua::Result<_>>()?;
                    items.iter().map(|item| thing_of(&args, state, item)).collect::<Result<Vec<_>, _>>()?
                }
                other => vec![thing_of(&args, state, other)?],
            };
            for (name, thing) in things {
                let added = lab.add(&name, thing, state.layer(), origin(lua, "included"));
                added.map_err(|why| refused(&args, &name, why))?;
            }
            Ok(object)
        })?
        .method("lab:remove", |_, state, mut args| {
            let object = args.next();
            let lab = this(&mut Args::new("lab:remove", one(&object)), state)?;
            let value = args.next();
            let (name, removed) = match &value {
                Value::String(name) => {
                    let name = name.to_string_lossy();
                    let removed = lab.remove(|member| member.name == name, state.layer());
                    (name, removed)
                }
                other => {
                    let (name, thing) = thing_of(&args, state, other)?;
                    let removed = lab.remove(|member| member.thing == thing, state.layer());
                    (name, removed)
                }
            };
            removed.map_err(|why| refused(&args, &name, why))?;
            Ok(object)
        })
}

fn one(value: &Value) -> mlua::MultiValue {
    mlua::MultiValue::from_iter([value.clone()])
}

fn listings(class: Class<'_>) -> mlua::Result<Class<'_>> {
    let names = |kind: &'static str| {
        move |_: &Lua, state: &Rc<FileState>, mut args: Args| {
            let members = this(&mut args, state)?.listed(state.layer());
            let of_kind = members.into_iter().filter(|member| member.thing.kind() == kind);
            Ok(of_kind.map(|member| member.name).collect::<Vec<_>>())
        }
    };
    class
        .method("lab:name", |_, state, mut args| Ok(this(&mut args, state)?.name().to_owned()))?
        .method("lab:members", |lua, state, mut args| {
            let list = lua.create_table()?;
            for member in this(&mut args, state)?.listed(state.layer()) {
                let entry = lua.create_table()?;
                entry.raw_set("kind", member.thing.kind())?;
                entry.raw_set("name", member.name)?;
                list.raw_push(entry)?;
            }
            Ok(list)
        })?
        .method("lab:vm_names", names("vm"))?
        .method("lab:sub_lab_names", names("sub_lab"))?
        .method("lab:bridge_names", names("bridge"))
}

impl FileState {
    /// Where new members of labs go: the running test's number, else the file.
    pub fn layer(&self) -> Layer {
        self.current.borrow().as_ref().map_or(FILE, |test| test.serial)
    }
}
