//! Giving up an agent that went silent.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::connection::{AgentClient, Shared};
use super::error::AgentError;
use crate::agent_protocol::ToGuest;
use crate::foundation::duration::format_duration;

/// In how many steps the silence is counted. A host that stood still itself adds one step at most.
const STEPS: u32 = 30;
/// After how many steps the agent is asked for a sign of life.
const ASK_AFTER: u32 = STEPS / 3;

impl AgentClient {
    /// Ends the connection when requests are open and nothing was heard for `limit`, not counting the time in which `at_rest`
    /// says that the guest can't answer. An agent that is silent because it has nothing to say answers a ping in between.
    pub fn give_up_after(&self, limit: Duration, at_rest: impl Fn() -> bool + Send + 'static) {
        tokio::spawn(watch(Arc::downgrade(&self.shared), limit, at_rest));
    }
}

async fn watch(shared: Weak<Shared>, limit: Duration, at_rest: impl Fn() -> bool) {
    let mut ticks = tokio::time::interval((limit / STEPS).max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut silent, mut heard) = (0, 0);
    loop {
        ticks.tick().await;
        let Some(shared) = shared.upgrade() else { return };
        let idle = {
            let waiting = shared.waiting();
            if waiting.ended.is_some() {
                return;
            }
            waiting.requests.is_empty()
        };
        let now = shared.heard.load(Ordering::Relaxed);
        if idle || now != heard {
            (silent, heard) = (0, now);
            continue;
        }
        if at_rest() {
            continue;
        }
        silent += 1;
        if silent == ASK_AFTER {
            let mut frame = Vec::new();
            ToGuest::Ping.encode(shared.next.fetch_add(1, Ordering::Relaxed), &mut frame);
            // A full queue means that the agent does not even read: no need to ask.
            let _ = shared.frames.try_send(frame);
        }
        if silent > STEPS {
            shared.end(AgentError::Closed(format!("no sign of life from it for {}", format_duration(limit))));
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent_client::connect;
    use crate::agent_client::scripted_guest::{Guest, pair};
    use crate::agent_protocol::ToHost;
    use std::sync::atomic::AtomicBool;

    const LIMIT: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn what_is_under_way_settles_and_what_lasts_does_not_count() {
        let (client, mut guest) = pair().await;
        let _log = client.follow_kernel_log().await.unwrap();
        assert_eq!(guest.next().await.1, ToGuest::KernelLog { follow: true });
        assert_eq!(client.settle(LIMIT).await, 0);
        let asked = tokio::spawn({
            let client = client.clone();
            async move { client.ping().await }
        });
        let (request, _) = guest.next().await;
        assert_eq!(client.settle(LIMIT).await, 1);
        let settled = client.settle(LIMIT);
        let (count, ()) = tokio::join!(settled, guest.send(request, &ToHost::Pong));
        assert_eq!(count, 0);
        asked.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_the_connection_and_paused_time_does_not_count() {
        let (client, mut guest) = pair().await;
        let resting = Arc::new(AtomicBool::new(true));
        let rest = Arc::clone(&resting);
        client.give_up_after(LIMIT, move || rest.load(Ordering::Relaxed));
        let asked = tokio::spawn({
            let client = client.clone();
            async move { client.read_file(b"/x").await }
        });
        assert_eq!(guest.next().await.1, ToGuest::ReadFile(b"/x".to_vec()));
        tokio::time::sleep(LIMIT * 10).await;
        assert!(!asked.is_finished());
        resting.store(false, Ordering::Relaxed);
        let begun = tokio::time::Instant::now();
        let error = asked.await.unwrap().unwrap_err().to_string();
        assert!(error.contains("no sign of life from it for 30s"), "{error}");
        assert!(begun.elapsed() >= LIMIT && begun.elapsed() < LIMIT * 2, "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_answers_pings_is_not_given_up() {
        let (client, mut guest) = pair().await;
        client.give_up_after(LIMIT, || false);
        let asked = tokio::spawn({
            let client = client.clone();
            async move { client.read_file(b"/x").await }
        });
        let (file, _) = guest.next().await;
        for _ in 0..5 {
            let (request, message) = guest.next().await;
            assert_eq!(message, ToGuest::Ping);
            guest.send(request, &ToHost::Pong).await;
        }
        guest.send(file, &ToHost::Data(b"late".to_vec())).await;
        guest.send(file, &ToHost::Done).await;
        assert_eq!(asked.await.unwrap().unwrap(), b"late");
    }

    #[tokio::test]
    async fn a_withdrawn_stream_is_connected_again() {
        let (client, mut guest) = pair().await;
        let asked = tokio::spawn({
            let client = client.clone();
            async move { client.read_file(b"/x").await }
        });
        guest.next().await;
        let stream = client.withdraw("the VM was reset").await.unwrap();
        assert_eq!(asked.await.unwrap(), Err(AgentError::Withdrawn("the VM was reset".to_owned())));
        assert_eq!(client.ping().await, Err(AgentError::Withdrawn("the VM was reset".to_owned())));
        assert!(client.withdraw("again").await.is_none());
        let (again, _guest) = tokio::join!(connect(stream), Guest::greet(guest.stream));
        assert!(again.is_ok());
    }
}
