-- provium: profiles=stable
local helper = require("helper")

test("the older kernel boots", function(t)
    t:assert_contains(helper.release(provium:vm("v", "stable"):boot()), "6.")
end)
