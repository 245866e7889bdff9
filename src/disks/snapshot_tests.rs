//! A disk's part of a snapshot: what comes out of it is what went in, in memory and through files.

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::disk::Client;
use super::*;

const SIZE: u64 = 96;

fn ask(disk: &Arc<Disk>, order: Order, is_host: bool) -> Result<Vec<u8>, i32> {
    let (sender, receiver) = std::sync::mpsc::channel();
    disk.submit(order, &Client::new(is_host), move |outcome| sender.send(outcome).unwrap());
    receiver.recv().unwrap()
}

fn write(disk: &Arc<Disk>, first: u64, byte: u8, count: u64) -> Result<Vec<u8>, i32> {
    let bytes = vec![byte; usize::try_from(count * SECTOR).unwrap()];
    ask(disk, Order::Write { first, bytes, durable: false }, false)
}

fn now(disk: &Disk) -> Vec<u8> {
    disk.content().unwrap().read(0, disk.size() / SECTOR).unwrap()
}

fn after_power_cut(disk: &Disk, seed: u64) -> Vec<u8> {
    let content = disk.crash(Chance::Seed { seed, torn: true }).unwrap();
    content.read(0, content.sectors()).unwrap()
}

fn image(directory: &Path) -> std::path::PathBuf {
    let path = directory.join("image");
    let bytes: Vec<u8> = (0..SIZE).flat_map(|sector| vec![u8::try_from(200 + sector % 50).unwrap(); 512]).collect();
    std::fs::write(&path, bytes).unwrap();
    path
}

fn open(source: Source, cache: Cache, directory: &Path) -> Arc<Disk> {
    let size = matches!(source, Source::Blank).then_some(SIZE * SECTOR);
    Disk::open(&DiskSpec { source, size, readonly: false, cache }, directory).unwrap()
}

/// Through files, as a stored snapshot is.
fn stored(snapshot: &DiskSnapshot, directory: &Path) -> DiskSnapshot {
    let (data, replaced) = (directory.join("data"), directory.join("replaced"));
    for path in [&data, &replaced] {
        let _ = std::fs::remove_file(path);
    }
    let stored = snapshot.save(&data, &replaced).unwrap();
    assert_eq!(stored.has_replaced(), replaced.exists());
    let stored: StoredDisk = serde_json::from_str(&serde_json::to_string(&stored).unwrap()).unwrap();
    let image = snapshot.image();
    assert_eq!(stored.has_image(), !image.is_empty());
    DiskSnapshot::open(&stored, &data, &replaced, image.first().map(|path| path.as_path()), directory).unwrap()
}

fn restored(snapshot: &DiskSnapshot) -> Arc<Disk> {
    let disk = Disk::from_snapshot(snapshot).unwrap();
    disk.arm(snapshot);
    disk
}

#[derive(Debug, Clone)]
enum Act {
    Write(u64, u8, u64),
    Zeroes(u64, u64),
    Flush,
    Fork,
    Resize(u64),
    Snapshot,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        6 => (0_u64..40, 1_u8..9, 1_u64..20).prop_map(|(first, byte, count)| Act::Write(first, byte, count)),
        2 => (0_u64..40, 1_u64..20).prop_map(|(first, count)| Act::Zeroes(first, count)),
        2 => Just(Act::Flush),
        1 => Just(Act::Fork),
        1 => prop_oneof![Just(64_u64), Just(80), Just(SIZE)].prop_map(Act::Resize),
        1 => Just(Act::Snapshot),
    ];
    prop::collection::vec(act, 0..25)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn restored_disks_are_as_they_were(acts in acts(), over_image in any::<bool>(), seed in any::<u64>()) {
        let dir = tempfile::tempdir().unwrap();
        let source = if over_image { Source::Image(image(dir.path()), None) } else { Source::Blank };
        let mut disk = open(source, Cache::WriteBack, dir.path());
        for act in acts {
            match act {
                Act::Write(first, byte, count) => drop(write(&disk, first, byte, count).unwrap()),
                Act::Zeroes(first, count) => drop(ask(&disk, Order::Zeroes { first, count, durable: false }, false).unwrap()),
                Act::Flush => drop(ask(&disk, Order::Flush, false).unwrap()),
                Act::Fork => drop(disk.content().unwrap()),
                Act::Resize(sectors) => disk.resize(sectors * SECTOR).unwrap(),
                Act::Snapshot => disk = restored(&stored(&disk.snapshot().unwrap(), dir.path())),
            }
        }
        let (content, cut) = (now(&disk), after_power_cut(&disk, seed));
        let snapshot = disk.snapshot().unwrap();
        let (in_memory, in_files) = (restored(&snapshot), restored(&stored(&snapshot, dir.path())));
        // What is written afterwards is not seen in the others.
        write(&disk, 0, 99, 3).unwrap();
        for other in [&in_memory, &in_files] {
            prop_assert!(now(other) == content);
            prop_assert!(after_power_cut(other, seed) == cut);
            write(other, 0, 77, 3).unwrap();
        }
        prop_assert!(now(&restored(&snapshot)) == content);
        // What was lost is what comes back, also when more was written since.
        in_files.power_cut(Chance::Nothing).unwrap();
        in_memory.power_cut(Chance::Nothing).unwrap();
        prop_assert!(now(&in_files) == now(&in_memory));
    }
}

#[test]
fn faults_go_along_with_what_they_have_counted() {
    let dir = tempfile::tempdir().unwrap();
    let disk = open(Source::Blank, Cache::WriteBack, dir.path());
    disk.inject(Fault { after: 2, times: Some(1), ..Fault::plain(Mode::EioWrite) });
    disk.inject(Fault { p: 0.5, seed: 7, sectors: Some(50..60), ..Fault::plain(Mode::EioRead) });
    write(&disk, 0, 1, 1).unwrap();
    let read = |disk: &Arc<Disk>| ask(disk, Order::Read { first: 50, count: 1 }, false).is_ok();
    let _ = read(&disk);
    let snapshot = disk.snapshot().unwrap();
    let follow = |disk: &Arc<Disk>| {
        let writes: Vec<bool> = (0..3).map(|_| write(disk, 0, 1, 1).is_ok()).collect();
        (writes, (0..20).map(|_| read(disk)).collect::<Vec<bool>>())
    };
    let fresh = Disk::from_snapshot(&snapshot).unwrap();
    assert!(fresh.active_faults().is_empty() && read(&fresh), "QEMU's own reads meet none");
    fresh.arm(&snapshot);
    assert_eq!((fresh.stats(), fresh.active_faults()), (Stats::default(), vec!["eio_write", "eio_read"]));
    let expected = follow(&disk);
    assert_eq!(expected.0, [true, false, true]);
    assert_eq!(follow(&fresh), expected);
    assert_eq!(follow(&restored(&stored(&snapshot, dir.path()))), expected);
}

#[test]
fn only_what_was_written_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::open(
        &DiskSpec { source: Source::Blank, size: Some(1 << 40), readonly: false, cache: Cache::WriteBack },
        dir.path(),
    );
    let disk = disk.unwrap();
    write(&disk, 1 << 20, 1, 8).unwrap();
    ask(&disk, Order::Zeroes { first: 1 << 30, count: 1 << 20, durable: false }, false).unwrap();
    ask(&disk, Order::Flush, false).unwrap();
    let snapshot = disk.snapshot().unwrap();
    let again = stored(&snapshot, dir.path());
    assert!(again.allocated() <= 64 * 1024, "{}", again.allocated());
    assert!(std::fs::metadata(dir.path().join("data")).unwrap().len() <= 64 * 1024, "it can be copied by anything");
    assert_eq!(restored(&again).size(), 1 << 40);
    assert_eq!(again.content().read(1 << 20, 8).unwrap(), vec![1; 4096]);
    // Zeroes over an image count, and take no room either.
    let disk = open(Source::Image(image(dir.path()), None), Cache::WriteBack, dir.path());
    ask(&disk, Order::Zeroes { first: 8, count: 32, durable: false }, false).unwrap();
    let again = stored(&disk.snapshot().unwrap(), dir.path());
    assert_eq!(std::fs::metadata(dir.path().join("data")).unwrap().len(), 0);
    assert!(now(&restored(&again)) == now(&disk));
}

#[test]
fn while_a_machine_stands_still_its_disks_stay_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let disk = open(Source::Blank, Cache::WriteBack, dir.path());
    write(&disk, 0, 1, 1).unwrap();
    disk.inject(Fault::plain(Mode::EioFlush));
    disk.inject(Fault::plain(Mode::Hang));
    disk.begin_pause();
    // Nothing hangs any more, all else is as ever.
    assert_eq!(ask(&disk, Order::Flush, false), Err(libc::EIO));
    disk.stand_still();
    let stats = disk.stats();
    ask(&disk, Order::Flush, false).unwrap();
    assert_eq!(disk.stats(), stats);
    let snapshot = disk.snapshot().unwrap();
    disk.end_pause();
    restored(&snapshot).power_cut(Chance::Nothing).unwrap();
    assert_eq!(disk.crash(Chance::Nothing).unwrap().read(0, 1).unwrap(), vec![0; 512], "nothing was made durable");
    let hung = std::sync::mpsc::channel();
    disk.submit(Order::Read { first: 0, count: 1 }, &Client::new(false), move |outcome| hung.0.send(outcome).unwrap());
    assert!(disk.hangs());
    // Whatever takes its place, nobody waits for ever.
    let other = restored(&snapshot);
    other.succeed(&disk);
    assert_eq!(hung.1.recv().unwrap(), Err(libc::EIO));
}

#[test]
fn broken_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let disk = open(Source::Image(image(dir.path()), None), Cache::Unsafe, dir.path());
    write(&disk, 3, 1, 5).unwrap();
    let (data, replaced) = (dir.path().join("data"), dir.path().join("replaced"));
    let whole = serde_json::to_value(disk.snapshot().unwrap().save(&data, &replaced).unwrap()).unwrap();
    let try_open = |value: &serde_json::Value| {
        let stored: StoredDisk = serde_json::from_value(value.clone()).unwrap();
        let opened = DiskSnapshot::open(&stored, &data, &replaced, Some(&dir.path().join("image")), dir.path());
        opened.map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(try_open(&whole), Ok(()));
    for (pointer, value) in [
        ("/held/0/first", serde_json::json!(95)),
        ("/held/0/first", serde_json::json!(u64::MAX)),
        ("/held/0/count", serde_json::json!(0)),
        ("/held/0/count", serde_json::json!(u64::MAX)),
        ("/held/0/is_data", serde_json::json!(false)),
        ("/pending/0/first", serde_json::json!(u64::MAX)),
        ("/pending/0/overwritten/0/count", serde_json::json!(u64::MAX)),
        ("/pending/0/overwritten/0/old", serde_json::json!({"Below": 7})),
        ("/replaced", serde_json::json!(512)),
        ("/sectors", serde_json::json!(4)),
    ] {
        let mut broken = whole.clone();
        *broken.pointer_mut(pointer).unwrap() = value.clone();
        assert!(try_open(&broken).is_err(), "{pointer} = {value}");
    }
    std::fs::write(&data, "short").unwrap();
    assert!(try_open(&whole).unwrap_err().contains("cut short"));
    std::fs::remove_file(&data).unwrap();
    assert!(try_open(&whole).unwrap_err().contains("no such file"));
}
