-- Processes that go on: one VM at file scope, shared by every test.

local vm = provium:vm("p", "linux"):boot()

-- How many processes of the guest have a command line that begins so.
local function count(command)
  local found = 0
  for _, line in ipairs(vm:run("ps -o args"):assert_ok():lines()) do
    if line:sub(1, #command) == command then found = found + 1 end
  end
  return found
end

test("a process is waited for, more than once", function(t)
  local p = vm:run_async("echo out; echo err >&2; exit 3")
  local r = p:wait()
  t:assert_eq({r.exit_code, r.stdout, r.stderr, r.status}, {3, "out\n", "err\n", "exited"})
  t:assert_eq(p:status(), "exited")
  t:assert_eq(p:wait("1s").stdout, "out\n")
  t:assert(p:pid() > 1)
  t:assert(p:handle() > 0)
  t:assert_neq(p:handle(), vm:run_async("true"):handle())
  t:assert_contains(tostring(p), "echo out")
  t:assert_eq(vm:run_async("echo", {"$HOME"}):wait().stdout, "$HOME\n")
  t:assert_eq(vm:run_async({"pwd"}, {cwd = "/tmp"}):wait().stdout, "/tmp\n")
end)

test("what can't be waited for", function(t)
  local p = vm:run_async("sleep 1000")
  t:assert_contains(t:assert_raises(function() p:wait(0) end), ":status()")
  local err = t:assert_raises(function() p:wait("50ms") end)
  for _, part in ipairs{"vm `p`", "wait", "sleep 1000", "50ms", "processes.test.lua:"} do t:assert_contains(err, part) end
  t:assert_eq(p:status(), "running")
  p:kill()
  local r = p:wait()
  t:assert_eq({r.exit_code, r.status, r.signal}, {-1, "signalled", 15})
  t:assert_eq(p:status(), "signalled")
  p:kill() -- has no effect, and is no error
  t:assert_contains(t:assert_raises(function() p.wait() end), "colon")
end)

test("a time-out belongs to wait", function(t)
  for _, options in ipairs{{timeout = 1}, {timeout_ms = 5}, {timeout = 0}} do
    t:assert_contains(t:assert_raises(function() vm:run_async("true", options) end), ":wait(")
  end
end)

test("what can't be started", function(t)
  for _, try in ipairs{
    {{"/no/such/program"}, "/no/such/program", "ENOENT"},
    {{"/etc/passwd"}, "/etc/passwd", "EACCES"},
    {"true", {cwd = "/no/such"}, "/no/such", "ENOENT"},
    {"true", {user = "stranger"}, "stranger"},
  } do
    local options = type(try[2]) == "table" and table.remove(try, 2) or nil
    local err = t:assert_raises(function() vm:run_async(try[1], options) end)
    t:assert_contains(err, "run_async")
    for i = 2, #try do t:assert_contains(err, try[i]) end
  end
  t:assert_contains(t:assert_raises(function() vm:run_async("true", {cvd = "/"}) end), "did you mean `cwd`?")
end)

test("signals by number and by name", function(t)
  local script = [[for s in USR1 USR2 HUP; do trap "echo $s" $s; done; echo ready
    while :; do sleep 0.01; done]]
  local p = vm:run_async(script)
  local out = p:stdout_stream()
  out:expect("ready\n")
  for _, pair in ipairs{{"USR1", "USR1"}, {"sigusr2", "USR2"}, {1, "HUP"}} do
    p:signal(pair[1])
    out:expect(pair[2] .. "\n")
  end
  t:assert_contains(t:assert_raises(function() p:kill("TREM") end), "did you mean `TERM`?")
  t:assert_contains(t:assert_raises(function() p:kill(0) end), "0")
  t:assert_contains(t:assert_raises(function() p:signal() end), "sig")
  p:kill("SIGKILL")
  t:assert_eq(p:wait().signal, 9)
end)

test("the whole group gets the signal", function(t)
  local p = vm:run_async("sleep 1234 & sleep 1234 & wait")
  wait_until(function() return count("sleep 1234") == 2 end)
  p:kill("KILL")
  p:wait()
  wait_until(function() return count("sleep 1234") == 0 end)
end)

test("standard input stays open until it is closed", function(t)
  local p = vm:run_async("cat; echo over")
  local out = p:stdout_stream()
  p:stdin_write("one\n")
  t:assert_eq(out:read_until("\n"), "one\n")
  p:stdin_write("two\n")
  t:assert_eq(out:read_until("\n"), "two\n")
  p:stdin_write("")
  p:close_stdin()
  p:close_stdin()
  t:assert_contains(t:assert_raises(function() p:stdin_write("x") end), "closed")
  t:assert_eq(p:wait().stdout, "one\ntwo\nover\n")
  local q = vm:run_async("cat", {stdin = "first "})
  q:stdin_write("then")
  q:close_stdin()
  t:assert_eq(q:wait().stdout, "first then")
end)

test("writing to what nobody reads", function(t)
  local p = vm:run_async("exec <&-; echo closed; sleep 1000")
  p:stdout_stream():expect("closed")
  local err = t:assert_raises(function() p:stdin_write("x") end)
  for _, part in ipairs{"vm `p`", "stdin_write", "EPIPE"} do t:assert_contains(err, part) end
  local q = vm:run_async("true")
  q:wait()
  t:assert_contains(t:assert_raises(function() q:stdin_write("x") end), "EPIPE")
  q:close_stdin()
end)

test("a process that never reads blocks its own writer only", {timeout = "2m"}, function(t)
  local p = vm:run_async("sleep 1000")
  local blocked = ("x"):rep(8 * 1024 * 1024)
  local done
  pcall(parallel, function() p:stdin_write(blocked) end, function()
    for _ = 1, 5 do vm:run("true"):assert_ok() end
    local q = vm:run_async("cat")
    q:stdin_write("through")
    q:close_stdin()
    done = q:wait().stdout
    error("enough")
  end)
  t:assert_eq(done, "through")
  t:assert_eq(p:status(), "running")
  p:close()
end)

test("64 MiB of standard input into a slow reader stay with the host", {timeout = "5m"}, function(t)
  local agent = vm:syscall("getpid").ret
  local function resident()
    return tonumber(vm:read_file("/proc/" .. agent .. "/status"):match("RssAnon:%s+(%d+)"))
  end
  local before = resident()
  local data = ("0123456789abcde\n"):rep(4 * 1024 * 1024)
  local most, result = 0, nil
  parallel(function()
    result = vm:run("head -c 1000000 | wc -c; sleep 1; md5sum", {stdin = data}):assert_ok()
  end, function()
    repeat
      most = math.max(most, resident())
      sleep("50ms")
    until result
  end)
  t:assert_contains(result.stdout, "1000000\n")
  t:assert(most - before < 8 * 1024, "the agent grew by " .. (most - before) .. " KiB")
end)

test("streams begin with the first byte, however late they are opened", function(t)
  local p = vm:run_async("printf 'a\\nb\\n'; echo e >&2; read x; printf \"$x\\nend\"")
  local early = p:stdout_stream()
  early:expect("b\n")
  p:stdin_write("c\n")
  p:close_stdin()
  local r = p:wait()
  local late = p:stdout_stream()
  t:assert_eq(late:next(), "a\nb\nc\nend")
  t:assert_eq(late:next(), nil)
  t:assert(late:eof())
  local lines = {}
  for line in p:stdout_stream():lines() do lines[#lines + 1] = line end
  t:assert_eq(lines, {"a", "b", "c", "end"})
  t:assert_eq(early:read_until("end"), "c\nend")
  t:assert_contains(t:assert_raises(function() early:expect("more") end), "stdout of `printf")
  t:assert_eq(p:stderr_stream():next(), "e\n")
  t:assert_eq(r.stdout, "a\nb\nc\nend")
  t:assert_contains(t:assert_raises(function() p.stdout_stream(vm) end), "process:stdout_stream")
end)

test("close asks first, then kills", function(t)
  local polite = vm:run_async("trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done")
  polite:stdout_stream():expect("up")
  polite:close()
  t:assert_eq(polite:wait().stdout, "up\nbye\n")
  local stubborn = vm:run_async("trap '' TERM; echo up; while :; do sleep 0.01; done")
  stubborn:stdout_stream():expect("up")
  stubborn:close()
  t:assert_eq(stubborn:wait().signal, 9)
  stubborn:close()
end)

test("a hundred processes at once mix nothing", {timeout = "5m"}, function(t)
  local all = {}
  for i = 1, 100 do
    all[i] = vm:run_async(string.format(
      "i=0; while [ $i -lt 50 ]; do echo %d:$i; echo e%d:$i >&2; i=$((i+1)); done; read x; echo $x", i, i))
  end
  for i = 100, 1, -1 do all[i]:stdin_write("in" .. i .. "\n") end
  for i = 1, 100 do
    local out, err = {}, {}
    for n = 0, 49 do
      out[#out + 1] = i .. ":" .. n .. "\n"
      err[#err + 1] = "e" .. i .. ":" .. n .. "\n"
    end
    local stream = all[i]:stderr_stream()
    local r = all[i]:wait()
    t:assert_eq(r.stdout, table.concat(out) .. "in" .. i .. "\n")
    t:assert_eq(r.stderr, table.concat(err))
    t:assert_eq(table.concat(stream:drain()), r.stderr)
  end
end)

-- Nothing may be left of `count` programs: in the agent, in the guest, on the host.
local function leaves_nothing(t, count)
  local agent = vm:syscall("getpid").ret
  local function measure()
    collectgarbage()
    return {
      descriptors = #vm:run("ls /proc/" .. agent .. "/fd"):lines(),
      zombies = vm:run("ps -o stat | grep -c '^Z'"):trim(),
      agent = tonumber(vm:read_file("/proc/" .. agent .. "/status"):match("RssAnon:%s+(%d+)")),
      host = tonumber(io.open("/proc/self/status"):read("a"):match("RssAnon:%s+(%d+)")),
    }
  end
  for _ = 1, 100 do vm:run("true") end
  local before = measure()
  for _ = 1, count do t:assert_eq(vm:run("true").exit_code, 0) end
  local after = measure()
  t:log(json.encode({before, after}))
  t:assert_eq({after.descriptors, after.zombies}, {before.descriptors, before.zombies})
  t:assert(after.agent - before.agent < 256, "the agent grew")
  t:assert(after.host - before.host < 8192, "the host's end grew")
end

test("a thousand programs leave nothing", {timeout = "5m"}, function(t) leaves_nothing(t, 1000) end)

test("ten thousand programs leave nothing", {slow = true, timeout = "60m"}, function(t) leaves_nothing(t, 10000) end)

test("more output than is kept", {timeout = "5m"}, function(t)
  local p = vm:run_async("cat /dev/zero")
  local err = t:assert_raises(function() p:wait() end)
  for _, part in ipairs{"64 MiB", "stdout", "cat /dev/zero"} do t:assert_contains(err, part) end
  wait_until(function() return not vm:run("kill -0 " .. p:pid()):ok() end)
end)

local left
test("a test starts a process", function(t)
  left = vm:run_async("exec sleep 4321")
  wait_until(function() return count("sleep 4321") == 1 end)
end)

test("it ended with that test", function(t)
  t:assert(count("sleep 4321") == 0)
  t:assert_eq(left:status(), "signalled")
end)

test("a guest that goes away takes its processes along", {timeout = "2m"}, function(t)
  local other = provium:vm("gone", "linux")
  for _, op in ipairs{"run_async", "spawn_worker"} do
    t:assert_contains(t:assert_raises(function() other[op](other, "true") end), "created")
  end
  other:boot()
  local p, w = other:run_async("cat"), other:spawn_worker()
  local call = other:syscall_async("pause")
  p:stdin_write("said")
  os.execute("kill -9 " .. other:pid())
  for _, try in ipairs{
    function() p:wait() end,
    function() p:stdin_write("x") end,
    function() p:close_stdin() end,
    function() p:kill() end,
    function() p:close() end,
    function() call:await() end,
    function() w:run("true") end,
    function() w:join() end,
  } do
    t:assert_contains(t:assert_raises(try), "vm `gone`")
  end
  t:assert_eq(p:status(), "signalled")
  w:close()
  -- What is left of that boot says nothing about the next one.
  other:boot()
  for _, try in ipairs{
    function() p:wait() end, function() p:kill() end, function() call:await() end, function() call:await() end,
  } do
    t:assert_contains(t:assert_raises(try), "booted anew")
  end
  t:assert_contains(t:assert_raises(function() w:run("true") end), "closed")
  t:assert_eq(other:state(), "booted")
  t:assert(other:run("true"):ok())
end)
