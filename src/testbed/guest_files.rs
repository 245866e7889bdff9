//! A guest's files, from the host.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::VmError;
use super::guest::Guest;
use super::host_files::{self, Entry, HostFile};
use super::open_file::OpenFile;
use super::stream::ByteStream;
use crate::agent_client::{AgentError, Following, OpError};
use crate::agent_protocol::{DirEntry, FileStat, Op, OpReply, OpenRequest, TailSource, TailStart};

impl Guest {
    /// A file's bytes.
    ///
    /// # Errors
    /// The guest's errno with the path; a dead guest.
    pub async fn read_file(&self, path: &[u8]) -> Result<Vec<u8>, VmError> {
        self.op("read_file", async |agent| agent.read_file(path).await).await
    }

    /// Writes a file whole: creates or truncates it. `mode` is exact, whatever the umask.
    ///
    /// # Errors
    /// The guest's errno with the path; a dead guest.
    pub async fn write_file(&self, path: &[u8], data: &[u8], mode: Option<u32>) -> Result<(), VmError> {
        self.op("write_file", async |agent| agent.write_file(path, data, mode).await).await
    }

    async fn reply(&self, name: &'static str, op: Op) -> Result<OpReply, VmError> {
        self.op(name, async |agent| agent.op(op).await).await
    }

    async fn done(&self, name: &'static str, op: Op) -> Result<(), VmError> {
        self.op(name, async |agent| agent.op(op).await.and_then(unit)).await
    }

    /// Metadata; `follow` says whether a symbolic link is followed.
    ///
    /// # Errors
    /// The guest's errno with the path; a dead guest.
    pub async fn stat(&self, path: &[u8], follow: bool) -> Result<FileStat, VmError> {
        let op = Op::Stat { path: path.to_vec(), follow };
        self.op(if follow { "stat" } else { "lstat" }, async |agent| match agent.op(op).await? {
            OpReply::Stat(stat) => Ok(stat),
            other => Err(misplaced(&other)),
        })
        .await
    }

    /// Whether a path leads to something, as far as the agent may see.
    ///
    /// # Errors
    /// A dead guest.
    pub async fn exists(&self, path: &[u8]) -> Result<bool, VmError> {
        Ok(self.reply("exists", Op::Exists(path.to_vec())).await? == OpReply::Flag(true))
    }

    /// The entries of a directory, sorted by name.
    ///
    /// # Errors
    /// The guest's errno with the path; a dead guest.
    pub async fn listdir(&self, path: &[u8]) -> Result<Vec<DirEntry>, VmError> {
        let mut entries = self.op("listdir", async |agent| agent.list_directory(path).await).await?;
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(entries)
    }

    /// Makes a directory; with `parents` also those above it, and one that is there is fine.
    ///
    /// # Errors
    /// The guest's errno with the path; a dead guest.
    pub async fn mkdir(&self, path: &[u8], parents: bool, perm: Option<u32>) -> Result<(), VmError> {
        self.done("mkdir", Op::Mkdir { path: path.to_vec(), parents, perm }).await
    }

    /// Removes a file or an empty directory.
    ///
    /// # Errors
    /// The guest's errno with the path; a dead guest.
    pub async fn unlink(&self, path: &[u8]) -> Result<(), VmError> {
        self.done("unlink", Op::Unlink(path.to_vec())).await
    }

    /// Renames a path.
    ///
    /// # Errors
    /// The guest's errno with both paths; a dead guest.
    pub async fn rename(&self, from: &[u8], to: &[u8]) -> Result<(), VmError> {
        self.done("rename", Op::Rename { from: from.to_vec(), to: to.to_vec() }).await
    }

    /// Opens a file. `place` is the author's line that did.
    ///
    /// # Errors
    /// The guest's errno with the path; a dead guest.
    pub async fn open_file(&self, wanted: OpenRequest, place: Option<String>) -> Result<OpenFile, VmError> {
        let path = wanted.path.clone();
        let (agent, fd) = self
            .op("open_file", async |agent| match agent.op(Op::Open(wanted)).await? {
                OpReply::Opened(fd) => Ok((agent, fd)),
                other => Err(misplaced(&other)),
            })
            .await?;
        Ok(OpenFile::new(self.clone(), agent, fd, &path, place))
    }

    /// Copies a file of the host into the guest. `mode` replaces its permission bits.
    ///
    /// # Errors
    /// A host file that can't be read; the guest's errno with the path; a dead guest.
    pub async fn push_file(&self, host: PathBuf, path: &[u8], mode: Option<u32>) -> Result<(), VmError> {
        self.push_one("push_file", host, path, mode).await
    }

    async fn push_one(&self, op: &'static str, host: PathBuf, path: &[u8], mode: Option<u32>) -> Result<(), VmError> {
        let unreadable = |source| VmError::HostFile { vm: self.name(), op, source };
        let mut file = HostFile::open(host).await.map_err(unreadable)?;
        let mode = mode.unwrap_or(file.mode);
        let mut upload = self.op(op, async |agent| agent.upload_file(path, Some(mode)).await).await?;
        while let Some(bytes) = file.next().await.map_err(unreadable)? {
            self.op(op, async |_| upload.send(&bytes).await.map_err(|error| renamed(error, op))).await?;
        }
        self.op(op, async |_| upload.finish().await.map(drop).map_err(|error| renamed(error, op))).await
    }

    /// Copies a directory of the host with all that is in it. What is in the guest's directory already stays.
    ///
    /// # Errors
    /// A host file that can't be read or that is neither file, directory nor link; the guest's errno with the path; a
    /// dead guest.
    pub async fn push_dir(&self, host: PathBuf, path: &[u8]) -> Result<(), VmError> {
        const OP: &str = "push_dir";
        let unreadable = |source| VmError::HostFile { vm: self.name(), op: OP, source };
        for entry in host_files::walk(host).await.map_err(unreadable)? {
            let guest_path = |below: &Path| {
                use std::os::unix::ffi::OsStrExt;
                let below = below.as_os_str().as_bytes();
                if below.is_empty() { path.to_vec() } else { [path, b"/", below].concat() }
            };
            match entry {
                Entry::Directory { below, mode } => {
                    let op = Op::Mkdir { path: guest_path(&below), parents: true, perm: Some(mode) };
                    self.op(OP, async |agent| agent.op(op).await.and_then(unit).map_err(|error| renamed(error, OP)))
                        .await?;
                }
                Entry::Link { below, target } => {
                    let op = Op::Symlink { target, path: guest_path(&below) };
                    self.op(OP, async |agent| agent.op(op).await.and_then(unit).map_err(|error| renamed(error, OP)))
                        .await?;
                }
                Entry::File { host, below } => self.push_one(OP, host, &guest_path(&below), None).await?,
            }
        }
        Ok(())
    }

    /// Copies a file of the guest to the host. The host's file is replaced once all is there.
    ///
    /// # Errors
    /// A host file that can't be written; the guest's errno with the path; a dead guest.
    pub async fn pull_file(&self, path: &[u8], host: PathBuf) -> Result<(), VmError> {
        const OP: &str = "pull_file";
        let unwritable = |source| VmError::HostFile { vm: self.name(), op: OP, source };
        let mode = self.op(OP, async |agent| {
            let op = Op::Stat { path: path.to_vec(), follow: true };
            match agent.op(op).await.map_err(|error| renamed(error, OP))? {
                OpReply::Stat(stat) => Ok(stat.perm & 0o777),
                other => Err(misplaced(&other)),
            }
        });
        let mode = mode.await?;
        let mut download = self.op(OP, async |agent| agent.download_file(path).await).await?;
        let mut file = None;
        loop {
            let piece = self.op(OP, async |_| download.next().await.map_err(|error| renamed(error, OP))).await?;
            // Made once the guest has begun to answer: a file that can't be read there leaves nothing here.
            let open = match file.take() {
                Some(open) => open,
                None => host_files::NewFile::create(host.clone(), mode).await.map_err(unwritable)?,
            };
            match piece {
                Some(bytes) => file = Some(open.add(bytes).await.map_err(unwritable)?),
                None => return open.finish().await.map_err(unwritable),
            }
        }
    }

    /// Follows a file of the guest that grows.
    ///
    /// # Errors
    /// The guest's errno with the path; a dead guest.
    pub async fn tail_file(&self, path: &[u8], start: TailStart) -> Result<Arc<ByteStream>, VmError> {
        let source = TailSource::Path(path.to_vec());
        let following = self.op("tail_file", async |agent| agent.tail(source, start).await).await?;
        Ok(stream(following))
    }

    /// Follows a descriptor of the agent up to its end.
    ///
    /// # Errors
    /// `EBADF`; a dead guest.
    pub async fn fd_stream(&self, fd: i32) -> Result<Arc<ByteStream>, VmError> {
        let following = self.op("fd_stream", async |agent| agent.fd_stream(fd).await).await?;
        Ok(stream(following))
    }
}

/// A stream of what is followed; it ends in the guest when nobody reads it any more.
pub(super) fn stream(mut following: Following) -> Arc<ByteStream> {
    let stream = Arc::new(ByteStream::new());
    let producer = Arc::clone(&stream);
    tokio::spawn(async move {
        loop {
            let piece = tokio::select! {
                biased;
                () = producer.wait_closed() => return,
                piece = following.next() => piece,
            };
            match piece {
                Ok(Some(bytes)) => {
                    if !producer.push(bytes) {
                        return;
                    }
                }
                Ok(None) => return producer.end(Ok(())),
                Err(error) => return producer.end(Err(error.to_string())),
            }
        }
    });
    stream
}

pub(super) fn unit(reply: OpReply) -> Result<(), AgentError> {
    match reply {
        OpReply::Unit => Ok(()),
        other => Err(misplaced(&other)),
    }
}

pub(super) fn misplaced(reply: &OpReply) -> AgentError {
    AgentError::Closed(format!("the guest answered with {reply:?}, which has no place here"))
}

/// The same refusal, as one of `op`.
fn renamed(error: AgentError, op: &str) -> AgentError {
    match error {
        AgentError::Op(error) => AgentError::Op(OpError { op: op.to_owned(), ..error }),
        other => other,
    }
}
