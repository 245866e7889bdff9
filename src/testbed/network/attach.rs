//! Members come and go: before boot by a note, afterwards by plugging a card in.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::bridge::{Bridge, names};
use super::error::BridgeError;
use super::nic::Nic;
use super::uplink;
use crate::agent_protocol::{Op, WaitFor};
use crate::foundation::path_error::describe_io;
use crate::qemu::{CARD_DRIVER, CardSpec, QmpError, hotplug};
use crate::testbed::error::VmError;
use crate::testbed::guest::Guest;
use crate::testbed::running::Running;
use crate::testbed::vm::{Vm, VmState};

/// How long a guest may take to find a card that was plugged in, or to let go of one; before the accelerator's factor.
const GUEST_TAKES: Duration = Duration::from_secs(15);
/// The driver of the cards.
const DRIVER: &str = "virtio_net";

/// The cards of one machine.
#[derive(Default)]
pub struct VmNetwork {
    nics: Mutex<Vec<Arc<Nic>>>,
    /// Held while the machine boots, and while a card comes or goes.
    pub(in crate::testbed) change: tokio::sync::Mutex<()>,
}

impl VmNetwork {
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Nic>>> {
        self.nics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its cards, by their numbers.
    pub fn nics(&self) -> Vec<Arc<Nic>> {
        self.lock().clone()
    }

    fn free_index(&self) -> u32 {
        let nics = self.lock();
        (0..).find(|index| nics.iter().all(|nic| nic.index() != *index)).unwrap_or_default()
    }

    fn add(&self, nic: Arc<Nic>) {
        let mut nics = self.lock();
        nics.push(nic);
        nics.sort_by_key(|nic| nic.index());
    }

    fn remove(&self, nic: &Arc<Nic>) {
        self.lock().retain(|other| !Arc::ptr_eq(other, nic));
    }

    /// As QEMU is told of the cards at its start.
    pub(in crate::testbed) fn specs(&self) -> Vec<CardSpec> {
        self.lock().iter().map(|nic| nic.spec()).collect()
    }

    /// The cables of a QEMU that has just started, in the order of [`Self::specs`]; cards without carrier lose it now.
    ///
    /// # Errors
    /// A cable can't be used; QEMU refuses.
    pub(in crate::testbed) async fn plug_all(
        &self,
        vm: &str,
        cables: Vec<UnixStream>,
        running: &Running,
    ) -> Result<(), VmError> {
        for (nic, cable) in self.nics().into_iter().zip(cables) {
            if let Some(bridge) = nic.bridge() {
                bridge.switch().plug(nic.port(), cable).map_err(|error| {
                    let message =
                        format!("boot: the cable to `{}` can't be used: {}", bridge.name(), describe_io(&error));
                    VmError::Failed { vm: vm.to_owned(), message }
                })?;
            }
            if !nic.is_connected() {
                let result = running.qmp().execute("set_link", json!({"name": nic.id(), "up": false})).await;
                result.map_err(|error| VmError::Qemu { vm: vm.to_owned(), op: "boot", source: error.into() })?;
            }
        }
        Ok(())
    }
}

/// Makes all of `vms` members, or none.
///
/// # Errors
/// One that is a member already, that can't be plugged in, that does not bring its interface up.
pub async fn attach(bridge: Arc<Bridge>, vms: Vec<Arc<Vm>>) -> Result<(), BridgeError> {
    // A task of its own: where the waiting test ends, nothing is left half-way.
    let work = tokio::spawn(async move {
        let mut done = Vec::new();
        for vm in &vms {
            match attach_one(&bridge, vm).await {
                Ok(nic) => done.push(nic),
                Err(error) => {
                    for nic in done {
                        // What is told is the first failure.
                        let _ = detach_nic(&bridge, &nic, "attach").await;
                    }
                    return Err(error);
                }
            }
        }
        let told = tell_all(&bridge, "attach").await;
        if told.is_err() {
            for nic in done {
                let _ = detach_nic(&bridge, &nic, "attach").await;
            }
        }
        told
    });
    finished(work.await)
}

fn finished(result: Result<Result<(), BridgeError>, tokio::task::JoinError>) -> Result<(), BridgeError> {
    result.unwrap_or_else(|error| Err(BridgeError::new("?", "attach", format!("it was given up: {error}"))))
}

async fn attach_one(bridge: &Arc<Bridge>, vm: &Arc<Vm>) -> Result<Arc<Nic>, BridgeError> {
    let _alone = vm.network().change.lock().await;
    if bridge.nic_of(vm).is_some() {
        return Err(BridgeError::new(bridge.name(), "attach", format!("vm `{}` is a member already", vm.name())));
    }
    let nic = bridge.add(vm, vm.network().free_index())?;
    let plugged = match vm.look() {
        (VmState::Created | VmState::Shutdown, _) => Ok(()),
        (VmState::Booted, Some(running)) => plug_in(bridge, vm, &nic, &running).await,
        (state, running) => Err(vm.not_in("attach", state, running.as_deref()).into()),
    };
    match plugged {
        Ok(()) => {
            vm.network().add(Arc::clone(&nic));
            Ok(nic)
        }
        Err(error) => {
            bridge.remove(&nic);
            Err(error)
        }
    }
}

async fn plug_in(bridge: &Arc<Bridge>, vm: &Arc<Vm>, nic: &Arc<Nic>, running: &Running) -> Result<(), BridgeError> {
    let guest = Guest::new(Arc::clone(vm));
    // A kernel may have it built in; what counts is whether the card comes up.
    let _ = guest.load_profile_module(DRIVER, "").await;
    let qmp_failed = |source: QmpError| VmError::Qemu { vm: vm.name().to_owned(), op: "attach", source: source.into() };
    let id = nic.id();
    let port = running.qemu().ports().take(&id).ok_or_else(|| VmError::Refused {
        vm: vm.name().to_owned(),
        op: "attach",
        why: format!(
            "all {} places for devices that are plugged in while it runs are in use\nhint: attach it before `:boot()`",
            hotplug::FreePorts::count()
        ),
    })?;
    let result = async {
        let (ours, theirs) = UnixStream::pair().map_err(|error| {
            BridgeError::new(bridge.name(), "attach", format!("a cable can't be had: {}", describe_io(&error)))
        })?;
        let cable = format!("{id}-cable");
        running.qmp().pass(&cable, OwnedFd::from(theirs)).await.map_err(qmp_failed)?;
        // The kind `stream` looks for a passed descriptor by its name on a thread that does not know it; this one speaks the same.
        let netdev = json!({"type": "socket", "id": CardSpec::netdev(&id), "fd": cable});
        running.qmp().execute("netdev_add", netdev).await.map_err(qmp_failed)?;
        let mut properties = Map::new();
        for (name, value) in nic.spec().properties() {
            properties.insert(name.to_owned(), value.parse::<u64>().map_or_else(|_| json!(value), Value::from));
        }
        if let Err(error) = hotplug::plug(running.qmp(), CARD_DRIVER, &id, &port, properties).await {
            // Its other half is of no use alone.
            let _ = running.qmp().execute("netdev_del", json!({"id": CardSpec::netdev(&id)})).await;
            return Err(qmp_failed(error).into());
        }
        bridge.switch().plug(nic.port(), ours).map_err(|error| {
            BridgeError::new(bridge.name(), "attach", format!("the cable can't be used: {}", describe_io(&error)))
        })?;
        bring_up(vm, nic, "attach", None).await
    }
    .await;
    if result.is_err() {
        // What the guest never took note of it need not let go of.
        let _ = unplug(vm, nic, running).await;
        running.qemu().ports().give_back(&id);
    }
    result
}

async fn unplug(vm: &Vm, nic: &Nic, running: &Running) -> Result<(), QmpError> {
    let id = nic.id();
    hotplug::unplug(running.qmp(), &id, vm.scaled(GUEST_TAKES)).await?;
    running.qmp().execute("netdev_del", json!({"id": CardSpec::netdev(&id)})).await?;
    running.qemu().ports().give_back(&id);
    Ok(())
}

/// Has the agent set the card up; `old_mac` is the address that it has so far, where that is another.
async fn bring_up(vm: &Vm, nic: &Nic, op: &'static str, old_mac: Option<[u8; 6]>) -> Result<(), BridgeError> {
    let Some(bridge) = nic.bridge() else { return Ok(()) };
    if !bridge.options().addresses {
        return Ok(());
    }
    let card = nic.card(&bridge.card_routes().await, old_mac);
    let limit = vm.scaled(GUEST_TAKES);
    let wait = vm.op(op, async |agent| agent.wait_for(WaitFor::Card(card)).await);
    match tokio::time::timeout(limit, wait).await {
        Ok(result) => Ok(result?),
        Err(_) => {
            let why = format!(
                "the guest's kernel did not bring up the card for the bridge `{}` within {}\nhint: it needs `virtio_net` (built \
                 in or in the profile's `modules`) and, to plug a card in while it runs, PCI hot-plug; a bridge that is \
                 attached before `:boot()` needs no hot-plug",
                bridge.name(),
                crate::foundation::duration::format_duration(limit)
            );
            Err(VmError::Refused { vm: vm.name().to_owned(), op, why }.into())
        }
    }
}

/// Sets up all cards of a machine whose agent has just been met. `op` is what the author called.
///
/// # Errors
/// A card that does not come up.
pub(in crate::testbed) async fn bring_up_all(vm: &Vm, op: &'static str) -> Result<(), VmError> {
    let nics = vm.network().nics();
    if nics.is_empty() {
        return Ok(());
    }
    for nic in &nics {
        bring_up(vm, nic, op, None).await.map_err(into_vm_error(vm.name()))?;
    }
    set_names(vm, op).await
}

fn into_vm_error(vm: &str) -> impl Fn(BridgeError) -> VmError {
    move |error| match error {
        BridgeError::Vm(error) => error,
        other => VmError::Failed { vm: vm.to_owned(), message: other.to_string() },
    }
}

/// Writes the names that a machine can use into its `/etc/hosts`.
async fn set_names(vm: &Vm, op: &'static str) -> Result<(), VmError> {
    let mut bridges = Vec::new();
    for bridge in vm.network().nics().iter().filter_map(|nic| nic.bridge()) {
        for known in std::iter::once(Arc::clone(&bridge)).chain(bridge.routes()) {
            if !bridges.iter().any(|other| Arc::ptr_eq(other, &known)) {
                bridges.push(known);
            }
        }
    }
    let all: Vec<_> = bridges.iter().map(|bridge| bridge.full_names()).collect();
    let mut lines = String::new();
    for (name, addresses) in names(&all) {
        for address in addresses {
            lines.push_str(&format!("{address} {name}\n"));
        }
    }
    vm.op(op, async |agent| agent.op(Op::SetHosts(lines.clone())).await).await.map(drop)
}

/// Tells the services and all booted members, also those behind routes, who is there.
async fn tell_all(bridge: &Arc<Bridge>, op: &'static str) -> Result<(), BridgeError> {
    let around: Vec<Arc<Bridge>> = std::iter::once(Arc::clone(bridge)).chain(bridge.routes()).collect();
    around.iter().for_each(|bridge| bridge.tell_hosts());
    for vm in around.iter().flat_map(|bridge| bridge.nics()).filter_map(|nic| nic.vm()) {
        if vm.state() == VmState::Booted {
            set_names(&vm, op).await?;
        }
    }
    Ok(())
}

/// Sets the cards of all booted members up again, with the routes of now, and their names.
///
/// # Errors
/// A guest that refuses.
pub async fn refresh(bridge: &Arc<Bridge>, op: &'static str) -> Result<(), BridgeError> {
    for nic in bridge.nics() {
        if let Some(vm) = nic.vm().filter(|vm| vm.state() == VmState::Booted) {
            bring_up(&vm, &nic, op, None).await?;
        }
    }
    tell_all(bridge, op).await
}

/// Ends a membership.
///
/// # Errors
/// No member; a guest that does not let go of its card.
pub async fn detach(bridge: Arc<Bridge>, vm: Arc<Vm>) -> Result<(), BridgeError> {
    let Some(nic) = bridge.nic_of(&vm) else {
        return Err(BridgeError::new(bridge.name(), "detach", format!("vm `{}` is no member", vm.name())));
    };
    let work = tokio::spawn(async move {
        detach_nic(&bridge, &nic, "detach").await?;
        tell_all(&bridge, "detach").await
    });
    finished(work.await)
}

async fn detach_nic(bridge: &Arc<Bridge>, nic: &Arc<Nic>, op: &'static str) -> Result<(), BridgeError> {
    let Some(vm) = nic.vm() else {
        bridge.remove(nic);
        return Ok(());
    };
    let _alone = vm.network().change.lock().await;
    match vm.look() {
        (VmState::Booted, Some(running)) => {
            let link = json!({"name": nic.id(), "up": false});
            let failed = |source: QmpError| VmError::Qemu { vm: vm.name().to_owned(), op, source: source.into() };
            running.qmp().execute("set_link", link).await.map_err(failed)?;
            unplug(&vm, nic, &running).await.map_err(failed)?;
        }
        (state @ (VmState::Paused | VmState::Restarting), running) => {
            return Err(vm.not_in(op, state, running.as_deref()).into());
        }
        _ => {}
    }
    bridge.remove(nic);
    vm.network().remove(nic);
    if vm.state() == VmState::Booted {
        set_names(&vm, op).await?;
    }
    Ok(())
}

/// Takes the carrier of a card away, or gives it back.
///
/// # Errors
/// The card is no longer there; QEMU refuses.
pub async fn connect(nic: &Arc<Nic>, up: bool) -> Result<(), BridgeError> {
    let op = if up { "reconnect" } else { "disconnect" };
    let vm = nic.vm().filter(|_| nic.is_attached()).ok_or_else(|| {
        BridgeError::new(nic.bridge_name(), op, format!("vm `{}` is no member any more", nic.vm_name()))
    })?;
    let _alone = vm.network().change.lock().await;
    if let (VmState::Booted | VmState::Paused, Some(running)) = vm.look() {
        let result = running.qmp().execute("set_link", json!({"name": nic.id(), "up": up})).await;
        result.map_err(|source| VmError::Qemu { vm: vm.name().to_owned(), op, source: source.into() })?;
    }
    nic.set_connected(up);
    Ok(())
}

/// Forwards packets between two bridges, or does so no more.
///
/// # Errors
/// A guest that refuses its new routes.
pub async fn route(one: &Arc<Bridge>, other: &Arc<Bridge>, there: bool) -> Result<(), BridgeError> {
    let op = if there { "route" } else { "unroute" };
    one.set_route(other, there);
    other.set_route(one, there);
    refresh(one, op).await?;
    refresh(other, op).await
}

/// Ends a bridge: its members lose their cards, and nothing is forwarded to it any more.
pub async fn close(bridge: &Arc<Bridge>) {
    if bridge.set_closed() {
        return;
    }
    // A guest that clings to its card keeps a dead one.
    for nic in bridge.nics() {
        if detach_nic(bridge, &nic, "close").await.is_err() {
            bridge.remove(&nic);
            if let Some(vm) = nic.vm() {
                vm.network().remove(&nic);
            }
        }
    }
    for other in bridge.routes() {
        other.set_route(bridge, false);
        let _ = refresh(&other, "close").await;
    }
    drop(bridge.uplink.lock().await.take());
    let stopping = Arc::clone(bridge);
    // Waits for a thread.
    let _ = tokio::task::spawn_blocking(move || stopping.switch().stop()).await;
}

/// A machine is gone for good: it leaves all its bridges.
pub(in crate::testbed) fn leave_all(vm: &Vm) {
    for nic in vm.network().nics() {
        vm.network().remove(&nic);
        if let Some(bridge) = nic.bridge() {
            bridge.remove(&nic);
            bridge.tell_hosts();
        }
    }
}

/// Turns the way out on or off.
///
/// # Errors
/// See `uplink::enable`.
pub async fn set_uplink(bridge: &Arc<Bridge>, on: bool) -> Result<(), BridgeError> {
    if on { uplink::enable(bridge).await } else { uplink::disable(bridge).await }
}
