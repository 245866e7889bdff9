-- Boot options, the states of a VM, and the scope of a test.

test("options reach the guest", function(t)
  local vm = provium:vm("v", "linux", {
    cpus = 2, memory = "256M", hostname = "renamed", kernel_cmdline_append = "provium.test=1",
    files = {{path = "/etc/made/here", content = "by the harness\0", mode = tonumber("600", 8)}},
  })
  t:assert_eq(vm:state(), "created")
  local early = t:assert_raises(function() vm:run("true") end)
  t:assert_contains(early, "not booted")
  vm:boot({memory = "320M"})
  t:assert_eq(vm:run("nproc"):trim(), "2")
  t:assert_eq(vm:run("hostname"):trim(), "renamed")
  t:assert_contains(vm:read_file("/proc/cmdline"), "provium.test=1")
  t:assert_eq(vm:read_file("/etc/made/here"), "by the harness\0")
  t:assert_eq(vm:run("stat -c %a /etc/made/here"):trim(), "600")
  local total = tonumber(vm:read_file("/proc/meminfo"):match("MemTotal:%s+(%d+)"))
  t:assert(total > 200 * 1024 and total < 320 * 1024, "MemTotal is " .. total)
  t:assert_eq(vm:run("cat /proc/1/comm"):trim(), "init")
  vm:shutdown()
  t:assert_eq(vm:state(), "shutdown")
  vm:shutdown()
  t:assert_contains(t:assert_raises(function() vm:run("true") end), "shut down")
  vm:boot()
  t:assert_eq(vm:run("hostname"):trim(), "renamed")
end)

test("what can't be had of a machine that is not up", function(t)
  local vm = provium:vm("v", "linux", {load_modules = {"no_such_module"}})
  t:assert_contains(t:assert_raises(function() vm:console():read_log() end), "not booted")
  t:assert_contains(t:assert_raises(function() vm:console("ttyS7") end), "ttyS7")
  t:assert_contains(t:assert_raises(function() provium:boot() end), "no_such_module")
end)

test("the command line is replaced", function(t)
  local vm = provium:vm("v", "linux", {kernel_cmdline = "console=hvc0 quiet maxcpus=1 isolcpus=0"}):boot()
  local line = vm:read_file("/proc/cmdline")
  t:assert_contains(line, "maxcpus=1 isolcpus=0")
  t:assert_contains(line, "console=ttyS0")
end)

test("a guest that powers off by itself is dead", function(t)
  local vm = provium:vm("v", "linux"):boot()
  local err = t:assert_raises(function() vm:run("poweroff -f; sleep 1000") end)
  t:assert_contains(err, "powered off by itself")
  t:assert_eq(vm:state(), "dead")
end)

test("a panic ends the blocked call and shows the kernel's words", function(t)
  local vm = provium:vm("v", "linux"):boot()
  local err = t:assert_raises(function() vm:run("echo c > /proc/sysrq-trigger; sleep 1000") end)
  t:assert_contains(err, "panicked")
  t:assert_contains(err, "sysrq triggered crash")
end)

test("QEMU killed from outside is noticed", function(t)
  local vm = provium:vm("v", "linux"):boot()
  os.execute("(kill -9 " .. vm:pid() .. ")")
  local err = t:assert_raises(function() vm:run("sleep 1000") end)
  t:assert_contains(err, "QEMU ended")
end)

test("what a test creates is gone in the next", function(t)
  t:assert_eq(provium.v, nil)
  t:assert_contains(t:assert_raises(function() provium:vm("v") end), "no VM `v`")
end)

test("an unknown profile names the nearest", function(t)
  local err = t:assert_raises(function() provium:vm("v", "linus") end)
  t:assert_contains(err, "linus")
  t:assert_contains(err, "did you mean `linux`?")
end)

test("bad options say what is wrong, and repeat it", function(t)
  for _, case in ipairs({
    {{memory = "1K"}, "`memory`: expected 16M at least, found \"1K\""},
    {{memory = -1}, "the negative number -1"},
    {{memory = "much"}, "much"},
    {{cpus = 0}, "option `cpus`: expected a whole number from 1 to 255, found 0"},
    {{cpus = 1.5}, "found 1.5"},
    {{agent_timeout = 0}, "option `agent_timeout`: expected a time above 0"},
    {{agent_timeout = "soon"}, "soon"},
    {{rng_seed = -1}, "option `rng_seed`: expected a whole number from 0"},
    {{rng_seed = "x"}, "found \"x\""},
    {{initial_time = -5}, "option `initial_time`: expected a whole number from 0"},
    {{hostname = ""}, "`hostname`: expected 1 to 64 bytes without white space, found \"\""},
    {{hostname = ("h"):rep(65)}, "hhhh"},
    {{hostname = "two words"}, "two words"},
    {{files = {{path = "relative", content = ""}}}, "expected an absolute path, found `relative`"},
    {{files = {{path = "/x"}}}, "an entry has no `content`"},
    {{files = {{path = "/x", content = "", mode = 65536}}}, "65536"},
    {{load_modules = {{}}}, "entry 1: expected a string"},
    {{kernel_cmdline_append = 7}, "option `kernel_cmdline_append`: expected a string, found 7"},
    {{memroy = 1}, "unknown option `memroy`\nhint: did you mean `memory`?"},
  }) do
    t:assert_contains(t:assert_raises(function() provium:vm("bad", "linux", case[1]) end), case[2])
  end
  local vm = provium:vm("v", "linux")
  t:assert_contains(t:assert_raises(function() vm:boot({cpus = 1000}) end), "found 1000")
  t:assert_contains(t:assert_raises(function() vm:boot({kernel_cmdline_append = ("a"):rep(3000)}) end), "the kernel reads 2047 at most")
  t:assert_contains(t:assert_raises(function() vm:boot({kernel_cmdline_append = "", load_modules = {"no_such_module"}}) end),
    "no_such_module")
end)

test("what can't be done before init fails the boot", function(t)
  local vm = provium:vm("v", "linux", {files = {{path = "/etc", content = "x"}}})
  t:assert_contains(t:assert_raises(function() vm:boot() end), "boot: files: `/etc`: EISDIR (is a directory)")
  -- Drivers for another hypervisor: the second needs the first.
  for _, name in ipairs({"hv_vmbus", "hv_utils"}) do
    t:assert_contains(t:assert_raises(function() vm:boot({files = {}, load_modules = {name}}) end),
      "boot: load_modules: `hv_vmbus`: ENODEV (no such device)")
  end
  vm:boot({load_modules = {"pvpanic-pci"}})
  t:assert_contains(vm:read_file("/proc/modules"), "pvpanic_pci")
end)

test("the guest's random numbers are the seed's", function(t)
  local function first(seed)
    local vm = provium:vm("seed" .. #provium:vm_names(), "linux", {rng_seed = seed}):boot()
    return vm:run("head -c 32 /dev/hwrng | xxd -p"):assert_ok().stdout
  end
  local seven = first(7)
  t:assert_eq(#seven, 66)
  t:assert_eq(first(7), seven)
  t:assert_neq(first(8), seven)
end)

test("the guest's clock begins where it is told", function(t)
  local vm = provium:vm("v", "linux", {initial_time = 1000000000}):boot()
  local now = tonumber(vm:run("date +%s"):trim())
  t:assert(now >= 1000000000 and now < 1000000000 + 600, "it is " .. now)
  vm:shutdown()
  vm:boot({initial_time = 4102444800})
  now = tonumber(vm:run("date +%s"):trim())
  t:assert(now >= 4102444800 and now < 4102444800 + 600, "it is " .. now)
end)
