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
