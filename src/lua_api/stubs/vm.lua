---@meta provium
-- Type definitions of provium's Lua API: the machine itself. What is done inside its guest is in guest.lua.

---A file that is there before the guest's init runs.
---@class provium.BootFile
---@field path string Absolute.
---@field content string Any bytes.
---@field mode? integer Permission bits; default 0644.

---Options at creation or at boot; those at boot win, key by key.
---@class provium.VMOptions
---@field memory? provium.Size Default 512M.
---@field cpus? integer Default 1.
---@field kernel_cmdline? string Replaces the profile's.
---@field kernel_cmdline_append? string Added to the command line.
---@field agent_timeout? provium.Duration How long boot waits for the agent.
---@field rng_seed? integer Makes the guest's random numbers repeatable.
---@field initial_time? number Seconds since the epoch that the guest's clock starts with.
---@field files? provium.BootFile[]
---@field load_modules? string[] Modules of the profile's `modules` to load before init.
---@field hostname? string
---@field disks? provium.DiskOptions[] Each with exactly one source; besides those of the profile.

---@alias provium.State "created"|"booted"|"paused"|"shutdown"|"dead"

---@class provium.PowerButtonOptions
---@field timeout? provium.Duration

---A virtual machine.
---@class provium.VM
local vm = {}

---Boots the machine and returns it once the agent answers.
---@param opts? provium.VMOptions
---@return provium.VM
function vm:boot(opts) end

---Shuts the guest down; on a VM that is down already it does nothing.
---@return provium.VM
function vm:shutdown() end

---Stops the machine's CPUs.
---@return provium.VM
function vm:pause() end

---Lets the machine's CPUs go on.
---@return provium.VM
function vm:resume() end

---Resets the machine, as its reset button does, and waits for the agent.
---@return provium.VM
function vm:reset() end

---Presses the power button and waits for the guest to power off.
---@param opts? provium.PowerButtonOptions
---@return provium.VM
function vm:power_button(opts) end

---Wakes a suspended guest.
---@return provium.VM
function vm:wakeup() end

---Stops the guest at once, as when the plug is pulled; what its disks had not flushed is lost.
---@param opts? provium.CrashOptions With a seed, some of it may be left.
---@return provium.VM
function vm:power_cut(opts) end

---Attaches a disk, also to a guest that runs.
---@param opts? provium.DiskOptions
---@return provium.Disk
function vm:attach_disk(opts) end

---The disk of this id.
---@param id string
---@return provium.Disk
function vm:disk(id) end

---Waits for the guest to go down by itself; tells how it did.
---@param timeout? provium.Duration
---@return "shutdown"|"reset"|"panic"
function vm:wait_shutdown(timeout) end

---Waits until the guest has rebooted itself and the agent answers again.
---@param timeout? provium.Duration
---@return provium.VM
function vm:wait_reboot(timeout) end

---Keeps the VM as it is now: in the directory `path`, or, without one, until the test (or file) ends. Nothing may be open in the guest.
---@param path? string
---@return provium.Snapshot
function vm:snapshot(path) end

---Goes on from a snapshot instead of booting; not on a VM that runs.
---@param snapshot provium.Snapshot|string A snapshot or its directory.
---@return provium.VM
function vm:restore(snapshot) end

---A running copy of this VM in the same lab.
---@param name string
---@param opts? provium.CloneOptions
---@return provium.VM
function vm:clone(name, opts) end

---Guest memory as an ELF core, also of a guest that panicked; returns the file's path.
---@param path? string
---@return string
function vm:dump(path) end

---A PNG of the display; returns the file's path.
---@param path? string
---@return string
function vm:screenshot(path) end

---A command of QEMU's machine protocol; returns its result.
---@param command string
---@param args? table<string, provium.Json>
---@return provium.Json
function vm:qmp(command, args) end

---Opens QEMU's gdb stub on a unix socket and prints the gdb command; returns the socket's path.
---@return string
function vm:gdb() end

---Its name.
---@return string
function vm:name() end

---The name of its profile.
---@return string
function vm:profile() end

---Its state.
---@return provium.State
function vm:state() end

---Whether nothing of this test is open in the guest: no file, stream, process or call.
---@return boolean
function vm:is_quiescent() end

---How many files are open in the guest.
---@return integer
function vm:open_file_count() end

---How many streams are open.
---@return integer
function vm:open_stream_count() end

---Its memory in bytes.
---@return integer
function vm:memory() end

---How many CPUs it has.
---@return integer
function vm:cpus() end

---QEMU's process on the host; nil while there is none.
---@return integer|nil
function vm:pid() end

---Its vsock address: nil, there is no such device.
---@return nil
function vm:cid() end

---A console: `ttyS0` where no name is given, or `hvc0`.
---@param name? "ttyS0"|"hvc0"
---@return provium.Console
function vm:console(name) end

---The guest's real-time clock.
---@return provium.Clock
function vm:clock() end

---A console of the guest.
---@class provium.Console
local console = {}

---A stream of what the console says from now on.
---@return provium.Stream
function console:read() end

---All that the console said, from the first byte of firmware.
---@return string
function console:read_log() end

---Waits until the console has said something that matches.
---@param pattern provium.Pattern
---@param timeout? provium.Duration Default 30 s.
function console:expect(pattern, timeout) end

---@class provium.ConsoleWriteOptions
---@field timeout? provium.Duration

---Types on the console.
---@param bytes string
---@param opts? provium.ConsoleWriteOptions
function console:write(bytes, opts) end

---Closes the handle and its streams.
function console:close() end

---The guest's real-time clock.
---@class provium.Clock
local clock = {}

---Seconds since the epoch.
---@return number
function clock:get() end

---Nanoseconds since the epoch.
---@return integer
function clock:get_ns() end

---Sets the clock to seconds since the epoch.
---@param seconds number
function clock:set(seconds) end

---Sets the clock to nanoseconds since the epoch.
---@param nanoseconds integer
function clock:set_ns(nanoseconds) end

---Moves the clock.
---@param by number|string Seconds or a time with a unit; may be negative.
function clock:advance(by) end

---Sleeps in the guest.
---@param time provium.Duration
function clock:sleep(time) end

---A restored VM's clock stays where it was, instead of being set to the host's.
function clock:freeze_on_restore() end

---A network card: by its bridge, the bridge's name, or `ethN`.
---@param bridge provium.Bridge|string
---@return provium.Nic
function vm:nic(bridge) end
