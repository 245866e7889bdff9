//! A system call that goes on in a guest while the test does something else.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::error::VmError;
use super::guest::Guest;
use super::handles::{HandleGuard, HandleKind};
use crate::agent_client::{AgentClient, AgentError, CallUnderWay, SyscallOutcome, SyscallRequest};
use crate::foundation::duration::format_duration;

enum State {
    UnderWay(CallUnderWay),
    Done(Result<SyscallOutcome, AgentError>),
}

/// A system call under way.
pub struct Call {
    guest: Guest,
    /// The agent that makes it: one of another boot knows nothing of it.
    agent: AgentClient,
    what: String,
    state: tokio::sync::Mutex<State>,
    open: Mutex<Option<HandleGuard>>,
}

impl Guest {
    /// Begins a system call on a thread of its own; `what` is how messages show it, `place` is who made it.
    ///
    /// # Errors
    /// A dead guest.
    pub async fn syscall_async(
        &self,
        call: SyscallRequest,
        what: String,
        place: Option<String>,
    ) -> Result<Arc<Call>, VmError> {
        let op = "syscall_async";
        let (agent, begun) =
            self.op(op, async |agent| agent.syscall_async(call).await.map(|begun| (agent, begun))).await?;
        let open = self.vm().handles().open(HandleKind::Call, format!("system call `{what}`"), place);
        let state = tokio::sync::Mutex::new(State::UnderWay(begun));
        Ok(Arc::new(Call { guest: self.clone(), agent, what, state, open: Mutex::new(Some(open)) }))
    }
}

impl Call {
    /// Waits for what it comes to; again after that as well. The call goes on where that is given up.
    ///
    /// # Errors
    /// When `timeout` is over, a call that the agent does not make, a dead guest.
    pub async fn wait(&self, timeout: Option<Duration>) -> Result<SyscallOutcome, VmError> {
        let op = "await";
        let limit = timeout.unwrap_or(Duration::MAX);
        let waited = async |_| {
            let mut state = self.state.lock().await;
            let State::UnderWay(call) = &mut *state else { return Ok(true) };
            let Ok(result) = tokio::time::timeout(limit, call.result()).await else { return Ok(false) };
            *state = State::Done(result);
            self.closed();
            Ok(true)
        };
        if let Ok(state) = self.state.try_lock()
            && let State::Done(Ok(outcome)) = &*state
        {
            return Ok(outcome.clone());
        }
        if !self.guest.op(op, waited).await? {
            return Err(VmError::Process {
                vm: self.guest.name(),
                op,
                command: self.what.clone(),
                why: format!("still under way after {}", format_duration(limit)),
            });
        }
        match &*self.state.lock().await {
            State::Done(Ok(outcome)) => Ok(outcome.clone()),
            State::Done(Err(error)) => self.guest.lost(op, &self.what, &self.agent, error.clone()).await,
            State::UnderWay(_) => Err(VmError::Cancelled),
        }
    }

    /// Whether its result was collected.
    pub(super) fn is_done(&self) -> bool {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    fn closed(&self) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Gives it up: the guest interrupts it.
    pub(super) async fn end(&self) {
        let given_up = AgentError::Closed("the scope that made the call has ended".to_owned());
        let mut state = self.state.lock().await;
        if matches!(&*state, State::UnderWay(_)) {
            *state = State::Done(Err(given_up));
        }
        self.closed();
    }
}
