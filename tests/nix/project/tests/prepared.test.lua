-- provium: profiles=own fixtures=prepared
test("the fixture goes on where it was", function(t)
    t:assert_eq(provium:vm_fixture("prepared"):read_file("/tmp/prepared"), "yes")
end)
