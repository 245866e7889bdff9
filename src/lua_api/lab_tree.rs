//! What labs hold. Pure: machines are any values that can be compared.
//!
//! Every member lies in a layer: the file's, or that of one test. A test sees its own members and the file's; when it ends,
//! its layer goes, and the labs it created are over.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use crate::testbed::network::Bridge;

/// Whose member: 0 is the file, any other number a test.
pub type Layer = u64;
/// The file's layer.
pub const FILE: Layer = 0;

/// What a lab can hold.
pub enum Thing<V> {
    /// A machine.
    Vm(V),
    /// A bridge.
    Bridge(Arc<Bridge>),
    /// A lab inside.
    Lab(Rc<Lab<V>>),
}

impl<V: Clone> Clone for Thing<V> {
    fn clone(&self) -> Self {
        match self {
            Self::Vm(vm) => Self::Vm(vm.clone()),
            Self::Bridge(bridge) => Self::Bridge(Arc::clone(bridge)),
            Self::Lab(lab) => Self::Lab(Rc::clone(lab)),
        }
    }
}

impl<V: PartialEq> PartialEq for Thing<V> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Vm(one), Self::Vm(other)) => one == other,
            (Self::Lab(one), Self::Lab(other)) => Rc::ptr_eq(one, other),
            (Self::Bridge(one), Self::Bridge(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

impl<V: std::fmt::Debug> std::fmt::Debug for Thing<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Vm(vm) => vm.fmt(f),
            Self::Bridge(bridge) => write!(f, "bridge {}", bridge.name()),
            Self::Lab(lab) => lab.fmt(f),
        }
    }
}

impl<V> Thing<V> {
    /// As `members()` says it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Vm(_) => "vm",
            Self::Bridge(_) => "bridge",
            Self::Lab(_) => "sub_lab",
        }
    }

    /// For messages.
    pub fn describe(&self) -> &'static str {
        match self {
            Self::Vm(_) => "VM",
            Self::Bridge(_) => "bridge",
            Self::Lab(_) => "sub-lab",
        }
    }
}

/// One thing in a lab.
#[derive(Debug)]
pub struct Member<V> {
    /// Unique among what is visible in the lab.
    pub name: String,
    /// What it is.
    pub thing: Thing<V>,
    layer: Layer,
    /// How it came here: `created at a.test.lua:3`.
    pub origin: String,
}

impl<V: Clone> Clone for Member<V> {
    fn clone(&self) -> Self {
        Self { name: self.name.clone(), thing: self.thing.clone(), layer: self.layer, origin: self.origin.clone() }
    }
}

/// A lab.
#[derive(Debug)]
pub struct Lab<V> {
    name: String,
    /// The file's root lab: a test's listings leave out the file's members.
    is_root: bool,
    layer: Layer,
    /// The test that created it.
    test: Option<String>,
    members: RefCell<Vec<Member<V>>>,
}

/// Why something can't become or cease to be a member.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The name is taken: what has it, and how that came here.
    Taken(&'static str, String),
    /// A lab would hold itself.
    Circle,
    /// There is no such member.
    NoMember,
    /// It is a member of the file's, which a test can't change.
    OfTheFile(String),
}

impl<V: Clone + PartialEq> Lab<V> {
    /// A file's root lab.
    pub fn root() -> Rc<Self> {
        let name = "provium".to_owned();
        Rc::new(Self { name, is_root: true, layer: FILE, test: None, members: RefCell::default() })
    }

    /// Its name; `provium` for the root.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The test that created it, where that is no longer the one that runs: the lab is over then.
    pub fn ended(&self, now: Layer) -> Option<&str> {
        if self.layer == FILE || self.layer == now { None } else { self.test.as_deref() }
    }

    fn visible(&self, layer: Layer) -> Vec<Member<V>> {
        let own = |member: &&Member<V>| member.layer == layer || member.layer == FILE;
        self.members.borrow().iter().filter(own).cloned().collect()
    }

    /// The member `name`: the layer's own, else the file's.
    pub fn find(&self, name: &str, layer: Layer) -> Option<Member<V>> {
        let found: Vec<Member<V>> = self.visible(layer).into_iter().filter(|member| member.name == name).collect();
        found.iter().find(|member| member.layer == layer).or(found.first()).cloned()
    }

    /// What listings and batch methods cover: of the root only the layer's own members.
    pub fn listed(&self, layer: Layer) -> Vec<Member<V>> {
        let mut members = self.visible(layer);
        members.retain(|member| !self.is_root || member.layer == layer);
        members
    }

    /// All names that are taken.
    pub fn names(&self, layer: Layer) -> Vec<String> {
        self.visible(layer).into_iter().map(|member| member.name).collect()
    }

    /// Makes `thing` a member. To add again what is there already changes nothing.
    ///
    /// # Errors
    /// The name is taken, or a lab would hold itself.
    pub fn add(&self, name: &str, thing: Thing<V>, layer: Layer, origin: String) -> Result<(), Refusal> {
        if let Some(member) = self.find(name, layer) {
            if member.thing == thing {
                return Ok(());
            }
            return Err(Refusal::Taken(member.thing.describe(), member.origin));
        }
        if let Thing::Lab(lab) = &thing
            && (std::ptr::eq(Rc::as_ptr(lab), self) || lab.holds(self))
        {
            return Err(Refusal::Circle);
        }
        self.members.borrow_mut().push(Member { name: name.to_owned(), thing, layer, origin });
        Ok(())
    }

    fn holds(&self, wanted: &Self) -> bool {
        self.members.borrow().iter().any(|member| match &member.thing {
            Thing::Vm(_) | Thing::Bridge(_) => false,
            Thing::Lab(lab) => std::ptr::eq(Rc::as_ptr(lab), wanted) || lab.holds(wanted),
        })
    }

    /// Creates a lab inside; without a name it gets the first free one of `__lab_0`, `__lab_1`, …
    ///
    /// # Errors
    /// The name is taken.
    pub fn create(
        &self,
        name: Option<&str>,
        layer: Layer,
        test: Option<String>,
        origin: String,
    ) -> Result<Rc<Self>, Refusal> {
        let taken = self.names(layer);
        let name = match name {
            Some(name) => name.to_owned(),
            None => {
                let free = |name: &String| !taken.contains(name);
                (0_u64..).map(|number| format!("__lab_{number}")).find(free).unwrap_or_default()
            }
        };
        let lab = Self { name: name.clone(), is_root: false, layer, test, members: RefCell::default() };
        let lab = Rc::new(lab);
        self.add(&name, Thing::Lab(Rc::clone(&lab)), layer, origin)?;
        Ok(lab)
    }

    /// The lab that holds `machine`: this one, or the first of those inside.
    pub fn holder(self: &Rc<Self>, layer: Layer, machine: &V) -> Option<Rc<Self>> {
        let members = self.visible(layer);
        let held = |member: &Member<V>| matches!(&member.thing, Thing::Vm(vm) if vm == machine);
        if members.iter().any(held) {
            return Some(Rc::clone(self));
        }
        members.iter().find_map(|member| match &member.thing {
            Thing::Vm(_) | Thing::Bridge(_) => None,
            Thing::Lab(lab) => lab.holder(layer, machine),
        })
    }

    /// Ends the membership of `which`; nothing is stopped.
    ///
    /// # Errors
    /// It is no member, or one of the file's while a test runs.
    pub fn remove(&self, which: impl Fn(&Member<V>) -> bool, layer: Layer) -> Result<(), Refusal> {
        let mut members = self.members.borrow_mut();
        if let Some(at) = members.iter().position(|member| member.layer == layer && which(member)) {
            members.remove(at);
            return Ok(());
        }
        match members.iter().find(|member| member.layer == FILE && which(member)) {
            Some(member) => Err(Refusal::OfTheFile(member.origin.clone())),
            None => Err(Refusal::NoMember),
        }
    }

    /// All machines of what is listed, also those of labs inside; each once.
    pub fn vms(&self, layer: Layer) -> Vec<V> {
        let mut found: Vec<V> = Vec::new();
        for member in self.listed(layer) {
            let more = match member.thing {
                Thing::Vm(vm) => vec![vm],
                Thing::Bridge(_) => Vec::new(),
                Thing::Lab(lab) => lab.vms(layer),
            };
            for vm in more {
                if !found.contains(&vm) {
                    found.push(vm);
                }
            }
        }
        found
    }

    /// A thing is over: it goes from this lab and all inside.
    pub fn forget(&self, gone: &Thing<V>) {
        self.members.borrow_mut().retain(|member| member.thing != *gone);
        for member in &*self.members.borrow() {
            if let Thing::Lab(lab) = &member.thing {
                lab.forget(gone);
            }
        }
    }

    /// A test has ended: its members go from this lab and all inside.
    pub fn end_layer(&self, layer: Layer) {
        let mut members = self.members.borrow_mut();
        members.retain(|member| member.layer != layer);
        for member in &*members {
            if let Thing::Lab(lab) = &member.thing {
                lab.end_layer(layer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm(lab: &Lab<u32>, name: &str, id: u32, layer: Layer) -> Result<(), Refusal> {
        lab.add(name, Thing::Vm(id), layer, format!("created at {layer}"))
    }

    fn listed(lab: &Lab<u32>, layer: Layer) -> Vec<String> {
        lab.listed(layer).into_iter().map(|member| member.name).collect()
    }

    #[test]
    fn a_test_sees_the_file_and_lists_its_own() {
        let root = Lab::root();
        vm(&root, "shared", 1, FILE).unwrap();
        vm(&root, "own", 2, 7).unwrap();
        assert_eq!(root.find("shared", 7).map(|member| member.thing), Some(Thing::Vm(1)));
        assert_eq!((listed(&root, 7), listed(&root, FILE)), (vec!["own".to_owned()], vec!["shared".to_owned()]));
        assert_eq!(vm(&root, "shared", 3, 7), Err(Refusal::Taken("VM", "created at 0".to_owned())));
        assert_eq!(root.vms(7), [2]);
        root.end_layer(7);
        assert!(root.find("own", 8).is_none() && root.ended(8).is_none());
        vm(&root, "own", 4, 8).unwrap();
    }

    #[test]
    fn labs_inside_see_only_themselves_and_end_with_their_test() {
        let root: Rc<Lab<u32>> = Lab::root();
        let left = root.create(Some("left"), FILE, None, String::new()).unwrap();
        let right = root.create(None, 3, Some("t".to_owned()), String::new()).unwrap();
        assert_eq!(right.name(), "__lab_0");
        assert_eq!(root.create(None, 3, Some("t".to_owned()), String::new()).unwrap().name(), "__lab_1");
        vm(&left, "a", 1, FILE).unwrap();
        vm(&left, "b", 2, 3).unwrap();
        assert!(right.find("a", 3).is_none() && root.find("a", 3).is_none());
        assert_eq!(listed(&left, 3), ["a", "b"]);
        assert_eq!((right.ended(3), left.ended(3)), (None, None));
        root.end_layer(3);
        assert_eq!((right.ended(4), left.ended(4)), (Some("t"), None));
        assert_eq!(listed(&left, 4), ["a"]);
    }

    #[test]
    fn membership_is_no_ownership() {
        let root = Lab::root();
        let group = root.create(Some("group"), FILE, None, String::new()).unwrap();
        vm(&root, "a", 1, FILE).unwrap();
        vm(&group, "a", 1, FILE).unwrap();
        vm(&group, "a", 1, FILE).unwrap();
        assert_eq!(vm(&group, "a", 2, FILE), Err(Refusal::Taken("VM", "created at 0".to_owned())));
        assert_eq!(root.vms(FILE), [1], "each machine once");
        vm(&group, "b", 2, FILE).unwrap();
        let holder = |machine: u32| root.holder(FILE, &machine).map(|lab| lab.name().to_owned());
        let name = |name: &str| Some(name.to_owned());
        assert_eq!((holder(1), holder(2), holder(3)), (name("provium"), name("group"), None));
        group.remove(|member| member.name == "a", FILE).unwrap();
        assert_eq!(group.remove(|member| member.name == "a", FILE), Err(Refusal::NoMember));
        assert!(matches!(root.remove(|member| member.name == "a", 5), Err(Refusal::OfTheFile(_))));
        assert_eq!(root.find("a", FILE).map(|member| member.thing), Some(Thing::Vm(1)));
    }

    #[test]
    fn no_lab_holds_itself() {
        let root: Rc<Lab<u32>> = Lab::root();
        let outer = root.create(Some("outer"), FILE, None, String::new()).unwrap();
        let inner = outer.create(Some("inner"), FILE, None, String::new()).unwrap();
        let add = |to: &Lab<u32>, lab: &Rc<Lab<u32>>| to.add("x", Thing::Lab(Rc::clone(lab)), FILE, String::new());
        assert_eq!(add(&inner, &outer), Err(Refusal::Circle));
        assert_eq!(add(&inner, &inner), Err(Refusal::Circle));
        assert_eq!(add(&inner, &root), Err(Refusal::Circle));
    }
}
