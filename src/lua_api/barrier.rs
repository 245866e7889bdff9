//! A point that branches of `parallel` pass together.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::watch;

use crate::foundation::duration::format_duration;

/// One barrier; it can be used again as soon as all have arrived.
pub struct Barrier {
    state: RefCell<State>,
    /// How often all have arrived.
    passed: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    /// What the first of this round said.
    count: u32,
    arrived: u32,
}

impl Default for Barrier {
    fn default() -> Self {
        Self { state: RefCell::default(), passed: watch::Sender::new(0) }
    }
}

/// An arrival; taken back when it is given up.
struct Arrival {
    barrier: Rc<Barrier>,
    round: u64,
}

impl Drop for Arrival {
    fn drop(&mut self) {
        if *self.barrier.passed.borrow() == self.round {
            let mut state = self.barrier.state.borrow_mut();
            state.arrived = state.arrived.saturating_sub(1);
        }
    }
}

impl Barrier {
    /// Waits until `count` have arrived; at once where this is the last.
    ///
    /// # Errors
    /// A message: others expect another count, or the time is over first.
    pub async fn wait(self: Rc<Self>, count: u32, timeout: Duration) -> Result<(), String> {
        let mut passed = self.passed.subscribe();
        let round = *self.passed.borrow();
        {
            let mut state = self.state.borrow_mut();
            if state.arrived > 0 && state.count != count {
                return Err(format!("expected by {} here, but by {} where others wait", count, state.count));
            }
            state.count = count;
            state.arrived += 1;
            if state.arrived == count {
                *state = State::default();
                drop(state);
                self.passed.send_replace(round + 1);
                return Ok(());
            }
        }
        let arrival = Arrival { barrier: Rc::clone(&self), round };
        let all = tokio::time::timeout(timeout, passed.wait_for(|now| *now > round)).await.is_ok();
        if all {
            return Ok(());
        }
        let arrived = self.state.borrow().arrived;
        drop(arrival);
        Err(format!("{arrived} of {count} arrived within {}", format_duration(timeout)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn all_pass_together_and_again() {
        let barrier = Rc::new(Barrier::default());
        for _ in 0..3 {
            let all = tokio::join!(
                Rc::clone(&barrier).wait(3, LONG),
                Rc::clone(&barrier).wait(3, LONG),
                Rc::clone(&barrier).wait(3, LONG)
            );
            assert_eq!(all, (Ok(()), Ok(()), Ok(())));
        }
        assert_eq!(Rc::clone(&barrier).wait(1, LONG).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_does_not_count() {
        let barrier = Rc::new(Barrier::default());
        let alone = Rc::clone(&barrier).wait(2, Duration::from_secs(1)).await;
        assert_eq!(alone, Err("1 of 2 arrived within 1s".to_owned()));
        // Dropped while it waits.
        let dropped = tokio::time::timeout(Duration::from_secs(1), Rc::clone(&barrier).wait(2, LONG)).await;
        assert!(dropped.is_err());
        let both = tokio::join!(Rc::clone(&barrier).wait(2, LONG), Rc::clone(&barrier).wait(2, LONG));
        assert_eq!(both, (Ok(()), Ok(())));
    }

    #[tokio::test(start_paused = true)]
    async fn counts_must_agree() {
        let barrier = Rc::new(Barrier::default());
        let (first, second) =
            tokio::join!(Rc::clone(&barrier).wait(2, Duration::from_secs(1)), Rc::clone(&barrier).wait(3, LONG));
        assert_eq!(second, Err("expected by 3 here, but by 2 where others wait".to_owned()));
        assert!(first.is_err());
    }
}
