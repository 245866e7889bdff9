//! What the harness costs, as ratios measured in one run: `cargo bench --bench ratios [-- --rounds N]`.
//!
//! - time from `:boot()` to agent-ready ÷ the same kernel booting to the same init under the same QEMU arguments
//! - `vm:run("true")` ÷ the guest's own fork, exec and wait (measured by its shell)
//! - memory of the `provium` process with one VM up
//! - `provium test` on 20 tests that each restore one fixture ÷ three cold boots
//!
//! The two sides of a ratio are measured in turn, so that a machine whose speed drifts does not decide it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a benchmark that can't measure has nothing else to do")]

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[path = "../tests/common/mod.rs"]
mod common;

/// What the test guest's init prints first.
const MARKER: &str = "example guest:";
/// How long a bare boot may take.
const LIMIT: Duration = Duration::from_secs(120);

const BOOT: &str = r#"
test("boot", function(t) provium:vm("v", "linux"):boot() end)
test("arguments", function(t)
  local vm = provium:vm("v", "linux"):boot()
  local args = io.open("/proc/" .. vm:pid() .. "/cmdline"):read("a")
  io.open("qemu-arguments", "w"):write(args):close()
end)
"#;

const RUNS: &str = r#"
local vm = provium:vm("v", "linux"):boot()
vm:run({"true"})
local COUNT = 100
for round = 1, 7 do
  test("harness " .. round, function(t) for _ = 1, COUNT do vm:run({"true"}) end end)
  test("shell " .. round, function(t) vm:run("true") end)
  test("guest " .. round, function(t)
    local script = [[read a b < /proc/uptime; i=0; while [ $i -lt 400 ]; do /bin/true; i=$((i+1)); done
      read c d < /proc/uptime; echo $a $c]]
    local from, to = vm:run(script):assert_ok().stdout:match("(%S+) (%S+)")
    t:log(string.format("%.6f", (tonumber(to) - tonumber(from)) / 400))
  end)
end
test("memory", function(t)
  t:log(io.open("/proc/self/status"):read("a"):match("VmHWM:%s+(%d+)"))
end)
"#;

const FIXTURE: &str = "return provium:vm('v', 'linux'):boot():snapshot()\n";
const TWENTY: &str = "for i = 1, 20 do test('restores ' .. i, function() provium.vm_fixture('base') end) end\n";
const THREE: &str = "for i = 1, 3 do test('boots ' .. i, function() provium:vm('v', 'linux'):boot() end) end\n";

fn main() {
    let rounds = std::env::args().skip_while(|arg| arg != "--rounds").nth(1).map_or(5, |n| n.parse().unwrap());
    let dir = common::project(&[("boot.test.lua", BOOT), ("runs.test.lua", RUNS)]);
    boots(dir.path(), rounds);
    runs(dir.path());
    fixtures(rounds);
}

fn fixtures(rounds: usize) {
    let files = [("base.fixture.lua", FIXTURE), ("twenty.test.lua", TWENTY), ("three.test.lua", THREE)];
    let dir = common::project(&files);
    let timed = |file: &str| {
        let begun = Instant::now();
        common::provium(dir.path(), &["test", file]).expect(0);
        begun.elapsed().as_secs_f64()
    };
    timed("twenty.test.lua");
    let (mut twenty, mut three, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (restores, boots) = (timed("twenty.test.lua"), timed("three.test.lua"));
        ratios.push(restores / boots);
        twenty.push(restores);
        three.push(boots);
    }
    println!(
        "20 tests that restore a fixture ÷ three cold boots: {:.3} (target < 1; {:.3} s ÷ {:.3} s, medians of {rounds})",
        median(ratios),
        median(twenty),
        median(three)
    );
}

fn boots(dir: &Path, rounds: usize) {
    let first = common::provium(dir, &["test", "boot.test.lua"]);
    first.expect(0);
    let arguments = bare_arguments(dir);
    let (mut harness, mut bare, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let run = common::provium(dir, &["test", "boot.test.lua", "--format", "json"]);
        run.expect(0);
        let ours = common::test_done(&run.events(), "boot")["duration"].as_f64().unwrap();
        let theirs = bare_boot(&arguments).as_secs_f64();
        ratios.push(ours / theirs);
        harness.push(ours);
        bare.push(theirs);
    }
    println!(
        "boot to agent-ready ÷ bare boot to init: {:.3} (target ≤ 1.15; {:.3} s ÷ {:.3} s, medians of {rounds})",
        median(ratios),
        median(harness),
        median(bare)
    );
}

/// The arguments of the harness's QEMU with its channels closed, its own words gone, and the user's initrd alone.
fn bare_arguments(dir: &Path) -> Vec<String> {
    let bytes = std::fs::read(dir.join("qemu-arguments")).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let mut arguments: Vec<String> = text.trim_end_matches('\0').split('\0').map(str::to_owned).collect();
    let guest = common::guest();
    let serial = arguments.iter().position(|arg| arg == "-serial").map(|at| arguments[at + 1].clone()).unwrap();
    let serial = serial.trim_start_matches("chardev:").to_owned();
    let mut index = 0;
    while index + 1 < arguments.len() {
        let value = arguments[index + 1].clone();
        match arguments[index].as_str() {
            // The directory went with the run.
            "-D" => arguments[index + 1] = "/dev/null".to_owned(),
            // The descriptor, too: a memory of the same kind that QEMU makes itself.
            "-object" if value.starts_with("memory-backend-file,") => {
                let words = value.split(',').filter(|word| !word.starts_with("mem-path="));
                arguments[index + 1] =
                    words.collect::<Vec<_>>().join(",").replace("memory-backend-file", "memory-backend-memfd");
            }
            "-initrd" => arguments[index + 1] = guest.initrd.display().to_string(),
            "-append" => {
                let words = value.split(' ').filter(|word| !word.starts_with("rdinit="));
                arguments[index + 1] = words.collect::<Vec<_>>().join(" ");
            }
            "-chardev" => {
                let id = value.split(',').find(|part| part.starts_with("id=")).unwrap();
                let kind = if id == format!("id={serial}") { "stdio" } else { "null" };
                arguments[index + 1] =
                    if kind == "stdio" { format!("stdio,{id},signal=off") } else { format!("null,{id}") };
            }
            _ => {}
        }
        index += 1;
    }
    arguments
}

fn bare_boot(arguments: &[String]) -> Duration {
    let begun = Instant::now();
    let mut child = Command::new(&arguments[0])
        .args(&arguments[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut output = child.stdout.take().unwrap();
    let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
    let took = loop {
        let count = output.read(&mut buffer).unwrap();
        text.extend_from_slice(&buffer[..count]);
        if String::from_utf8_lossy(&text).contains(MARKER) {
            break begun.elapsed();
        }
        if count == 0 || begun.elapsed() > LIMIT {
            panic!("the bare boot never printed `{MARKER}`:\n{}", String::from_utf8_lossy(&text));
        }
    };
    child.kill().unwrap();
    child.wait().unwrap();
    took
}

fn runs(dir: &Path) {
    let run = common::provium(dir, &["test", "runs.test.lua", "--format", "json"]);
    run.expect(0);
    let events = run.events();
    let done = |name: String| common::test_done(&events, &name).clone();
    let harness: Vec<f64> =
        (1..=7).map(|n| done(format!("harness {n}"))["duration"].as_f64().unwrap() / 100.0).collect();
    let guest: Vec<f64> =
        (1..=7).map(|n| done(format!("guest {n}"))["log"].as_str().unwrap().trim().parse().unwrap()).collect();
    let (harness, guest) = (median(harness), median(guest));
    println!(
        "run(\"true\") ÷ guest's fork+exec+wait: {:.2} ({:.2} ms ÷ {:.2} ms; target ≤ 1.5 and 0.5 ms more: {:.2} ms)",
        harness / guest,
        harness * 1e3,
        guest * 1e3,
        guest * 1.5e3 + 0.5
    );
    let memory = done("memory".to_owned());
    let kib: f64 = memory["log"].as_str().unwrap().trim().parse().unwrap();
    println!("provium with one VM: {:.1} MiB at most (target < 60)", kib / 1024.0);
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
