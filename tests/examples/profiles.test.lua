-- Two kernels in one file: what differs between them, and what must not.

local kernels = require("lib.kernels")

-- Machines made here, outside the tests, live as long as the file: every test below sees these two.
local stable = provium:vm("stable", "stable"):boot()
local mainline = provium:vm("mainline", "mainline"):boot()

test("each profile boots its own kernel", function(t)
    local old, new = kernels.release(stable), kernels.release(mainline)
    t:assert_neq(old, new)
    t:assert(kernels.is_newer(new, old), new .. " should be newer than " .. old)
end)

test("the kernel says the same of itself in /proc/version", function(t)
    for _, vm in ipairs({stable, mainline}) do
        t:assert_contains(vm:read_file("/proc/version"), "Linux version " .. kernels.release(vm) .. " ")
    end
end)

test("both kernels get along with the same guest", {tags = "cross-version"}, function(t)
    local script = "echo one >/tmp/f && cat /tmp/f && rm /tmp/f && ls /tmp | wc -l"
    local before, after = stable:run(script):assert_ok(), mainline:run(script):assert_ok()
    t:assert_eq(before.stdout, after.stdout)
end)

test("a file moves from the old kernel to the new one", {tags = {"cross-version"}}, function(t)
    stable:run("head -c 100000 /dev/urandom >/tmp/data"):assert_ok()
    mainline:write_file("/tmp/data", stable:read_file("/tmp/data"))
    t:assert_eq(
        mainline:run("sha256sum /tmp/data"):assert_ok().stdout,
        stable:run("sha256sum /tmp/data"):assert_ok().stdout
    )
end)
