-- The kernel's command line: a profile's own, and another one for a single machine.

local kernels = require("lib.kernels")

test("the profile's command line reaches the kernel", function(t)
    local vm = provium:vm("v", "stable"):boot()
    local words = kernels.cmdline(vm)
    t:assert_contains(words, "console=hvc0")
    t:assert_contains(words, "quiet")
end)

test("kernel_cmdline replaces it for one machine", function(t)
    local vm = provium:vm("v", "stable", {
        kernel_cmdline = "console=hvc0 quiet maxcpus=1 isolcpus=0",
        cpus = 2,
    }):boot()
    t:assert_contains(kernels.cmdline(vm), "isolcpus=0")
    t:assert_eq(vm:read_file("/sys/devices/system/cpu/online"), "0\n", "maxcpus=1 leaves the second processor out")
end)

test("kernel_cmdline_append adds to it", function(t)
    local vm = provium:vm("v", "stable", {kernel_cmdline_append = "example.word=1"}):boot()
    local words = kernels.cmdline(vm)
    t:assert_contains(words, "quiet")
    t:assert_contains(words, "example.word=1")
end)

test("the debug profile says more while it boots", function(t)
    local quiet = provium:vm("quiet", "stable"):boot()
    local debug = provium:vm("debug", "stable-debug"):boot()
    t:assert_eq(kernels.release(quiet), kernels.release(debug))

    local less, more = quiet:console():read_log(), debug:console():read_log()
    t:assert_contains(more, "Linux version " .. kernels.release(debug))
    t:assert(#more > 2 * #less, #more .. " bytes with debug, " .. #less .. " with quiet")
end)
