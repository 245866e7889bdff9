//! The guest's condition as the events leave it; a late observer misses nothing.

use serde_json::Value;

/// How a guest went down by itself. With this program's `-action` it stays in memory, paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestEnd {
    /// It powered off.
    Poweroff,
    /// It reset itself, or its CPU met a triple fault.
    Reset,
    /// Its kernel told of its panic. Stays so, whatever the panicked kernel does next, until a reset.
    Panic,
}

/// What the events say about the guest so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GuestCondition {
    /// The CPUs stand still.
    pub stopped: bool,
    /// It sleeps (ACPI S3).
    pub suspended: bool,
    /// It is down.
    pub end: Option<GuestEnd>,
    /// Something in the guest has the agent's port open.
    pub agent_open: bool,
    /// Something had it open since the last reset, and has it no more.
    pub agent_gone: bool,
    /// How often it began anew.
    pub resets: u64,
    /// How many transfers of its state have ended.
    pub transfers: u64,
    /// Whether the last of them succeeded.
    pub transferred: bool,
}

impl GuestCondition {
    /// Whether the guest can't be expected to answer: its CPUs stand still or it sleeps.
    pub fn at_rest(self) -> bool {
        self.stopped || self.suspended
    }

    /// The condition after an event (QEMU `qapi/run-state.json`, `qapi/char.json`, `qapi/migration.json`).
    pub(super) fn after(self, event: &str, data: &Value, agent_port: &str) -> Self {
        let end = |found: GuestEnd| match self.end {
            Some(GuestEnd::Panic) => Some(GuestEnd::Panic),
            _ => Some(found),
        };
        match event {
            "RESET" => Self {
                stopped: self.stopped,
                resets: self.resets + 1,
                transfers: self.transfers,
                transferred: self.transferred,
                ..Self::default()
            },
            "MIGRATION" => match data["status"].as_str() {
                Some("completed") => Self { transfers: self.transfers + 1, transferred: true, ..self },
                Some("failed" | "cancelled") => Self { transfers: self.transfers + 1, transferred: false, ..self },
                _ => self,
            },
            "STOP" => Self { stopped: true, ..self },
            "RESUME" => Self { stopped: false, ..self },
            "SUSPEND" => Self { suspended: true, ..self },
            "WAKEUP" => Self { suspended: false, ..self },
            "GUEST_PANICKED" => Self { end: Some(GuestEnd::Panic), ..self },
            "SHUTDOWN" => match data["reason"].as_str() {
                Some("guest-panic") => Self { end: Some(GuestEnd::Panic), ..self },
                Some("guest-reset") => Self { end: end(GuestEnd::Reset), ..self },
                Some("guest-shutdown") => Self { end: end(GuestEnd::Poweroff), ..self },
                // What the host did itself ends with QEMU.
                _ => self,
            },
            "VSERPORT_CHANGE" if data["id"] == agent_port => {
                let open = data["open"] == Value::Bool(true);
                // A reset closes the port too, and may be told of before that.
                Self { agent_open: open, agent_gone: !open && (self.agent_open || self.agent_gone), ..self }
            }
            _ => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn after(events: &[(&str, Value)]) -> GuestCondition {
        events.iter().fold(GuestCondition::default(), |condition, (name, data)| condition.after(name, data, "agent"))
    }

    fn shutdown(reason: &str) -> (&'static str, Value) {
        ("SHUTDOWN", json!({"guest": true, "reason": reason}))
    }

    #[test]
    fn ends() {
        let none = Value::Null;
        assert_eq!(after(&[]), GuestCondition::default());
        let off = after(&[shutdown("guest-shutdown"), ("STOP", none.clone())]);
        assert_eq!((off.end, off.stopped), (Some(GuestEnd::Poweroff), true));
        assert_eq!(after(&[shutdown("guest-reset")]).end, Some(GuestEnd::Reset));
        assert_eq!(after(&[shutdown("guest-panic")]).end, Some(GuestEnd::Panic));
        assert_eq!(after(&[shutdown("host-qmp-quit")]).end, None);
        let panic = [("GUEST_PANICKED", json!({"action": "pause"})), ("RESUME", none.clone()), shutdown("guest-reset")];
        assert_eq!(after(&panic).end, Some(GuestEnd::Panic));
        let again = after(&[shutdown("guest-reset"), ("STOP", none.clone()), ("RESET", none)]);
        assert_eq!((again.end, again.stopped, again.resets), (None, true, 1));
    }

    #[test]
    fn transfers() {
        let status = |status: &str| ("MIGRATION", json!({"status": status}));
        let begun = after(&[status("setup"), status("active")]);
        assert_eq!((begun.transfers, begun.transferred), (0, false));
        let done = after(&[status("setup"), status("completed"), ("RESET", Value::Null)]);
        assert_eq!((done.transfers, done.transferred), (1, true));
        let failed = after(&[status("completed"), status("setup"), status("failed")]);
        assert_eq!((failed.transfers, failed.transferred), (2, false));
    }

    #[test]
    fn rest_and_the_agent() {
        let none = Value::Null;
        assert!(after(&[("STOP", none.clone())]).at_rest());
        assert!(after(&[("SUSPEND", none.clone())]).at_rest());
        assert!(!after(&[("SUSPEND", none.clone()), ("WAKEUP", none.clone())]).at_rest());
        assert!(!after(&[("STOP", none.clone()), ("RESUME", none)]).at_rest());
        let port = |id: &str, open: bool| ("VSERPORT_CHANGE", json!({"id": id, "open": open}));
        assert!(!after(&[port("other", false)]).agent_gone);
        assert!(after(&[port("agent", true), port("agent", false)]).agent_gone);
        assert!(!after(&[port("agent", true), port("agent", false), port("agent", true)]).agent_gone);
        let reset = || ("RESET", Value::Null);
        assert!(!after(&[port("agent", true), port("agent", false), reset()]).agent_gone);
        assert!(!after(&[port("agent", true), reset(), port("agent", false)]).agent_gone);
    }
}
