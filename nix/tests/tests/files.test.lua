-- provium: profiles=stable
local helper = require("helper")

test("files survive in the guest", function(t)
    local vm = provium:vm("v", "stable"):boot()
    helper.write_and_read(t, vm, "/tmp/greeting", "hello\n")
end)
