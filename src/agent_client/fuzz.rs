//! Fuzzing of the host's end: a guest that says anything at all ends the connection with an error at worst.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;

use super::*;
use crate::agent_protocol::{Hello, Op, PROTOCOL_VERSION, ToGuest, ToHost, golden_to_guest, golden_to_host};
use crate::foundation::fuzzing::{self, Random};

#[test]
fn the_host_s_end_survives_any_guest() {
    fuzzing::in_a_child("agent_client::fuzz::target");
}

#[test]
fn a_guest_that_never_stops_is_bounded() {
    fuzzing::in_a_child("agent_client::fuzz::flood");
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn hello(random: &mut Random) -> Hello {
    let golden = golden_to_host().into_iter().find_map(|(message, _)| match message {
        ToHost::Hello(hello) => Some(hello),
        _ => None,
    });
    let version = if random.one_in(20) { 1 } else { PROTOCOL_VERSION };
    Hello { version, ..golden.unwrap() }
}

#[test]
#[ignore = "the fuzz target: runs in a process of its own"]
fn target() {
    fuzzing::begin();
    let runtime = runtime();
    let mut connected = 0;
    let count = fuzzing::rounds(|random| connected += runtime.block_on(round(random)));
    println!("{count} rounds, {connected} connected");
    assert!(count < 100 || connected > count / 3, "hardly a round went beyond the hello");
}

/// Whether the guest was accepted.
async fn round(mut random: Random) -> u64 {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let guest = tokio::spawn(guest(theirs, Random::new(random.next())));
    let connected = connect(ours).await;
    if let Ok((client, _)) = &connected {
        ask(client, &mut random).await;
    }
    let accepted = u64::from(connected.is_ok());
    drop(connected);
    guest.await.unwrap();
    accepted
}

/// All requests at once; each ends in one way or the other.
async fn ask(client: &AgentClient, random: &mut Random) {
    let stdin = (!random.one_in(3)).then(|| vec![0; random.below(300_000)]);
    let spec = RunSpec { stdin, timeout: Some(Duration::from_secs(1)), ..RunSpec::default() };
    let data = vec![1; random.below(200_000)];
    let given_up = tokio::time::timeout(Duration::from_millis(1), client.read_file(b"/given/up"));
    let calls = async {
        let call = golden_call();
        let _ = tokio::join!(client.syscall(call.clone()), client.read_mem(0, 100), client.signal_all(1));
        if let Ok(mut under_way) = client.syscall_async(call).await {
            let _ = under_way.result().await;
        }
    };
    let processes = async {
        let Ok(mut process) = client.start("run_async", RunSpec::default()).await else { return };
        let _ = process.input.stdin(b"x").await;
        while let Ok(event) = process.output.next().await {
            if matches!(event, ProcessEvent::Ended(..)) {
                break;
            }
        }
    };
    let streams = async {
        let Ok(mut stream) = client.fd_stream(3).await else { return };
        while let Ok(Some(_)) = stream.next().await {}
    };
    let worker = async {
        if let Ok(worker) = client.spawn_worker().await {
            let _ = worker.agent().ping().await;
        }
    };
    let module = client.load_module("m", &data, "");
    let _ = tokio::join!(
        client.run(spec),
        client.read_file(b"/a"),
        client.write_file(b"/b", &data, None),
        client.op(Op::GetClock),
        client.op(Op::Exists(b"/c".to_vec())),
        client.list_directory(b"/"),
        client.read_descriptor(3, Some(10)),
        client.write_descriptor(3, b"y"),
        calls,
        processes,
        streams,
        worker,
        module,
        given_up,
        client.poweroff(),
    );
}

fn golden_call() -> SyscallRequest {
    let calls = golden_to_guest().into_iter().find_map(|(message, _)| match message {
        ToGuest::Syscall(call) => Some(call),
        _ => None,
    });
    calls.unwrap()
}

/// A guest that begins well, most of the time, and then says what it likes.
async fn guest(stream: UnixStream, mut random: Random) {
    let (mut reader, mut writer) = stream.into_split();
    let reads = !random.one_in(4);
    let listening = tokio::spawn(async move {
        let mut buffer = vec![0; 4096];
        while reads && reader.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
        reader
    });
    let mut bytes = Vec::new();
    if !random.one_in(10) {
        ToHost::Hello(hello(&mut random)).encode(0, &mut bytes);
        if !random.one_in(10) {
            ToHost::Pong.encode(1, &mut bytes);
        }
    }
    if random.one_in(10) {
        random.damage(&mut bytes);
    }
    let _ = babble(&mut writer, bytes, &mut random).await;
    drop(writer);
    listening.abort();
}

async fn babble(writer: &mut OwnedWriteHalf, mut bytes: Vec<u8>, random: &mut Random) -> std::io::Result<()> {
    let golden = golden_to_host();
    for _ in 0..random.below(200) {
        let start = bytes.len();
        let request = u32::try_from(random.below(20)).unwrap_or_default();
        match random.below(12) {
            0 if random.one_in(10) => bytes.extend(random.bytes()),
            1 => ToHost::Data(random.bytes()).encode(request, &mut bytes),
            2 => ToHost::Stdout(random.bytes()).encode(request, &mut bytes),
            _ => random.pick(&golden).0.encode(request, &mut bytes),
        }
        if random.one_in(30) {
            let mut damaged = bytes.split_off(start);
            random.damage(&mut damaged);
            bytes.extend(damaged);
        }
        if random.one_in(5) {
            // In pieces of any size.
            let rest = bytes.split_off(random.below(bytes.len() + 1));
            writer.write_all(&bytes).await?;
            bytes = rest;
            tokio::task::yield_now().await;
        }
    }
    writer.write_all(&bytes).await
}

/// Endless output for a request that does not look at it, as when another branch of `parallel` is busy: the guest is no longer
/// listened to before that fills the memory (`in_a_child` limits it).
#[test]
#[ignore = "runs in a process of its own"]
fn flood() {
    fuzzing::begin();
    runtime().block_on(async {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (_reader, mut writer) = theirs.into_split();
        let mut bytes = Vec::new();
        ToHost::Hello(hello(&mut Random::new(7))).encode(0, &mut bytes);
        ToHost::Pong.encode(1, &mut bytes);
        writer.write_all(&bytes).await.unwrap();
        let (client, _) = connect(ours).await.unwrap();
        let mut request = Box::pin(client.read_file(b"/a"));
        // Looked at once, so that it is sent.
        tokio::select! {
            biased;
            _ = &mut request => unreachable!("it has no answer yet"),
            () = tokio::task::yield_now() => {}
        }
        bytes.clear();
        ToHost::Data(vec![7; 60_000]).encode(2, &mut bytes);
        let flooding = async { while writer.write_all(&bytes).await.is_ok() {} };
        assert!(tokio::time::timeout(Duration::from_secs(3), flooding).await.is_err(), "the connection ended");
        drop(writer);
        // What came is not lost, and the rest is read once there is room.
        assert!(matches!(request.await, Err(AgentError::Closed(_))));
    });
}
