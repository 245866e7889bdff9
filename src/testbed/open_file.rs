//! A file that a test holds open in a guest.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::error::VmError;
use super::guest::Guest;
use super::guest_files::{misplaced, stream, unit};
use super::handles::{HandleGuard, HandleKind};
use super::stream::ByteStream;
use super::vm::VmState;
use crate::agent_client::{AgentClient, AgentError, OpError};
use crate::agent_protocol::{Op, OpReply, TailSource, TailStart, Whence};

/// An open file. Dropping it closes it in the guest as well.
pub struct OpenFile {
    guest: Guest,
    /// The agent that has it open: one of another boot knows nothing of it.
    agent: AgentClient,
    fd: i32,
    path: String,
    closed: AtomicBool,
    counted: Mutex<Option<HandleGuard>>,
}

impl OpenFile {
    /// `fd` of `agent`, just opened at `place` in the author's file.
    pub(super) fn new(guest: Guest, agent: AgentClient, fd: i32, path: &[u8], place: Option<String>) -> Self {
        let path = String::from_utf8_lossy(path).into_owned();
        let counted = guest.vm().handles().open(HandleKind::File, format!("file `{path}`"), place);
        Self { guest, agent, fd, path, closed: AtomicBool::new(false), counted: Mutex::new(Some(counted)) }
    }

    /// Where it is open.
    pub fn guest(&self) -> &Guest {
        &self.guest
    }

    /// Its path when it was opened.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The agent's descriptor; 0 once it is closed.
    pub fn fd(&self) -> i32 {
        if self.is_closed() { 0 } else { self.fd }
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    async fn op<T>(
        &self,
        op: &'static str,
        act: impl AsyncFnOnce(AgentClient, i32) -> Result<T, AgentError>,
    ) -> Result<T, VmError> {
        let refused = |detail: &str| {
            let (op, subject, detail) = (op.to_owned(), self.path.clone(), detail.to_owned());
            AgentError::Op(OpError { op, subject, errno: 0, detail })
        };
        if self.is_closed() {
            return Err(VmError::Agent { vm: self.guest.name(), source: refused("file is closed") });
        }
        self.guest
            .op(op, async |agent| {
                if !agent.is(&self.agent) {
                    return Err(refused("the guest has booted anew since the file was opened"));
                }
                match act(agent, self.fd).await {
                    Err(AgentError::Op(error)) => {
                        Err(AgentError::Op(OpError { op: op.to_owned(), subject: self.path.clone(), ..error }))
                    }
                    result => result,
                }
            })
            .await
    }

    /// `count` bytes or fewer at the end; all that is left where none is given.
    ///
    /// # Errors
    /// The guest's errno with the path; a closed file; a dead guest.
    pub async fn read(&self, count: Option<u64>) -> Result<Vec<u8>, VmError> {
        let op = if count.is_some() { "read" } else { "read_all" };
        self.op(op, async |agent, fd| agent.read_descriptor(fd, count).await).await
    }

    /// Writes all of `data`. Returns how much that was.
    ///
    /// # Errors
    /// As `read`.
    pub async fn write(&self, data: &[u8]) -> Result<u64, VmError> {
        self.op("write", async |agent, fd| agent.write_descriptor(fd, data).await).await
    }

    /// Moves the offset; `op` is `seek` or `tell`. Returns where it is then.
    ///
    /// # Errors
    /// As `read`.
    pub async fn seek(&self, op: &'static str, offset: i64, whence: Whence) -> Result<u64, VmError> {
        self.op(op, async |agent, fd| match agent.op(Op::Seek { fd, offset, whence }).await? {
            OpReply::Count(at) => Ok(at),
            other => Err(misplaced(&other)),
        })
        .await
    }

    /// Flushes it to its device.
    ///
    /// # Errors
    /// As `read`.
    pub async fn sync(&self) -> Result<(), VmError> {
        self.op("sync", async |agent, fd| agent.op(Op::Sync(fd)).await.and_then(unit)).await
    }

    /// Cuts or extends it.
    ///
    /// # Errors
    /// As `read`.
    pub async fn truncate(&self, length: u64) -> Result<(), VmError> {
        self.op("truncate", async |agent, fd| agent.op(Op::Truncate { fd, length }).await.and_then(unit)).await
    }

    /// Follows what is added to it, from where it stands.
    ///
    /// # Errors
    /// As `read`.
    pub async fn tail(&self) -> Result<Arc<ByteStream>, VmError> {
        let following =
            self.op("tail_stream", async |agent, fd| agent.tail(TailSource::Descriptor(fd), TailStart::Current).await);
        Ok(stream(following.await?))
    }

    /// What can be read from its descriptor, up to the end.
    ///
    /// # Errors
    /// As `read`.
    pub async fn fd_stream(&self) -> Result<Arc<ByteStream>, VmError> {
        let following = self.op("fd_stream", async |agent, fd| agent.fd_stream(fd).await);
        Ok(stream(following.await?))
    }

    /// Closes it. One that is closed, or whose guest is gone, is left alone.
    ///
    /// # Errors
    /// The guest's errno with the path: some file systems tell only now that something was not written.
    pub async fn close(&self) -> Result<(), VmError> {
        if self.closed.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        self.counted.lock().unwrap_or_else(PoisonError::into_inner).take();
        if self.guest.vm().state() != VmState::Booted {
            // A paused guest closes it when it goes on.
            self.agent.close_later(self.fd);
            return Ok(());
        }
        let closing = self.guest.op("close", async |agent| {
            if !agent.is(&self.agent) {
                return Ok(());
            }
            match agent.op(Op::Close(self.fd)).await {
                Err(AgentError::Op(error)) => Err(AgentError::Op(OpError { subject: self.path.clone(), ..error })),
                result => result.map(drop),
            }
        });
        match closing.await {
            Err(VmError::Dead { .. }) => Ok(()),
            result => result,
        }
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        if !self.closed.swap(true, Ordering::SeqCst) {
            self.agent.close_later(self.fd);
        }
    }
}
