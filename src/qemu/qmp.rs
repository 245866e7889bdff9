//! QMP: commands with a deadline, events in order. The protocol: QEMU's `docs/interop/qmp-spec.rst`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};

use super::error::QemuError;

/// How long QEMU may take to answer, in seconds.
const DEADLINE: Duration = Duration::from_secs(30);
/// The longest line that is read, in bytes.
const LONGEST_LINE: u64 = 16 * 1024 * 1024;

type Reply = Result<Value, String>;

#[derive(Default)]
struct Waiting {
    replies: HashMap<u64, oneshot::Sender<Reply>>,
    ended: Option<String>,
}

/// A connection to a QEMU; clones share it.
#[derive(Clone)]
pub struct Qmp {
    writer: Arc<tokio::sync::Mutex<OwnedWriteHalf>>,
    waiting: Arc<Mutex<Waiting>>,
    next: Arc<AtomicU64>,
}

impl Qmp {
    /// Reads the greeting and leaves the negotiation mode. Returns the events as they come: name and data.
    ///
    /// # Errors
    /// No greeting in time, or something that is no QMP.
    pub async fn connect(stream: UnixStream) -> Result<(Self, mpsc::UnboundedReceiver<(String, Value)>), QemuError> {
        let (reader, writer) = stream.into_split();
        let mut reader = BufReader::new(reader);
        let failed = |why: String| QemuError::Qmp { command: "greeting".to_owned(), why };
        let greeting = tokio::time::timeout(DEADLINE, read_line(&mut reader)).await;
        match greeting {
            Err(_) => return Err(failed(format!("nothing came within {}s", DEADLINE.as_secs()))),
            Ok(Err(why)) => return Err(failed(why)),
            Ok(Ok(value)) if value.get("QMP").is_none() => return Err(failed("what came is no greeting".to_owned())),
            Ok(Ok(_)) => {}
        }
        let qmp = Self {
            writer: Arc::new(tokio::sync::Mutex::new(writer)),
            waiting: Arc::default(),
            next: Arc::new(AtomicU64::new(1)),
        };
        let (sender, events) = mpsc::unbounded_channel();
        tokio::spawn(follow(reader, Arc::clone(&qmp.waiting), sender));
        qmp.execute("qmp_capabilities", json!({})).await?;
        Ok((qmp, events))
    }

    /// Runs a command.
    ///
    /// # Errors
    /// QEMU's own refusal, no answer within 30 s, a connection that ended.
    pub async fn execute(&self, command: &str, arguments: Value) -> Result<Value, QemuError> {
        let failed = |why: String| QemuError::Qmp { command: command.to_owned(), why };
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, reply) = oneshot::channel();
        {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(why) = &waiting.ended {
                return Err(failed(why.clone()));
            }
            waiting.replies.insert(id, sender);
        }
        let mut line = json!({"execute": command, "arguments": arguments, "id": id}).to_string();
        line.push('\n');
        self.writer.lock().await.write_all(line.as_bytes()).await.map_err(|error| failed(error.to_string()))?;
        match tokio::time::timeout(DEADLINE, reply).await {
            Err(_) => {
                self.waiting.lock().unwrap_or_else(PoisonError::into_inner).replies.remove(&id);
                Err(failed(format!("no answer within {}s", DEADLINE.as_secs())))
            }
            Ok(Err(_)) => Err(failed("QEMU closed the connection".to_owned())),
            Ok(Ok(reply)) => reply.map_err(failed),
        }
    }
}

async fn read_line(reader: &mut BufReader<OwnedReadHalf>) -> Result<Value, String> {
    let mut line = Vec::new();
    let read = reader.take(LONGEST_LINE).read_until(b'\n', &mut line).await;
    match read {
        Err(error) => Err(error.to_string()),
        Ok(0) => Err("QEMU closed the connection".to_owned()),
        Ok(_) if line.last() != Some(&b'\n') => Err("a line that is cut or too long".to_owned()),
        Ok(_) => serde_json::from_slice(&line).map_err(|error| format!("a line that is no JSON: {error}")),
    }
}

async fn follow(
    mut reader: BufReader<OwnedReadHalf>,
    waiting: Arc<Mutex<Waiting>>,
    events: mpsc::UnboundedSender<(String, Value)>,
) {
    let why = loop {
        let mut message = match read_line(&mut reader).await {
            Ok(message) => message,
            Err(why) => break why,
        };
        if let Some(name) = message.get("event").and_then(Value::as_str) {
            // Nobody listening is no reason to stop reading replies.
            let _ = events.send((name.to_owned(), message["data"].clone()));
            continue;
        }
        let Some(id) = message.get("id").and_then(Value::as_u64) else { continue };
        let reply = match message.get("error") {
            Some(error) => Err(error["desc"].as_str().unwrap_or("an error without words").to_owned()),
            None => Ok(message["return"].take()),
        };
        let sender = waiting.lock().unwrap_or_else(PoisonError::into_inner).replies.remove(&id);
        if let Some(sender) = sender {
            // The asker may have given up.
            let _ = sender.send(reply);
        }
    };
    let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
    waiting.ended = Some(why);
    waiting.replies.clear();
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn fake(lines: &'static [&'static str]) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        tokio::spawn(async move {
            let (reader, mut writer) = theirs.into_split();
            let mut reader = BufReader::new(reader);
            for (index, line) in lines.iter().enumerate() {
                if index > 0 {
                    let mut asked = String::new();
                    reader.read_line(&mut asked).await.unwrap();
                }
                writer.write_all(line.as_bytes()).await.unwrap();
            }
            let mut rest = String::new();
            reader.read_line(&mut rest).await.unwrap();
        });
        ours
    }

    #[tokio::test]
    async fn answers_and_events_are_told_apart() {
        let stream = fake(&[
            "{\"QMP\": {}}\n",
            "{\"return\": {}, \"id\": 1}\n",
            "{\"event\": \"STOP\", \"data\": {\"a\": 1}}\n{\"return\": {\"status\": \"paused\"}, \"id\": 2}\n",
            "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no such thing\"}, \"id\": 3}\n",
        ])
        .await;
        let (qmp, mut events) = Qmp::connect(stream).await.unwrap();
        let status = qmp.execute("query-status", json!({})).await.unwrap();
        assert_eq!(status["status"], "paused");
        assert_eq!(events.recv().await.unwrap(), ("STOP".to_owned(), json!({"a": 1})));
        let text = qmp.execute("nothing", json!({})).await.unwrap_err().to_string();
        assert_eq!(text, "QMP command `nothing`: no such thing");
        let text = qmp.execute("more", json!({})).await.unwrap_err().to_string();
        assert!(text.contains("closed the connection"), "{text}");
        assert!(events.recv().await.is_none());
    }

    #[tokio::test]
    async fn what_is_no_qmp_is_refused() {
        for line in ["hello\n", "{\"other\": 1}\n", "{\"QMP\""] {
            let stream = {
                let (ours, mut theirs) = UnixStream::pair().unwrap();
                theirs.write_all(line.as_bytes()).await.unwrap();
                ours
            };
            assert!(Qmp::connect(stream).await.is_err());
        }
    }
}
