-- provium: profiles=
local vm = provium:vm("base", provium.profile):boot()
vm:write_file("/tmp/profile", provium.profile)
return vm:snapshot()
