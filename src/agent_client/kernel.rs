//! Requests about the guest's kernel: its modules, its log, its clock; and what is waited for inside the guest.

use std::time::Duration;

use super::connection::{AgentClient, Conversation};
use super::error::AgentError;
use super::requests::{ending, keep};
use crate::agent_protocol::{CHUNK, Op, OpReply, ToGuest, ToHost, WaitFor};

/// How much of a kernel's log is kept, in bytes.
const LARGEST_LOG: usize = 128 * 1024 * 1024;

impl AgentClient {
    /// Loads a kernel module, unpacked; `params` as `insmod` takes them.
    ///
    /// # Errors
    /// The guest's errno; a connection that ends.
    pub async fn load_module(&self, name: &str, module: &[u8], params: &str) -> Result<(), AgentError> {
        let conversation = self.open()?;
        let begin = ToGuest::LoadModule { name: name.to_owned(), params: params.to_owned() };
        conversation.send(&begin).await?;
        for piece in module.chunks(CHUNK) {
            conversation.send(&ToGuest::Data(piece.to_vec())).await?;
        }
        conversation.send(&ToGuest::DataEnd).await?;
        done(conversation).await
    }

    /// Removes a kernel module.
    ///
    /// # Errors
    /// The guest's errno; a connection that ends.
    pub async fn unload_module(&self, name: &str) -> Result<(), AgentError> {
        self.op(Op::UnloadModule(name.to_owned())).await.map(drop)
    }

    /// The kernel's log as it is now: whole records of `/dev/kmsg`.
    ///
    /// # Errors
    /// The guest's errno; a connection that ends.
    pub async fn kernel_log(&self) -> Result<Vec<u8>, AgentError> {
        let mut conversation = self.open()?;
        conversation.send(&ToGuest::KernelLog { follow: false }).await?;
        let mut records = Vec::new();
        loop {
            match conversation.next().await? {
                ToHost::Data(piece) => keep(&mut records, &piece, "dmesg", "the kernel's log", LARGEST_LOG)?,
                ToHost::Done => {
                    conversation.finish();
                    return Ok(records);
                }
                other => return Err(ending(&mut conversation, other)),
            }
        }
    }

    /// The kernel's log from its first record on, and what comes.
    ///
    /// # Errors
    /// A connection that ends.
    pub async fn follow_kernel_log(&self) -> Result<KernelLogFeed, AgentError> {
        let conversation = self.open_lasting()?;
        conversation.send(&ToGuest::KernelLog { follow: true }).await?;
        Ok(KernelLogFeed { conversation })
    }

    /// Waits inside the guest; the caller bounds how long.
    ///
    /// # Errors
    /// The guest's errno; a connection that ends.
    pub async fn wait_for(&self, what: WaitFor) -> Result<(), AgentError> {
        self.until_done(&ToGuest::Wait(what)).await
    }

    /// Returns when `time` has passed in the guest.
    ///
    /// # Errors
    /// The guest's errno; a connection that ends.
    pub async fn sleep(&self, time: Duration) -> Result<(), AgentError> {
        self.until_done(&ToGuest::Sleep(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))).await
    }

    async fn until_done(&self, message: &ToGuest) -> Result<(), AgentError> {
        let conversation = self.open()?;
        conversation.send(message).await?;
        done(conversation).await
    }

    /// Nanoseconds since the epoch by the guest's clock.
    ///
    /// # Errors
    /// The guest's errno; a connection that ends.
    pub async fn clock(&self) -> Result<i64, AgentError> {
        match self.op(Op::GetClock).await? {
            OpReply::Clock(nanoseconds) => Ok(nanoseconds),
            _ => Err(AgentError::Closed("expected the clock, found another reply".to_owned())),
        }
    }

    /// Sets the guest's clock.
    ///
    /// # Errors
    /// The guest's errno; a connection that ends.
    pub async fn set_clock(&self, nanoseconds: i64) -> Result<(), AgentError> {
        self.op(Op::SetClock(nanoseconds)).await.map(drop)
    }
}

async fn done(mut conversation: Conversation) -> Result<(), AgentError> {
    match conversation.next().await? {
        ToHost::Done => {
            conversation.finish();
            Ok(())
        }
        other => Err(ending(&mut conversation, other)),
    }
}

/// A kernel's log that is followed; dropping it ends that in the guest too.
pub struct KernelLogFeed {
    conversation: Conversation,
}

impl KernelLogFeed {
    /// The next records.
    ///
    /// # Errors
    /// The guest's errno; a connection that ends.
    pub async fn next(&mut self) -> Result<Vec<u8>, AgentError> {
        match self.conversation.next().await? {
            ToHost::Data(records) => Ok(records),
            other => Err(ending(&mut self.conversation, other)),
        }
    }

    /// Ends it here only: the guest keeps it for a request to come.
    pub fn leave(mut self) {
        self.conversation.finish();
    }

    /// The next records, where they have come already.
    pub fn try_next(&mut self) -> Option<Vec<u8>> {
        match self.conversation.try_next()? {
            ToHost::Data(records) => Some(records),
            _ => None,
        }
    }
}
