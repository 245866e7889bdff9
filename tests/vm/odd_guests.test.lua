-- Guests that lack what others have. Each boots once, and is asked for what must work in any guest.

local function raises(t, vm, fn, ...)
  local err = t:assert_raises(fn)
  for _, part in ipairs{"vm `" .. vm:name() .. "`", ...} do t:assert_contains(err, part) end
end

local function console(t, vm, words)
  wait_until(function() return vm:console():read_log():find(words, 1, true) end, {desc = words, timeout = "60s"})
end

test("init has mounted nothing", function(t)
  local vm = provium:vm("v", "nothing-mounted"):boot()
  console(t, vm, "odd guest: nothing-mounted is up")
  t:assert_eq(vm:run("echo $0; cat", {stdin = "in"}).stdout, "/bin/sh\nin")
  t:assert_eq(vm:run({"true"}).exit_code, 0)
  -- Nothing of the agent's own mounts shows.
  t:assert_eq(vm:run("ls -A /proc /sys /dev"):assert_fails().stdout, "/dev:\nconsole\n")
  raises(t, vm, function() vm:read_file("/proc/version") end, "/proc/version", "ENOENT")
  vm:write_file("/data", "bytes\0", {mode = tonumber("640", 8)})
  t:assert_eq(vm:run("stat -c %a /data"):trim(), "640")
  t:assert_eq(vm:read_file("/data"), "bytes\0")
  t:assert_eq(vm:run("exit 3").exit_code, 3)
  t:assert_eq(vm:run("sleep 1000", {timeout = "300ms"}).timed_out, true)
  t:assert_eq(vm:run("ls -A /"):assert_ok():lines(), {"bin", "data", "dev", "init", "root"})
  vm:shutdown()
  t:assert_eq(vm:state(), "shutdown")
end)

test("the root is read-only", function(t)
  local vm = provium:vm("v", "read-only"):boot()
  console(t, vm, "odd guest: read-only is up")
  t:assert_eq(vm:read_file("/etc/root"), "read-only\n")
  raises(t, vm, function() vm:write_file("/etc/root", "x") end, "/etc/root", "EROFS")
  raises(t, vm, function() vm:write_file("/tmp/x", "x") end, "/tmp/x", "EROFS")
  t:assert_eq(vm:run("cat /etc/root"):assert_ok():trim(), "read-only")
  t:assert_contains(vm:run("echo > /tmp/x"):assert_fails().stderr, "Read-only file system")
  t:assert_eq(vm:run("cat", {stdin = ("x"):rep(200000)}).stdout, ("x"):rep(200000))
end)

test("the agent follows init into another root", function(t)
  local vm = provium:vm("v", "switch-root"):boot()
  console(t, vm, "waiting in the first root")
  raises(t, vm, function() vm:read_file("/etc/root") end, "ENOENT")
  vm:write_file("/first", "")
  local w, stays = vm:spawn_worker(), vm:spawn_worker()
  t:assert(w:stat("/first"))
  t:assert_eq(stays:syscall("chroot", {args = {0}, bufs = {"/new/etc\0"}, ptrs = {0}}).ret, 0)
  vm:run("touch /go-on"):assert_ok()
  console(t, vm, "odd guest: switch-root is up")
  t:assert_eq({w:read_file("/etc/root"), w:run("cat etc/root").stdout}, {"switch-root\n", "switch-root\n"})
  t:assert_eq(stays:read_file("/root"), "switch-root\n")
  t:assert_eq(vm:read_file("/etc/root"), "switch-root\n")
  t:assert_eq(vm:run("cat etc/root; ls /first"):assert_fails().stdout, "switch-root\n")
  vm:write_file("/tmp/second", "2")
  t:assert_eq(vm:run("cat /tmp/second"):trim(), "2")
  -- PID 1 is the second init, and the first root is empty: switch_root found nothing of the agent's in its way.
  vm:run("mount -t proc proc /proc"):assert_ok()
  t:assert_contains(vm:read_file("/proc/1/cmdline"), "switch-root")
  vm:shutdown()
end)

test("the agent follows init into an overlay", function(t)
  local vm = provium:vm("v", "overlay", {load_modules = {"overlay"}}):boot()
  console(t, vm, "waiting in the first root")
  vm:write_file("/go-on", "")
  console(t, vm, "odd guest: overlay is up")
  t:assert_eq(vm:read_file("/etc/root"), "overlay\n")
  vm:write_file("/etc/root", "written")
  t:assert_eq(vm:run("cat /etc/root").stdout, "written")
  vm:run("mount -t proc proc /proc"):assert_ok()
  t:assert_match(vm:read_file("/proc/mounts"), "overlay / overlay ")
end)

test("a static program is the whole guest", function(t)
  local vm = provium:vm("v", "bare"):boot()
  console(t, vm, "bare guest: up")
  raises(t, vm, function() vm:run("true") end, "/bin/sh", "ENOENT")
  t:assert_eq(vm:run({"/init", "echo", "a", "b"}).stdout, "a b\n")
  t:assert_eq(vm:run({"/init", "exit", "7"}).exit_code, 7)
  t:assert_eq(vm:run({"/init", "cat"}, {stdin = "through"}).stdout, "through")
  t:assert_eq(vm:run("/init", {args = {"sleep"}, timeout = "300ms"}).timed_out, true)
  t:assert_contains(vm:run({"/init", "nonsense"}):assert_fails().stderr, "unknown act `nonsense`")
  raises(t, vm, function() vm:write_file("/tmp/x", "x") end, "/tmp/x", "ENOENT")
  raises(t, vm, function() vm:run({"/init"}, {user = "root"}) end, "root", "/etc/passwd")
  vm:write_file("/x", ("\0\255"):rep(500000))
  t:assert_eq(#vm:read_file("/x"), 1000000)
  t:assert_eq(vm:run({"/init", "echo"}, {user = "1000:1000"}).stdout, "\n")
end)

test("a systemd that sleeps is waited for until it listens", function(t)
  local vm = provium:vm("v", "bare-systemd"):boot()
  t:assert_eq(vm:read_file("/run/systemd/private"), "")
end)

local function each_compression(t)
  for _, ending in ipairs{"gz", "bz2", "lzma", "xz", "lzo", "lz4", "zst"} do
    local vm = provium:vm(ending, "bare-" .. ending):boot()
    t:assert_eq(vm:run({"/init", "echo", ending}).stdout, ending .. "\n")
    vm:shutdown()
  end
end

-- The guest's init could still bring the driver, so the agent's time is waited for to its end: the other branch uses it.
local function no_driver(t)
  local vm = provium:vm("no-driver", "no-driver", {agent_timeout = "30s"})
  local err = t:assert_raises(function() vm:boot() end)
  for _, part in ipairs{"vm `no-driver`", "no virtio-serial port", "CONFIG_VIRTIO_CONSOLE=y", "`modules`"} do
    t:assert_contains(err, part)
  end
end

test("an initrd in each compression; a kernel without a driver for the agent's port", function(t)
  parallel(function() each_compression(t) end, function() no_driver(t) end)
end)

test("an initrd of many parts", function(t)
  local vm = provium:vm("v", "parts"):boot()
  t:assert_eq(vm:read_file("/kernel/x86/microcode/readme"), "no microcode\n")
  for _, part in ipairs{"plain", "gz", "bz2", "lzma", "xz", "lzo", "zst", "lz4"} do
    t:assert_eq(vm:read_file("/parts/" .. part), "from the part " .. part .. "\n")
  end
  t:assert_eq(vm:run({"/init", "echo", "up"}).stdout, "up\n")
end)

test("no initrd and no init", function(t)
  local vm = provium:vm("v", "no-initrd", {files = {{path = "/etc/here", content = "before"}}}):boot()
  t:assert_contains(vm:read_file("/proc/1/status"), "Pid:\t1\n")
  t:assert_eq(vm:read_file("/etc/here"), "before")
  raises(t, vm, function() vm:run("true") end, "/bin/sh", "ENOENT")
  vm:write_file("/tmp/x", "x")
  t:assert_eq(vm:read_file("/tmp/x"), "x")
  t:assert_contains(vm:read_file("/proc/mounts"), "devtmpfs /dev ")
end)

test("an init that exits", function(t)
  local vm = provium:vm("v", "exits")
  t:assert_contains(t:assert_raises(function() vm:boot() end), "Attempted to kill init")
  t:assert_eq(vm:state(), "dead")
  t:assert_contains(vm:console():read_log(), "odd guest: this init exits")
end)

test("an init that panics", function(t)
  local err = t:assert_raises(function() provium:vm("v", "panics"):boot() end)
  t:assert_contains(err, "sysrq triggered crash")
end)

test("a kernel without a serial port speaks on hvc0", function(t)
  local vm = provium:vm("v", "no-serial"):boot()
  vm:run("echo words on the console > /dev/console"):assert_ok()
  local err = t:assert_raises(function() vm:run("echo c > /proc/sysrq-trigger; sleep 1000") end)
  t:assert_contains(err, "sysrq triggered crash")
  t:assert_contains(err, "| [")
end)

test("the agent outlives a guest without memory", function(t)
  local vm = provium:vm("v", "linux", {memory = "256M"}):boot()
  t:assert_eq(vm:run("cat /proc/self/oom_score_adj"):trim(), "0")
  t:assert_eq(vm:run("cat /proc/$(pidof @provium-agent)/oom_score_adj"):assert_ok():trim(), "-1000")
  -- Memory of files is nobody's, so the kernel finds the writer small. Its end frees the file with its mount namespace.
  local fill = "mount -t tmpfs -o size=100% tmpfs /mnt && exec dd if=/dev/zero of=/mnt/x bs=64k"
  local r = vm:run({"unshare", "-m", "sh", "-c", fill})
  t:assert_eq({r.status, r.signal}, {"signalled", 9})
  t:assert_contains(vm:run("dmesg"):assert_ok().stdout, "Out of memory: Killed process")
end)
