---@meta provium
-- Type definitions of provium's Lua API: labs.

---A direct child of a lab.
---@class provium.Member
---@field kind "vm"|"bridge"|"sub_lab"
---@field name string

---@class provium.Claim
---@field memory? provium.Size
---@field cpus? integer

---A lab owns VMs and sub-labs; `lab.NAME` looks one up and is nil where there is none.
---@class provium.Lab
---@field [string] provium.VM|provium.Bridge|provium.Lab nil where there is none of this name.
local lab = {}

---Creates a VM (state `created`), or looks one up where no profile is given.
---@param name string
---@param profile string A profile of provium.toml.
---@param opts? provium.VMOptions
---@return provium.VM
---@overload fun(self: provium.Lab, name: string): provium.VM
function lab:vm(name, profile, opts) end

---Looks a bridge up, or creates one.
---@param name string
---@param opts? provium.BridgeOptions
---@return provium.Bridge
function lab:bridge(name, opts) end

---Creates a sub-lab; unnamed ones are called `__lab_0` and so on.
---@param name? string
---@return provium.Lab
function lab:lab(name) end

---Makes VMs and labs members of this lab too; nothing is started or stopped.
---@param x provium.VM|provium.Bridge|provium.Lab|(provium.VM|provium.Bridge|provium.Lab)[]
function lab:include(x) end

---Takes a member out of the lab; nothing is stopped.
---@param x provium.VM|provium.Bridge|provium.Lab|string
function lab:remove(x) end

---The direct children.
---@return provium.Member[]
function lab:members() end

---The names of its VMs.
---@return string[]
function lab:vm_names() end

---The names of its bridges.
---@return string[]
function lab:bridge_names() end

---The names of its sub-labs.
---@return string[]
function lab:sub_lab_names() end

---Its name.
---@return string
function lab:name() end

---Keeps all VMs of the lab as they are at one moment.
---@param dir? string
---@return provium.Snapshot
function lab:snapshot(dir) end

---Has the lab be as the snapshot holds it; handles stay valid. Nothing has changed where it raises.
---@param snapshot provium.Snapshot|string A snapshot or its directory.
---@return provium.Lab
function lab:restore(snapshot) end

---Boots every VM of the lab at once.
---@return provium.Lab
function lab:boot() end

---Shuts every VM of the lab down at once.
---@return provium.Lab
function lab:shutdown() end

---Pauses every VM of the lab.
---@return provium.Lab
function lab:pause() end

---Resumes every VM of the lab.
---@return provium.Lab
function lab:resume() end

---Raises the file's reservation in the pool; once per file.
---@param claim provium.Claim
function lab:claim(claim) end

---Waits until `count` branches of `parallel` have come to the barrier `name`; raises when they do not come in time.
---@param name string
---@param count integer
---@param timeout? provium.Duration Default 60 s.
function lab:barrier(name, count, timeout) end

---Lua's `string.pack`; also `provium.pack(…)`.
---@param fmt string
---@param ... string|number
---@return string
---@overload fun(fmt: string, ...: string|number): string
function lab:pack(fmt, ...) end

---Lua's `string.unpack`; also `provium.unpack(…)`.
---@param fmt string
---@param s string
---@return any ... Strings and numbers, as `fmt` says.
---@overload fun(fmt: string, s: string): any
function lab:unpack(fmt, s) end

---Names a host file that this file's tests depend on.
---@param path string Relative to the calling Lua file.
function lab:depends_on_file(path) end

---@class provium.VmFixtureOptions
---@field profile? string The profile that the fixture reads as `provium.profile`. Default: the first by sorted name; in a fixture, its own.
---@field name? string The VM's name. Default: as in the fixture, with `-2`, `-3`, … where that is taken.
---@field hostname? string The guest's own host name.
---@field agent_timeout? provium.Duration How long its agent may take.

---A VM that goes on from the snapshot of a fixture, which is built first where the cache does not have it; also `provium.vm_fixture(…)`.
---@param path string The fixture's path from a test root, without `.fixture.lua`.
---@param opts? provium.VmFixtureOptions
---@return provium.VM
---@overload fun(path: string, opts?: provium.VmFixtureOptions): provium.VM
function lab:vm_fixture(path, opts) end

---@class provium.LabFixtureOptions
---@field profile? string As for `vm_fixture`.
---@field name? string The new lab's name.

---A new lab inside this one, as the snapshot of a fixture holds it; also `provium.lab_fixture(…)`.
---@param path string The fixture's path from a test root, without `.fixture.lua`.
---@param opts? provium.LabFixtureOptions
---@return provium.Lab
---@overload fun(path: string, opts?: provium.LabFixtureOptions): provium.Lab
function lab:lab_fixture(path, opts) end
