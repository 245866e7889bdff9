-- provium: profiles=stable,mainline
test("two kernels side by side", function(t)
    local old = provium:vm("old", "stable"):boot()
    local new = provium:vm("new", "mainline"):boot()
    local before = old:run("uname -r"):assert_ok().stdout
    local after = new:run("uname -r"):assert_ok().stdout
    t:assert_neq(before, after)
end)
