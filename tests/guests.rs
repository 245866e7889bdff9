//! Guests of many kinds under the real command: a Debian userland with systemd, guests that lack what others have, and
//! modules and reports of the kernel itself.

mod common;

/// Runs one file of `tests/vm` with the profiles of the suite, and expects it to pass and to leave nothing.
#[track_caller]
fn passes(name: &str) {
    let dir = common::suite(&[name]);
    // All three run at once, beside whatever else the machine does.
    common::provium(dir.path(), &["test", "--timeout", "15m"]).expect(0);
    assert_eq!(common::qemu_processes(&dir.path().to_string_lossy()), Vec::<String>::new());
}

#[test]
fn odd_guests() {
    passes("odd_guests.test.lua");
}

#[test]
fn workers_in_odd_guests() {
    passes("odd_workers.test.lua");
}

#[test]
fn systemd() {
    passes("systemd.test.lua");
}

#[test]
fn modules_and_kernel_reports() {
    passes("modules.test.lua");
}

#[test]
fn the_machine() {
    passes("machine.test.lua");
}

#[test]
fn consoles() {
    passes("console.test.lua");
}
