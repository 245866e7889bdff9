-- provium: profiles=stable fixtures=base
test("a fixture is built and restored in the sandbox", function(t)
    local first = provium:vm_fixture("base")
    t:assert_eq(first:read_file("/tmp/prepared"), "yes\n")
    local second = provium:vm_fixture("base")
    second:write_file("/tmp/prepared", "changed\n")
    t:assert_eq(first:read_file("/tmp/prepared"), "yes\n")
end)
