-- Workers: one VM at file scope, shared by every test.

local vm = provium:vm("w", "linux"):boot()

-- How many processes of the guest have a command line that begins so.
local function count(command)
  local found = 0
  for _, line in ipairs(vm:run("ps -o args"):assert_ok():lines()) do
    if line:sub(1, #command) == command then found = found + 1 end
  end
  return found
end

test("a worker is a process of its own", function(t)
  local w = vm:spawn_worker()
  t:assert(w:handle() > 0)
  t:assert_contains(tostring(w), "vm `w`")
  t:assert_neq(w:syscall("getpid").ret, vm:syscall("getpid").ret)
  t:assert_eq(w:run("echo from; exit 4").exit_code, 4)
  local p = w:run_async("cat")
  p:stdin_write("in")
  p:close_stdin()
  t:assert_eq(p:wait().stdout, "in")
  t:assert_eq(w:syscall_async("getppid"):await().ret, vm:syscall("getpid").ret)
  t:assert_eq(w:ioctl(9999, 1).errno, 9)
  t:assert_contains(vm:read_file("/proc/" .. w:syscall("getpid").ret .. "/cmdline"), "@provium-agent")
end)

test("errors", function(t)
  local w = vm:spawn_worker()
  t:assert_contains(t:assert_raises(function() w:run({"/no/such"}) end), "ENOENT")
  t:assert_contains(t:assert_raises(function() w:run("true", {cvd = 1}) end), "worker:run")
  t:assert_contains(t:assert_raises(function() w:run_async({"/no/such"}) end), "ENOENT")
  t:assert_contains(t:assert_raises(function() w:syscall("getpd") end), "worker:syscall")
  t:assert_contains(t:assert_raises(function() w:syscall_async("getpd") end), "getpid")
  t:assert_contains(t:assert_raises(function() w:ioctl("x") end), "worker:ioctl")
  t:assert_contains(t:assert_raises(function() w:kill("zebra") end), "worker:kill")
  for _, op in ipairs{"read_file", "write_file", "stat"} do
    t:assert_match(t:assert_raises(function() w[op](w, "/no/such/file", "") end), "vm `w`: worker: " .. op .. ": .*ENOENT")
  end
  t:assert_contains(t:assert_raises(function() w:open_file("/no/such", {read = true}) end), "ENOENT")
  t:assert_contains(t:assert_raises(function() w:read_file() end), "worker:read_file")
  t:assert_contains(t:assert_raises(function() w.handle() end), "colon")
end)

test("identity, directory, descriptors and namespaces are its own", function(t)
  local w = vm:spawn_worker()
  t:assert_eq(w:syscall("chdir", {bufs = {"/tmp\0"}, ptrs = {0}}).ret, 0)
  t:assert_eq({w:run("pwd").stdout, vm:run("pwd").stdout}, {"/tmp\n", "/\n"})
  t:assert_eq(w:syscall("unshare", 0x4000000).ret, 0) -- CLONE_NEWUTS
  w:run("hostname elsewhere"):assert_ok()
  t:assert_eq(w:run("hostname"):trim(), "elsewhere")
  t:assert_neq(vm:run("hostname"):trim(), "elsewhere")
  w:write_file("in-tmp", "relative")
  t:assert_eq({w:read_file("in-tmp"), vm:read_file("/tmp/in-tmp")}, {"relative", "relative"})
  t:assert_eq(w:stat("in-tmp").size, 8)
  local file = w:open_file("in-tmp", {read = true})
  t:assert_eq(w:syscall("read", {args = {file:fd(), 0, 3}, bufs = {"---"}, ptrs = {1}}).out_bufs, {"rel"})
  t:assert_eq(file:read(100), "ative")
  local result = w:ioctl(file, 0x541b, "\0\0\0\0")
  t:assert_eq({result.ret, result.out_data}, {0, "\0\0\0\0"})
  file:close()
  t:assert_contains(t:assert_raises(function() w:ioctl(file, 0x541b) end), "file is closed")
  local fd = w:syscall("openat", {args = {-100}, bufs = {"/etc/passwd\0"}, ptrs = {1}}).ret
  t:assert(fd > 2)
  t:assert_eq(w:syscall("fcntl", fd, 1).errno, 0)
  t:assert_eq(vm:syscall("fcntl", fd + 100, 1).errno, 9)
  t:assert_eq(w:syscall("setresuid", 1000, 1000, 1000).ret, 0)
  t:assert_eq({w:run("id -u"):trim(), vm:run("id -u"):trim()}, {"1000", "0"})
  t:assert_eq(w:syscall("setresuid", 0, 0, 0).errno, 1)
end)

test("a PID namespace and a root of its own", function(t)
  local w = vm:spawn_worker()
  t:assert_eq(w:syscall("unshare", 0x20000000).ret, 0) -- CLONE_NEWPID
  t:assert_eq(w:run("echo $$"):trim(), "1")
  local x = vm:spawn_worker()
  vm:run("mkdir -p /tmp/jail/bin && cp /bin/busybox /tmp/jail/bin/sh"):assert_ok()
  vm:write_file("/tmp/jail/only-here", "")
  t:assert_eq(x:syscall("unshare", 0x20000).ret, 0) -- CLONE_NEWNS
  t:assert_eq(x:syscall("chroot", {bufs = {"/tmp/jail\0"}, ptrs = {0}}).ret, 0)
  t:assert_eq(x:syscall("chdir", {bufs = {"/\0"}, ptrs = {0}}).ret, 0)
  t:assert_eq(x:stat("/only-here").size, 0)
  t:assert_eq(x:run("echo /*").stdout, "/bin /only-here\n")
  t:assert(vm:exists("/etc/passwd"))
end)

test("join waits and gives the worst exit code", function(t)
  local w = vm:spawn_worker()
  w:run_async("exit 1")
  w:run_async("sleep 0.3; exit 5")
  w:run_async("true")
  t:assert_eq(w:join(), 5)
  local err = t:assert_raises(function() w:run("true") end)
  for _, part in ipairs{"vm `w`", "worker", "run", "joined"} do t:assert_contains(err, part) end
  t:assert_raises(function() w:join() end)
  w:close()
  t:assert_eq(vm:spawn_worker():join(), 0)
end)

test("kill signals what the worker started", function(t)
  local w = vm:spawn_worker()
  local p, q = w:run_async("sleep 1000"), w:run_async("trap 'exit 7' USR1; echo up; while :; do sleep 0.01; done")
  q:stdout_stream():expect("up")
  w:kill("USR1")
  t:assert_eq(p:wait().signal, 10)
  t:assert_eq(q:wait().exit_code, 7)
  local r = w:run_async("sleep 1000")
  w:kill()
  t:assert_eq(r:wait().signal, 15)
  t:assert_eq(w:join(), -1)
end)

test("close takes what it started along", function(t)
  local w = vm:spawn_worker()
  local p = w:run_async("trap '' TERM; exec sleep 2345")
  wait_until(function() return count("sleep 2345") == 1 end)
  w:close()
  w:close()
  wait_until(function() return count("sleep 2345") == 0 end)
  for _, op in ipairs{"run", "run_async", "read_file", "stat", "syscall", "syscall_async"} do
    t:assert_contains(t:assert_raises(function() w[op](w, "getpid") end), "closed")
  end
  t:assert_raises(function() w:ioctl(0, 0) end)
  t:assert_raises(function() w:kill() end)
  t:assert_raises(function() w:join() end)
  t:assert(w:handle() > 0)
end)

test("a worker that dies says how, and the VM goes on", function(t)
  local w = vm:spawn_worker()
  local pid = w:syscall("getpid").ret
  local p = w:run_async("exec sleep 3456")
  wait_until(function() return count("sleep 3456") == 1 end)
  vm:run("kill -9 " .. pid)
  local err = t:assert_raises(function() w:run("true") end)
  for _, part in ipairs{"vm `w`", "worker", "signal 9"} do t:assert_contains(err, part) end
  t:assert_contains(t:assert_raises(function() p:wait() end), "worker")
  wait_until(function() return count("sleep 3456") == 0 end)
  local x = vm:spawn_worker()
  t:assert_contains(t:assert_raises(function() x:syscall("exit_group", 9) end), "exit code 9")
  t:assert_eq(vm:state(), "booted")
end)

local left
test("a test leaves a worker", function(t)
  left = vm:spawn_worker()
  left:run_async("exec sleep 5432")
  wait_until(function() return count("sleep 5432") == 1 end)
end)

test("it ended with that test", function(t)
  t:assert(count("sleep 5432") == 0)
  t:assert_contains(t:assert_raises(function() left:run("true") end), "closed")
end)
