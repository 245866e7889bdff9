-- The guest's kernel: its log, its modules, its clock, and what is waited for inside. One VM, shared.

local vm = provium:vm("shared", "linux"):boot()
local release = vm:run("uname -r"):trim()
local images = os.getenv("PROVIUM_TEST_IMAGES") or "../examples/.images"
local clock = vm:clock()

local function raises(t, fn, ...)
  local err = t:assert_raises(fn)
  for _, part in ipairs{...} do t:assert_contains(err, part) end
  t:assert_match(err, "kernel%.test%.lua:%d+: ")
end

-- A VM that nobody boots.
local idle = provium:vm("idle", "linux")

test("dmesg is the kernel's log as dmesg prints it", function(t)
  local log = vm:dmesg()
  t:assert_match(log, "^%[    0%.000000%] Linux version [^\n]+\n%[ ")
  t:assert_eq(log:sub(-1), "\n")
  vm:run("echo 'a (line) of the test' > /dev/kmsg; printf '<3>first\\nsecond\\n' > /dev/kmsg"):assert_ok()
  t:assert_match(vm:dmesg("a (line) of the test"), "^%[ *%d+%.%d%d%d%d%d%d%] a %(line%) of the test\n$")
  -- A record of several lines: each has the time.
  t:assert_match(vm:dmesg(), "%] first\n%[ *%d+%.%d+%] second\n")
  t:assert_eq(vm:dmesg("no such line in it"), "")
  t:assert_eq(vm:dmesg("(line"), vm:dmesg("a (line) of"))
end)

test("dmesg after the log was cleared", function(t)
  vm:run("dmesg -c"):assert_ok()
  vm:run("echo after-it > /dev/kmsg"):assert_ok()
  t:assert_match(vm:dmesg(), "^[^\n]+after%-it\n$")
end)

test("dmesg: what can't be", function(t)
  raises(t, function() vm:dmesg({}) end, "pattern", "expected a string")
  raises(t, function() idle:dmesg() end, "dmesg", "not booted")
end)

test("a module by name comes with what it needs, and with parameters", function(t)
  vm:load_module("hello", {name = "you and me"})
  t:assert_contains(vm:dmesg("hello_dep: "), "hello, you and me")
  vm:load_module("hello")
  raises(t, function() vm:load_module("hello", "name=x") end, "load_module: `hello`: EEXIST")
  raises(t, function() vm:unload_module("hello_dep") end, "unload_module: `hello_dep`: EAGAIN", "another module needs it")
  vm:unload_module("hello")
  vm:unload_module("hello-dep")
  t:assert_eq(vm:run("grep -c ^hello /proc/modules").stdout, "0\n")
  raises(t, function() vm:unload_module("hello") end, "unload_module: `hello`: ENOENT", "not loaded")
end)

test("a module that can't be loaded, and why", function(t)
  raises(t, function() vm:load_module("hello", "fail=5") end, "vm `shared`: load_module: `hello`: EIO")
  raises(t, function() vm:load_module("hello", {fail = "x"}) end, "EINVAL", "hello: `x' invalid for parameter `fail'")
  vm:unload_module("hello_dep")
  raises(t, function() vm:load_module("nosuch") end, "`modules`", "nosuch")
  raises(t, function() vm:load_module("nosuch.ko") end, "nosuch.ko", "no such file")
  -- Relative to this file.
  raises(t, function() vm:load_module("./kernel.test.lua") end, "kernel.test.lua", "not an ELF file")
  raises(t, function() vm:load_module("hello", 1) end, "params", "found 1")
  raises(t, function() vm:load_module("hello", {name = '"'}) end, "params")
  raises(t, function() idle:load_module("hello") end, "load_module", "not booted")
end)

test("a module from a file", function(t)
  local extra = images .. "/stable/lib/modules/" .. release .. "/extra/"
  raises(t, function() vm:load_module(extra .. "hello.ko") end, "`hello`: ENOENT",
    "Unknown symbol hello_dep_greet", "depends on hello_dep")
  vm:load_module(extra .. "hello_dep.ko")
  vm:load_module(extra .. "hello.ko", {name = "file"})
  t:assert_contains(vm:dmesg("hello_dep: "), "hello, file")
  raises(t, function() vm:load_module(extra .. "hello.ko") end, "`hello`: EEXIST")
  vm:unload_module("hello")
  vm:unload_module("hello_dep")
end)

test("a module of another kernel", function(t)
  local newer = provium:vm("newer", "mainline"):boot()
  local other = newer:run("uname -r"):trim()
  newer:load_module("hello_dep")
  local path = images .. "/mainline/lib/modules/" .. other .. "/extra/hello_dep.ko"
  raises(t, function() vm:load_module(path) end, "`hello_dep`: ENOEXEC", "it was built for `" .. other .. "`",
    "the guest's kernel is `" .. release .. "`")
end)

test("a module that takes long holds nothing else up, and can be given up", function(t)
  raises(t, function()
    parallel(
      function() vm:load_module("provoke", {now = "hungtask 2"}) end,
      function()
        wait_until(function() return vm:read_file("/proc/modules"):find("provoke [^\n]* Loading") end)
        error("enough")
      end)
  end, "enough")
  t:assert_eq(vm:run("echo fine"):trim(), "fine")
  wait_until(function() return vm:read_file("/proc/modules"):find("provoke [^\n]* Live") end)
  vm:unload_module("provoke")
end)

test("a module whose code crashes takes only its own loading with it", {splats = "log"}, function(t)
  local text = vm:expect_splat("BUG: kernel NULL pointer", function() vm:load_module("provoke", {now = "oops"}) end)
  t:assert_contains(text, "do_init_module")
  raises(t, function() vm:unload_module("provoke") end, "`provoke`: EBUSY")
  t:assert_eq(vm:run("echo fine"):trim(), "fine")
end)

test("the clock", function(t)
  local before = clock:get_ns()
  t:assert_eq(math.type(before), "integer")
  local seconds = clock:get()
  t:assert(math.abs(seconds - before / 1e9) < 60, "both tell one time")
  clock:set(1000000000)
  t:assert(math.abs(clock:get() - 1e9) < 60)
  clock:set(1500000000.5)
  t:assert(clock:get_ns() >= 1500000000500000000)
  clock:set_ns(1234567890123456789)
  local now = clock:get_ns()
  t:assert(now >= 1234567890123456789 and now < 1234567950123456789, now)
  clock:advance(-3600)
  t:assert(math.abs(clock:get() - (1234567890 - 3600)) < 60)
  clock:advance("1h")
  t:assert(math.abs(clock:get() - 1234567890) < 60)
  t:assert_match(vm:run("date -u +%Y-%m"):trim(), "^2009%-02$")
  clock:freeze_on_restore()
end)

test("sleep passes in the guest", function(t)
  local uptime = tonumber(vm:read_file("/proc/uptime"):match("^%S+"))
  clock:sleep("300ms")
  t:assert(tonumber(vm:read_file("/proc/uptime"):match("^%S+")) - uptime >= 0.29)
  clock:sleep(0)
end)

test("a sleeping guest goes on with other work", function(t)
  local order = {}
  parallel(
    function() clock:sleep(1) order[#order + 1] = "sleep" end,
    function() vm:run("true"):assert_ok() order[#order + 1] = "run" end)
  t:assert_eq(order, {"run", "sleep"})
end)

test("times that are none", function(t)
  for _, bad in ipairs{0/0, 1/0, -1/0, "soon", {}, 1e300} do
    raises(t, function() clock:set(bad) end, "clock:set: `s`")
    raises(t, function() clock:advance(bad) end, "clock:advance: `d`")
    raises(t, function() clock:sleep(bad) end, "clock:sleep: `d`")
    raises(t, function() clock:set_ns(bad) end, "clock:set_ns: `n`")
  end
  raises(t, function() clock:set(-1) end, "negative")
  raises(t, function() clock:set(0) end, "vm `shared`: clock: ", "EINVAL", "before 1970")
  raises(t, function() clock:sleep(-1) end, "-1")
  raises(t, function() clock:freeze_on_restore(true) end, "takes no argument")
  raises(t, function() idle:clock():get() end, "not booted")
  raises(t, function() idle:clock():get_ns() end, "not booted")
end)

test("a port is waited for", function(t)
  vm:run("(sleep 1; nc -l -p 8080 >/dev/null) >/dev/null 2>&1 &"):assert_ok()
  t:assert(vm:wait_for_port(8080))
  raises(t, function() vm:wait_for_port(8081, "200ms") end,
    "vm `shared`: wait_for_port: nothing listened on TCP port 8081 within 200ms", "8080")
  for _, bad in ipairs{0, 65536, 1.5, "http"} do
    raises(t, function() vm:wait_for_port(bad) end, "a port from 1 to 65535")
  end
end)

test("a file is waited for", function(t)
  t:assert(vm:wait_for_file("/etc/passwd", 1))
  vm:run("(sleep 0.5; mkdir -p /tmp/w/a; sleep 0.2; touch /tmp/w/a/b) >/dev/null 2>&1 &"):assert_ok()
  t:assert(vm:wait_for_file("/tmp/w/a/b"))
  vm:run("(sleep 0.3; ln -s /tmp/w/late /tmp/w/link; sleep 0.2; touch /tmp/w/late) >/dev/null 2>&1 &"):assert_ok()
  t:assert(vm:wait_for_file("/tmp/w/link"))
  raises(t, function() vm:wait_for_file("/tmp/w/never", "200ms") end,
    "vm `shared`: wait_for_file: `/tmp/w/never` was not there within 200ms")
end)

test("a wait is given up with its branch", function(t)
  raises(t, function()
    parallel(function() vm:wait_for_file("/no/such", 1000) end, function() error("enough") end)
  end, "enough")
end)

test("there are no units without systemd", function(t)
  raises(t, function() vm:wait_for_unit("ssh.service") end, "wait_for_unit", "systemctl")
end)
