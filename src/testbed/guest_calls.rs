//! System calls, ioctls and the agent's memory.

use super::error::VmError;
use super::guest::Guest;
use crate::agent_client::{AgentError, IoctlRequest, SyscallOutcome, SyscallRequest};

impl Guest {
    /// The guest's architecture, as Rust names it.
    ///
    /// # Errors
    /// A machine that is not booted: its architecture is known from its agent.
    pub fn arch(&self, op: &'static str) -> Result<String, VmError> {
        Ok(self.vm().booted(op)?.agent().hello().arch.clone())
    }

    /// Makes a system call on the ops thread.
    ///
    /// # Errors
    /// A call that the agent does not make, a dead guest. What the kernel refuses is a result.
    pub async fn syscall(&self, call: SyscallRequest) -> Result<SyscallOutcome, VmError> {
        self.op("syscall", async |agent| agent.syscall(call).await).await
    }

    /// Makes an ioctl on the ops thread.
    ///
    /// # Errors
    /// A dead guest. What the kernel refuses is a result.
    pub async fn ioctl(&self, call: IoctlRequest) -> Result<SyscallOutcome, VmError> {
        self.op("ioctl", async |agent| agent.ioctl(call).await).await
    }

    /// Bytes of the agent's memory, or the errno of a fault.
    ///
    /// # Errors
    /// A dead guest.
    pub async fn read_mem(&self, address: u64, count: u64) -> Result<Result<Vec<u8>, i32>, VmError> {
        self.op("read_mem", async |agent| match agent.read_mem(address, count).await {
            Ok(bytes) => Ok(Ok(bytes)),
            Err(AgentError::Op(error)) if error.errno != 0 => Ok(Err(error.errno)),
            Err(error) => Err(error),
        })
        .await
    }
}
