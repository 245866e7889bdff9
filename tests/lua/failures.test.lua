-- Every test here fails; tests/lua_api.rs checks how.

test("a difference is shown", function(t)
  t:assert_eq({a = 1, b = {1, 2}}, {a = 1, b = {1, 3}}, "tables")
end)

test("a swallowed assertion still fails the test", function(t)
  pcall(function() t:assert(false, "swallowed") end)
end)

test("an error of the test's own", function(t)
  local nothing
  nothing.field = 1
end)

test("an error that is a table", function(t) error({code = 1}) end)

test("an endless loop is stopped", {timeout = "300ms"}, function(t)
  while true do pcall(function() while true do end end) end
end)

test("a blocked call is stopped", {timeout = "200ms"}, function(t)
  pcall(sleep, 100)
  pcall(sleep, 100)
end)

test("an endless coroutine is stopped", {timeout = "200ms"}, function(t)
  while true do
    pcall(coroutine.wrap(function() while true do end end))
  end
end)

test("the file goes on after that", function(t) end)
