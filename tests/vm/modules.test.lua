-- Modules of the tests' own, in both kernels; and that what `provoke` provokes is really reported by each kernel.

-- Again where the report is not there at once: a stall, for one, shows only where a grace period had begun before it.
local function provoke(t, vm, word, report)
  vm:run("dmesg -c"):assert_ok()
  local function reported()
    vm:run("echo " .. word .. " > /proc/provoke", {timeout = "60s"})
    return vm:run("dmesg").stdout:find(report, 1, true)
  end
  wait_until(reported, {desc = word .. ": " .. report, timeout = "2m"})
end

local function comes_with_what_it_needs(t, profile)
  local vm = provium:vm("v", profile, {load_modules = {"hello", "dummy"}}):boot()
  t:assert_contains(vm:run("dmesg").stdout, "hello_dep: hello, world")
  t:assert_contains(vm:run("lsmod"):assert_ok().stdout, "hello")
  t:assert_match(vm:read_file("/proc/modules"), "hello_dep %d+ 1 hello, Live")
  t:assert_contains(vm:read_file("/proc/modules"), "dummy ")
  vm:run("rmmod hello"):assert_ok()
  t:assert_contains(vm:run("dmesg").stdout, "hello: bye, world")
end

test("a module that is not there", function(t)
  local err = t:assert_raises(function() provium:vm("v", "linux", {load_modules = {"helo"}}):boot() end)
  t:assert_contains(err, "module `helo`")
end)

local function reports(t, profile)
  local vm = provium:vm("v", profile, {load_modules = {"provoke"}}):boot()
  t:assert_contains(vm:run("echo nonsense > /proc/provoke"):assert_fails().stderr, "Invalid argument")
  -- First what works in a kernel without taint only.
  vm:run("echo 1 > /proc/sys/kernel/hung_task_timeout_secs"):assert_ok()
  provoke(t, vm, "hungtask 5", "blocked for more than 1 seconds")
  if profile == "kfence" then provoke(t, vm, "kfence", "BUG: KFENCE: use-after-free read in provoke_kfence") end
  provoke(t, vm, "warn 3", "provoked warning 3")
  provoke(t, vm, "warn_plain", "WARNING: CPU: 0 PID: ")
  provoke(t, vm, "atomic", "BUG: scheduling while atomic: ")
  vm:run("echo 1 > /proc/sys/kernel/watchdog_thresh"):assert_ok()
  provoke(t, vm, "softlockup 5", "watchdog: BUG: soft lockup - CPU#0 stuck for ")
  vm:run("echo 10 > /proc/sys/kernel/watchdog_thresh; echo 3 > /sys/module/rcupdate/parameters/rcu_cpu_stall_timeout")
  provoke(t, vm, "rcustall 5", "rcu: INFO: rcu_preempt ")
  provoke(t, vm, "bug", "kernel BUG at provoke.c:")
  provoke(t, vm, "oops", "BUG: kernel NULL pointer dereference")
  provoke(t, vm, "oops_thread", "Comm: provoke Tainted: ")
  provoke(t, vm, "gpf", "general protection fault, ")
  provoke(t, vm, "divide", "divide error: ")
  provoke(t, vm, "list", "list_del corruption")
  t:assert_contains(t:assert_raises(function() vm:run("echo panic 7 > /proc/provoke") end), "provoked panic 7")
end

for _, profile in ipairs{"linux", "mainline"} do
  test("a module comes with what it needs: " .. profile, function(t) comes_with_what_it_needs(t, profile) end)
end

for _, profile in ipairs{"linux", "kfence"} do
  test("the kernel reports: " .. profile, {timeout = "5m"}, function(t) reports(t, profile) end)
end
