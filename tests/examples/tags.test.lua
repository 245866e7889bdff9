-- Which tests run: by tag, by meta key, and slow ones only when asked for.
--
--     provium test --no-tag cross-version        leaves the pairs of kernels out
--     provium test --tag debug --include-slow    the slow debug test alone
--     provium test --tag-meta area=boot          by any other key of the meta table

local kernels = require("lib.kernels")

test("an ordinary test, found by its area", {area = "boot"}, function(t)
    local vm = provium:vm("v", "stable"):boot()
    t:assert_eq(t.meta.area, "boot")
    t:assert(vm:run("true"):ok())
end)

-- The tag `slow` is what --include-slow is about: without it this test is skipped, and the summary says so.
test("the debug kernel survives a storm of processes", {tags = {"slow", "debug"}}, function(t)
    local vm = provium:vm("v", "stable-debug"):boot()
    vm:run("i=0; while [ $i -lt 300 ]; do /bin/busybox true; i=$((i + 1)); done", {timeout = "2m"}):assert_ok()
    t:assert_eq(vm:run("dmesg | grep 'BUG:'").stdout, "")
end)

test("every kernel runs the guest's init as process 1", {tags = {"slow", "cross-version"}}, function(t)
    for _, profile in ipairs({"stable", "stable-debug", "mainline"}) do
        local vm = provium:vm(profile, profile):boot()
        t:assert_contains(vm:read_file("/proc/1/cmdline"), "init", kernels.release(vm))
    end
end)
