-- Lua's own library: what is as everywhere, and what ends with a test.

local function raises(t, pattern, fn, ...)
  local args = table.pack(...)
  local err = t:assert_raises(function() fn(table.unpack(args, 1, args.n)) end)
  t:assert_match(err, "^library%.test%.lua:%d+: ")
  t:assert_contains(err, pattern)
end

local function lives(pid)
  local stat = io.open("/proc/" .. pid .. "/stat")
  if not stat then return false end
  local text = stat:read("a")
  stat:close()
  return not text:find(") Z ", 1, true)
end

test("os.execute tells how the program ended", function(t)
  t:assert_eq({os.execute("true")}, {true, "exit", 0})
  t:assert_eq({os.execute("exit 3")}, {nil, "exit", 3})
  t:assert_eq({os.execute("kill -9 $$")}, {nil, "signal", 9})
  t:assert_eq({os.execute()}, {true})
  t:assert_eq({os.execute("no-such-program-at-all 2>/dev/null")}, {nil, "exit", 127})
  raises(t, "`command`: expected a string", os.execute, {})
end)

test("what programs write goes to the log", function(t)
  print("before")
  os.execute("echo out; echo err >&2")
  io.stdout:write("direct ", 1, "\n")
  io.stderr:write("err ", 1.5, "\n")
  assert(io.popen("echo complaint >&2", "r")):close()
  local sink = io.popen("cat", "w")
  sink:write("through cat\n")
  sink:close()
end)

test("io.popen reads", function(t)
  local f = io.popen("printf 'one\\ntwo\\n12 0x10 rest'")
  t:assert_eq({io.type(f), f:read(), f:read("L"), f:read("n", "n"), f:read("a"), f:read("a"), f:read()},
    {"file", "one", "two\n", 12, " rest", ""})
  t:assert_eq({f:close()}, {true, "exit", 0})
  t:assert_eq({io.type(f), tostring(f)}, {"closed file", "file (closed)"})
  raises(t, "attempt to use a closed file", f.read, f)
  raises(t, "attempt to use a closed file", f.close, f)
  raises(t, "attempt to use a closed file", f.lines, f)
  raises(t, "attempt to use a closed file", f.write, f, "x")
  raises(t, "attempt to use a closed file", f.flush, f)
  raises(t, "attempt to use a closed file", f.seek, f)
  raises(t, "attempt to use a closed file", f.setvbuf, f, "no")
  t:assert_eq({io.popen("exit 4"):close()}, {nil, "exit", 4})
  t:assert_eq(io.popen("printf abc"):read(2, 0, 5), "ab")
  local lines = {}
  for line in io.popen("printf 'a\\nb'"):lines() do lines[#lines + 1] = line end
  t:assert_eq(lines, {"a", "b"})
  local big = io.popen("head -c 300000 /dev/zero")
  t:assert_eq(#big:read("a"), 300000)
  raises(t, "`format`: expected \"n\", \"a\", \"l\", \"L\" or a number, found \"x\"", big.read, big, "x")
  raises(t, "`format`: ", big.lines, big, "x")
  t:assert_eq({big:write("x")}, {nil, "Bad file descriptor", 9})
  t:assert_eq(select(3, big:seek("set")), 29)
  t:assert_eq({big:flush() == big, big:setvbuf("no")}, {true, true})
  raises(t, "`mode`: expected \"r\" or \"w\", found \"rw\"", io.popen, "true", "rw")
  raises(t, "`prog`: expected a string", io.popen)
end)

test("io.popen writes", function(t)
  local path = os.tmpname()
  local f = io.popen("cat > " .. path, "w")
  t:assert_eq(f:write("a", 1, 2.5, "\n"):write(string.rep("x", 200000)), f)
  t:assert_eq({f:read()}, {nil, "Bad file descriptor", 9})
  raises(t, "`value`: expected a string or a number, found {}", f.write, f, {})
  t:assert_eq({f:close()}, {true, "exit", 0})
  local text = io.open(path):read("a")
  t:assert_eq({#text, text:sub(1, 6)}, {200006, "a12.5\n"})
  os.remove(path)
  local gone = io.popen("exec true", "w")
  local ok, message, errno
  repeat ok, message, errno = gone:write("x") until not ok
  t:assert_eq({message, errno}, {"Broken pipe", 32})
  do
    local closed <close> = io.popen("cat >/dev/null", "w")
    kept = closed
  end
  t:assert_eq(io.type(kept), "closed file")
end)

test("programs wait side by side in parallel", function(t)
  local order, sign = {}, os.tmpname()
  parallel(
    function()
      assert(os.execute("until [ -s " .. sign .. " ]; do sleep 0.01; done"))
      order[#order + 1] = "slow"
    end,
    function()
      order[#order + 1] = io.popen("sleep 0.05; echo quick"):read()
      io.open(sign, "w"):write("go"):close()
    end)
  os.remove(sign)
  t:assert_eq(order, {"quick", "slow"})
end)

local background
test("leaves programs behind", function(t)
  background = io.popen("sleep 1000 >/dev/null 2>&1 & echo $!; setsid sleep 1000 >/dev/null 2>&1 & echo $!"):read("a")
  for pid in background:gmatch("%d+") do t:assert(lives(pid), pid) end
  t:assert_eq({os.execute("sleep 1000 &")}, {true, "exit", 0})
end)
test("they are gone", function(t)
  local count = 0
  for pid in background:gmatch("%d+") do
    t:assert(not lives(pid), pid)
    count = count + 1
  end
  t:assert_eq(count, 2)
end)

local server = io.popen("echo ready; exec sleep 1000")
t_pid = server:read()
test("a program of file scope lives on", function(t)
  t:assert_eq(t_pid, "ready")
  t:assert_eq(io.type(server), "file")
end)

test("io.write, io.output, io.close, io.type", function(t)
  t:assert_eq(io.write("chain"):write(" of writes\n"), io.stdout)
  t:assert_eq(io.output(), io.stdout)
  local path = os.tmpname()
  local file = io.output(path)
  io.write("into ", 7)
  t:assert_eq({io.type(file), io.type(io.stdout), io.type(5)}, {"file", "file", nil})
  t:assert_eq(io.close(), true)
  raises(t, "closed file", io.write, "x")
  io.output(io.stdout)
  t:assert_eq(io.open(path):read("a"), "into 7")
  os.remove(path)
  t:assert_eq(io.close(io.popen("true")), true)
  raises(t, "expected a string or a number, found {}", io.write, {})
  raises(t, "`file`: expected a file or its name, found 5", io.output, 5)
  raises(t, "expected a string or a number", io.stdout.write, io.stdout, {})
  raises(t, "only be written", io.stdout.lines, io.stdout)
  t:assert_eq(select(2, io.stdout:read()), "Bad file descriptor")
  t:assert_eq(select(3, io.stdout:seek()), 9)
  t:assert_eq(io.stdout:flush(), io.stdout)
  t:assert_eq(io.stdout:setvbuf("full"), true)
  t:assert_eq(select(2, io.stdout:close()), "Bad file descriptor")
  raises(t, "called on 5", io.stdout.write, 5)
  raises(t, "called on 5", io.stdout.flush, 5)
end)

test("standard input is empty", function(t)
  t:assert_eq({io.read(), io.read("a"), io.stdin:read()}, {nil, "", nil})
end)

test("the rest of the library is Lua's own", function(t)
  t:assert_eq(debug.getinfo(1, "l").currentline, 156)
  t:assert_match(debug.traceback("msg"), "^msg\nstack traceback:\n.*library%.test%.lua:157: in ")
  t:assert_eq({math.type(1), utf8.len("aé"), string.pack("<I2", 258), select("#", table.unpack({}, 1, 3))}, {"integer", 2, "\2\1", 3})
  t:assert_eq(type(os.time()), "number")
  t:assert_eq(os.getenv("NO_SUCH_VARIABLE_AT_ALL"), nil)
  t:assert_eq(load("return 1 + 1")(), 2)
  raises(t, "os.exit: a test can't end the run", os.exit, true)
end)

test("debug.sethook beside the deadline's own hook", function(t)
  t:assert_eq(debug.gethook(), nil)
  local lines, counts = {}, 0
  debug.sethook(function(event, line) lines[#lines + 1] = {event, line} end, "l")
  local x = 1
  t:assert_eq(select(2, debug.gethook()), "l")
  debug.sethook(function() counts = counts + 1 end, "", 100)
  for i = 1, 10000 do x = x + i end
  debug.sethook()
  t:assert_eq(lines[1][1], "line")
  t:assert_eq(lines[2][2] - lines[1][2], 1)
  t:assert(counts > 50, counts)
  raises(t, "`hook`: expected a function, found 5", debug.sethook, 5)
  raises(t, "`count`: expected a whole number, found \"x\"", debug.sethook, print, "l", "x")
  t:assert_eq({xpcall(error, function(e) return e .. "!" end, "x")}, {false, "x!"})
  t:assert_match(select(2, xpcall(error, debug.traceback, "x")), "^x\nstack traceback:")
end)

test("modules", function(t)
  package.preload["made.here"] = function(name, extra) return {name, extra} end
  t:assert_eq(require("made.here"), {"made.here", ":preload:"})
  local greet, where = require("helper.greet")
  t:assert_eq({greet("x"), where}, {"hello x", "helper/greet.lua"})
  t:assert_eq(require("helper.greet"), greet)
  raises(t, "module 'no.such' not found", require, "no.such")
  raises(t, "bad argument #1", require)
  local ok, err = pcall(require, "helper.broken")
  t:assert_eq(type(err), "string")
  t:assert_match(err, "helper/broken%.lua:3: ")
  -- A module that failed can be tried again.
  for _ = 1, 2 do
    local raised = t:assert_raises(function() require("helper.fails") end)
    t:assert_eq(raised, {code = 5})
  end
  package.path = "./helper/?.lua"
  t:assert_eq(require("greet")("y"), "hello y")
end)

test("errors in a helper point into it", function(t)
  local helper = require("helper.calls")
  t:assert_match(t:assert_raises(function() helper.bad_sleep() end), "^helper/calls%.lua:4: sleep: ")
  t:assert_match(t:assert_raises(function() table.sort({1, 2}, helper.bad_sleep) end), "^helper/calls%.lua:4: sleep: ")
end)
