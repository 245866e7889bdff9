-- Tests that go on from a prepared guest: each has one of its own, in some milliseconds.

test("the work is done already", function(t)
    local vm = provium.vm_fixture("fixtures/workspace", {profile = "stable"})
    vm:run("cd /tmp && sha256sum -c sum"):assert_ok()
    vm:unlink("/tmp/numbers") -- nobody else's
end)

test("what the last test did is not there", function(t)
    local vm = provium.vm_fixture("fixtures/workspace", {profile = "stable"})
    t:assert(vm:exists("/tmp/numbers"))
    local beat = vm:read_file("/tmp/beat")
    wait_until(function() return vm:read_file("/tmp/beat") ~= beat end, {desc = "a sign of life of what runs there"})
end)

test("one file serves every kernel", {tags = "cross-version"}, function(t)
    local old = provium.vm_fixture("fixtures/workspace", {profile = "stable"})
    local new = provium.vm_fixture("fixtures/workspace", {profile = "mainline"})
    t:assert_eq({old:name(), new:name()}, {"workspace", "workspace-2"})
    for _, vm in ipairs({old, new}) do
        t:assert_eq(vm:read_file("/tmp/built-by"), vm:run("uname -r"):trim())
    end
end)
