//! How fast files move between host and guest, as ratios measured in one run: `cargo bench --bench transfer`.
//!
//! - `vm:write_file` of 64 MiB ÷ the same bytes through a raw virtio-serial port, host to guest
//! - `vm:read_file` of 64 MiB ÷ the same bytes through a raw virtio-serial port, guest to host
//!
//! The raw port is a second port of the same virtio-serial device in the same VM, behind the same kind of channel (a socket) as
//! the agent's. A thread of this program is at its host end; at its guest end `dd` reads to `/dev/null` and writes from
//! `/dev/zero`, with the block size that suits the driver: it hands out a page for a read, and takes up to 32 KiB for a write.
//! Harness and raw port take turns, so that a machine whose speed drifts does not decide the ratio.

#![expect(clippy::unwrap_used, reason = "a benchmark that can't measure has nothing else to do")]

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

#[path = "../tests/common/mod.rs"]
mod common;

/// What is moved, in MiB.
const SIZE: usize = 64;
/// How often each way.
const ROUNDS: usize = 5;

/// QEMU with a second port. Calls that only ask it something have no channels to add one to.
const QEMU: &str = r#"#!/bin/sh
case "$*" in
  *bus=channels.0*) exec qemu-system-x86_64 "$@" -chardev "socket,id=raw,path=raw.socket,server=on,wait=off" \
      -device virtserialport,bus=channels.0,nr=7,chardev=raw,name=raw ;;
  *) exec qemu-system-x86_64 "$@" ;;
esac
"#;

const TESTS: &str = r#"
local SIZE, ROUNDS = @SIZE@, @ROUNDS@
local vm = provium:vm("v", "linux"):boot()
local data = ("0123456789abcdef"):rep(SIZE * 65536)
local port = [[for p in /sys/class/virtio-ports/*; do [ "$(cat $p/name)" = raw ] && exec 3<>/dev/${p##*/}; done; ]]
local function raw(command) vm:run(port .. command):assert_ok() end
for round = 1, ROUNDS do
  test("write " .. round, function() vm:write_file("/tmp/data", data) end)
  test("raw write " .. round, function() raw("printf g >&3; dd bs=4k count=" .. SIZE * 256 .. " <&3 >/dev/null 2>&1") end)
  test("read " .. round, function(t) t:assert(#vm:read_file("/tmp/data") == #data) end)
  test("raw read " .. round, function() raw("dd if=/dev/zero bs=32k count=" .. SIZE * 32 .. " 2>/dev/null >&3") end)
end
"#;

fn main() {
    let tests = TESTS.replace("@SIZE@", &SIZE.to_string()).replace("@ROUNDS@", &ROUNDS.to_string());
    let dir = common::project(&[("transfer.test.lua", &tests), ("qemu", QEMU)]);
    std::fs::set_permissions(dir.path().join("qemu"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let socket = dir.path().join("raw.socket");
    std::thread::spawn(move || host_end(&socket));
    let run = common::provium(dir.path(), &["test", "--qemu", "./qemu", "--format", "json"]);
    run.expect(0);
    let events = run.events();
    for (harness, raw) in [("write", "raw write"), ("read", "raw read")] {
        let seconds =
            |what: &str, round| common::test_done(&events, &format!("{what} {round}"))["duration"].as_f64().unwrap();
        let of_rounds = |value: &dyn Fn(usize) -> f64| {
            let mut all: Vec<f64> = (1..=ROUNDS).map(value).collect();
            all.sort_by(f64::total_cmp);
            all[ROUNDS / 2]
        };
        #[expect(clippy::cast_precision_loss, reason = "a few MiB")]
        let speed = |what| SIZE as f64 / of_rounds(&|round| seconds(what, round));
        println!(
            "{harness}_file ÷ raw channel: {:.2} (target ≥ 0.5; {:.1} and {:.1} MiB/s, medians of {ROUNDS})",
            of_rounds(&|round| seconds(raw, round) / seconds(harness, round)),
            speed(harness),
            speed(raw),
        );
    }
}

/// Takes whatever the guest sends; on a `g` sends as much as is measured.
fn host_end(socket: &Path) {
    let mut stream = loop {
        match UnixStream::connect(socket) {
            Ok(stream) => break stream,
            // QEMU is not up yet.
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let zeroes = vec![0; 64 * 1024];
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count) = stream.read(&mut buffer) {
        if count == 0 {
            return;
        }
        if buffer[..count].contains(&b'g') {
            for _ in 0..SIZE * 16 {
                stream.write_all(&zeroes).unwrap();
            }
        }
    }
}
