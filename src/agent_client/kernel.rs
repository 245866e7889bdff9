//! Requests about the guest's kernel: its modules.

use super::connection::AgentClient;
use super::error::AgentError;
use super::requests::ending;
use crate::agent_protocol::{CHUNK, Op, ToGuest, ToHost};

impl AgentClient {
    /// Loads a kernel module, unpacked; `params` as `insmod` takes them.
    ///
    /// # Errors
    /// The guest's errno; a connection that ends.
    pub async fn load_module(&self, name: &str, module: &[u8], params: &str) -> Result<(), AgentError> {
        let mut conversation = self.open()?;
        let begin = ToGuest::LoadModule { name: name.to_owned(), params: params.to_owned() };
        conversation.send(&begin).await?;
        for piece in module.chunks(CHUNK) {
            conversation.send(&ToGuest::Data(piece.to_vec())).await?;
        }
        conversation.send(&ToGuest::DataEnd).await?;
        match conversation.next().await? {
            ToHost::Done => {
                conversation.finish();
                Ok(())
            }
            other => Err(ending(&mut conversation, other)),
        }
    }

    /// Removes a kernel module.
    ///
    /// # Errors
    /// The guest's errno; a connection that ends.
    pub async fn unload_module(&self, name: &str) -> Result<(), AgentError> {
        self.op(Op::UnloadModule(name.to_owned())).await.map(drop)
    }
}
