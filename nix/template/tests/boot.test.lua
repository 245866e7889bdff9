-- provium: profiles=stable,latest
test("both kernels boot, and they are two", function(t)
    local old = provium:vm("old", "stable"):boot()
    local new = provium:vm("new", "latest"):boot()
    t:assert_neq(old:run("uname -r"):assert_ok().stdout, new:run("uname -r"):assert_ok().stdout)
end)
