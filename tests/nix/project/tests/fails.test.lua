-- provium: profiles=stable
test("a test that passes", function(t)
    t:log("nothing to see")
end)

test("a test that fails", function(t)
    local vm = provium:vm("v", "stable"):boot()
    vm:run("for i in $(seq 100); do echo line $i >/dev/console; done")
    t:assert_eq(vm:run("echo found"):trim(), "expected")
end)
