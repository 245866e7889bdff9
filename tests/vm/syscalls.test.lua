-- System calls, ioctls and memory: one VM at file scope, shared by every test.

local vm = provium:vm("s", "linux"):boot()

local EINVAL, EFAULT, EBADF, ENOENT, ENOSYS, ENOTTY = 22, 14, 9, 2, 38, 25

test("numbers and names", function(t)
  local r = vm:syscall("getpid")
  t:assert(r.ret > 1)
  t:assert_eq(r, {ret = r.ret, result = r.ret, errno = 0, out_bufs = {}})
  t:assert_eq(vm:syscall(39).ret, r.ret)
  t:assert_eq(vm:syscall("close", 12345), {ret = -1, result = -1, errno = EBADF, out_bufs = {}})
  t:assert_eq(vm:syscall(99999).errno, ENOSYS)
  t:assert_eq(vm:syscall(-1).errno, ENOSYS)
end)

test("bad arguments are errors before anything is sent", function(t)
  local function refused(part, ...)
    local values = table.pack(...)
    local err = t:assert_raises(function() vm:syscall(table.unpack(values, 1, values.n)) end)
    t:assert_contains(err, part)
    t:assert_contains(err, "vm:syscall")
  end
  refused("did you mean `getpid`?", "getpd")
  refused("number or name", nil)
  refused("number or name", {})
  refused("both", "getpid", {}, 1) -- both forms
  refused("`bufs`", "getpid", "text")
  refused("a7", "getpid", 1, 2, 3, 4, 5, 6, 7)
  refused("64 bits", "getpid", 1.5)
  refused("args", "getpid", {args = {1, 2, 3, 4, 5, 6, 7}})
  refused("entry 1", "getpid", {bufs = {{}}})
  refused("ptrs", "getpid", {bufs = {"a"}, ptrs = {6}})
  refused("ptrs", "getpid", {bufs = {"a"}, ptrs = {-1}})
  refused("ptrs", "getpid", {bufs = {"a"}, ptrs = {0, 1}})
  refused("twice", "getpid", {bufs = {"a", "b"}, ptrs = {0, 0}})
  refused("parent", "getpid", {bufs = {("\0"):rep(8)}, nested = {{parent = 2, child = 1}}})
  refused("child", "getpid", {bufs = {("\0"):rep(8)}, nested = {{parent = 1, child = 0}}})
  refused("offset", "getpid", {bufs = {("\0"):rep(8)}, nested = {{parent = 1, child = 1, offset = 1}}})
  refused("offset", "getpid", {bufs = {("\0"):rep(8)}, nested = {{parent = 1, child = 1, offset = -1}}})
  refused("missing", "getpid", {bufs = {("\0"):rep(8)}, nested = {{child = 1}}})
  refused("did you mean `bufs`?", "getpid", {buf = {}})
  refused("MiB", "getpid", {bufs = {("x"):rep(16 * 1024 * 1024)}})
end)

test("buffers go in and come out", function(t)
  local r = vm:syscall("openat", {args = {-100, 0, 66, 420}, bufs = {"/tmp/call\0"}, ptrs = {1}})
  local fd = r.ret
  t:assert(fd > 2)
  t:assert_eq(vm:syscall("write", {args = {fd, 0, 5}, bufs = {"bytes"}, ptrs = {1}}).ret, 5)
  r = vm:syscall("pread64", {args = {fd, 0, 8, 0}, bufs = {("-"):rep(8)}, ptrs = {1}})
  t:assert_eq({r.ret, r.out_bufs}, {5, {"bytes---"}})
  t:assert_eq(vm:syscall("close", fd).ret, 0)
  t:assert_eq(vm:syscall("close", fd).errno, EBADF)
  t:assert_eq(vm:run("cat /tmp/call").stdout, "bytes")
  r = vm:syscall("openat", {args = {-100}, bufs = {"/no/such\0"}, ptrs = {1}})
  t:assert_eq({r.ret, r.result, r.errno}, {-1, -1, ENOENT})
end)

test("64 bits are exact, signed and unsigned", function(t)
  local r = vm:syscall("mmap", 0, 4096, 3, 34, -1, 0)
  local address = r.ret
  t:assert(address > 1 << 32)
  t:assert_eq(vm:read_mem(address, 16), ("\0"):rep(16))
  t:assert_eq(vm:syscall("munmap", address, 4096).ret, 0)
  t:assert_eq(vm:syscall("munmap", 2.0 ^ 63, 4096).errno, EINVAL)
  local fd = vm:syscall("memfd_create", {bufs = {"m\0"}, ptrs = {0}}).ret
  t:assert_eq(vm:syscall("lseek", fd, math.maxinteger, 0).ret, math.maxinteger)
  t:assert_eq(vm:syscall("lseek", fd, -1, 1).ret, math.maxinteger - 1)
  vm:syscall("close", fd)
end)

test("pointers inside of buffers", function(t)
  local pipe = vm:syscall("pipe2", {args = {0, 0}, bufs = {("\0"):rep(8)}, ptrs = {0}})
  local reading, writing = string.unpack("<i4i4", pipe.out_bufs[1])
  local iov = string.pack("<i8i8i8i8", 0, 6, 0, 3)
  local r = vm:syscall("writev", {
    args = {writing, 0, 2},
    bufs = {"hello ", iov, "you"},
    ptrs = {false, 1},
    nested = {{parent = 2, child = 1, offset = 0}, {parent = 2, child = 3, offset = 16}},
  })
  t:assert_eq({r.ret, r.errno}, {9, 0})
  r = vm:syscall("read", {args = {reading, 0, 20}, bufs = {("\0"):rep(20)}, ptrs = {1}})
  t:assert_eq(r.out_bufs[1]:sub(1, r.ret), "hello you")
  for _, fd in ipairs{reading, writing} do vm:syscall("close", fd) end
end)

test("a call that writes past its buffer gets EFAULT, and the agent lives", function(t)
  local r = vm:syscall("getrandom", {args = {0, 100000, 0}, bufs = {("\0"):rep(16)}, ptrs = {0}})
  t:assert(r.ret == -1 and r.errno == EFAULT or r.ret < 100000)
  t:assert(vm:run("true"):ok())
end)

test("calls that would end the agent are refused", function(t)
  for _, name in ipairs{"exit", "exit_group", "vfork", "rt_sigreturn"} do
    local err = t:assert_raises(function() vm:syscall(name, 0) end)
    for _, part in ipairs{"vm `s`", "syscall", "agent"} do t:assert_contains(err, part) end
  end
  t:assert_raises(function() vm:syscall("unshare", 0x400) end)
  t:assert_raises(function() vm:syscall("execve") end)
  t:assert_raises(function() vm:syscall("clone", 0x100) end)
  t:assert(vm:syscall("fork").ret > 1)
  t:assert_eq(vm:syscall("close_range", 3, 1000000, 0).ret, 0)
  for fd = 0, 40 do vm:syscall("close", fd) end
  t:assert_eq(vm:run("echo there").stdout, "there\n")
  local p = vm:run_async("cat")
  vm:syscall("close_range", 0, 0xffffffff, 0)
  p:stdin_write("still")
  p:close_stdin()
  t:assert_eq(p:wait().stdout, "still")
end)

test("ioctl", function(t)
  local pipe = vm:syscall("pipe2", {args = {0, 0}, bufs = {("\0"):rep(8)}, ptrs = {0}})
  local reading, writing = string.unpack("<i4i4", pipe.out_bufs[1])
  vm:syscall("write", {args = {writing, 0, 3}, bufs = {"abc"}, ptrs = {1}})
  local FIONREAD = 0x541b
  local r = vm:ioctl(reading, FIONREAD, "\0\0\0\0")
  t:assert_eq({r.ret, r.result, r.errno, r.out_data, r.out_bufs}, {0, 0, 0, string.pack("<i4", 3), {}})
  r = vm:ioctl(reading, 0x5413, ("\0"):rep(8))
  t:assert_eq({r.ret, r.errno}, {-1, ENOTTY})
  t:assert_eq(vm:ioctl(9999, FIONREAD).errno, EBADF)
  t:assert_eq(vm:ioctl(reading, FIONREAD, 0).errno, EFAULT)
  t:assert_eq(vm:ioctl(reading, FIONREAD, 0).out_data, nil)
  for _, try in ipairs{
    {"fd", "x", 1}, {"cmd", 1, "x"}, {"data", 1, 1, {}}, {"ptr_offsets", 1, 1, "data", {bufs = {"x"}, ptr_offsets = {0}}},
    {"ptr_offsets", 1, 1, nil, {bufs = {"x"}, ptr_offsets = {0}}}, {"did you mean", 1, 1, "", {buffs = {}}},
    {"ptr_offsets", 1, 1, ("x"):rep(16), {bufs = {}, ptr_offsets = {0}}},
  } do
    t:assert_contains(t:assert_raises(function() vm:ioctl(try[2], try[3], try[4], try[5]) end), try[1])
  end
  -- SIOCGIFCONF has a pointer in its data: struct ifconf {int len; char *buf}.
  local socket = vm:syscall("socket", 2, 2, 0).ret
  r = vm:ioctl(socket, 0x8912, string.pack("<i8i8", 400, 0), {bufs = {("\0"):rep(400)}, ptr_offsets = {8}})
  t:assert_eq({r.ret, #r.out_bufs[1]}, {0, 400})
  for _, fd in ipairs{reading, writing, socket} do vm:syscall("close", fd) end
end)

test("memory of the agent", function(t)
  local size = 3 * 1024 * 1024
  local address = vm:syscall("mmap", 0, size + 4096, 3, 34, -1, 0).ret
  vm:syscall("mprotect", address + size, 4096, 0)
  local fd = vm:syscall("openat", {args = {-100}, bufs = {"/dev/urandom\0"}, ptrs = {1}}).ret
  t:assert_eq(vm:syscall("read", fd, address, size).ret, size)
  local all = vm:read_mem(address, size)
  t:assert_eq(#all, size)
  t:assert_eq(vm:read_mem(address + 100000, 1000), all:sub(100001, 101000))
  local bytes, errno = vm:read_mem(address, size + 1)
  t:assert_eq({bytes == nil, errno}, {true, EFAULT})
  bytes, errno = vm:read_mem(8, 8)
  t:assert_eq({bytes == nil, errno}, {true, EFAULT})
  bytes, errno = vm:read_mem(-8, 100)
  t:assert_eq({bytes == nil, errno}, {true, EFAULT})
  t:assert_eq(vm:read_mem(address, 0), "")
  t:assert_contains(t:assert_raises(function() vm:read_mem(address, -1) end), "`n`")
  t:assert_contains(t:assert_raises(function() vm:read_mem("x", 1) end), "addr")
  local results = vm:batch(function(b)
    b:read_mem(address, 10)
    b:read_mem(8, 8)
  end)
  t:assert_eq(results[1].ok, all:sub(1, 10))
  t:assert_eq(results[2], {err = "vm `s`: read_mem: `0x8`: EFAULT (bad address)"})
  t:assert_contains(t:assert_raises(function() vm:batch(function(b) b:read_mem(1, "x") end) end), "batch:read_mem")
  vm:syscall("munmap", address, size + 4096)
  vm:syscall("close", fd)
end)

test("calls in flight", function(t)
  local pipe = vm:syscall("pipe2", {args = {0, 0}, bufs = {("\0"):rep(8)}, ptrs = {0}})
  local reading, writing = string.unpack("<i4i4", pipe.out_bufs[1])
  local call = vm:syscall_async("read", {args = {reading, 0, 10}, bufs = {("-"):rep(10)}, ptrs = {1}})
  local err = t:assert_raises(function() call:await("50ms") end)
  for _, part in ipairs{"vm `s`", "await", "read", "50ms"} do t:assert_contains(err, part) end
  t:assert(vm:run("true"):ok(), "the others go on")
  vm:syscall("write", {args = {writing, 0, 3}, bufs = {"now"}, ptrs = {1}})
  local r = call:await()
  t:assert_eq({r.ret, r.result, r.errno, r.out_bufs}, {3, 3, 0, {"now-------"}})
  t:assert_eq(call:await().ret, 3)
  t:assert_contains(t:assert_raises(function() vm:syscall_async("nosuchcall") end), "vm:syscall_async")
  t:assert_raises(function() vm:syscall_async("exit_group"):await() end)
  for _, fd in ipairs{reading, writing} do vm:syscall("close", fd) end
end)

local blocked
test("a call that blocks ends with its test", {timeout = "30s"}, function(t)
  local pipe = vm:syscall("pipe2", {args = {0, 0}, bufs = {("\0"):rep(8)}, ptrs = {0}})
  blocked = string.unpack("<i4", pipe.out_bufs[1])
  local call = vm:syscall_async("read", {args = {blocked, 0, 10}, bufs = {("-"):rep(10)}, ptrs = {1}})
  pcall(parallel, function() vm:syscall("read", {args = {blocked, 0, 1}, bufs = {"-"}, ptrs = {1}}) end,
    function() sleep("200ms") error("enough") end)
  t:assert(vm:run("true"):ok(), "the call that was given up does not hold the VM")
end)

test("no call is left", function(t)
  local agent = vm:syscall("getpid").ret
  wait_until(function() return not vm:run("cat /proc/" .. agent .. "/task/*/comm"):lines()[4] end, {desc = "the threads' end"})
  t:assert(vm:run("true"):ok())
end)

test("identity and directories stick to the thread that forks", function(t)
  t:assert_eq(vm:syscall("chdir", {bufs = {"/tmp\0"}, ptrs = {0}}).ret, 0)
  t:assert_eq(vm:run("pwd").stdout, "/tmp\n")
  t:assert_eq(vm:run("pwd", {cwd = "/etc"}).stdout, "/etc\n")
  vm:syscall("chdir", {bufs = {"/\0"}, ptrs = {0}})
  local w = vm:spawn_worker()
  t:assert_eq(vm:syscall("setresuid", -1, 1000, -1).ret, 0)
  t:assert_eq(vm:run("id -u"):trim(), "1000")
  t:assert_eq(vm:syscall_async("geteuid"):await().ret, 1000)
  t:assert_eq(vm:syscall("setresuid", -1, 0, -1).ret, 0)
  t:assert_eq(vm:run("id -u"):trim(), "0")
  t:assert_eq(w:run("id -u"):trim(), "0")
end)

test("a batch is done in order, and a failure stays its own", function(t)
  local results = vm:batch(function(b)
    t:assert_eq(b:syscall("getpid"), 1)
    b:run("echo one > /tmp/batch; exit 3")
    b:run({"cat", "/tmp/batch"})
    b:run({"/no/such"})
    b:syscall("close", 9999)
    b:ioctl(9999, 1)
    for _ = 1, 50 do b:syscall("getppid") end
  end)
  t:assert_eq(#results, 56)
  t:assert_eq(results[1].ok.ret, vm:syscall("getpid").ret)
  t:assert_eq(results[2].ok.exit_code, 3)
  t:assert_eq(results[3].ok.stdout, "one\n")
  t:assert_eq(results[4].ok, nil)
  t:assert_match(results[4].err, "^vm `s`: run: `/no/such`: ENOENT")
  t:assert_eq(results[5].ok.errno, EBADF)
  t:assert_eq(results[6].ok.errno, EBADF)
  t:assert_eq(vm:batch(function() end), {})
  t:assert_contains(t:assert_raises(function() vm:batch(function(b) b:ioctl("x") end) end), "batch:ioctl")
  t:assert_contains(t:assert_raises(function() vm:batch(function(b) b:syscall("getpd") end) end), "did you mean `getpid`?")
  t:assert_contains(t:assert_raises(function() vm:batch(function(b) b:run() end) end), "batch:run")
  t:assert_contains(t:assert_raises(function() vm:batch() end), "vm:batch")
  t:assert_eq(t:assert_raises(function() vm:batch(function() error({code = 7}) end) end), {code = 7})
  local kept
  vm:batch(function(b) kept = b end)
  t:assert_contains(t:assert_raises(function() kept:run("true") end), "over")
end)

test("a status that a test's own wait collects is missed, not waited for", function(t)
  local p = vm:run_async("exec sleep 1000")
  -- WNOWAIT is not set: the call takes the status before the agent sees it, or ECHILD tells that the agent was first.
  local call = vm:syscall_async("wait4", {args = {p:pid(), 0, 0, 0}, bufs = {("\0"):rep(4)}, ptrs = {1}})
  t:assert_raises(function() call:await("200ms") end)
  p:kill("KILL")
  local r = call:await()
  local ok, value = pcall(p.wait, p)
  if ok then
    t:assert_eq({value.signal, r.errno}, {9, 10})
  else
    t:assert_eq(r.ret, p:pid())
    t:assert_contains(value, "collected its status")
  end
  t:assert_neq(p:status(), "running")
end)

test("files in a batch", function(t)
  local data = ("0123456789"):rep(300000)
  local results = vm:batch(function(b)
    b:mkdir("/tmp/batch.d", {perm = tonumber("750", 8)})
    b:write_file("/tmp/batch.d/a", data)
    b:stat("/tmp/batch.d/a")
    b:rename("/tmp/batch.d/a", "/tmp/batch.d/b")
    b:read_file("/tmp/batch.d/b")
    b:exists("/tmp/batch.d/a")
    b:listdir("/tmp/batch.d")
    b:unlink("/tmp/batch.d/b")
    b:read_file("/tmp/batch.d/b")
    b:lstat("/tmp/batch.d")
  end)
  t:assert_eq({results[1], results[2], results[4], results[8]}, {{ok = true}, {ok = true}, {ok = true}, {ok = true}})
  t:assert_eq(results[3].ok.size, #data)
  t:assert(results[5].ok == data)
  t:assert_eq(results[6], {ok = false})
  t:assert_eq(results[7], {ok = {{name = "b", entry_type = "file"}}})
  t:assert_match(results[9].err, "^vm `s`: read_file: `/tmp/batch.d/b`: ENOENT")
  t:assert_eq(results[10].ok.entry_type, "directory")
  for _, op in ipairs{"read_file", "write_file", "stat", "lstat", "exists", "listdir", "mkdir", "unlink", "rename"} do
    t:assert_contains(t:assert_raises(function() vm:batch(function(b) b[op](b) end) end), "batch:" .. op)
  end
end)
