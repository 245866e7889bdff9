use super::*;
use crate::agent_protocol::{Card, CardRoute, EntryType, IoctlArgument, LARGEST_PAYLOAD, Nested, Wake};

fn run_request() -> RunRequest {
    RunRequest {
        program: Program::Argv(vec![b"ls".to_vec(), b"-l".to_vec()]),
        env: vec![(b"A".to_vec(), b"1".to_vec())],
        env_clear: true,
        cwd: Some(b"/tmp".to_vec()),
        user: Some("u".to_owned()),
        timeout_ms: Some(300),
        stdin: true,
        announce: false,
    }
}

fn hello() -> Hello {
    Hello {
        version: 3,
        nonce: [0xa5; 16],
        arch: "x".to_owned(),
        kernel_release: "6.1".to_owned(),
        pid: 7,
        uptime_ns: 128,
        boot_error: None,
        notices: vec!["n".to_owned()],
    }
}

/// Messages to the guest with their wire forms, each kind at least once.
pub(crate) fn golden_to_guest() -> Vec<(ToGuest, &'static [u8])> {
    let card = Card {
        mac: [1, 2, 3, 4, 5, 6],
        new_mac: None,
        mtu: 1500,
        addresses: vec![(vec![10, 0, 0, 2], 24)],
        routes: vec![CardRoute { to: vec![0], prefix: 0, via: vec![10, 0, 0, 1] }],
        ended_routes: Vec::new(),
    };
    let stat = Op::Stat { path: b"/a".to_vec(), follow: true };
    let call = SyscallRequest {
        number: 39,
        args: [1, 0, 0, 0, 0, 0],
        bufs: vec![vec![7]],
        ptrs: vec![0],
        nested: vec![Nested { parent: 0, child: 0, offset: 4 }],
    };
    let ioctl = IoctlRequest {
        fd: 3,
        command: 0x5401,
        argument: IoctlArgument::Data(vec![9]),
        bufs: Vec::new(),
        ptr_offsets: Vec::new(),
    };
    vec![
        (ToGuest::Ping, &[0, 0, 0, 0, 5, 1, 0, 0, 1]),
        (
            ToGuest::Run(run_request()),
            &[
                28, 0, 0, 0, 5, 1, 0, 0, 2, 1, 2, 2, b'l', b's', 2, b'-', b'l', 1, 1, b'A', 1, b'1', 1, 1, 4, b'/',
                b't', b'm', b'p', 1, 1, b'u', 1, 172, 2, 1, 0,
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
        (ToGuest::Op(stat), &[5, 0, 0, 0, 5, 1, 0, 0, 12, 0, 2, b'/', b'a', 1]),
        (ToGuest::Op(Op::WatchPowerButton), &[1, 0, 0, 0, 5, 1, 0, 0, 12, 13]),
        (
            ToGuest::Op(Op::Symlink { target: b"t".to_vec(), path: b"/l".to_vec() }),
            &[6, 0, 0, 0, 5, 1, 0, 0, 12, 14, 1, b't', 2, b'/', b'l'],
        ),
        (ToGuest::Op(Op::SetHosts("h".to_owned())), &[3, 0, 0, 0, 5, 1, 0, 0, 12, 15, 1, b'h']),
        (ToGuest::Op(Op::Quiesce), &[1, 0, 0, 0, 5, 1, 0, 0, 12, 16]),
        (
            ToGuest::Op(Op::Wake(Wake { time: Some(1), entropy: vec![7], hostname: Some("h".to_owned()) })),
            &[8, 0, 0, 0, 5, 1, 0, 0, 12, 17, 1, 2, 1, 7, 1, 1, b'h'],
        ),
        (
            ToGuest::Op(Op::FindDisk { serial: b"d".to_vec(), rescan: true }),
            &[4, 0, 0, 0, 5, 1, 0, 0, 12, 18, 1, b'd', 1],
        ),
        (ToGuest::FileRead { fd: 3, count: Some(300) }, &[4, 0, 0, 0, 5, 1, 0, 0, 13, 6, 1, 172, 2]),
        (ToGuest::FileWrite(3), &[1, 0, 0, 0, 5, 1, 0, 0, 14, 6]),
        (ToGuest::ListDir(b"/".to_vec()), &[1, 0, 0, 0, 5, 1, 0, 0, 15, b'/']),
        (
            ToGuest::Tail(TailSource::Path(b"/a".to_vec()), TailStart::Offset(-1)),
            &[6, 0, 0, 0, 5, 1, 0, 0, 16, 0, 2, b'/', b'a', 2, 1],
        ),
        (ToGuest::FdStream(4), &[1, 0, 0, 0, 5, 1, 0, 0, 17, 8]),
        (
            ToGuest::Syscall(call.clone()),
            &[16, 0, 0, 0, 5, 1, 0, 0, 18, 78, 1, 0, 0, 0, 0, 0, 1, 1, 7, 1, 0, 1, 0, 0, 4],
        ),
        (ToGuest::SyscallAsync(call), &[16, 0, 0, 0, 5, 1, 0, 0, 19, 78, 1, 0, 0, 0, 0, 0, 1, 1, 7, 1, 0, 1, 0, 0, 4]),
        (ToGuest::Ioctl(ioctl), &[9, 0, 0, 0, 5, 1, 0, 0, 20, 6, 129, 168, 1, 1, 1, 9, 0, 0]),
        (ToGuest::ReadMemory { address: 128, count: 1 }, &[3, 0, 0, 0, 5, 1, 0, 0, 21, 128, 1, 1]),
        (ToGuest::Wait(WaitFor::Port(80)), &[2, 0, 0, 0, 5, 1, 0, 0, 22, 1, 80]),
        (
            ToGuest::Wait(WaitFor::Card(card)),
            &[
                27, 0, 0, 0, 5, 1, 0, 0, 22, 2, 1, 2, 3, 4, 5, 6, 0, 220, 11, 1, 4, 10, 0, 0, 2, 24, 1, 1, 0, 0, 4, 10,
                0, 0, 1, 0,
            ],
        ),
        (ToGuest::Wait(WaitFor::Disk(b"d".to_vec())), &[3, 0, 0, 0, 5, 1, 0, 0, 22, 3, 1, b'd']),
        (ToGuest::Sleep(5), &[1, 0, 0, 0, 5, 1, 0, 0, 23, 5]),
        (
            ToGuest::LoadModule { name: "m".to_owned(), params: "a=1".to_owned() },
            &[6, 0, 0, 0, 5, 1, 0, 0, 24, 1, b'm', 3, b'a', b'=', b'1'],
        ),
        (ToGuest::KernelLog { follow: true }, &[1, 0, 0, 0, 5, 1, 0, 0, 25, 1]),
    ]
}

/// Messages to the host with their wire forms, each kind at least once.
pub(crate) fn golden_to_host() -> Vec<(ToHost, &'static [u8])> {
    let error = OpError { op: "o".to_owned(), subject: "s".to_owned(), errno: 2, detail: "d".to_owned() };
    let exited = ToHost::Exited { status: ProcessStatus::Signalled(9), duration_ns: 300 };
    let returned = SyscallOutcome { ret: -1, errno: 2, data: Vec::new(), bufs: vec![vec![5, 6]] };
    vec![
        (
            ToHost::Hello(hello()),
            &[
                30, 0, 0, 0, 5, 1, 0, 0, 129, 3, 165, 165, 165, 165, 165, 165, 165, 165, 165, 165, 165, 165, 165, 165,
                165, 165, 1, b'x', 3, b'6', b'.', b'1', 7, 128, 1, 0, 1, 1, b'n',
            ],
        ),
        (ToHost::Pong, &[0, 0, 0, 0, 5, 1, 0, 0, 130]),
        (ToHost::Stdout(b"o".to_vec()), &[1, 0, 0, 0, 5, 1, 0, 0, 131, b'o']),
        (ToHost::Stderr(b"e".to_vec()), &[1, 0, 0, 0, 5, 1, 0, 0, 132, b'e']),
        (exited, &[4, 0, 0, 0, 5, 1, 0, 0, 133, 1, 18, 172, 2]),
        (ToHost::Data(b"d".to_vec()), &[1, 0, 0, 0, 5, 1, 0, 0, 134, b'd']),
        (ToHost::Done, &[0, 0, 0, 0, 5, 1, 0, 0, 135]),
        (ToHost::Failed(error), &[7, 0, 0, 0, 5, 1, 0, 0, 136, 1, b'o', 1, b's', 4, 1, b'd']),
        (ToHost::Started(300), &[2, 0, 0, 0, 5, 1, 0, 0, 137, 172, 2]),
        (ToHost::StdinTaken(1), &[1, 0, 0, 0, 5, 1, 0, 0, 138, 1]),
        (ToHost::Reply(OpReply::Count(3)), &[2, 0, 0, 0, 5, 1, 0, 0, 139, 4, 3]),
        (ToHost::Reply(OpReply::Device(Some("v".to_owned()))), &[4, 0, 0, 0, 5, 1, 0, 0, 139, 9, 1, 1, b'v']),
        (
            ToHost::Entries(vec![DirEntry { name: b"f".to_vec(), entry_type: EntryType::Symlink }]),
            &[4, 0, 0, 0, 5, 1, 0, 0, 140, 1, 1, b'f', 2],
        ),
        (ToHost::Returned(returned), &[7, 0, 0, 0, 5, 1, 0, 0, 141, 1, 4, 0, 1, 2, 5, 6]),
        (ToHost::Ended, &[0, 0, 0, 0, 5, 1, 0, 0, 142]),
    ]
}

/// The wire form of every message: a change here is a change of the protocol, and raises its version.
#[test]
fn golden_bytes() {
    for (message, bytes) in golden_to_guest() {
        let mut out = Vec::new();
        message.encode(0x105, &mut out);
        assert_eq!(out, bytes, "{message:?}");
    }
    for (message, bytes) in golden_to_host() {
        let mut out = Vec::new();
        message.encode(0x105, &mut out);
        assert_eq!(out, bytes, "{message:?}");
    }
}

/// `docs/agent-protocol.md` has each kind of message under its number and name, and no other.
#[test]
fn the_documentation_has_every_kind() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/agent-protocol.md")).unwrap();
    let tables = page.split("## Messages").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
    let rows: Vec<(u8, String)> = tables
        .lines()
        .filter_map(|line| {
            let mut cells = line.split('|').map(str::trim).skip(1);
            Some((cells.next()?.parse().ok()?, cells.next()?.to_owned()))
        })
        .collect();
    let name = |message: &dyn std::fmt::Debug| {
        let text = format!("{message:?}");
        text.split(['(', ' ']).next().unwrap_or_default().to_owned()
    };
    let to_guest = golden_to_guest().into_iter().map(|(message, bytes)| (bytes[8], name(&message)));
    let to_host = golden_to_host().into_iter().map(|(message, bytes)| (bytes[8], name(&message)));
    let mut kinds: Vec<(u8, String)> = to_guest.chain(to_host).collect();
    kinds.dedup();
    assert_eq!(rows, kinds);
    assert!(
        page.starts_with(&format!("# The agent's protocol\n\nVersion {}.", crate::agent_protocol::PROTOCOL_VERSION))
    );
    assert!(page.contains(&format!("at most {} MiB", LARGEST_PAYLOAD >> 20)));
}
