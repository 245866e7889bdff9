//! What a restore costs, as ratios from one run: `cargo bench --bench snapshots [-- --rounds N]`.

#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

#[path = "../tests/common/mod.rs"]
mod common;

use serde_json::Value;

const TEST: &str = r#"
local ROUNDS = tonumber(io.open("rounds"):read("a"))
local function pss(vm)
  return tonumber(io.open("/proc/" .. vm:pid() .. "/smaps_rollup"):read("a"):match("\nPss:%s+(%d+)"))
end
-- What is restored for the first time finds no QEMU that was started ahead.
local function restore_copies(of, name)
  for round = 1, ROUNDS do
    test(of .. " " .. round, function(t)
      local copy = of .. round
      os.execute("cp -r --sparse=always " .. of .. " " .. copy .. "; sync")
      sleep(1)
      provium:vm(name, "linux"):restore(copy)
    end)
  end
end
local small = provium:vm("small", "linux", {memory = "512M"}):boot()
for round = 1, ROUNDS do
  test("cold " .. round, function(t) provium:vm("cold", "linux", {memory = "512M"}):boot() end)
end
test("cold memory", function(t) t:log(pss(provium:vm("one", "linux", {memory = "512M"}):boot())) end)
for round = 1, ROUNDS do
  test("snapshot " .. round, function(t) small:snapshot() end)
end
test("on disk", function(t)
  local kept = small:snapshot("kept")
  t:log(kept:size())
end)
restore_copies("kept", "s512")
for round = 0, ROUNDS do
  test("ahead " .. round, function(t)
    sleep(1)
    provium:vm(round == 0 and "first" or "ahead", "linux"):restore("kept")
  end)
end
test("clones", function(t)
  local clones, sum = {}, 0
  for i = 1, 16 do clones[i] = provium:vm("c" .. i, "linux"):restore("kept") end
  for i = 1, 16 do sum = sum + pss(clones[i]) end
  t:log(sum)
end)
test("large", function(t)
  provium:vm("large", "linux", {memory = "4G"}):boot():snapshot("large")
end)
restore_copies("large", "s4096")
"#;

fn main() {
    let rounds = std::env::args().skip_while(|arg| arg != "--rounds").nth(1).unwrap_or_else(|| "7".to_owned());
    let dir = common::project(&[("a.test.lua", TEST), ("rounds", &rounds)]);
    let run = common::provium(dir.path(), &["test", "--timeout", "30m", "--format", "json"]);
    run.expect(0);
    let events = run.events();
    let ready = |name: &str| median(events.iter().filter(|event| is_ready(event, name)).map(whole).collect());
    let phase = |name: &str, phase: &str| {
        let of = |event: &Value| event["phases"][phase].as_f64().unwrap();
        median(events.iter().filter(|event| is_ready(event, name)).map(of).collect())
    };
    let log = |name: &str| -> f64 { common::test_done(&events, name)["log"].as_str().unwrap().trim().parse().unwrap() };
    let (cold, small, large) = (ready("cold"), ready("s512"), ready("s4096"));
    println!("restore to agent-ready ÷ cold boot: 1/{:.1} (target ≤ 1/30; {small:.4} s ÷ {cold:.3} s)", cold / small);
    let phases = ["prepare", "qemu", "load", "agent"].map(|name| format!("{name} {:.1} ms", phase("s512", name) * 1e3));
    println!("  a restore's phases: {}", phases.join(", "));
    println!("restore 4 GiB ÷ restore 512 MiB: {:.2} (target ≤ 1.2; {large:.4} s ÷ {small:.4} s)", large / small);
    let ahead = ready("ahead");
    println!(
        "the same with a QEMU started ahead: 1/{:.1} (target ≤ 1/70; {:.1} ms: prepare {:.1}, load {:.1} (target ≤ 5 ms), agent {:.1})",
        cold / ahead,
        ahead * 1e3,
        phase("ahead", "prepare") * 1e3,
        phase("ahead", "load") * 1e3,
        phase("ahead", "agent") * 1e3
    );
    let (clones, one) = (log("clones"), log("cold memory"));
    println!(
        "memory of 16 clones ÷ 16 cold guests: 1/{:.1} (target ≤ 1/4; {:.0} MiB ÷ 16 × {:.0} MiB)",
        one * 16.0 / clones,
        clones / 1024.0,
        one / 1024.0
    );
    let is_snapshot = |event: &&Value| {
        event["kind"] == "test_done" && event["name"].as_str().is_some_and(|name| name.starts_with("snapshot "))
    };
    let took = |event: &Value| event["duration"].as_f64().unwrap();
    let snapshot = median(events.iter().filter(is_snapshot).map(took).collect());
    println!("snapshot of a VM that goes on ÷ cold boot: 1/{:.1} ({snapshot:.4} s)", cold / snapshot);
    let bytes = log("on disk");
    println!(
        "a snapshot on disk ÷ its RAM: {:.2} ({:.0} MiB ÷ 512 MiB)",
        bytes / f64::from(512 << 20),
        bytes / f64::from(1 << 20)
    );
}

fn is_ready(event: &Value, name: &str) -> bool {
    event["kind"] == "vm_ready" && event["vm"] == name
}

/// From the call to its return.
fn whole(event: &Value) -> f64 {
    event["duration"].as_f64().unwrap() + event["phases"]["prepare"].as_f64().unwrap_or_default()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
