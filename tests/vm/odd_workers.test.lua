-- Workers and system calls in guests that have next to nothing.

for _, profile in ipairs{"nothing-mounted", "read-only", "bare", "no-initrd", "overlay"} do
  test("a worker in a guest of the kind " .. profile, {timeout = "3m"}, function(t)
    local vm = provium:vm("odd", profile):boot()
    local w = vm:spawn_worker()
    t:assert_eq(w:syscall("getppid").ret, vm:syscall("getpid").ret)
    t:assert_contains(t:assert_raises(function() w:run({"/no/such"}) end), "ENOENT")
    t:assert_eq(w:join(), 0)
  end)
end
