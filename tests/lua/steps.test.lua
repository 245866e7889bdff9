-- Steps, KTAP, assertions in branches, metadata: what passes.

test("a step gives the results of its function, and nests", function(t)
  local a, b, c = t:step("outer", function(inner)
    t:assert_eq(inner.name, t.name)
    return t:step("inner", function() return 1, nil, 3 end)
  end)
  t:assert_eq({a, b, c}, {1, nil, 3})
  t:step("after", function() end)
  t:assert_contains(t:assert_raises(function() t:step("", function() end) end), "`name`")
  t:assert_match(t:assert_raises(function() t:step("x") end), "^steps%.test%.lua:11: t:step: `fn`: expected a function")
end)

test("steps in branches belong to their branch", function(t)
  local told = {}
  local function wait_for(name) while not told[name] do sleep("1ms") end end
  t:step("both", function() parallel(
      function() t:step("left", function() told.left = true; wait_for("right"); t:step("in left", function() end) end) end,
      function() wait_for("left"); t:step("right", function() end); told.right = true end) end)
  parallel(
    function() t:step("slow", function() told.slow = true; wait_for("alone") end) end,
    function() wait_for("slow"); t:step("alone", function() end); told.alone = true end)
end)

test("an expected failure of a step is none", function(t)
  local err = t:assert_raises(function() t:step("fails", function() error("why", 0) end) end)
  t:assert_eq(err, "why")
end)

test("the results of KTAP text", function(t)
  local summary = t:ktap("KTAP version 1\n1..2\n    KTAP version 1\n    # Subtest: s\n    1..2\n    ok 1 a\n"
    .. "    ok 2 b # SKIP no b\nok 1 s\nok 2 lone\n")
  t:assert_eq({summary.total, summary.passed, summary.failed, summary.skipped}, {3, 2, 0, 1})
  t:assert_eq(summary.results[2], {name = "s > b", status = "skipped", message = "no b"})
  t:step("in a step", function() t:ktap("1..1\nok 1 - c\n") end)
  local err = t:assert_raises(function() t:ktap("no results here") end)
  t:assert_contains(err, "no KTAP or TAP result")
  t:assert_contains(t:assert_raises(function() t:ktap() end), "`text`: expected a string, found nil")
end)

test("a failed assertion in one branch counts while another is in assert_raises", function(t)
  local failed
  local err = t:assert_raises(function()
    -- All of this is inside: in branches, in coroutines of branches.
    parallel(
      function() pcall(function() t:fail("swallowed in a branch") end) end,
      function()
        local co = coroutine.wrap(function() pcall(t.fail, t, "swallowed in a coroutine"); coroutine.yield(); t:fail("expected") end)
        co(); sleep("5ms"); co()
      end)
  end)
  t:assert_match(err, "^steps%.test%.lua:49: steps%.test%.lua:48: expected$") -- coroutine.wrap adds the first
end)

test("a branch that only passes a call on is told at the line of parallel", function(t)
  local err = t:assert_raises(function()
    parallel(function() return sleep(-1) end)
  end)
  t:assert_match(err, "^steps%.test%.lua:57: sleep: ")
end)

test("file scope only", function(t)
  t:assert_match(t:assert_raises(function() todo() end), "^steps%.test%.lua:63: todo: ")
  t:assert_contains(t:assert_raises(function() test("x", function() end) end), "file scope")
end)

local kept
test("keeps t", function(t) kept = t end)
test("t of a test that has ended", function(t)
  for _, call in ipairs{"assert", "assert_eq", "log", "skip", "fail", "attach", "ktap"} do
    local err = t:assert_raises(function() kept[call](kept, "x", "y") end)
    t:assert_contains(err, "t:" .. call .. ": this `t` is of the test `keeps t`, which has ended, now `t of a test")
  end
  t:assert_contains(t:assert_raises(function() kept:step("x", print) end), "which has ended")
  t:assert_contains(t:assert_raises(function() kept:assert_raises(print) end), "which has ended")
  t:assert_eq(kept.name, "keeps t")
end)

test("splats and unknown keys", {splats = "fail", tiemout = 3, spec = {"A", "B"}, nested = {deep = {1, 2}}}, function(t)
  t:assert_eq(t.meta, {splats = "fail", tiemout = 3, spec = {"A", "B"}, nested = {deep = {1, 2}}})
  t:assert_eq(t.profile, nil)
end)
