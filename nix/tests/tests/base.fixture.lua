-- provium: profiles=stable
local vm = provium:vm("base", "stable"):boot()
vm:write_file("/tmp/prepared", "yes\n")
return vm:snapshot()
