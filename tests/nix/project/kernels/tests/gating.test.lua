-- provium: profiles=before,after fixtures=base
-- Two kernels of one source with one option toggled: System V IPC.
test("the option shows through behaviour", function(t)
    local before = provium:vm("v1", "before"):boot()
    local after = provium:vm("v2", "after"):boot()
    local r1 = before:run("cat /proc/sysvipc/shm")
    local r2 = after:run("cat /proc/sysvipc/shm")
    t:assert_neq(r1.stdout, r2.stdout)
    t:assert_eq({r1:ok(), r2:ok()}, {false, true})
    t:assert_eq(before:run("uname -r").stdout, after:run("uname -r").stdout)
end)

test("a fixture serves both kernels", function(t)
    for _, profile in ipairs({"before", "after"}) do
        t:assert_eq(provium:vm_fixture("base", {profile = profile}):read_file("/tmp/profile"), profile)
    end
end)
