-- provium: profiles=own
local helper = require("helper")

test("the built kernel boots", function(t)
    t:assert_contains(helper.release(provium:vm("v", "own"):boot()), "6.")
end)
