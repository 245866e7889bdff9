//! A guest's end that unit tests speak for.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::{AgentClient, connect};
use crate::agent_protocol::{Hello, Incoming, PROTOCOL_VERSION, ToGuest, ToHost};

/// The other end of a connection, which says what a test wants.
pub struct Guest {
    pub stream: UnixStream,
    incoming: Incoming,
}

impl Guest {
    /// The next request.
    pub async fn next(&mut self) -> (u32, ToGuest) {
        loop {
            let count = self.stream.read(self.incoming.room()).await.unwrap();
            assert!(count > 0);
            if let Some((request, kind, payload)) = self.incoming.filled(count, |_| Vec::new()).unwrap() {
                return (request, ToGuest::decode_owned(kind, payload).unwrap());
            }
        }
    }

    pub async fn send(&mut self, request: u32, message: &ToHost) {
        let mut frame = Vec::new();
        message.encode(request, &mut frame);
        self.stream.write_all(&frame).await.unwrap();
    }

    /// Says hello and answers the first ping.
    pub async fn greet(stream: UnixStream) -> Self {
        let mut guest = Self { stream, incoming: Incoming::default() };
        let hello = Hello {
            version: PROTOCOL_VERSION,
            nonce: [7; 16],
            arch: String::new(),
            kernel_release: String::new(),
            pid: 1,
            uptime_ns: 0,
            boot_error: None,
            notices: Vec::new(),
        };
        guest.send(0, &ToHost::Hello(hello)).await;
        let mut nonce = [0; 16];
        guest.stream.read_exact(&mut nonce).await.unwrap();
        assert_eq!(nonce, [7; 16]);
        let (request, message) = guest.next().await;
        assert_eq!(message, ToGuest::Ping);
        guest.send(request, &ToHost::Pong).await;
        guest
    }
}

/// A client that is connected with a guest.
pub async fn pair() -> (AgentClient, Guest) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (connected, guest) = tokio::join!(connect(ours), Guest::greet(theirs));
    (connected.unwrap().0, guest)
}
