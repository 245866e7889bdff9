//! Devices that come and go while the guest runs: each takes one of the ports that were left free for them.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

use super::arguments::FREE_PORTS;
use super::error::QmpError;
use super::qmp::{Qmp, QmpEvent};

/// The ports of one machine into which devices can be plugged, and what is in them.
#[derive(Debug)]
pub struct FreePorts {
    used: Mutex<Vec<Option<String>>>,
}

impl Default for FreePorts {
    fn default() -> Self {
        Self { used: Mutex::new(vec![None; usize::from(FREE_PORTS)]) }
    }
}

impl FreePorts {
    /// Takes a port for the device `id`; `None` where all are in use.
    pub fn take(&self, id: &str) -> Option<String> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let at = used.iter().position(Option::is_none)?;
        used[at] = Some(id.to_owned());
        Some(format!("free{at}"))
    }

    /// Takes this very port, for a machine that is put together as it was before; false where it is in use or there is none.
    pub fn take_port(&self, port: &str, id: &str) -> bool {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let number = port.strip_prefix("free").and_then(|number| number.parse::<usize>().ok());
        match number.and_then(|number| used.get_mut(number)) {
            Some(slot) if slot.is_none() => {
                *slot = Some(id.to_owned());
                true
            }
            _ => false,
        }
    }

    /// The port of the device `id`.
    pub fn port_of(&self, id: &str) -> Option<String> {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.iter().position(|user| user.as_deref() == Some(id)).map(|at| format!("free{at}"))
    }

    /// The device `id` is gone.
    pub fn give_back(&self, id: &str) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.iter_mut().filter(|user| user.as_deref() == Some(id)).for_each(|user| *user = None);
    }

    /// How many there are.
    pub fn count() -> usize {
        usize::from(FREE_PORTS)
    }
}

/// Plugs a device in: `driver` with the id `id` into the port `bus`, with `properties` besides.
///
/// # Errors
/// QEMU refuses it.
pub async fn plug(
    qmp: &Qmp,
    driver: &str,
    id: &str,
    bus: &str,
    properties: Map<String, Value>,
) -> Result<(), QmpError> {
    let mut arguments = properties;
    arguments.insert("driver".to_owned(), json!(driver));
    arguments.insert("id".to_owned(), json!(id));
    arguments.insert("bus".to_owned(), json!(bus));
    qmp.execute("device_add", Value::Object(arguments)).await.map(drop)
}

/// Unplugs the device `id` and waits until the guest has let go of it.
///
/// # Errors
/// QEMU refuses it, the guest refuses it, or does not let go within `limit`.
pub async fn unplug(qmp: &Qmp, id: &str, limit: Duration) -> Result<(), QmpError> {
    let deadline = Instant::now() + limit;
    // Before the command: what it causes is not missed.
    let mut events = qmp.events();
    match qmp.execute("device_del", json!({ "id": id })).await {
        // One that was asked to go before is on its way.
        Err(QmpError::Refused { description, .. }) if description.contains("already in the process of unplug") => {}
        Err(QmpError::Refused { class, .. }) if class == "DeviceNotFound" => return Ok(()),
        result => drop(result?),
    }
    loop {
        match tokio::time::timeout_at(deadline, events.recv()).await {
            Ok(Ok(event)) => match verdict(&event, id) {
                Some(true) => return Ok(()),
                Some(false) => {
                    let description = format!("the guest refuses to let go of the device `{id}`");
                    return Err(QmpError::Refused { command: "device_del".to_owned(), class: event.name, description });
                }
                None => {}
            },
            // Some events were missed: what is there tells.
            Ok(Err(RecvError::Lagged(_))) => {
                if !is_there(qmp, id).await? {
                    return Ok(());
                }
            }
            Ok(Err(RecvError::Closed)) => {
                return Err(QmpError::Closed {
                    awaited: format!("the end of the device `{id}`"),
                    reason: "it was closed here".to_owned(),
                });
            }
            Err(_) => {
                return Err(QmpError::Deadline {
                    awaited: format!("that the guest let go of the device `{id}`"),
                    after: limit,
                    last: "nothing about it".to_owned(),
                });
            }
        }
    }
}

/// Whether an event says that the device is gone (true) or stays (false). `DEVICE_DELETED` comes for each of its parts: only
/// the one with its id counts.
fn verdict(event: &QmpEvent, id: &str) -> Option<bool> {
    let about_it = event.data["device"] == id;
    match event.name.as_str() {
        "DEVICE_DELETED" if about_it => Some(true),
        "DEVICE_UNPLUG_GUEST_ERROR" if about_it => Some(false),
        _ => None,
    }
}

async fn is_there(qmp: &Qmp, id: &str) -> Result<bool, QmpError> {
    let listed = qmp.execute("qom-list", json!({ "path": "/machine/peripheral" })).await?;
    Ok(listed.as_array().is_some_and(|all| all.iter().any(|one| one["name"] == id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_taken_and_given_back() {
        let ports = FreePorts::default();
        let taken: Vec<Option<String>> = (0..5).map(|number| ports.take(&format!("d{number}"))).collect();
        assert_eq!(taken[0].as_deref(), Some("free0"));
        assert_eq!((taken[3].as_deref(), taken[4].as_deref()), (Some("free3"), None));
        ports.give_back("d1");
        assert_eq!(ports.port_of("d1"), None);
        assert!(!ports.take_port("free0", "x") && !ports.take_port("free9", "x") && !ports.take_port("pcie.0", "x"));
        assert!(ports.take_port("free1", "x"));
        assert_eq!(ports.port_of("x").as_deref(), Some("free1"));
    }

    #[test]
    fn only_its_own_event_counts() {
        let event = |name: &str, data: Value| QmpEvent { name: name.to_owned(), data };
        let of_part = event("DEVICE_DELETED", json!({"path": "/machine/peripheral/nic0/virtio-backend"}));
        assert_eq!(verdict(&of_part, "nic0"), None);
        assert_eq!(verdict(&event("DEVICE_DELETED", json!({"device": "nic1"})), "nic0"), None);
        assert_eq!(verdict(&event("DEVICE_DELETED", json!({"device": "nic0"})), "nic0"), Some(true));
        assert_eq!(verdict(&event("DEVICE_UNPLUG_GUEST_ERROR", json!({"device": "nic0"})), "nic0"), Some(false));
    }
}
