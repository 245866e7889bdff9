-- Branches of `parallel` wait at the same time; calls that can't yield wait all the same.

test("branches overlap and give their first results in order", function(t)
    local log = {}
    local a, b, c = parallel(
        function() sleep("200ms"); log[#log + 1] = "a"; return 1, "second" end,
        function() sleep("50ms"); log[#log + 1] = "b"; return 2 end,
        function() log[#log + 1] = "c" end)
    t:assert_eq({a, b, c}, {1, 2})
    t:assert_eq(log, {"c", "b", "a"})
    t:assert_eq(select("#", parallel()), 0)
end)

test("waits nest: in pcall, in wait_until, in parallel", function(t)
    local ready, seen = false, {}
    parallel(
        function() sleep("50ms"); ready = true end,
        function()
            seen.waited = wait_until(function() return ready and "yes" end, {timeout = "5s", interval = "5ms"})
        end,
        function()
            seen.inner = {pcall(function()
                return parallel(function() sleep("20ms") return "x" end, function() sleep("1ms") return "y" end)
            end)}
        end)
    t:assert_eq(seen, {waited = "yes", inner = {true, "x", "y"}})
end)

test("the first error ends the others and is raised as it is", function(t)
    local finished, closed = false, false
    local value = t:assert_raises(function()
        parallel(
            function()
                local guard <close> = setmetatable({}, {__close = function() closed = true end})
                sleep("1h")
                finished = true
            end,
            function() sleep("10ms"); error({code = 7}) end)
    end)
    t:assert_eq(value, {code = 7})
    t:assert_eq({finished, closed}, {false, true})
    local text = t:assert_raises(function() parallel(function() sleep("10ms"); sleep(-1) end) end)
    t:assert_match(text, "parallel%.test%.lua:%d+: sleep: `t`: ")
end)

test("calls that can't yield block, and the branches go on after", function(t)
    local order = {}
    parallel(
        function()
            local list = {3, 1, 2}
            table.sort(list, function(x, y) sleep("5ms") return x < y end)
            t:assert_eq(list, {1, 2, 3})
            local co = coroutine.wrap(function() sleep("5ms"); coroutine.yield("own"); sleep("5ms"); return "end" end)
            order[#order + 1] = co()
            order[#order + 1] = co()
            string.gsub("ab", ".", function() sleep("1ms") end)
        end,
        function() sleep("1ms"); order.other = true end)
    t:assert_eq(order, {"own", "end", other = true})
end)

test("a bad argument and a stray yield are errors", function(t)
    t:assert_contains(t:assert_raises(function() parallel(1) end), "parallel: `fn`: expected a function, found 1")
    t:assert_contains(t:assert_raises(function() parallel(function() coroutine.yield() end) end), "coroutine.yield")
end)
