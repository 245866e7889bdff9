//! Following a guest and its QEMU to their end.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch::Receiver;

use super::console::Console;
use super::error::Death;
use super::running::Running;
use crate::qemu::{GuestCondition, GuestEnd};

/// How long an agent may take to show that a kernel which speaks of a panic has not panicked.
const SIGN_OF_LIFE: Duration = Duration::from_millis(700);

/// Tells `running` of everything that ends its guest, until QEMU itself ends. An agent whose port was closed is given up
/// after `patience`: it may have been killed by a guest that goes down.
pub async fn watch(running: Arc<Running>, patience: Duration) {
    let condition = || running.qmp().condition();
    let consoles = running.consoles();
    let exit = tokio::select! {
        exit = running.qemu().wait() => exit,
        () = follow_condition(&running, condition()) => return,
        () = follow_panics(&running, &consoles.serial, condition()) => return,
        () = follow_panics(&running, &consoles.virtio, condition()) => return,
        () = follow_agent(&running, condition(), patience) => return,
    };
    running.died(running.condition().resets, Death::QemuEnded(exit.to_string()));
}

/// Each of these ends only with the channel it listens to, which `running` holds.
async fn follow_condition(running: &Running, mut condition: Receiver<GuestCondition>) {
    loop {
        let now = *condition.borrow_and_update();
        judge(running, now);
        if condition.changed().await.is_err() {
            return;
        }
    }
}

fn judge(running: &Running, now: GuestCondition) {
    let death = match now.end {
        None => return,
        // Known already: the console need not be looked at again.
        Some(_) if running.death().is_some_and(|death| !matches!(death, Death::AgentLost(_))) => return,
        Some(GuestEnd::Panic) => Death::Panicked(running.panic_line()),
        Some(end) => match (end, running.panic_line()) {
            (_, Some(line)) => Death::Panicked(Some(line)),
            (GuestEnd::Poweroff, None) => Death::PoweredOff,
            (_, None) if running.had_triple_fault() => Death::TripleFault,
            (_, None) => Death::Reset,
        },
    };
    running.died(now.resets, death);
}

/// A kernel may panic without telling QEMU, and then only its console says so. Where the agent still answers, somebody
/// merely printed the words; else the guest is stopped, so that it stays as it is.
async fn follow_panics(running: &Running, console: &Console, mut condition: Receiver<GuestCondition>) {
    let mut heard = console.heard();
    loop {
        if heard.wait_for(|heard| heard.panic.is_some()).await.is_err() {
            return;
        }
        let now = *condition.borrow_and_update();
        if now.end.is_some() || now.at_rest() || running.death().is_some() {
            // Nothing to find out now; what comes next may change that.
            if condition.changed().await.is_err() {
                return;
            }
            continue;
        }
        let answered = match running.find_agent() {
            Some(agent) => matches!(tokio::time::timeout(SIGN_OF_LIFE, agent.ping()).await, Ok(Ok(()))),
            None => {
                tokio::time::sleep(SIGN_OF_LIFE).await;
                false
            }
        };
        if answered {
            console.forget_panic();
            continue;
        }
        if condition.borrow().resets != now.resets {
            continue;
        }
        // Before anybody hears of it: who looks at the machine then finds it at rest. A QEMU that is gone needs no stop.
        let _ = running.qmp().execute("stop", serde_json::Value::Null).await;
        running.died(now.resets, Death::Panicked(running.panic_line()));
    }
}

async fn follow_agent(running: &Running, mut condition: Receiver<GuestCondition>, patience: Duration) {
    let gone = |now: &GuestCondition| now.agent_gone && now.end.is_none();
    loop {
        let Ok(resets) = condition.wait_for(gone).await.map(|now| now.resets) else { return };
        let back = condition.wait_for(|now| !gone(now) || now.resets != resets);
        match tokio::time::timeout(patience, back).await {
            Ok(Ok(_)) => continue,
            Ok(Err(_)) => return,
            Err(_) => running.died(resets, Death::AgentLost("it ended".to_owned())),
        }
        if condition.wait_for(|now| !gone(now)).await.is_err() {
            return;
        }
    }
}
