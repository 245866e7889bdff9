-- Every test here fails or is skipped; tests/lua_api.rs checks how.

test("the first failing step ends the test", function(t)
  t:step("one", function() end)
  t:step("two", function()
    t:step("inner", function()
      t:assert_eq(1, 2, "not equal")
    end)
  end)
  t:step("three", function() end)
end)

test("an error in a step", function(t)
  t:step("breaks", function()
    local nothing
    nothing.field = 1
  end)
end)

test("a swallowed step still fails the test", function(t)
  pcall(t.step, t, "swallowed", function() error("kept") end)
end)

test("a swallowed assertion fails its step", function(t)
  t:step("sloppy", function() pcall(t.fail, t, "sloppy words") end)
  t:step("never", function() end)
end)

test("skipped in a step", function(t)
  t:step("asks", function() t:skip("not here") end)
end)

test("stopped in a step", {timeout = "200ms"}, function(t)
  t:step("quick", function() end)
  t:step("hangs", function() while true do end end)
end)

test("given up in a branch", function(t)
  parallel(
    function() t:step("waits", function() sleep("1h") end) end,
    function() sleep("10ms"); local none; return none.field end)
end)

test("a failing line of TAP", function(t)
  t:ktap("TAP version 13\n1..3\nok 1 a\n# because\nnot ok 2 b\n")
end)

test("one branch fails while another is in assert_raises", function(t)
  parallel(
    function() t:assert_raises(function() sleep("30ms"); error("x") end) end,
    function() sleep("5ms"); pcall(t.fail, t, "counts") end)
end)

test("passes the call on", function(t) return t:fail("without a line") end)
