//! Properties of every message: it comes back from its bytes, in whatever pieces they arrive, and bytes that are no message
//! are refused.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::agent_protocol::{
    Button, Card, CardRoute, EntryType, FileStat, HEADER, Incoming, IoctlArgument, LARGEST_PAYLOAD, Nested,
    OpenRequest, Wake, Whence,
};

type Bytes = Vec<u8>;

fn program() -> impl Strategy<Value = Program> {
    prop_oneof![
        any::<Bytes>().prop_map(Program::Shell),
        any::<Vec<Bytes>>().prop_map(Program::Argv),
        Just(Program::Worker)
    ]
}

fn run_request() -> impl Strategy<Value = RunRequest> {
    let rest = (any::<Option<String>>(), any::<Option<u64>>(), any::<bool>(), any::<bool>());
    (program(), any::<Vec<(Bytes, Bytes)>>(), any::<bool>(), any::<Option<Bytes>>(), rest).prop_map(
        |(program, env, env_clear, cwd, (user, timeout_ms, stdin, announce))| RunRequest {
            program,
            env,
            env_clear,
            cwd,
            user,
            timeout_ms,
            stdin,
            announce,
        },
    )
}

fn open_request() -> impl Strategy<Value = OpenRequest> {
    (any::<Bytes>(), any::<[bool; 6]>(), any::<Option<u32>>()).prop_map(
        |(path, [read, write, create, truncate, append, exclusive], perm)| OpenRequest {
            path,
            read,
            write,
            create,
            truncate,
            append,
            exclusive,
            perm,
        },
    )
}

fn op() -> impl Strategy<Value = Op> {
    let whence = prop_oneof![Just(Whence::Set), Just(Whence::Current), Just(Whence::End)];
    prop_oneof![
        any::<(Bytes, bool)>().prop_map(|(path, follow)| Op::Stat { path, follow }),
        any::<Bytes>().prop_map(Op::Exists),
        any::<(Bytes, bool, Option<u32>)>().prop_map(|(path, parents, perm)| Op::Mkdir { path, parents, perm }),
        any::<Bytes>().prop_map(Op::Unlink),
        any::<(Bytes, Bytes)>().prop_map(|(from, to)| Op::Rename { from, to }),
        open_request().prop_map(Op::Open),
        (any::<i32>(), any::<i64>(), whence).prop_map(|(fd, offset, whence)| Op::Seek { fd, offset, whence }),
        any::<i32>().prop_map(Op::Sync),
        any::<(i32, u64)>().prop_map(|(fd, length)| Op::Truncate { fd, length }),
        any::<i32>().prop_map(Op::Close),
        Just(Op::GetClock),
        any::<i64>().prop_map(Op::SetClock),
        any::<String>().prop_map(Op::UnloadModule),
        Just(Op::WatchPowerButton),
        any::<(Bytes, Bytes)>().prop_map(|(target, path)| Op::Symlink { target, path }),
        any::<String>().prop_map(Op::SetHosts),
        Just(Op::Quiesce),
        any::<(Option<i64>, Bytes, Option<String>)>().prop_map(|(time, entropy, hostname)| Op::Wake(Wake {
            time,
            entropy,
            hostname
        })),
        any::<(Bytes, bool)>().prop_map(|(serial, rescan)| Op::FindDisk { serial, rescan }),
    ]
}

fn syscall() -> impl Strategy<Value = SyscallRequest> {
    let nested = any::<(u32, u32, u32)>().prop_map(|(parent, child, offset)| Nested { parent, child, offset });
    (any::<i64>(), any::<[u64; 6]>(), any::<Vec<Bytes>>(), any::<Bytes>(), prop::collection::vec(nested, 0..4))
        .prop_map(|(number, args, bufs, ptrs, nested)| SyscallRequest { number, args, bufs, ptrs, nested })
}

fn ioctl() -> impl Strategy<Value = IoctlRequest> {
    let argument =
        prop_oneof![any::<u64>().prop_map(IoctlArgument::Number), any::<Bytes>().prop_map(IoctlArgument::Data)];
    (any::<i32>(), any::<u64>(), argument, any::<Vec<Bytes>>(), any::<Vec<u32>>()).prop_map(
        |(fd, command, argument, bufs, ptr_offsets)| IoctlRequest { fd, command, argument, bufs, ptr_offsets },
    )
}

fn tail() -> impl Strategy<Value = ToGuest> {
    let source = prop_oneof![any::<Bytes>().prop_map(TailSource::Path), any::<i32>().prop_map(TailSource::Descriptor)];
    let start = prop_oneof![
        Just(TailStart::Beginning),
        Just(TailStart::End),
        any::<i64>().prop_map(TailStart::Offset),
        Just(TailStart::Current)
    ];
    (source, start).prop_map(|(source, start)| ToGuest::Tail(source, start))
}

fn to_guest() -> impl Strategy<Value = ToGuest> {
    let route = any::<(Bytes, u8, Bytes)>().prop_map(|(to, prefix, via)| CardRoute { to, prefix, via });
    let routes = prop::collection::vec(route, 0..3);
    let card = (any::<[u8; 6]>(), any::<Option<[u8; 6]>>(), any::<u32>(), any::<Vec<(Bytes, u8)>>(), routes).prop_map(
        |(mac, new_mac, mtu, addresses, routes)| Card {
            mac,
            new_mac,
            mtu,
            addresses,
            ended_routes: routes.clone(),
            routes,
        },
    );
    let wait = prop_oneof![
        any::<Bytes>().prop_map(WaitFor::File),
        any::<u16>().prop_map(WaitFor::Port),
        card.prop_map(WaitFor::Card),
        any::<Bytes>().prop_map(WaitFor::Disk)
    ];
    let processes = prop_oneof![
        Just(ToGuest::Ping),
        run_request().prop_map(ToGuest::Run),
        any::<Bytes>().prop_map(ToGuest::Stdin),
        Just(ToGuest::StdinEnd),
        any::<i32>().prop_map(ToGuest::Signal),
        Just(ToGuest::Cancel),
        Just(ToGuest::Poweroff),
    ];
    let files = prop_oneof![
        any::<Bytes>().prop_map(ToGuest::ReadFile),
        any::<(Bytes, Option<u32>)>().prop_map(|(path, mode)| ToGuest::WriteFile { path, mode }),
        any::<Bytes>().prop_map(ToGuest::Data),
        Just(ToGuest::DataEnd),
        op().prop_map(ToGuest::Op),
        any::<(i32, Option<u64>)>().prop_map(|(fd, count)| ToGuest::FileRead { fd, count }),
        any::<i32>().prop_map(ToGuest::FileWrite),
        any::<Bytes>().prop_map(ToGuest::ListDir),
        tail(),
        any::<i32>().prop_map(ToGuest::FdStream),
    ];
    let kernel = prop_oneof![
        syscall().prop_map(ToGuest::Syscall),
        syscall().prop_map(ToGuest::SyscallAsync),
        ioctl().prop_map(ToGuest::Ioctl),
        any::<(u64, u64)>().prop_map(|(address, count)| ToGuest::ReadMemory { address, count }),
        wait.prop_map(ToGuest::Wait),
        any::<u64>().prop_map(ToGuest::Sleep),
        any::<(String, String)>().prop_map(|(name, params)| ToGuest::LoadModule { name, params }),
        any::<bool>().prop_map(|follow| ToGuest::KernelLog { follow }),
    ];
    prop_oneof![processes, files, kernel]
}

fn entry_type() -> impl Strategy<Value = EntryType> {
    prop::sample::select(vec![
        EntryType::File,
        EntryType::Directory,
        EntryType::Symlink,
        EntryType::Fifo,
        EntryType::Socket,
        EntryType::CharDevice,
        EntryType::BlockDevice,
    ])
}

fn stat() -> impl Strategy<Value = FileStat> {
    (any::<(u64, i64, u32, u32)>(), entry_type(), any::<(u32, u32, u64, u64)>()).prop_map(
        |((size, mtime, mtime_ns, perm), entry_type, (uid, gid, ino, nlink))| FileStat {
            size,
            mtime,
            mtime_ns,
            perm,
            entry_type,
            uid,
            gid,
            ino,
            nlink,
        },
    )
}

fn hello() -> impl Strategy<Value = Hello> {
    (any::<(u32, [u8; 16], String, String)>(), any::<(u32, u64, Option<String>, Vec<String>)>()).prop_map(
        |((version, nonce, arch, kernel_release), (pid, uptime_ns, boot_error, notices))| Hello {
            version,
            nonce,
            arch,
            kernel_release,
            pid,
            uptime_ns,
            boot_error,
            notices,
        },
    )
}

fn to_host() -> impl Strategy<Value = ToHost> {
    let button = prop::sample::select(vec![Button::NoDevice, Button::Guest, Button::Agent]);
    let reply = prop_oneof![
        Just(OpReply::Unit),
        any::<bool>().prop_map(OpReply::Flag),
        stat().prop_map(OpReply::Stat),
        any::<i32>().prop_map(OpReply::Opened),
        any::<u64>().prop_map(OpReply::Count),
        any::<i64>().prop_map(OpReply::Clock),
        button.prop_map(OpReply::Button),
        any::<[u8; 16]>().prop_map(OpReply::Quiet),
        any::<Vec<String>>().prop_map(OpReply::Notices),
        any::<Option<String>>().prop_map(OpReply::Device),
    ];
    let status = prop_oneof![
        any::<i32>().prop_map(ProcessStatus::Exited),
        any::<i32>().prop_map(ProcessStatus::Signalled),
        Just(ProcessStatus::TimedOut)
    ];
    let error = any::<(String, String, i32, String)>().prop_map(|(op, subject, errno, detail)| OpError {
        op,
        subject,
        errno,
        detail,
    });
    let entry = (any::<Bytes>(), entry_type()).prop_map(|(name, entry_type)| DirEntry { name, entry_type });
    let outcome = any::<(i64, i32, Bytes, Vec<Bytes>)>().prop_map(|(ret, errno, data, bufs)| SyscallOutcome {
        ret,
        errno,
        data,
        bufs,
    });
    let processes = prop_oneof![
        hello().prop_map(ToHost::Hello),
        Just(ToHost::Pong),
        any::<Bytes>().prop_map(ToHost::Stdout),
        any::<Bytes>().prop_map(ToHost::Stderr),
        (status, any::<u64>()).prop_map(|(status, duration_ns)| ToHost::Exited { status, duration_ns }),
        any::<u32>().prop_map(ToHost::Started),
        any::<u32>().prop_map(ToHost::StdinTaken),
    ];
    let others = prop_oneof![
        any::<Bytes>().prop_map(ToHost::Data),
        Just(ToHost::Done),
        error.prop_map(ToHost::Failed),
        reply.prop_map(ToHost::Reply),
        prop::collection::vec(entry, 0..8).prop_map(ToHost::Entries),
        outcome.prop_map(ToHost::Returned),
        Just(ToHost::Ended),
    ];
    prop_oneof![processes, others]
}

/// The frames in `bytes`, which come in pieces of `size`.
fn frames(mut bytes: &[u8], size: usize) -> Result<Vec<(u32, u8, Bytes)>, FrameError> {
    let (mut incoming, mut found) = (Incoming::default(), Vec::new());
    while !bytes.is_empty() {
        let room = incoming.room();
        let count = room.len().min(size).min(bytes.len());
        assert!(count > 0);
        room[..count].copy_from_slice(&bytes[..count]);
        bytes = &bytes[count..];
        // What is in a used buffer does no harm.
        found.extend(incoming.filled(count, |_| vec![9; 50])?);
    }
    Ok(found)
}

proptest! {
    #[test]
    fn what_goes_to_the_guest_comes_back(
        messages in prop::collection::vec(to_guest(), 0..4), request in any::<u32>(), piece in 1_usize..40,
    ) {
        let mut bytes = Vec::new();
        for message in &messages {
            message.encode(request, &mut bytes);
        }
        let found = frames(&bytes, piece).unwrap();
        prop_assert_eq!(found.len(), messages.len());
        for ((number, kind, payload), message) in found.into_iter().zip(messages) {
            prop_assert_eq!(number, request);
            prop_assert_eq!(ToHost::decode(kind, &payload), Err(FrameError::UnknownKind(kind)));
            prop_assert_eq!(&ToGuest::decode(kind, &payload).unwrap(), &message);
            prop_assert_eq!(ToGuest::decode_owned(kind, payload).unwrap(), message);
        }
    }

    #[test]
    fn what_goes_to_the_host_comes_back(
        messages in prop::collection::vec(to_host(), 0..4), request in any::<u32>(), piece in 1_usize..40,
    ) {
        let mut bytes = Vec::new();
        for message in &messages {
            message.encode(request, &mut bytes);
        }
        let found = frames(&bytes, piece).unwrap();
        prop_assert_eq!(found.len(), messages.len());
        for ((number, kind, payload), message) in found.into_iter().zip(messages) {
            prop_assert_eq!(number, request);
            prop_assert_eq!(ToGuest::decode(kind, &payload), Err(FrameError::UnknownKind(kind)));
            prop_assert_eq!(&ToHost::decode(kind, &payload).unwrap(), &message);
            prop_assert_eq!(ToHost::decode_owned(kind, payload).unwrap(), message);
        }
    }

    /// What is behind a message of a fixed form is refused, as is a part of one.
    #[test]
    fn payloads_of_another_length_are_refused(message in to_host(), more in 1_usize..5) {
        let mut bytes = Vec::new();
        message.encode(1, &mut bytes);
        let (kind, payload) = (bytes[HEADER - 1], &bytes[HEADER..]);
        if matches!(message, ToHost::Stdout(_) | ToHost::Stderr(_) | ToHost::Data(_)) {
            return Ok(());
        }
        let longer = [payload, &vec![0; more]].concat();
        prop_assert_eq!(ToHost::decode(kind, &longer), Err(FrameError::BadPayload(kind)));
        if let Some(shorter) = payload.len().checked_sub(1) {
            prop_assert_eq!(ToHost::decode(kind, &payload[..shorter]), Err(FrameError::BadPayload(kind)));
        }
    }

    #[test]
    fn any_bytes_are_survived(bytes in any::<Vec<u8>>(), kind in any::<u8>(), piece in 1_usize..64) {
        let _ = ToGuest::decode(kind, &bytes);
        let _ = ToHost::decode(kind, &bytes);
        for (_, kind, payload) in frames(&bytes, piece).unwrap_or_default() {
            prop_assert!(payload.len() <= LARGEST_PAYLOAD);
            let _ = ToGuest::decode(kind, &payload);
            let _ = ToHost::decode_owned(kind, payload);
        }
    }

    #[test]
    fn frames_that_are_too_long_are_refused(length in LARGEST_PAYLOAD + 1..=u32::MAX as usize, rest in any::<[u8; 5]>()) {
        let bytes = [u32::try_from(length).unwrap().to_le_bytes().as_slice(), &rest].concat();
        prop_assert_eq!(frames(&bytes, 9), Err(FrameError::TooLong(length)));
    }
}

/// The strategies make every kind of message, every operation and every reply: none is left out of the properties.
#[test]
fn every_kind_is_made() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let (mut kinds, mut ops, mut replies) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut bytes = Vec::new();
    for _ in 0..3000 {
        bytes.clear();
        to_guest().new_tree(&mut runner).unwrap().current().encode(0, &mut bytes);
        kinds.insert(bytes[HEADER - 1]);
        if bytes[HEADER - 1] == 12 {
            ops.insert(bytes[HEADER]);
        }
        bytes.clear();
        to_host().new_tree(&mut runner).unwrap().current().encode(0, &mut bytes);
        kinds.insert(bytes[HEADER - 1]);
        if bytes[HEADER - 1] == 139 {
            replies.insert(bytes[HEADER]);
        }
    }
    let refused = |kind: u8| Some(FrameError::UnknownKind(kind));
    let known = (0..=u8::MAX).filter(|kind| {
        ToGuest::decode(*kind, &[]).err() != refused(*kind) || ToHost::decode(*kind, &[]).err() != refused(*kind)
    });
    assert_eq!(kinds, known.collect());
    // Zeros fit every form behind a number that has one.
    let forms =
        |fits: fn(&[u8]) -> bool| (0..=127).filter(|form| fits(&[&[*form], [0; 64].as_slice()].concat())).collect();
    assert_eq!(ops, forms(|bytes| postcard::take_from_bytes::<Op>(bytes).is_ok()));
    assert_eq!(replies, forms(|bytes| postcard::take_from_bytes::<OpReply>(bytes).is_ok()));
}
