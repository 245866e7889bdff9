use proptest::prelude::*;

use super::*;
use crate::agent_protocol::{Decoder, LARGEST_PAYLOAD};

fn run_request() -> RunRequest {
    RunRequest {
        program: Program::Argv(vec![b"ls".to_vec(), b"-l".to_vec()]),
        env: vec![(b"A".to_vec(), b"1".to_vec())],
        env_clear: true,
        cwd: Some(b"/tmp".to_vec()),
        user: Some("u".to_owned()),
        timeout_ms: Some(300),
        stdin: true,
    }
}

fn hello() -> Hello {
    Hello {
        version: 1,
        kernel_release: "6.1".to_owned(),
        pid: 7,
        uptime_ns: 128,
        boot_error: None,
        notices: vec!["n".to_owned()],
    }
}

/// The wire form of every message: a change here is a change of the protocol, and raises its version.
#[test]
fn golden_bytes() {
    let error = OpError { op: "o".to_owned(), subject: "s".to_owned(), errno: 2, detail: "d".to_owned() };
    let exited = ToHost::Exited { status: ProcessStatus::Signalled(9), duration_ns: 300 };
    let guest: [(ToGuest, &[u8]); 11] = [
        (ToGuest::Ping, &[0, 0, 0, 0, 5, 1, 0, 0, 1]),
        (
            ToGuest::Run(run_request()),
            &[
                27, 0, 0, 0, 5, 1, 0, 0, 2, 1, 2, 2, b'l', b's', 2, b'-', b'l', 1, 1, b'A', 1, b'1', 1, 1, 4, b'/',
                b't', b'm', b'p', 1, 1, b'u', 1, 172, 2, 1,
            ],
        ),
        (ToGuest::Stdin(b"in".to_vec()), &[2, 0, 0, 0, 5, 1, 0, 0, 3, b'i', b'n']),
        (ToGuest::StdinEnd, &[0, 0, 0, 0, 5, 1, 0, 0, 4]),
        (ToGuest::Signal(15), &[1, 0, 0, 0, 5, 1, 0, 0, 5, 30]),
        (ToGuest::ReadFile(b"/a".to_vec()), &[2, 0, 0, 0, 5, 1, 0, 0, 6, b'/', b'a']),
        (
            ToGuest::WriteFile { path: b"/a".to_vec(), mode: Some(0o600) },
            &[6, 0, 0, 0, 5, 1, 0, 0, 7, 2, b'/', b'a', 1, 128, 3],
        ),
        (ToGuest::Data(vec![0, 255]), &[2, 0, 0, 0, 5, 1, 0, 0, 8, 0, 255]),
        (ToGuest::DataEnd, &[0, 0, 0, 0, 5, 1, 0, 0, 9]),
        (ToGuest::Cancel, &[0, 0, 0, 0, 5, 1, 0, 0, 10]),
        (ToGuest::Poweroff, &[0, 0, 0, 0, 5, 1, 0, 0, 11]),
    ];
    for (message, bytes) in guest {
        let mut out = Vec::new();
        message.encode(0x105, &mut out);
        assert_eq!(out, bytes, "{message:?}");
    }
    let host: [(ToHost, &[u8]); 8] = [
        (ToHost::Hello(hello()), &[12, 0, 0, 0, 5, 1, 0, 0, 129, 1, 3, b'6', b'.', b'1', 7, 128, 1, 0, 1, 1, b'n']),
        (ToHost::Pong, &[0, 0, 0, 0, 5, 1, 0, 0, 130]),
        (ToHost::Stdout(b"o".to_vec()), &[1, 0, 0, 0, 5, 1, 0, 0, 131, b'o']),
        (ToHost::Stderr(b"e".to_vec()), &[1, 0, 0, 0, 5, 1, 0, 0, 132, b'e']),
        (exited, &[4, 0, 0, 0, 5, 1, 0, 0, 133, 1, 18, 172, 2]),
        (ToHost::Data(b"d".to_vec()), &[1, 0, 0, 0, 5, 1, 0, 0, 134, b'd']),
        (ToHost::Done, &[0, 0, 0, 0, 5, 1, 0, 0, 135]),
        (ToHost::Failed(error), &[7, 0, 0, 0, 5, 1, 0, 0, 136, 1, b'o', 1, b's', 4, 1, b'd']),
    ];
    for (message, bytes) in host {
        let mut out = Vec::new();
        message.encode(0x105, &mut out);
        assert_eq!(out, bytes, "{message:?}");
    }
}

proptest! {
    #[test]
    fn run_requests_come_back(line in any::<Vec<u8>>(), env in any::<Vec<(Vec<u8>, Vec<u8>)>>(), user in any::<Option<String>>()) {
        let message = ToGuest::Run(RunRequest { program: Program::Shell(line), env, user, ..run_request() });
        let mut out = Vec::new();
        message.encode(9, &mut out);
        let mut decoder = Decoder::default();
        // Byte by byte: a frame may arrive in any pieces.
        for byte in &out {
            prop_assert_eq!(decoder.next_frame().unwrap(), None);
            decoder.push(&[*byte]);
        }
        let (request, kind, payload) = decoder.next_frame().unwrap().unwrap();
        prop_assert_eq!((request, ToGuest::decode(kind, payload).unwrap()), (9, message));
    }

    #[test]
    fn any_bytes_are_survived(bytes in any::<Vec<u8>>(), kind in any::<u8>()) {
        let _ = ToGuest::decode(kind, &bytes);
        let _ = ToHost::decode(kind, &bytes);
        let mut decoder = Decoder::default();
        decoder.push(&bytes);
        while let Ok(Some((_, kind, payload))) = decoder.next_frame() {
            prop_assert!(payload.len() <= LARGEST_PAYLOAD);
            let _ = ToHost::decode(kind, payload);
        }
    }
}
