-- provium: profiles=own
local vm = provium:vm("prepared", "own"):boot()
vm:write_file("/tmp/prepared", "yes")
return vm:snapshot()
