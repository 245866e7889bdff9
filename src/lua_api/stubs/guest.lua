---@meta provium
-- Type definitions of provium's Lua API: what a VM or a worker does inside the guest.

---@class provium.RunOptions
---@field args? string[] Arguments; then no shell is involved.
---@field env? table<string, string|number|boolean> Variables laid over the agent's own.
---@field env_clear? boolean Leave the agent's own variables out.
---@field cwd? string The working directory.
---@field stdin? string The whole standard input.
---@field timeout? provium.Duration Then the process group is killed.
---@field timeout_ms? integer
---@field user? string `NAME`, `UID` or `UID:GID`.

---@class provium.SpawnOptions
---@field args? string[] Arguments; then no shell is involved.
---@field env? table<string, string|number|boolean> Variables laid over the agent's own.
---@field env_clear? boolean Leave the agent's own variables out.
---@field cwd? string The working directory.
---@field stdin? string What stands in its standard input first.
---@field user? string `NAME`, `UID` or `UID:GID`.

---@alias provium.EntryType "file"|"directory"|"symlink"|"fifo"|"socket"|"char_device"|"block_device"

---@class provium.Stat
---@field size integer Bytes.
---@field mtime integer Seconds since the epoch.
---@field mtime_ns integer The nanoseconds of that second.
---@field perm integer mode & 07777.
---@field entry_type provium.EntryType
---@field uid integer
---@field gid integer
---@field ino integer
---@field nlink integer

---@class provium.DirEntry
---@field name string
---@field entry_type provium.EntryType

---@class provium.PermOptions
---@field mode? integer Permission bits, exact whatever the umask.
---@field perm? integer The same.

---@class provium.MkdirOptions: provium.PermOptions
---@field parents? boolean Make missing parents too; an existing directory is fine.

---@class provium.PushOptions
---@field mode? integer Permission bits, exact.
---@field auto_dep? boolean Whether the host file counts as a dependency of a fixture.

---@class provium.OpenOptions: provium.PermOptions
---@field read? boolean
---@field write? boolean
---@field create? boolean Make it where it is missing.
---@field truncate? boolean Empty it.
---@field append? boolean Every write goes to the end.
---@field exclusive? boolean With `create`: fail where it exists.

---@class provium.TailOptions
---@field start? "end"|"beginning"|"start"|integer Where to begin; default `"end"`; a negative offset counts from the end.

---@class provium.SyscallOptions
---@field args? integer[] Up to six arguments.
---@field bufs? string[] Buffers; they come back in `out_bufs` as the call left them.
---@field ptrs? integer[] `ptrs[i]` is the argument (from 0) that receives the address of `bufs[i]`.
---@field nested? provium.Nested[] Addresses written into buffers before the call.

---@class provium.Nested
---@field parent integer The buffer that holds the pointer, from 1.
---@field child integer The buffer pointed to, from 1.
---@field offset integer Bytes from the beginning of `parent`.

---@class provium.SyscallResult
---@field ret integer What the kernel returned; −1 where it refused.
---@field result integer The same as `ret`.
---@field errno integer 0 where it did not refuse.
---@field out_bufs string[] The buffers afterwards.

---@class provium.IoctlOptions
---@field bufs? string[] Buffers whose addresses are written into the data.
---@field ptr_offsets? integer[] Offset in the data for the address of the buffer at the same place in `bufs`.

---@class provium.IoctlResult: provium.SyscallResult
---@field out_data string The data afterwards.

---@class provium.SplatOptions
---@field timeout? provium.Duration How long the report is waited for once `fn` has returned.

---What a VM does in its guest.
---@class provium.VM
local vm = {}

---Runs a command and waits for its end. A lone string goes to `/bin/sh -c`; with arguments there is no shell.
---@param cmd string|string[]
---@param args? string[]|provium.RunOptions
---@return provium.RunResult
function vm:run(cmd, args) end

---Starts a command, as `run` does, and returns at once.
---@param cmd string|string[]
---@param args? string[]|provium.SpawnOptions
---@return provium.Process
function vm:run_async(cmd, args) end

---A file's whole content.
---@param path string
---@return string
function vm:read_file(path) end

---Creates or replaces a file's content.
---@param path string
---@param bytes string
---@param opts? provium.PermOptions
function vm:write_file(path, bytes, opts) end

---Copies a file from the host; a relative host path is relative to the calling Lua file.
---@param host string
---@param guest string
---@param opts? provium.PushOptions
function vm:push_file(host, guest, opts) end

---Copies a file to the host; a relative host path is relative to the calling Lua file.
---@param guest string
---@param host string
function vm:pull_file(guest, host) end

---Copies a directory with all it holds from the host.
---@param host string
---@param guest string
function vm:push_dir(host, guest) end

---Metadata of a path; links are followed.
---@param path string
---@return provium.Stat
function vm:stat(path) end

---Metadata of a path; a link at its end is not followed.
---@param path string
---@return provium.Stat
function vm:lstat(path) end

---The entries of a directory, sorted by name.
---@param path string
---@return provium.DirEntry[]
function vm:listdir(path) end

---Makes a directory.
---@param path string
---@param opts? provium.MkdirOptions
function vm:mkdir(path, opts) end

---Removes a file or an empty directory.
---@param path string
function vm:unlink(path) end

---Renames a path.
---@param from string
---@param to string
function vm:rename(from, to) end

---Whether a path is there.
---@param path string
---@return boolean
function vm:exists(path) end

---Opens a file; some access must be asked for.
---@param path string
---@param opts provium.OpenOptions
---@return provium.File
function vm:open_file(path, opts) end

---Follows a file that grows.
---@param path string
---@param opts? provium.TailOptions
---@return provium.Stream
function vm:tail_file(path, opts) end

---Follows a descriptor of the agent.
---@param fd integer|provium.File
---@return provium.Stream
function vm:fd_stream(fd) end

---A system call, by number or name, on the agent's own thread. The kernel's refusal is a result.
---@param nr integer|string
---@param ... integer Up to six arguments.
---@return provium.SyscallResult
---@overload fun(self: provium.VM, nr: integer|string, opts: provium.SyscallOptions): provium.SyscallResult
function vm:syscall(nr, ...) end

---A system call on a thread of its own, left in flight.
---@param nr integer|string
---@param ... integer Up to six arguments.
---@return provium.Call
---@overload fun(self: provium.VM, nr: integer|string, opts: provium.SyscallOptions): provium.Call
function vm:syscall_async(nr, ...) end

---An ioctl. The kernel's refusal is a result.
---@param fd integer|provium.File
---@param cmd integer
---@param data? string|integer
---@param opts? provium.IoctlOptions
---@return provium.IoctlResult
function vm:ioctl(fd, cmd, data, opts) end

---Bytes of the agent's own memory; nil and errno where they can't be read.
---@param addr integer
---@param n integer
---@return string|nil bytes
---@return integer|nil errno
function vm:read_mem(addr, n) end

---@class provium.BatchEntry
---@field ok? provium.Json|provium.RunResult|provium.Stat|provium.DirEntry[]|provium.SyscallResult What the operation returned.
---@field err? string Why it failed.

---Records the operations that `fn` asks of its argument and does them in one round trip; their results come in order.
---@param fn fun(b: provium.Batch)
---@return provium.BatchEntry[]
function vm:batch(fn) end

---A second process in the guest that performs operations.
---@return provium.Worker
function vm:spawn_worker() end

---Waits, inside the guest, until something listens on a TCP port.
---@param port integer
---@param timeout? provium.Duration
---@return true
function vm:wait_for_port(port, timeout) end

---Waits, inside the guest, until a path is there.
---@param path string
---@param timeout? provium.Duration
---@return true
function vm:wait_for_file(path, timeout) end

---Waits until a unit of systemd is active.
---@param name string
---@param timeout? provium.Duration
---@return true
function vm:wait_for_unit(name, timeout) end

---Loads a kernel module: a file of the host, or a name of the profile's `modules`.
---@param module string
---@param params? string|table<string, string|number|boolean|(string|number|boolean)[]>
function vm:load_module(module, params) end

---Removes a kernel module.
---@param name string
function vm:unload_module(name) end

---Runs `fn`, which must cause a kernel report that matches; that report does not fail the test.
---Returns the report.
---@param pattern provium.Pattern
---@param fn fun()
---@param opts? provium.SplatOptions
---@return string
function vm:expect_splat(pattern, fn, opts) end

---The kernel's log; with a pattern only the lines that contain it.
---@param pattern? string
---@return string
function vm:dmesg(pattern) end
