//! Short operations and power off.

use super::connection::{AgentClient, Conversation};
use super::error::AgentError;
use crate::agent_protocol::{Op, OpReply, ToGuest, ToHost};

impl AgentClient {
    /// A short operation with one answer.
    ///
    /// # Errors
    /// The guest's errno; a connection that ends.
    pub async fn op(&self, op: Op) -> Result<OpReply, AgentError> {
        let mut conversation = self.open()?;
        conversation.send(&ToGuest::Op(op)).await?;
        match conversation.next().await? {
            ToHost::Reply(reply) => {
                conversation.finish();
                Ok(reply)
            }
            other => Err(ending(&mut conversation, other)),
        }
    }

    /// Has the guest sync and power off. Returns only when it can't: the guest's end is the answer.
    ///
    /// # Errors
    /// The guest's errno; a connection that ends, as it does when the guest goes down.
    pub async fn poweroff(&self) -> Result<(), AgentError> {
        let mut conversation = self.open()?;
        conversation.send(&ToGuest::Poweroff).await?;
        let message = conversation.next().await?;
        Err(ending(&mut conversation, message))
    }
}

/// The error that `message` ends a request with: a refusal, or something that has no place in it.
pub(super) fn ending(conversation: &mut Conversation, message: ToHost) -> AgentError {
    match message {
        ToHost::Failed(error) => {
            conversation.finish();
            AgentError::Op(error)
        }
        other => conversation.unexpected(&other),
    }
}

/// Puts `piece` behind `all`, which is bounded.
pub(super) fn keep(
    all: &mut Vec<u8>,
    piece: &[u8],
    op: &'static str,
    what: &str,
    limit: usize,
) -> Result<(), AgentError> {
    if all.len() + piece.len() > limit {
        return Err(AgentError::TooMuch { op, what: what.to_owned(), limit });
    }
    all.extend_from_slice(piece);
    Ok(())
}
