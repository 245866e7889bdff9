local helper = {}

function helper.write_and_read(t, vm, path, text)
    vm:write_file(path, text)
    t:assert_eq(vm:read_file(path), text)
end

return helper
