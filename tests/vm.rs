//! Real guests under the real command: the files of `tests/vm`, and what must fail well.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::Path;

fn lua(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vm").join(name)).unwrap()
}

#[test]
fn the_guest_files_pass() {
    let (guest, boot, files) = (lua("guest.test.lua"), lua("boot.test.lua"), lua("files.test.lua"));
    let dir = common::project(&[
        ("tests/guest.test.lua", &guest),
        ("tests/boot.test.lua", &boot),
        ("tests/files.test.lua", &files),
    ]);
    let events = dir.path().join("events.jsonl");
    let run = common::provium(dir.path(), &["test", "--save-events", "events.jsonl"]);
    run.expect(0).says(&["accelerator: tcg", "PASS tests/guest.test.lua: files"]);
    let text = std::fs::read_to_string(events).unwrap();
    let events: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let count = |kind: &str| events.iter().filter(|event| event["kind"] == kind).count();
    assert_eq!(count("vm_started"), count("vm_stopped"));
    assert!(count("vm_ready") >= 6);
    let ready = events.iter().find(|event| event["kind"] == "vm_ready").unwrap();
    assert!(ready["kernel_release"].as_str().unwrap().starts_with("6."), "{ready}");
    assert!(events.iter().any(|event| event["kind"] == "guest_panic"));
    assert_eq!(common::qemu_processes(dir.path().to_str().unwrap()), Vec::<String>::new());
}

#[test]
fn processes_workers_and_system_calls() {
    let files = ["processes", "syscalls", "worker"]
        .map(|name| (format!("tests/{name}.test.lua"), lua(&format!("{name}.test.lua"))));
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let dir = common::project(&files);
    common::provium(dir.path(), &["test"]).expect(0);
}

#[test]
fn disks_in_snapshots() {
    let dir = common::suite(&["disks_snapshots.test.lua"]);
    common::provium(dir.path(), &["test", "--timeout", "20m"]).expect(0);
    assert_eq!(common::qemu_processes(dir.path().to_str().unwrap()), Vec::<String>::new());
}

#[test]
fn disks() {
    let dir = common::suite(&["disks.test.lua", "disks_ext4.test.lua", "disks_root.test.lua"]);
    common::provium(dir.path(), &["test"]).expect(0);
}

#[test]
fn a_failing_test_shows_the_console() {
    let dir = common::project(&[(
        "tests/a.test.lua",
        "test('fails', function(t)\n  local vm = provium:vm('v', 'linux'):boot()\n  \
         vm:run('echo words-of-the-guest > /dev/console')\n  t:assert_eq(vm:run('echo 1').stdout, '2\\n')\nend)\n",
    )]);
    let run = common::provium(dir.path(), &["test", "--artifacts", "out"]);
    let log = std::fs::read_to_string(dir.path().join("out/tests/a.test.lua/fails/console-v.ttyS0.log")).unwrap();
    assert!(log.contains("is up") && log.contains("words-of-the-guest"), "{log}");
    run.expect(1).says(&[
        "(whole log: out/tests/a.test.lua/fails/console-v.ttyS0.log)",
        "FAIL tests/a.test.lua: fails",
        "tests/a.test.lua:4",
        "\"1\\n\"",
        "\"2\\n\"",
        "words-of-the-guest",
    ]);
}

#[test]
fn a_time_out_ends_one_test_and_spares_the_file_s_machines() {
    let dir = common::project(&[(
        "tests/a.test.lua",
        "local vm = provium:vm('f', 'linux'):boot()\n\
         test('hangs', {timeout = '1s'}, function(t) pcall(function() vm:run('sleep 1000') end) vm:run('sleep 1000') end)\n\
         test('goes on', function(t) t:assert_eq(vm:run(\"ps | grep -c '[s]leep 1000'\"):trim(), '0') end)\n",
    )]);
    let run = common::provium(dir.path(), &["test", "--format", "json"]);
    run.expect(1);
    let events = run.events();
    assert_eq!(common::test_done(&events, "hangs")["status"], "timed_out");
    assert_eq!(common::test_done(&events, "goes on")["status"], "passed");
}

/// Runs one boot of a profile made of `profile` lines and returns the run.
fn boot_with(profile: &str, files: &[(&str, &str)]) -> common::Run {
    let text = format!("[profiles.linux]\n{profile}\n");
    let test = "test('boots', function(t) provium:vm('v', 'linux'):boot() end)\n";
    let all = [&[("provium.toml", text.as_str()), ("tests/a.test.lua", test)], files].concat();
    let dir = common::directory(&all);
    let run = common::provium(dir.path(), &["test"]);
    assert_eq!(common::qemu_processes(dir.path().to_str().unwrap()), Vec::<String>::new());
    run
}

#[test]
fn bad_kernels() {
    boot_with("kernel = 'no/such/bzImage'", &[]).expect(1).says(&[
        "profile `linux`",
        "`kernel`",
        "no/such/bzImage",
        "no such file",
    ]);
    boot_with("kernel = 'notes.txt'", &[("notes.txt", "not a kernel\n")]).expect(1).says(&[
        "profile `linux`",
        "notes.txt",
        "is not a kernel",
        "bzImage",
    ]);
}

#[test]
fn an_init_that_exits_and_one_that_is_missing() {
    let guest = common::guest();
    let base = format!("kernel = {:?}\nmodules = {:?}\ninitrd = {:?}\n", guest.kernel, guest.modules, guest.initrd);
    boot_with(&format!("{base}cmdline = 'rdinit=/bin/true'"), &[])
        .expect(1)
        .says(&["panicked", "Attempted to kill init"]);
    boot_with(&format!("{base}cmdline = 'rdinit=/no/such/init'"), &[]).expect(1).says(&["rdinit=/no/such/init"]);
}

#[test]
fn a_guest_without_an_initrd_has_only_the_agent() {
    let guest = common::guest();
    let profile = format!("kernel = {:?}\nmodules = {:?}\n", guest.kernel, guest.modules);
    let test = "test('alone', function(t)\n  local vm = provium:vm('v', 'linux'):boot()\n  \
                t:assert_contains(vm:read_file('/proc/1/status'), 'Pid:')\n  \
                local err = t:assert_raises(function() vm:run('true') end)\n  t:assert_contains(err, '/bin/sh')\nend)\n";
    let text = format!("[profiles.linux]\n{profile}");
    let dir = common::directory(&[("provium.toml", &text), ("tests/a.test.lua", test)]);
    common::provium(dir.path(), &["test"]).expect(0);
}

#[test]
fn no_qemu_and_an_impossible_accelerator() {
    let dir = common::project(&[("tests/a.test.lua", "test('b', function(t) provium:vm('v', 'linux'):boot() end)\n")]);
    let run = common::finish(common::command(dir.path(), &["test"]).env("PATH", "/nonexistent"));
    run.expect(3).says(&["qemu-system-x86_64", "PATH", "hint:"]);
    common::provium(dir.path(), &["test", "--qemu", "/no/such/qemu"]).expect(3).says(&["/no/such/qemu", "--qemu"]);
}

#[test]
fn ctrl_c_takes_the_guests_down() {
    let dir = common::project(&[(
        "tests/a.test.lua",
        "test('w', function(t) local vm = provium:vm('v', 'linux'):boot() io.open('up', 'w'):close() vm:run('sleep 1000') end)\n",
    )]);
    let mut child = common::command(dir.path(), &["test"]).spawn().unwrap();
    let up = dir.path().join("up");
    while !up.exists() {
        assert!(child.try_wait().unwrap().is_none(), "ended before the guest was up");
        std::thread::yield_now();
    }
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id())).unwrap_or_default();
    // SAFETY: the child is ours and not reaped yet.
    unsafe { libc::kill(i32::try_from(child.id()).unwrap(), libc::SIGINT) };
    assert_eq!(child.wait().unwrap().code(), Some(130));
    for pid in children.split_whitespace() {
        assert!(!Path::new("/proc").join(pid).exists(), "process {pid} was left behind");
    }
}

#[test]
fn fast_boot_enters_the_unpacked_kernel() {
    let guest = common::guest();
    let text = format!(
        "[profiles.fast]\nfast_boot = true\nkernel = {:?}\nmodules = {:?}\ninitrd = {:?}\n",
        guest.kernel, guest.modules, guest.initrd
    );
    let test = "test('b', function(t)\n  local vm = provium:vm('v', 'fast'):boot()\n  \
                t:log(vm:run('uname -r'):assert_ok():trim())\n  \
                t:assert_contains(vm:read_file('/proc/cmdline'), 'cryptomgr.notests')\n  \
                local args = io.open('/proc/' .. vm:pid() .. '/cmdline'):read('a')\n  \
                t:assert_match(args, 'kernels/vmlinux%-%x+')\n  \
                t:assert_contains(vm:run('cat /proc/iomem'):assert_ok().stdout, '01000000-', 'KASLR moved the kernel')\nend)\n";
    let dir = common::directory(&[("provium.toml", &text), ("tests/a.test.lua", test)]);
    common::provium(dir.path(), &["test", "-v"]).expect(0);
    let kernels = dir.path().join(".xdg/cache/provium/kernels");
    let kept = || std::fs::read_dir(&kernels).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
    let first = kept();
    assert_eq!(first.len(), 1, "{first:?}");
    common::provium(dir.path(), &["test"]).expect(0);
    assert_eq!(kept(), first);
    common::provium(dir.path(), &["profile", "show", "fast"]).expect(0).says(&["no KASLR", "i8042.noaux quiet"]);
}

#[test]
fn an_image_that_brings_the_agent_itself() {
    let guest = common::guest();
    let text = format!("[profiles.linux]\nkernel = {:?}\ninitrd = 'own'\ninject_agent = false\n", guest.kernel);
    let dir = common::directory(&[("provium.toml", &text)]);
    let agent = Path::new(env!("CARGO_BIN_EXE_provium-agent"));
    // The prepared guest's archive, with the drivers, the agent and another init behind it.
    let root = dir.path().join("root");
    std::fs::create_dir_all(root.join("drivers")).unwrap();
    std::fs::copy(agent, root.join("provium-agent")).unwrap();
    let release = std::fs::read_dir(guest.modules.join("lib/modules")).unwrap().next().unwrap().unwrap().path();
    let order = provium::qemu::load_order(
        &release,
        None,
        &["virtio_pci", "virtio_console"].map(provium::qemu::Wanted::required),
    );
    let mut init = "#!/bin/sh\nmkdir -p /proc /sys /dev\nmount -t proc proc /proc\nmount -t sysfs sysfs /sys\n\
                    mount -t devtmpfs devtmpfs /dev\n"
        .to_owned();
    for module in order.unwrap().modules {
        std::fs::write(root.join("drivers").join(&module.name), &module.bytes).unwrap();
        init.push_str(&format!("insmod /drivers/{}\n", module.name));
    }
    init.push_str("/provium-agent --serve &\nexec sleep 1000000\n");
    std::fs::write(root.join("init"), init).unwrap();
    let pack =
        format!("chmod 755 init && {{ cat {:?}; find . | cpio -o -H newc --quiet | gzip -1; }} > ../own", guest.initrd);
    let packed = std::process::Command::new("/bin/sh").args(["-c", &pack]).current_dir(&root).status().unwrap();
    assert!(packed.success());
    let test = "test('own', function(t)\n  local vm = provium:vm('v', 'linux'):boot()\n  \
                t:assert_eq(vm:run('cat /proc/1/comm'):trim(), 'sleep')\n  t:assert_eq(vm:run('ls /.provium'):ok(), false)\n  \
                t:assert(not vm:read_file('/proc/cmdline'):find('rdinit', 1, true))\nend)\n\
                test('option', function(t)\n  \
                local err = t:assert_raises(function() provium:vm('v', 'linux', {hostname = 'h'}):boot() end)\n  \
                t:assert_contains(err, 'inject_agent')\n  t:assert_contains(err, 'hostname')\nend)\n";
    std::fs::write(dir.path().join("a.test.lua"), test).unwrap();
    common::provium(dir.path(), &["test"]).expect(0);
}

#[test]
fn an_image_that_should_have_brought_the_agent() {
    let guest = common::guest();
    let profile = format!("kernel = {:?}\ninitrd = {:?}\ninject_agent = false\n", guest.kernel, guest.initrd);
    let test = "test('b', function(t) provium:vm('v', 'linux', {agent_timeout = '8s'}):boot() end)\n";
    let dir = common::directory(&[("provium.toml", &format!("[profiles.linux]\n{profile}")), ("a.test.lua", test)]);
    common::provium(dir.path(), &["test"]).expect(1).says(&[
        "within 8s",
        "inject_agent = false",
        "provium-agent --serve",
    ]);
}

#[test]
fn a_kernel_that_the_busy_host_starved_boots_again() {
    let guest = common::guest();
    let dir = common::directory(&[]);
    let init = "#!/bin/sh\nmkdir -p /proc /dev\nmount -t proc proc /proc\nmount -t devtmpfs devtmpfs /dev\n\
                echo \"Kernel panic - not syncing: IO-APIC + timer doesn't work!\" > /dev/ttyS0\n\
                echo c > /proc/sysrq-trigger\n";
    std::fs::write(dir.path().join("init"), init).unwrap();
    let pack =
        format!("chmod 755 init && {{ cat {:?}; echo init | cpio -o -H newc --quiet | gzip -1; }} > own", guest.initrd);
    let packed = std::process::Command::new("/bin/sh").args(["-c", &pack]).current_dir(dir.path()).status().unwrap();
    assert!(packed.success());
    let text = format!("[profiles.linux]\nkernel = {:?}\ninitrd = 'own'\ninject_agent = false\n", guest.kernel);
    std::fs::write(dir.path().join("provium.toml"), text).unwrap();
    std::fs::write(dir.path().join("a.test.lua"), "test('b', function(t) provium:vm('v', 'linux'):boot() end)\n")
        .unwrap();
    let run = common::provium(dir.path(), &["test", "--format", "json"]);
    run.expect(1);
    let events = run.events();
    let count = |kind: &str| events.iter().filter(|event| event["kind"] == kind).count();
    assert_eq!((count("vm_started"), count("vm_stopped")), (4, 4));
    let warned =
        |event: &&serde_json::Value| event["message"].as_str().is_some_and(|text| text.contains("starved its timer"));
    assert_eq!(events.iter().filter(warned).count(), 3);
}

#[test]
fn initrds_of_several_parts() {
    let guest = common::guest();
    let dir = common::directory(&[("part/etc/part", "second\n")]);
    let pack = format!(
        "set -e; (cd part && find . | cpio -o -H newc --quiet) > plain; gzip -dc {0:?} > base; \
         cat plain {0:?} > plain-gz; gzip -1c plain > gz; xz --check=crc32 -1c base > xz; cat xz gz > xz-gz; \
         zstd -q -1 base -o zst; cat gz zst > gz-zst; head -c 4096 /dev/zero > zero; cat zero plain zero {0:?} > zeroes",
        guest.initrd
    );
    let packed = std::process::Command::new("/bin/sh").args(["-c", &pack]).current_dir(dir.path()).status().unwrap();
    assert!(packed.success());
    let names = ["plain-gz", "xz-gz", "gz-zst", "zeroes"];
    let profiles: String = names
        .iter()
        .map(|name| {
            format!(
                "[profiles.{name}]\nkernel = {:?}\nmodules = {:?}\ninitrd = '{name}'\n",
                guest.kernel, guest.modules
            )
        })
        .collect();
    let test = "for _, name in ipairs{'plain-gz', 'xz-gz', 'gz-zst', 'zeroes'} do\n  test(name, function(t)\n    \
                local vm = provium:vm('v', name):boot()\n    t:assert_eq(vm:run('cat /etc/part'):trim(), 'second')\n  end)\nend\n";
    std::fs::write(dir.path().join("provium.toml"), profiles).unwrap();
    std::fs::write(dir.path().join("a.test.lua"), test).unwrap();
    common::provium(dir.path(), &["test", "--timeout", "20m"]).expect(0);
}

#[test]
fn a_root_device_without_an_initrd() {
    let guest = common::guest();
    let dir = common::directory(&[("root/etc/name", "on the disk\n")]);
    // The busybox of the prepared guest, and an init of its own, on a file system of its own.
    let script = format!(
        "set -e; cd root; mkdir -p dev proc sys tmp sbin; gzip -dc {:?} | cpio -i -d --quiet 'bin/*'; \
         printf '#!/bin/sh\\nmount -t proc proc /proc\\necho init is up\\nexec /bin/sleep 1000000\\n' > sbin/real; \
         chmod 755 sbin/real; ln -s /sbin/real sbin/init; cd ..; truncate -s 32M disk; mkfs.ext4 -q -F -d root disk",
        guest.initrd
    );
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap());
    let made =
        std::process::Command::new("/bin/sh").args(["-c", &script]).current_dir(dir.path()).env("PATH", path).status();
    assert!(made.unwrap().success());
    let profile = |name: &str, cmdline: &str| {
        format!(
            "[profiles.{name}]\nkernel = {:?}\nmodules = {:?}\ncmdline = '{cmdline}'\nqemu_args = ['-drive', \
             'file={}/disk,format=raw,if=none,id=root,snapshot=on', '-device', 'virtio-blk-pci,drive=root']\n",
            guest.kernel,
            guest.modules,
            dir.path().display()
        )
    };
    let config = [
        profile("found", "root=/dev/vda rw"),
        profile("readonly", "root=/dev/vda init=/sbin/real rootfstype=ext4"),
        profile("missing", "root=/dev/vdz"),
        profile("noinit", "root=/dev/vda init=/sbin/none"),
        profile("fstype", "root=/dev/vda rootfstype=xfs"),
    ];
    let test = "test('found', function(t)\n  \
                local vm = provium:vm('v', 'found', {files = {{path = '/etc/made', content = 'x'}}}):boot()\n  \
                t:assert_eq(vm:run('cat /proc/1/comm'):trim(), 'sleep')\n  \
                t:assert_eq(vm:read_file('/etc/name'), 'on the disk\\n')\n  t:assert_eq(vm:read_file('/etc/made'), 'x')\n  \
                t:assert(vm:run('grep \" / ext4 rw\" /proc/mounts'):ok())\n  \
                t:assert_eq(vm:run('test -e /.provium'):ok(), false)\n  t:assert(vm:run('test -b /dev/vda'):ok())\nend)\n\
                test('readonly', function(t)\n  local vm = provium:vm('v', 'readonly'):boot()\n  \
                t:assert(vm:run('grep \" / ext4 ro\" /proc/mounts'):ok())\nend)\n\
                local function refused(name, ...)\n  local parts = {...}\n  test(name, function(t)\n    \
                local err = t:assert_raises(function() provium:vm('v', name):boot() end)\n    \
                for _, part in ipairs(parts) do t:assert_contains(err, part) end\n  end)\nend\n\
                refused('missing', 'root=/dev/vdz', 'no such device', '`/dev/vda`')\n\
                refused('noinit', 'root=/dev/vda', '/sbin/none', 'init=')\n\
                refused('fstype', 'root=/dev/vda', 'mounted')\n";
    std::fs::write(dir.path().join("provium.toml"), config.concat()).unwrap();
    std::fs::write(dir.path().join("a.test.lua"), test).unwrap();
    // Five boots are long on a busy machine.
    common::provium(dir.path(), &["test", "--timeout", "20m"]).expect(0);
}

#[test]
fn labs_of_guests() {
    let dir = common::project(&[("tests/labs.test.lua", &lua("labs.test.lua"))]);
    let run = common::provium(dir.path(), &["test", "--format", "json"]);
    let events = run.expect(1).events();
    for done in events.iter().filter(|event| event["kind"] == "test_done") {
        let expected = if done["name"] == "stuck in the guest" { "timed_out" } else { "passed" };
        assert_eq!(done["status"], expected, "{done}");
    }
    assert_eq!(common::qemu_processes(dir.path().to_str().unwrap()), Vec::<String>::new());
}
