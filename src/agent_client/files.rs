//! Files of the guest: whole, by descriptor, and followed.

use super::connection::{AgentClient, Conversation};
use super::error::AgentError;
use super::requests::{ending, keep};
use crate::agent_protocol::{DATA_CHUNK, DATA_WINDOW, DirEntry, OpReply, TailSource, TailStart, ToGuest, ToHost};

/// How much of one file is read, in bytes: bounds what a guest can make the host hold.
const LARGEST_FILE: usize = 1024 * 1024 * 1024;
/// How much of one directory is listed, in bytes, each entry counted with what holds it.
const LARGEST_LISTING: usize = 256 * 1024 * 1024;

impl AgentClient {
    /// A file's whole content.
    ///
    /// # Errors
    /// The guest's errno; more than 1 GiB; a connection that ends.
    pub async fn read_file(&self, path: &[u8]) -> Result<Vec<u8>, AgentError> {
        let download = self.download(ToGuest::ReadFile(path.to_vec())).await?;
        download.all("read_file", &String::from_utf8_lossy(path)).await
    }

    /// A file's content, piece by piece.
    ///
    /// # Errors
    /// A connection that ends.
    pub async fn download_file(&self, path: &[u8]) -> Result<Download, AgentError> {
        self.download(ToGuest::ReadFile(path.to_vec())).await
    }

    /// What a descriptor gives: `count` bytes or fewer at the end, all there is where none is given.
    ///
    /// # Errors
    /// The guest's errno; more than 1 GiB; a connection that ends.
    pub async fn read_descriptor(&self, fd: i32, count: Option<u64>) -> Result<Vec<u8>, AgentError> {
        let download = self.download(ToGuest::FileRead { fd, count }).await?;
        download.all("read", &format!("descriptor {fd}")).await
    }

    async fn download(&self, request: ToGuest) -> Result<Download, AgentError> {
        let conversation = self.open()?;
        conversation.send(&request).await?;
        Ok(Download { conversation })
    }

    /// Creates or truncates a file and writes `data`; `mode` is exact, whatever the umask.
    ///
    /// # Errors
    /// The guest's errno; a connection that ends.
    pub async fn write_file(&self, path: &[u8], data: &[u8], mode: Option<u32>) -> Result<(), AgentError> {
        let mut upload = self.upload_file(path, mode).await?;
        upload.send(data).await?;
        upload.finish().await.map(drop)
    }

    /// Creates or truncates a file whose content is given piece by piece.
    ///
    /// # Errors
    /// A connection that ends.
    pub async fn upload_file(&self, path: &[u8], mode: Option<u32>) -> Result<Upload, AgentError> {
        self.upload(ToGuest::WriteFile { path: path.to_vec(), mode }).await
    }

    /// Writes to a descriptor where it stands. Returns how much: all of it.
    ///
    /// # Errors
    /// The guest's errno; a connection that ends.
    pub async fn write_descriptor(&self, fd: i32, data: &[u8]) -> Result<u64, AgentError> {
        let mut upload = self.upload(ToGuest::FileWrite(fd)).await?;
        upload.send(data).await?;
        upload.finish().await
    }

    async fn upload(&self, request: ToGuest) -> Result<Upload, AgentError> {
        let mut conversation = self.open()?;
        // Receipts are waited for before all is sent.
        conversation.keep_turn();
        conversation.send(&request).await?;
        Ok(Upload { conversation, ahead: 0 })
    }

    /// The entries of a directory, in no order.
    ///
    /// # Errors
    /// The guest's errno; more than 256 MiB; a connection that ends.
    pub async fn list_directory(&self, path: &[u8]) -> Result<Vec<DirEntry>, AgentError> {
        let mut conversation = self.open()?;
        conversation.send(&ToGuest::ListDir(path.to_vec())).await?;
        let (mut all, mut size) = (Vec::new(), 0);
        loop {
            match conversation.next().await? {
                ToHost::Entries(entries) => {
                    size += entries.iter().map(|entry| entry.name.len() + 2 * size_of::<DirEntry>()).sum::<usize>();
                    if size > LARGEST_LISTING {
                        let what = String::from_utf8_lossy(path).into_owned();
                        return Err(AgentError::TooMuch { op: "listdir", what, limit: LARGEST_LISTING });
                    }
                    all.extend(entries);
                }
                ToHost::Done => {
                    conversation.finish();
                    return Ok(all);
                }
                other => return Err(ending(&mut conversation, other)),
            }
        }
    }

    /// Follows a file. Returns once it is open.
    ///
    /// # Errors
    /// The guest's errno; a connection that ends.
    pub async fn tail(&self, source: TailSource, start: TailStart) -> Result<Following, AgentError> {
        self.follow(ToGuest::Tail(source, start)).await
    }

    /// Follows a descriptor. Returns once that has begun.
    ///
    /// # Errors
    /// The guest's errno; a connection that ends.
    pub async fn fd_stream(&self, fd: i32) -> Result<Following, AgentError> {
        self.follow(ToGuest::FdStream(fd)).await
    }

    async fn follow(&self, request: ToGuest) -> Result<Following, AgentError> {
        let mut conversation = self.open()?;
        conversation.send(&request).await?;
        match conversation.next().await? {
            ToHost::Done => Ok(Following { conversation }),
            other => Err(ending(&mut conversation, other)),
        }
    }
}

/// A file on its way to the host. Dropping it before its end gives it up in the guest as well.
pub struct Download {
    conversation: Conversation,
}

impl Download {
    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// The guest's errno; a connection that ends.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, AgentError> {
        match self.conversation.next().await? {
            ToHost::Data(piece) => Ok(Some(piece)),
            ToHost::Done => {
                self.conversation.finish();
                Ok(None)
            }
            other => Err(ending(&mut self.conversation, other)),
        }
    }

    async fn all(mut self, op: &'static str, what: &str) -> Result<Vec<u8>, AgentError> {
        let mut data = Vec::new();
        while let Some(piece) = self.next().await? {
            keep(&mut data, &piece, op, what, LARGEST_FILE)?;
        }
        Ok(data)
    }
}

/// A file on its way to the guest. Dropping it before its end gives it up there as well.
pub struct Upload {
    conversation: Conversation,
    /// Bytes that the guest has not written yet, as far as is known.
    ahead: usize,
}

impl Upload {
    /// Sends the next bytes, no faster than the guest writes them.
    ///
    /// # Errors
    /// The guest's errno, as soon as it has refused; a connection that ends.
    pub async fn send(&mut self, data: &[u8]) -> Result<(), AgentError> {
        for piece in data.chunks(DATA_CHUNK) {
            while self.ahead + piece.len() > DATA_WINDOW {
                match self.conversation.next().await? {
                    ToHost::StdinTaken(count) => {
                        self.ahead = self.ahead.saturating_sub(usize::try_from(count).unwrap_or(usize::MAX));
                    }
                    other => return Err(ending(&mut self.conversation, other)),
                }
            }
            self.ahead += piece.len();
            self.conversation.send_data(piece).await?;
        }
        Ok(())
    }

    /// Says that nothing follows, and waits until all is written. Returns the count where the guest tells one.
    ///
    /// # Errors
    /// The guest's errno; a connection that ends.
    pub async fn finish(mut self) -> Result<u64, AgentError> {
        self.conversation.send(&ToGuest::DataEnd).await?;
        self.conversation.pass_turn();
        loop {
            let count = match self.conversation.next().await? {
                ToHost::StdinTaken(_) => continue,
                ToHost::Done => 0,
                ToHost::Reply(OpReply::Count(count)) => count,
                other => return Err(ending(&mut self.conversation, other)),
            };
            self.conversation.finish();
            return Ok(count);
        }
    }
}

/// Something that is followed. Dropping it ends that in the guest.
pub struct Following {
    conversation: Conversation,
}

impl Following {
    /// What came next; `None` at the end.
    ///
    /// # Errors
    /// The guest's errno; a connection that ends.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, AgentError> {
        match self.conversation.next().await? {
            ToHost::Data(piece) => Ok(Some(piece)),
            ToHost::Ended => {
                self.conversation.finish();
                Ok(None)
            }
            other => Err(ending(&mut self.conversation, other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent_client::scripted_guest::pair;
    use crate::agent_protocol::EntryType;

    /// A guest that has no end of entries, and one that has more memory than was asked for.
    #[tokio::test]
    async fn what_a_guest_sends_without_end_is_not_kept() {
        let (client, mut guest) = pair().await;
        let endless = async {
            let (request, message) = guest.next().await;
            assert_eq!(message, ToGuest::ListDir(b"/dir".to_vec()));
            // Most of what they take is not their names.
            let entry = DirEntry { name: Vec::new(), entry_type: EntryType::File };
            let piece = ToHost::Entries(vec![entry; 1 << 20]);
            loop {
                guest.send(request, &piece).await;
            }
        };
        let listing = tokio::select! {
            listing = client.list_directory(b"/dir") => listing,
            () = endless => unreachable!(),
        };
        assert!(matches!(listing, Err(AgentError::TooMuch { limit: LARGEST_LISTING, .. })), "{listing:?}");

        let (client, mut guest) = pair().await;
        let (memory, ()) = tokio::join!(client.read_mem(4096, 5), async {
            let (request, _) = guest.next().await;
            for piece in [b"1234".to_vec(), b"56".to_vec()] {
                guest.send(request, &ToHost::Data(piece)).await;
            }
        });
        assert!(matches!(memory, Err(AgentError::Closed(_))), "{memory:?}");
    }
}
