-- Files of the guest, its console, and how long a machine lives.

test("what is written is read back, byte for byte", function(t)
    local vm = provium:vm("v", "stable"):boot()
    local bytes = {}
    for i = 0, 255 do
        bytes[#bytes + 1] = string.char(i)
    end
    local block = table.concat(bytes):rep(4096) -- 1 MiB

    vm:write_file("/tmp/block", block)
    t:assert_eq(vm:run("wc -c </tmp/block"):assert_ok():trim(), tostring(#block))
    t:assert(vm:read_file("/tmp/block") == block, "the block differs")

    t:assert_eq(vm:read_file("/etc/group"), "root:x:0:\ntester:x:1000:\n")
end)

test("a file that is not there raises an error that names it", function(t)
    local vm = provium:vm("v", "stable"):boot()
    local message = tostring(t:assert_raises(function()
        vm:read_file("/no/such/file")
    end))
    t:assert_contains(message, "/no/such/file")
    t:assert_contains(message, "ENOENT")
end)

-- The two tests above and this one each made a machine `v`: a machine made in a test ends with it.
test("what a machine prints is kept from its first byte", function(t)
    local vm = provium:vm("v", "stable"):boot()
    vm:run("echo a word from the guest >/dev/console"):assert_ok()
    wait_until(function()
        return vm:console():read_log():find("a word from the guest", 1, true)
    end, {desc = "the word shows on the console"})
    t:assert_contains(vm:console():read_log(), "example guest: Linux")
end)
