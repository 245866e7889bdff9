-- A Debian userland whose PID 1 is systemd.

local vm = provium:vm("debian", "debian"):boot()

test("systemd is asked as soon as the machine is up", function(t)
  -- No waiting before: it listens by now, though its services may be on their way.
  t:assert_contains(vm:run("systemctl show --property=Version"):assert_ok().stdout, "Version=")
  t:assert_eq(vm:run("systemctl is-system-running --wait"):assert_ok():trim(), "running")
  t:assert_eq(vm:run("systemctl --failed --no-legend").stdout, "")
  t:assert_eq(vm:run("cat /proc/1/comm"):trim(), "systemd")
end)

test("a service starts, speaks in the journal, and stops", function(t)
  vm:run("systemctl start greeter"):assert_ok()
  t:assert_eq(vm:run("systemctl is-active greeter"):trim(), "active")
  t:assert_contains(vm:run("journalctl -u greeter -o cat"):assert_ok().stdout, "hello from the greeter")
  vm:run("systemctl stop greeter"):assert_ok()
  t:assert_eq(vm:run("systemctl is-active greeter"):assert_fails():trim(), "inactive")
end)

test("a service that fails is seen to", function(t)
  vm:run("systemctl start failing"):assert_ok()
  wait_until(function() return vm:run("systemctl is-failed failing"):ok() end,
    {desc = "failing.service is failed", timeout = "60s"})
  t:assert_contains(vm:run("systemctl status failing").stdout, "status=3")
  t:assert_contains(vm:run("journalctl -b -u failing").stdout, "this one fails")
  vm:run("systemctl reset-failed"):assert_ok()
end)

test("a unit is waited for", function(t)
  local function unit(name, text) vm:write_file("/run/systemd/system/" .. name .. ".service", "[Service]\n" .. text) end
  local function raises(fn, ...)
    local err = t:assert_raises(fn)
    for _, part in ipairs{"vm `debian`: wait_for_unit", ...} do t:assert_contains(err, part) end
  end
  t:assert(vm:wait_for_unit("multi-user.target"))
  unit("slow", "ExecStartPre=/bin/sleep 1\nExecStart=/bin/sleep 1000\n")
  unit("once", "Type=oneshot\nExecStart=/bin/sleep 8\n")
  unit("bad", "ExecStart=/bin/sh -c 'echo words of failure; exit 3'\n")
  unit("idle", "ExecStart=/bin/true\n")
  vm:run("systemctl daemon-reload && systemctl start --no-block once slow bad"):assert_ok()
  -- One that has done its work is as good as active.
  t:assert(vm:wait_for_unit("once"))
  t:assert(vm:wait_for_unit("slow.service", "1m"))
  raises(function() vm:wait_for_unit("bad") end, "the unit `bad` failed (exit-code)", "words of failure", "status=3")
  raises(function() vm:wait_for_unit("idle", "300ms") end, "`idle` was not active within 300ms; it was inactive (dead)")
  raises(function() vm:wait_for_unit("nosuch") end, "there is no unit `nosuch`")
  vm:run("systemctl stop slow; systemctl reset-failed"):assert_ok()
end)

test("the kernel's own log is in the journal", function(t)
  t:assert_contains(vm:run("journalctl -k -b -o cat"):assert_ok().stdout, "Linux version")
end)

test("what a test starts is none of a service's, and a logind session is had", function(t)
  vm:run("sleep 1000 & echo $! > /run/pid"):assert_ok()
  vm:run("systemctl daemon-reexec"):assert_ok()
  t:assert(vm:run("kill -0 $(cat /run/pid)"):ok())
  vm:run("kill $(cat /run/pid)"):assert_ok()
  t:assert_eq(vm:run("id -un", {user = "tester"}):trim(), "tester")
  t:assert_contains(vm:run("hostnamectl"):assert_ok().stdout, "Static hostname: debian")
end)

test("a login prompt is on the console", function(t)
  wait_until(function() return vm:console():read_log():find("login: ", 1, true) end, {desc = "a login prompt", timeout = "60s"})
end)

test("it goes down by its own means", function(t)
  -- The answer may or may not come before the end.
  pcall(vm.run, vm, "systemctl poweroff")
  wait_until(function() return vm:state() == "dead" end, {desc = "the machine is off", timeout = "60s"})
  t:assert_contains(vm:console():read_log(), "Power down")
end)

test("the agent outlives systemd's own switch of root", function(t)
  local it = provium:vm("initrd", "debian", {files = {{path = "/etc/initrd-release", content = "ID=debian\n"}}}):boot()
  wait_until(function() return it:console():read_log():find("the other init is up", 1, true) end,
    {desc = "the other init", timeout = "120s"})
  t:assert_eq(it:read_file("/etc/root"), "switched\n")
  t:assert_contains(it:read_file("/proc/mounts"), "tmpfs / tmpfs")
  t:assert_contains(it:read_file("/proc/1/cmdline"), "/sbin/init")
  t:assert_eq(it:run("cat etc/root"):assert_ok():trim(), "switched")
end)
