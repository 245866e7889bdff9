-- Kernel reports that are really made by the kernel, by the module `provoke`.

local vm = provium:vm("shared", "linux", {load_modules = {"provoke"}}):boot()

-- Expects a report of `word`, and gives its text.
local function provoke(word, pattern)
  return vm:expect_splat(pattern or word, function() vm:run("echo " .. word .. " > /proc/provoke") end)
end

test("a hung task", function(t)
  vm:run("echo 1 > /proc/sys/kernel/hung_task_timeout_secs"):assert_ok()
  local text = provoke("hungtask 4", {pattern = "^INFO: task sh:%d+ blocked for more than 1 seconds%."})
  t:assert_match(text, "\n </TASK>\n$")
  vm:run("echo 0 > /proc/sys/kernel/hung_task_timeout_secs"):assert_ok()
end)

test("a warning is one report, from its first line to its last", function(t)
  local text = provoke("warn 3", "provoked warning 3")
  t:assert_match(text, "^%-+%[ cut here %]%-+\nprovoked warning 3\nWARNING: CPU: 0 PID: %d+ at provoke%.c:%d+ provoke_warn")
  t:assert_match(text, "\n%-%-%-%[ end trace %x+ %]%-%-%-\n$")
  t:assert_eq(select(2, text:gsub("WARNING:", "")), 1)
end)

test("a bug without an oops", function(t)
  t:assert_match(provoke("atomic", "BUG: scheduling while atomic"), "^BUG: scheduling while atomic: sh/%d+/.*\n </TASK>\n$")
end)

test("a soft lockup and a stall", function(t)
  vm:run("echo 1 > /proc/sys/kernel/watchdog_thresh"):assert_ok()
  t:assert_match(provoke("softlockup 5", "soft lockup"), "^watchdog: BUG: soft lockup %- CPU#0 stuck for ")
  vm:run("echo 10 > /proc/sys/kernel/watchdog_thresh; echo 3 > /sys/module/rcupdate/parameters/rcu_cpu_stall_timeout")
  t:assert_match(provoke("rcustall 5", "rcu_preempt"), "^rcu: INFO: rcu_preempt .*stall")
end)

test("several reports: the one that matches is found", function(t)
  local text = vm:expect_splat("provoked warning 12", function()
    for number = 11, 13 do vm:run("echo warn " .. number .. " > /proc/provoke") end
  end)
  t:assert_contains(text, "provoked warning 12")
end)

test("what a program writes is no kernel report", {splats = "fail"}, function(t)
  vm:run("echo 'BUG: of a program' > /dev/kmsg; echo '<0>WARNING: CPU: 0 PID: 1 at x.c:1' > /dev/kmsg"):assert_ok()
  vm:run("echo '[    9.000000] BUG: on the console' > /dev/console"):assert_ok()
end)

test("reports are logged where the test says so", {splats = "log"}, function(t)
  vm:run("echo warn 21 > /proc/provoke")
end)

test("an expected report fails no test", {splats = "fail"}, function(t)
  provoke("warn 31", "provoked warning 31")
end)

test("a failed operation that the report explains is no error", function(t)
  provoke("oops", "BUG: kernel NULL pointer dereference")
  local text = vm:expect_splat("BUG: kernel NULL", function() vm:run("echo oops > /proc/provoke"):assert_ok() end)
  t:assert_match(text, "\nOops: 0000 %[#%d+%].*\n%-%-%-%[ end trace")
  t:assert_match(provoke("gpf", "general protection fault"), "^general protection fault, probably for")
  t:assert_match(provoke("divide", "divide error"), "^divide error: 0000 ")
  t:assert_match(provoke("bug", "kernel BUG at"), "^%-+%[ cut here %]%-+\nkernel BUG at provoke.c:")
  t:assert_match(provoke("list", "list_del corruption"), "^list_del corruption.*kernel BUG at lib/list_debug%.c")
  t:assert_contains(vm:expect_splat("Comm: provoke", function() vm:run("echo oops_thread > /proc/provoke") end), "Oops")
end)

test("no report, another report, the function's own error", function(t)
  local function raises(fn, ...)
    local err = t:assert_raises(fn)
    for _, part in ipairs{...} do t:assert_contains(err, part) end
    return err
  end
  raises(function() vm:expect_splat("x", function() end, {timeout = "200ms"}) end,
    "vm `shared`: expect_splat \"x\": no kernel report matched within 200ms: none came")
  raises(function()
    vm:expect_splat("something else", function() vm:run("echo warn 41 > /proc/provoke") end, {timeout = "200ms"})
  end, "these came instead:", "WARNING: CPU: ", "provoke_warn")
  raises(function() vm:expect_splat("x", function() error("own error") end) end, "own error")
  raises(function() vm:expect_splat("x") end, "vm:expect_splat: `fn`: expected a function")
  raises(function() vm:expect_splat("", function() end) end, "pattern")
  raises(function() vm:expect_splat("x", function() end, {timeot = 1}) end, "did you mean `timeout`?")
  raises(function() provium:vm("idle", "linux"):expect_splat("x", function() end) end, "not booted")
end)

test("the log is followed across a reset, and after a pause", {splats = "fail"}, function(t)
  local own = provium:vm("own", "linux", {load_modules = {"provoke"}}):boot()
  local function warn(number)
    own:expect_splat("provoked warning " .. number, function() own:run("echo warn " .. number .. " > /proc/provoke") end)
  end
  warn(51)
  own:reset()
  t:assert_eq(own:dmesg("provoked"), "")
  warn(51)
  own:pause()
  own:resume()
  warn(52)
  own:pause()
end)

test("a panic counts, and the guest stays there to be looked at", {splats = "fail"}, function(t)
  t:assert_contains(provoke("panic 7", "provoked panic 7"), "Kernel panic - not syncing: provoked panic 7")
  t:assert_eq(vm:state(), "dead")
  t:assert(vm:pid() == nil or vm:pid() > 1)
  t:assert_contains(vm:console():read_log(), "provoked panic 7")
end)

test("a panic that is another", function(t)
  local own = provium:vm("own", "linux", {load_modules = {"provoke"}}):boot()
  local err = t:assert_raises(function()
    own:expect_splat("provoked panic 8", function() own:run("echo panic 9 > /proc/provoke") end)
  end)
  t:assert_contains(err, "before the guest went away")
  t:assert_contains(err, "provoked panic 9")
end)
