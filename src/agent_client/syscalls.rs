//! System calls, ioctls and the agent's memory.

use super::connection::{AgentClient, Conversation};
use super::error::AgentError;
use super::requests::ending;
use crate::agent_protocol::{IoctlRequest, SyscallOutcome, SyscallRequest, ToGuest, ToHost};

/// A system call that goes on in the guest. Dropping it interrupts the call.
pub struct CallUnderWay(Conversation);

impl CallUnderWay {
    /// Waits for its end. May be given up and called again.
    ///
    /// # Errors
    /// A call that the agent does not make; a connection that ends.
    pub async fn result(&mut self) -> Result<SyscallOutcome, AgentError> {
        outcome(&mut self.0).await
    }
}

async fn outcome(conversation: &mut Conversation) -> Result<SyscallOutcome, AgentError> {
    match conversation.next().await? {
        ToHost::Returned(outcome) => {
            conversation.finish();
            Ok(outcome)
        }
        other => Err(ending(conversation, other)),
    }
}

impl AgentClient {
    /// Makes a system call on the agent's ops thread. Dropping the future interrupts it.
    ///
    /// # Errors
    /// A call that the agent does not make; a connection that ends. What the kernel refuses is a result.
    pub async fn syscall(&self, call: SyscallRequest) -> Result<SyscallOutcome, AgentError> {
        let mut conversation = self.open()?;
        conversation.send(&ToGuest::Syscall(call)).await?;
        outcome(&mut conversation).await
    }

    /// Begins a system call on a thread of its own.
    ///
    /// # Errors
    /// A connection that ends.
    pub async fn syscall_async(&self, call: SyscallRequest) -> Result<CallUnderWay, AgentError> {
        let conversation = self.open()?;
        conversation.send(&ToGuest::SyscallAsync(call)).await?;
        Ok(CallUnderWay(conversation))
    }

    /// Makes an ioctl on the agent's ops thread. Dropping the future interrupts it.
    ///
    /// # Errors
    /// A connection that ends. What the kernel refuses is a result.
    pub async fn ioctl(&self, call: IoctlRequest) -> Result<SyscallOutcome, AgentError> {
        let mut conversation = self.open()?;
        conversation.send(&ToGuest::Ioctl(call)).await?;
        outcome(&mut conversation).await
    }

    /// Bytes of the agent's own memory.
    ///
    /// # Errors
    /// `EFAULT` where they can't be read; a connection that ends.
    pub async fn read_mem(&self, address: u64, count: u64) -> Result<Vec<u8>, AgentError> {
        let mut conversation = self.open()?;
        conversation.send(&ToGuest::ReadMemory { address, count }).await?;
        let mut bytes = Vec::new();
        loop {
            match conversation.next().await? {
                ToHost::Data(piece) if (bytes.len() + piece.len()) as u64 <= count => bytes.extend_from_slice(&piece),
                ToHost::Done => {
                    conversation.finish();
                    return Ok(bytes);
                }
                other => return Err(ending(&mut conversation, other)),
            }
        }
    }
}
