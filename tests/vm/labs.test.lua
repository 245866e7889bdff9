-- Labs with real guests: one boot of two VMs at file scope, shared by the tests; one VM of a test's own.

local lab = provium:lab("pair")
local a, b = lab:vm("a", "linux"), lab:vm("b", "linux", {memory = "256M"})
assert(lab:boot() == lab)

test("all VMs of a lab boot at the same time, and once", function(t)
  t:assert_eq({a:state(), b:state()}, {"booted", "booted"})
  t:assert_eq(lab:boot(), lab)
  local one, two = parallel(function() return a:run("echo a"):trim() end, function() return b:run("echo b"):trim() end)
  t:assert_eq({one, two}, {"a", "b"})
end)

test("pause and resume", function(t)
  t:assert_eq(lab:pause(), lab)
  t:assert_eq({a:state(), b:state()}, {"paused", "paused"})
  b:resume()
  t:assert_eq(lab:resume():pause():pause():resume(), lab)
  t:assert_eq({a:state(), b:run("echo on"):trim()}, {"booted", "on"})
  local idle = provium:lab("idle")
  idle:vm("v", "linux")
  t:assert_contains(t:assert_raises(function() idle:pause() end), "vm `v`: pause: the VM is `created`")
  t:assert_contains(t:assert_raises(function() idle:resume() end), "vm `v`: resume: the VM is `created`")
end)

test("a test's own lab leaves the file's VMs alone", function(t)
  local own = provium:lab("own")
  local vm = own:vm("v", "linux")
  provium:boot()
  t:assert_eq(vm:state(), "booted", "provium:boot reaches the VMs of labs inside")
  provium:shutdown()
  t:assert_eq({vm:state(), a:state()}, {"shutdown", "booted"})
  t:assert_eq(own:shutdown(), own)
  kept = vm:boot()
end)

test("what was kept of it is over", function(t)
  t:assert_eq(kept:state(), "shutdown")
  t:assert_contains(t:assert_raises(function() kept:boot() end), "its test has ended")
  t:assert_contains(t:assert_raises(function() kept:run("true") end), "vm `v`: run: the VM is shut down")
  t:assert_raises(function() kept:read_file("/proc/version") end)
end)

test("a VM that does not boot fails its lab's boot", function(t)
  local broken = provium:lab("broken")
  broken:vm("v", "linux", {load_modules = {"no-such-module"}})
  t:assert_contains(t:assert_raises(function() broken:boot() end), "no_such_module")
end)

test("branches meet in the middle", function(t)
  local order = {}
  parallel(
    function() a:run("true"); provium:barrier("middle", 2); order[#order + 1] = a:run("cat /tmp/x || echo none"):trim() end,
    function() a:write_file("/tmp/x", "written"); provium:barrier("middle", 2) end)
  t:assert_eq(order, {"written"})
end)

test("stuck in the guest", {timeout = "1s"}, function(t)
  parallel(function() pcall(a.run, a, "sleep 1000") a:run("sleep 1000") end, function() b:run("sleep 1000") end)
end)

test("the file's VMs go on after that", function(t)
  t:assert_eq({a:run("echo 1"):trim(), b:run("echo 2"):trim()}, {"1", "2"})
  t:assert_eq(a:run("ps | grep -c '[s]leep 1000'"):trim(), "0")
end)

test("remove stops nothing", function(t)
  local vm = provium:lab("l"):include(a).a
  provium.l:remove("a")
  t:assert_eq(provium.l:members(), {})
  t:assert_eq(vm:state(), "booted")
end)
