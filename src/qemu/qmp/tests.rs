//! The client against a fake QEMU over a socket pair.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::wire::{Lines, parse};
use super::*;
use crate::qemu::error::QmpError;

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(30);

struct Fake {
    stream: BufReader<UnixStream>,
}

impl Fake {
    async fn say(&mut self, value: Value) {
        self.say_raw(format!("{value}\r\n").as_bytes()).await;
    }

    async fn say_raw(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).await.unwrap();
    }

    async fn hear(&mut self) -> Value {
        let mut line = String::new();
        self.stream.read_line(&mut line).await.unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

async fn pair() -> (Qmp, Fake) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut fake = Fake { stream: BufReader::new(theirs) };
    let serve = async {
        fake.say(json!({"QMP": {"version": {}, "capabilities": []}})).await;
        let command = fake.hear().await;
        assert_eq!(command["execute"], "qmp_capabilities");
        assert!(command.get("arguments").is_none());
        fake.say(json!({"return": {}, "id": command["id"]})).await;
        fake
    };
    let (qmp, fake) = tokio::join!(Qmp::connect(ours, "agent", LONG), serve);
    (qmp.unwrap(), fake)
}

#[tokio::test]
async fn commands_get_their_own_answers() {
    let (qmp, mut fake) = pair().await;
    let serve = async {
        let first = fake.hear().await;
        let second = fake.hear().await;
        fake.say(json!({"return": second["arguments"], "id": second["id"]})).await;
        fake.say(json!({"error": {"class": "GenericError", "desc": "no such thing"}, "id": first["id"]})).await;
    };
    let (first, second, ()) =
        tokio::join!(qmp.execute("a", Value::Null), qmp.execute("b", json!({"x": u64::MAX})), serve);
    assert_eq!(first.unwrap_err().to_string(), "QEMU refused `a`: no such thing");
    assert_eq!(second.unwrap(), json!({"x": u64::MAX}));
}

#[tokio::test]
async fn events_change_the_condition() {
    let (qmp, mut fake) = pair().await;
    let mut condition = qmp.condition();
    fake.say(json!({"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}, "timestamp": {}})).await;
    fake.say(json!({"event": "STOP"})).await;
    let stopped = *condition.wait_for(|condition| condition.stopped).await.unwrap();
    assert_eq!(stopped.end, Some(GuestEnd::Reset));
    assert_eq!(*qmp.condition().borrow(), stopped);
}

#[tokio::test]
async fn a_deadline_says_what_was_awaited_and_what_came_last() {
    let (qmp, mut fake) = pair().await;
    let mut condition = qmp.condition();
    fake.say(json!({"event": "STOP"})).await;
    condition.wait_for(|condition| condition.stopped).await.unwrap();
    let error = qmp.execute_within("stop", Value::Null, SHORT).await.unwrap_err();
    assert_eq!(error.to_string(), "QEMU did not answer `stop` within 0.03 s; last came the event `STOP`");
    // The late answer disturbs nobody.
    let late = fake.hear().await;
    fake.say(json!({"return": 1, "id": late["id"]})).await;
    let serve = async {
        let command = fake.hear().await;
        fake.say(json!({"return": 2, "id": command["id"]})).await;
    };
    let (value, ()) = tokio::join!(qmp.execute("cont", Value::Null), serve);
    assert_eq!(value.unwrap(), json!(2));
}

#[tokio::test]
async fn the_end_wakes_all_and_stays() {
    let (qmp, mut fake) = pair().await;
    let end = async {
        fake.hear().await;
        fake.hear().await;
        drop(fake);
    };
    let (first, second, ()) = tokio::join!(qmp.execute("a", Value::Null), qmp.execute("b", Value::Null), end);
    for (command, error) in [("a", first.unwrap_err()), ("b", second.unwrap_err())] {
        let expected = QmpError::Closed { awaited: format!("`{command}`"), reason: "QEMU closed it".to_owned() };
        assert_eq!(error, expected);
    }
    assert!(matches!(qmp.execute("c", Value::Null).await, Err(QmpError::Closed { .. })));
}

#[tokio::test]
async fn malformed_lines_end_the_channel() {
    for (line, words) in [
        (&b"nonsense\n"[..], "no JSON: `nonsense`"),
        (b"[1]\n", "no JSON object"),
        (b"{\"x\": 1}\n", "neither answer nor event"),
        (b"{\"return\": {}}\n", "an answer to no command"),
        (b"{\"error\": {\"class\": \"GenericError\", \"desc\": \"JSON parse error\"}}\n", "JSON parse error"),
    ] {
        let (qmp, mut fake) = pair().await;
        let serve = async {
            fake.hear().await;
            fake.say_raw(line).await;
        };
        let (result, ()) = tokio::join!(qmp.execute("a", Value::Null), serve);
        let text = result.unwrap_err().to_string();
        assert!(text.contains(words), "{text}");
    }
}

#[tokio::test]
async fn connect_gives_up() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let error = Qmp::connect(ours, "agent", SHORT).await.unwrap_err();
    assert!(error.to_string().contains("greeting within 0.03 s; last came nothing"), "{error}");
    drop(theirs);
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(theirs);
    assert!(matches!(Qmp::connect(ours, "agent", LONG).await, Err(QmpError::Closed { .. })));
}

#[tokio::test]
async fn lines_are_bounded_and_cut() {
    let endless = vec![b'x'; 5000];
    let error = Lines::new(&endless[..], 1000).next().await.unwrap_err();
    assert!(error.contains("more than 1000 bytes"), "{error}");
    let mut lines = Lines::new(&b"a\r\n\r\nb\nc"[..], 1000);
    assert_eq!(lines.next().await.unwrap(), b"a");
    assert_eq!(lines.next().await.unwrap(), b"b");
    assert_eq!(lines.next().await.unwrap_err(), "QEMU closed it");
}

proptest! {
    #[test]
    fn no_line_panics(bytes: Vec<u8>) {
        let _ = parse(&bytes);
    }
}

#[tokio::test]
async fn a_descriptor_goes_with_its_line() {
    use std::io::{Read, Write};
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

    let (qmp, fake) = pair().await;
    let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let passing = tokio::spawn(async move { qmp.pass("card", OwnedFd::from(theirs)).await });
    let socket = fake.stream.get_ref();
    let (line, received) = loop {
        socket.readable().await.unwrap();
        let got = socket.try_io(tokio::io::Interest::READABLE, || {
            let (mut bytes, mut control) = ([0_u8; 256], [0_u64; 8]);
            let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
            // SAFETY: all that the message points to lives during the call; a descriptor that came is this test's own.
            unsafe {
                let mut message: libc::msghdr = std::mem::zeroed();
                message.msg_iov = &raw mut part;
                message.msg_iovlen = 1;
                message.msg_control = control.as_mut_ptr().cast();
                message.msg_controllen = 64;
                let count = libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC);
                let count = usize::try_from(count).map_err(|_| std::io::Error::last_os_error())?;
                let header = libc::CMSG_FIRSTHDR(&raw const message);
                let fd = std::ptr::read_unaligned(libc::CMSG_DATA(header).cast::<i32>());
                Ok((bytes[..count].to_vec(), OwnedFd::from_raw_fd(fd)))
            }
        });
        match got {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            got => break got.unwrap(),
        }
    };
    let command: Value = serde_json::from_slice(&line).unwrap();
    assert_eq!((&command["execute"], &command["arguments"]["fdname"]), (&json!("getfd"), &json!("card")));
    let mut fake = fake;
    fake.say(json!({"return": {}, "id": command["id"]})).await;
    passing.await.unwrap().unwrap();
    std::fs::File::from(received).write_all(b"hi").unwrap();
    let mut heard = [0; 2];
    ours.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"hi");
}

#[tokio::test]
async fn unplugging_waits_for_the_guest() {
    let (qmp, mut fake) = pair().await;
    let serve = async {
        let command = fake.hear().await;
        assert_eq!((&command["execute"], &command["arguments"]["id"]), (&json!("device_del"), &json!("nic0")));
        fake.say(json!({"return": {}, "id": command["id"]})).await;
        fake.say(json!({"event": "DEVICE_DELETED", "data": {"path": "/machine/peripheral/nic0/virtio-backend"}})).await;
        fake.say(json!({"event": "DEVICE_DELETED", "data": {"device": "nic0", "path": "/machine/peripheral/nic0"}}))
            .await;
        fake
    };
    let (gone, mut fake) = tokio::join!(crate::qemu::hotplug::unplug(&qmp, "nic0", LONG), serve);
    gone.unwrap();
    let serve = async {
        let command = fake.hear().await;
        fake.say(json!({"return": {}, "id": command["id"]})).await;
        fake
    };
    let (refused, _fake) = tokio::join!(crate::qemu::hotplug::unplug(&qmp, "nic0", SHORT), serve);
    assert!(matches!(refused, Err(QmpError::Deadline { .. })), "{refused:?}");
}
