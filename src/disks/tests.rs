//! Disks as a whole: against a naive model, against real NBD clients, and against clients that talk nonsense.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use proptest::prelude::*;

use super::disk::{Client, Outcome};
use super::protocol::{self, Command as Wanted, Request};
use super::*;

const SIZE: u64 = 64;

fn spec(source: Source) -> DiskSpec {
    DiskSpec { source, size: None, readonly: false, cache: Cache::WriteBack }
}

fn blank(sectors: u64, directory: &Path) -> Arc<Disk> {
    Disk::open(&DiskSpec { size: Some(sectors * SECTOR), ..spec(Source::Blank) }, directory).unwrap()
}

/// A request of a guest.
fn ask(disk: &Arc<Disk>, order: Order) -> Outcome {
    let (sender, receiver) = channel();
    disk.submit(order, &Client::new(false), move |outcome| sender.send(outcome).unwrap());
    receiver.recv_timeout(Duration::from_secs(60)).unwrap()
}

fn sectors(byte: u8, count: u64) -> Vec<u8> {
    vec![byte; usize::try_from(count * SECTOR).unwrap()]
}

fn write(disk: &Arc<Disk>, first: u64, byte: u8, count: u64) -> Outcome {
    ask(disk, Order::Write { first, bytes: sectors(byte, count), durable: false })
}

/// The first byte of each sector.
fn look(bytes: &[u8]) -> Vec<u8> {
    bytes.chunks(512).map(|sector| sector[0]).collect()
}

fn now(disk: &Arc<Disk>) -> Vec<u8> {
    look(&ask(disk, Order::Read { first: 0, count: disk.size() / SECTOR }).unwrap())
}

#[derive(Debug, Clone)]
enum Act {
    Write(u64, u64, u8, bool),
    Zero(u64, u64),
    Flush,
    Content,
    Crash(u64),
    Cut(u64),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        8 => (0..SIZE, 1_u64..12, 1_u8..250, prop::bool::weighted(0.15)).prop_map(|(a, b, c, d)| Act::Write(a, b.min(SIZE - a), c, d)),
        2 => (0..SIZE, 1_u64..30).prop_map(|(a, b)| Act::Zero(a, b.min(SIZE - a))),
        2 => Just(Act::Flush),
        1 => Just(Act::Content),
        2 => any::<u64>().prop_map(Act::Crash),
        1 => any::<u64>().prop_map(Act::Cut),
    ];
    prop::collection::vec(act, 0..40)
}

/// A drive as one would draw it: the medium, and the cache as a list of writes.
struct Model {
    medium: Vec<u8>,
    cache: Vec<(u64, Vec<u8>, bool)>,
}

impl Model {
    fn now(&self) -> Vec<u8> {
        self.left(&vec![crash::Fate::Kept; self.cache.len()])
    }

    fn left(&self, fates: &[crash::Fate]) -> Vec<u8> {
        let mut all = self.medium.clone();
        for ((first, bytes, _), fate) in self.cache.iter().zip(fates) {
            let keep = match fate {
                crash::Fate::Kept => bytes.len(),
                crash::Fate::Dropped => 0,
                crash::Fate::Torn(count) => usize::try_from(*count).unwrap(),
            };
            let at = usize::try_from(*first).unwrap();
            all[at..at + keep].copy_from_slice(&bytes[..keep]);
        }
        all
    }

    fn fates(&self, seed: u64) -> Vec<crash::Fate> {
        let step = |(_, bytes, durable): &(u64, Vec<u8>, bool)| crash::Step::Write {
            sectors: bytes.len() as u64,
            durable: *durable,
        };
        crash::fates(&self.cache.iter().map(step).collect::<Vec<_>>(), Chance::Seed { seed, torn: true })
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_disk_is_a_medium_and_a_cache(acts in acts(), image: bool) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        std::fs::write(&path, sectors(7, SIZE)).unwrap();
        let disk = if image { Disk::open(&spec(Source::Image(path.clone(), None)), dir.path()).unwrap() } else { blank(SIZE, dir.path()) };
        let mut model = Model { medium: vec![if image { 7 } else { 0 }; usize::try_from(SIZE).unwrap()], cache: Vec::new() };
        let mut kept: Vec<(Content, Vec<u8>)> = Vec::new();
        for act in acts {
            match act {
                Act::Write(first, count, byte, durable) => {
                    ask(&disk, Order::Write { first, bytes: sectors(byte, count), durable }).unwrap();
                    // Where nothing is in the cache, the medium has it at once: the fates count from there.
                    if durable && model.cache.is_empty() {
                        let at = usize::try_from(first).unwrap();
                        model.medium[at..at + usize::try_from(count).unwrap()].fill(byte);
                    } else {
                        model.cache.push((first, vec![byte; usize::try_from(count).unwrap()], durable));
                    }
                }
                Act::Zero(first, count) => {
                    ask(&disk, Order::Zeroes { first, count, durable: false }).unwrap();
                    model.cache.push((first, vec![0; usize::try_from(count).unwrap()], false));
                }
                Act::Flush => {
                    ask(&disk, Order::Flush).unwrap();
                    model = Model { medium: model.now(), cache: Vec::new() };
                }
                Act::Content => kept.push((disk.content().unwrap(), model.now())),
                Act::Crash(seed) => {
                    let content = disk.crash(Chance::Seed { seed, torn: true }).unwrap();
                    kept.push((content, model.left(&model.fates(seed))));
                }
                Act::Cut(seed) => {
                    disk.power_cut(Chance::Seed { seed, torn: true }).unwrap();
                    disk.power_on();
                    model = Model { medium: model.left(&model.fates(seed)), cache: Vec::new() };
                }
            }
            prop_assert_eq!(now(&disk), model.now());
        }
        for (content, expected) in kept {
            prop_assert_eq!(look(&content.read(0, SIZE).unwrap()), expected);
        }
        prop_assert_eq!(std::fs::read(&path).unwrap(), sectors(7, SIZE));
    }

    #[test]
    fn nonsense_ends_a_connection_at_most(
        start in prop::collection::vec(any::<u8>(), 0..300), options in prop::collection::vec((0_u32..12, prop::collection::vec(any::<u8>(), 0..40)), 0..6),
        requests in prop::collection::vec((any::<u16>(), 0_u16..9, prop_oneof![0_u64..40000, any::<u64>()], prop_oneof![0_u32..9000, any::<u32>()]), 0..12),
        tail in prop::collection::vec(any::<u8>(), 0..3000), proper: bool,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let disk = blank(SIZE, dir.path());
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        serve(Arc::clone(&disk), theirs).unwrap();
        let mut bytes = vec![0, 0, 0, 3];
        if proper {
            for (option, data) in options {
                bytes.extend(b"IHAVEOPT");
                bytes.extend(option.to_be_bytes());
                bytes.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
                bytes.extend(data);
            }
            bytes.extend(b"IHAVEOPT\0\0\0\x01\0\0\0\0");
            for (flags, kind, offset, length) in requests {
                bytes.extend(0x2560_9513_u32.to_be_bytes());
                bytes.extend(flags.to_be_bytes());
                bytes.extend(kind.to_be_bytes());
                bytes.extend(1_u64.to_be_bytes());
                bytes.extend(offset.to_be_bytes());
                bytes.extend(length.to_be_bytes());
            }
        } else {
            bytes.extend(start);
        }
        bytes.extend(tail);
        let mut reader = ours.try_clone().unwrap();
        let sink = std::thread::spawn(move || drop(std::io::copy(&mut reader, &mut std::io::sink())));
        // The server may have hung up before all was said.
        let _ = ours.write_all(&bytes);
        let _ = ours.shutdown(std::net::Shutdown::Write);
        sink.join().unwrap();
        prop_assert_eq!(now(&disk).len(), usize::try_from(SIZE).unwrap());
    }
}

/// A client that has negotiated.
fn connect(disk: &Arc<Disk>) -> UnixStream {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    serve(Arc::clone(disk), theirs).unwrap();
    ours.write_all(b"\0\0\0\x03IHAVEOPT\0\0\0\x01\0\0\0\0").unwrap();
    let mut greeting = [0; 28];
    ours.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting[..18], protocol::GREETING);
    ours
}

fn errno_of(stream: &mut UnixStream, command: Wanted, offset: u64, length: u32, data: &[u8]) -> u32 {
    let request = Request { command, fua: false, cookie: 5, offset, length };
    stream.write_all(&request.encode()).unwrap();
    stream.write_all(data).unwrap();
    let mut head = [0; 16];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(head[8..], 5_u64.to_be_bytes());
    let errno = u32::from_be_bytes(head[4..8].try_into().unwrap());
    if command == Wanted::Read && errno == 0 {
        let mut data = vec![0; usize::try_from(length).unwrap()];
        stream.read_exact(&mut data).unwrap();
    }
    errno
}

#[test]
fn what_is_out_of_range_is_answered_with_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let disk = blank(SIZE, dir.path());
    let mut stream = connect(&disk);
    let end = SIZE * SECTOR;
    assert_eq!(errno_of(&mut stream, Wanted::Read, end - 512, 1024, b""), 22);
    assert_eq!(errno_of(&mut stream, Wanted::Write, end, 512, &[1; 512]), 28);
    assert_eq!(errno_of(&mut stream, Wanted::Write, u64::MAX - 511, 512, &[1; 512]), 28);
    assert_eq!(errno_of(&mut stream, Wanted::Trim, 512, u32::MAX - 511, b""), 28);
    assert_eq!(errno_of(&mut stream, Wanted::Read, 1, 512, b""), 22);
    assert_eq!(errno_of(&mut stream, Wanted::Write, 0, 100, &[1; 100]), 22);
    assert_eq!(errno_of(&mut stream, Wanted::Unknown, 0, 0, b""), 22);
    assert_eq!(errno_of(&mut stream, Wanted::Read, 0, 64 << 20, b""), 22);
    assert_eq!(errno_of(&mut stream, Wanted::Read, end - 512, 512, b""), 0);
    assert_eq!(now(&disk), vec![0; usize::try_from(SIZE).unwrap()]);
    let readonly =
        Disk::open(&DiskSpec { size: Some(end), readonly: true, ..spec(Source::Blank) }, dir.path()).unwrap();
    assert_eq!(errno_of(&mut connect(&readonly), Wanted::Write, 0, 512, &[1; 512]), 1);
}

#[test]
fn a_hanging_request_goes_on_when_the_fault_is_cleared_and_holds_up_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let disk = blank(SIZE, dir.path());
    disk.inject(Fault { sectors: Some(0..8), ..Fault::plain(Mode::Hang) });
    let (sender, receiver) = channel();
    let order = Order::Write { first: 0, bytes: sectors(3, 1), durable: false };
    disk.submit(order, &Client::new(false), move |outcome| sender.send(outcome).unwrap());
    write(&disk, 8, 4, 1).unwrap();
    assert_eq!(now_of(&disk, 8), 4);
    assert!(receiver.try_recv().is_err());
    disk.clear_faults();
    receiver.recv_timeout(Duration::from_secs(60)).unwrap().unwrap();
    assert_eq!(now_of(&disk, 0), 3);
}

fn now_of(disk: &Arc<Disk>, sector: u64) -> u8 {
    ask(disk, Order::Read { first: sector, count: 1 }).unwrap()[0]
}

#[test]
fn a_client_that_is_gone_takes_its_requests_along() {
    let dir = tempfile::tempdir().unwrap();
    let disk = blank(SIZE, dir.path());
    disk.inject(Fault::plain(Mode::Hang));
    let mut stream = connect(&disk);
    let request = Request { command: Wanted::Write, fua: false, cookie: 1, offset: 0, length: 512 };
    stream.write_all(&request.encode()).unwrap();
    stream.write_all(&[9; 512]).unwrap();
    while disk.lock().queue.is_empty() {
        std::thread::yield_now();
    }
    drop(stream);
    while !disk.lock().queue.is_empty() {
        std::thread::yield_now();
    }
    disk.clear_faults();
    assert_eq!(now_of(&disk, 0), 0);
}

#[test]
fn faults_change_what_is_read_and_written() {
    let dir = tempfile::tempdir().unwrap();
    let disk = blank(SIZE, dir.path());
    write(&disk, 0, 1, 8).unwrap();
    disk.inject(Fault::plain(Mode::TornWrite));
    write(&disk, 0, 2, 8).unwrap();
    disk.clear_faults();
    assert_eq!(now(&disk)[..9], [2, 2, 2, 2, 1, 1, 1, 1, 0]);
    disk.inject(Fault { sectors: Some(2..4), ..Fault::plain(Mode::CorruptRead) });
    let read = ask(&disk, Order::Read { first: 0, count: 8 }).unwrap();
    let wrong: Vec<usize> =
        (0..8).filter(|at| read[at * 512..(at + 1) * 512].iter().any(|byte| *byte != read[at * 512])).collect();
    assert_eq!(wrong, [2, 3]);
    disk.clear_faults();
    disk.inject(Fault::plain(Mode::EioFlush));
    assert_eq!(ask(&disk, Order::Flush), Err(libc::EIO));
    disk.power_cut(Chance::Nothing).unwrap();
    assert_eq!(now(&disk)[..8], [0; 8], "a flush that failed makes nothing durable");
    assert_eq!(write(&disk, 0, 1, 1), Err(libc::EIO), "no power");
    let stats = disk.stats();
    assert_eq!((stats.flushes, stats.errors, stats.writes), (1, 2, 3));
}

#[test]
fn caches_differ_in_what_a_power_cut_leaves() {
    let dir = tempfile::tempdir().unwrap();
    for (cache, flushed, left) in [
        (Cache::WriteBack, false, 0),
        (Cache::WriteBack, true, 5),
        (Cache::WriteThrough, false, 5),
        (Cache::Unsafe, true, 0),
    ] {
        let disk = Disk::open(&DiskSpec { size: Some(4096), cache, ..spec(Source::Blank) }, dir.path()).unwrap();
        write(&disk, 1, 5, 1).unwrap();
        if flushed {
            ask(&disk, Order::Flush).unwrap();
        }
        disk.power_cut(Chance::Nothing).unwrap();
        assert_eq!(now_of(&disk, 1), left, "{cache:?} {flushed}");
    }
}

#[test]
fn states_of_a_recording() {
    let dir = tempfile::tempdir().unwrap();
    let disk = blank(SIZE, dir.path());
    write(&disk, 0, 1, 1).unwrap();
    assert!(disk.states(Exploration::All { limit: 10 }).unwrap_err().to_string().contains("log(true)"));
    disk.record(true).unwrap();
    write(&disk, 1, 2, 1).unwrap();
    write(&disk, 2, 3, 1).unwrap();
    ask(&disk, Order::Flush).unwrap();
    write(&disk, 1, 4, 1).unwrap();
    disk.record(false).unwrap();
    write(&disk, 1, 9, 1).unwrap();
    let mut explorer = disk.states(Exploration::All { limit: 10 }).unwrap();
    let mut found = Vec::new();
    while let Some(state) = explorer.advance().unwrap() {
        found.push(look(&state.content.read(0, 3).unwrap()));
    }
    assert_eq!(found, [[1, 0, 0], [1, 2, 0], [1, 0, 3], [1, 2, 3], [1, 4, 3]]);
    assert!(disk.states(Exploration::All { limit: 4 }).unwrap_err().to_string().contains("there are 5 states"));
    let kinds: Vec<Kind> = disk.recorded().iter().map(|request| request.kind).collect();
    assert_eq!(kinds, [Kind::Write, Kind::Write, Kind::Flush, Kind::Write]);
    disk.record(true).unwrap();
    assert!(explorer.advance().is_err() || found.len() == 5);
}

#[test]
fn sizes_change_and_old_content_does_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    std::fs::write(&path, sectors(7, 8)).unwrap();
    let disk = Disk::open(&DiskSpec { size: Some(16 * SECTOR), ..spec(Source::Image(path.clone(), None)) }, dir.path())
        .unwrap();
    let begin = disk.content().unwrap();
    write(&disk, 3, 1, 2).unwrap();
    disk.resize(4 * SECTOR).unwrap();
    let small = disk.content().unwrap();
    disk.resize(12 * SECTOR).unwrap();
    assert_eq!(now(&disk), [7, 7, 7, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(look(&begin.read(0, 16).unwrap()), [7, 7, 7, 7, 7, 7, 7, 7, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(look(&small.read(0, 4).unwrap()), [7, 7, 7, 1]);
    assert!(small.read(0, 5).unwrap_err().to_string().contains("has 4"));
    assert!(disk.restore(&small).unwrap_err().to_string().contains("4 sectors"));
    for (size, why) in [(0, "at least one sector"), (513, "whole sectors"), (u64::MAX - 511, "1024T")] {
        assert!(disk.resize(size).unwrap_err().to_string().contains(why));
    }
    let too_small = DiskSpec { size: Some(512), ..spec(Source::Image(path, None)) };
    assert!(Disk::open(&too_small, dir.path()).unwrap_err().to_string().contains("more than the size"));
}

#[test]
fn an_image_is_written_through_only_on_demand() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    std::fs::write(&path, sectors(7, 8)).unwrap();
    let disk = Disk::open(&spec(Source::WriteThrough(path.clone(), None)), dir.path()).unwrap();
    write(&disk, 1, 8, 1).unwrap();
    ask(&disk, Order::Flush).unwrap();
    write(&disk, 2, 9, 1).unwrap();
    assert_eq!(look(&std::fs::read(&path).unwrap())[..4], [7, 8, 9, 7]);
    disk.power_cut(Chance::Nothing).unwrap();
    assert_eq!(look(&std::fs::read(&path).unwrap())[..4], [7, 8, 7, 7]);
    assert!(disk.crash(Chance::Nothing).unwrap_err().to_string().contains("written through"));
    for (name, content, why) in
        [("empty", &b""[..], "empty"), ("odd", b"x", "multiple of 512"), ("q", b"QFI\xfb....", "written through")]
    {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        let error = Disk::open(&spec(Source::WriteThrough(path, None)), dir.path()).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    let error = Disk::open(&spec(Source::Image(dir.path().to_owned(), None)), dir.path()).unwrap_err().to_string();
    assert!(error.contains("neither a regular file"), "{error}");
    let error = Disk::open(&spec(Source::Image("/no/such".into(), None)), dir.path()).unwrap_err().to_string();
    assert!(error.contains("no such file"), "{error}");
}

fn run(program: &str, args: &[&str]) -> Option<String> {
    let output = match Command::new(program).args(args).output() {
        Ok(output) => output,
        Err(error) => {
            eprintln!("`{program}` can't be run, and is not tried: {error}");
            return None;
        }
    };
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {args:?}: {text}");
    Some(text)
}

/// Serves every connection to a socket at `path`.
fn listen(disk: &Arc<Disk>, path: &Path) {
    let (listener, disk) = (UnixListener::bind(path).unwrap(), Arc::clone(disk));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            serve(Arc::clone(&disk), stream.unwrap()).unwrap();
        }
    });
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from((at / 512 * 7 + at % 251) % 256).unwrap()).collect()
}

#[test]
fn real_clients_can_use_it() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, image, back) = (dir.path().join("s"), dir.path().join("image"), dir.path().join("back"));
    std::fs::write(&image, pattern(3 << 20)).unwrap();
    let disk = blank(3 * 2048, dir.path());
    listen(&disk, &socket);
    let url = format!("nbd+unix:///?socket={}", socket.display());
    let (image, back) = (image.to_str().unwrap(), back.to_str().unwrap());
    if run("qemu-img", &["convert", "-n", "-f", "raw", "-O", "raw", image, &url]).is_some() {
        run("qemu-img", &["convert", "-f", "raw", "-O", "raw", &url, back]);
        assert!(std::fs::read(back).unwrap() == pattern(3 << 20));
        let told = run("qemu-img", &["compare", "-f", "raw", "-F", "raw", image, &url]).unwrap();
        assert!(told.contains("identical"), "{told}");
        let stats = disk.stats();
        assert!(stats.flushes > 0 && stats.written_bytes >= 3 << 20 && stats.errors == 0, "{stats:?}");
    }
    if let Some(told) = run("qemu-nbd", &["--list", "-k", socket.to_str().unwrap()]) {
        for part in ["size:  3145728", "flush", "fua", "trim", "zeroes", "min block: 512", "opt block: 4096"] {
            assert!(told.contains(part), "{part} is missing in {told}");
        }
    }
    if let Some(told) = run("nbdinfo", &[&url]) {
        assert!(told.contains("export-size: 3145728"), "{told}");
    }
    if let Some(told) = run(
        "qemu-io",
        &[
            "-f",
            "raw",
            "-c",
            "write -z 64k 64k",
            "-c",
            "discard 0 64k",
            "-c",
            "write -f -P 9 4k 4k",
            "-c",
            "read -P 0 64k 64k",
            &url,
        ],
    ) {
        assert!(!told.contains("Pattern verification failed"), "{told}");
        assert_eq!((now_of(&disk, 0), now_of(&disk, 8)), (0, 9));
    }
}

#[test]
fn qcow2_images_are_read_as_qemu_reads_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let mut content = pattern(5 << 20);
    content[1 << 20..3 << 20].fill(0);
    std::fs::write(path("raw"), &content).unwrap();
    let make = |name: &str, args: &[&str]| {
        let (from, to) = (path("raw"), path(name));
        let all = [&["convert", "-f", "raw", "-O", "qcow2"], args, &[&from, &to]].concat();
        run("qemu-img", &all).is_some()
    };
    if !make("plain", &[]) {
        return;
    }
    make("v2", &["-o", "compat=0.10"]);
    make("small-clusters", &["-o", "cluster_size=512"]);
    make("deflate", &["-c"]);
    make("zstd", &["-c", "-o", "compression_type=zstd"]);
    run("qemu-img", &["create", "-q", "-f", "qcow2", "-b", "deflate", "-F", "qcow2", &path("over"), "6M"]);
    run("qemu-io", &["-c", "write -P 5 2M 100k", "-c", "write -z 4M 64k", &path("over")]);
    run("qemu-img", &["convert", "-O", "raw", &path("over"), &path("over.raw")]);
    run("qemu-img", &["create", "-q", "-f", "qcow2", "-b", "raw", "-F", "raw", &path("over-raw"), "5M"]);
    for (name, behind) in [("over", "deflate"), ("over-raw", "raw")] {
        let files = files_of(path(name).as_ref());
        assert_eq!(files, [path(name), path(behind)].map(std::path::PathBuf::from), "{name}");
        // A snapshot's files name them all.
        let disk = Disk::open(&spec(Source::Image(path(name).into(), None)), dir.path()).unwrap();
        assert_eq!(disk.snapshot().unwrap().image(), files, "{name}");
    }
    let before: Vec<Vec<u8>> =
        ["plain", "over", "deflate"].iter().map(|name| std::fs::read(path(name)).unwrap()).collect();
    let over = std::fs::read(path("over.raw")).unwrap();
    for name in ["plain", "v2", "small-clusters", "deflate", "zstd", "over", "over-raw"] {
        let expected = if name == "over" { &over } else { &content };
        let disk = Disk::open(&spec(Source::Image(path(name).into(), None)), dir.path()).unwrap();
        assert_eq!(disk.size(), expected.len() as u64, "{name}");
        let read = ask(&disk, Order::Read { first: 0, count: disk.size() / SECTOR }).unwrap();
        assert!(read == *expected, "{name}");
        // What begins and ends within clusters.
        let read = ask(&disk, Order::Read { first: 4095, count: 130 }).unwrap();
        assert!(read == expected[4095 * 512..4225 * 512], "{name}");
        write(&disk, 5, 1, 1).unwrap();
    }
    let after: Vec<Vec<u8>> =
        ["plain", "over", "deflate"].iter().map(|name| std::fs::read(path(name)).unwrap()).collect();
    assert!(before == after, "no image was written");
    let refused = |name: &str| {
        Disk::open(&spec(Source::Image(path(name).into(), Some(Format::Qcow2))), dir.path()).unwrap_err().to_string()
    };
    assert!(refused("raw").contains("no qcow2 image"));
    make("subclusters", &["-o", "extended_l2=on"]);
    assert!(refused("subclusters").contains("subclusters"), "{}", refused("subclusters"));
    std::fs::write(path("broken"), [&b"QFI\xfb\0\0\0\x03"[..], &[0xff; 200]].concat()).unwrap();
    assert!(refused("broken").contains("broken"));
    std::fs::remove_file(path("deflate")).unwrap();
    assert!(refused("over").contains("backing file"), "{}", refused("over"));
}

proptest! {
    #[test]
    fn any_bytes_as_an_image_are_read_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 1..4000), patch in prop::collection::vec((0_usize..112, any::<u8>()), 0..6), plausible: bool) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        if plausible {
            bytes.resize(4096, 0);
            bytes[..112].fill(0);
            bytes[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
            bytes[23] = 9;
            bytes[30] = 0x40;
            bytes[39] = 8;
            bytes[46] = 2;
            bytes[103] = 104;
            patch.iter().for_each(|(at, byte)| bytes[*at] = *byte);
        }
        std::fs::write(&path, &bytes).unwrap();
        if let Ok(disk) = Disk::open(&spec(Source::Image(path, None)), dir.path()) {
            let count = (disk.size() / SECTOR).min(100);
            let _ = ask(&disk, Order::Read { first: 0, count });
        }
    }
}
