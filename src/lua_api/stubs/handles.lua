---@meta provium
-- Type definitions of provium's Lua API: results, processes, workers, files, streams.

---What a command left.
---@class provium.RunResult
---@field exit_code integer −1 where a signal ended it, −2 where its time was over.
---@field stdout string All of its standard output.
---@field stderr string All of its standard error.
---@field status "exited"|"signalled"|"timed_out" How it ended.
---@field signal? integer The signal that ended it.
---@field timed_out boolean Whether its time was over.
---@field duration number Seconds from its start to its end.
local result = {}

---Whether it exited with 0.
---@return boolean
function result:ok() end

---Raises, showing command, status and output, unless it exited with 0; returns the result.
---@return provium.RunResult
function result:assert_ok() end

---Raises unless it failed; returns the result.
---@return provium.RunResult
function result:assert_fails() end

---Standard output, decoded as JSON.
---@return provium.Json
function result:json() end

---The lines of standard output.
---@return string[]
function result:lines() end

---Standard output without white space at both ends.
---@return string
function result:trim() end

---A process that runs in the guest.
---@class provium.Process
local process = {}

---Waits for its end. A time-out raises and leaves it running.
---@param timeout? provium.Duration Above 0.
---@return provium.RunResult
function process:wait(timeout) end

---Signals its process group.
---@param sig? integer|string Default TERM; a name with or without `SIG`, in upper or lower case.
function process:kill(sig) end

---Signals its process group.
---@param sig integer|string A number, or a name with or without `SIG`, in upper or lower case.
function process:signal(sig) end

---Its process id in the guest.
---@return integer
function process:pid() end

---Its number among the handles of this VM.
---@return integer
function process:handle() end

---Whether it still runs, or how it ended.
---@return "running"|"exited"|"signalled"
function process:status() end

---Writes to its standard input.
---@param bytes string
function process:stdin_write(bytes) end

---Closes its standard input.
function process:close_stdin() end

---Its standard output as it comes.
---@return provium.Stream
function process:stdout_stream() end

---Its standard error as it comes.
---@return provium.Stream
function process:stderr_stream() end

---Ends it: TERM, and KILL after 2 s.
function process:close() end

---A second process in the guest with its own files, identity and working directory.
---@class provium.Worker
local worker = {}

---As `vm:run`.
---@param cmd string|string[]
---@param args? string[]|provium.RunOptions
---@return provium.RunResult
function worker:run(cmd, args) end

---As `vm:run_async`.
---@param cmd string|string[]
---@param args? string[]|provium.SpawnOptions
---@return provium.Process
function worker:run_async(cmd, args) end

---As `vm:open_file`.
---@param path string
---@param opts provium.OpenOptions
---@return provium.File
function worker:open_file(path, opts) end

---As `vm:read_file`.
---@param path string
---@return string
function worker:read_file(path) end

---As `vm:write_file`.
---@param path string
---@param bytes string
---@param opts? provium.PermOptions
function worker:write_file(path, bytes, opts) end

---As `vm:stat`.
---@param path string
---@return provium.Stat
function worker:stat(path) end

---As `vm:syscall`, in the worker's process.
---@param nr integer|string
---@param ... integer Up to six arguments.
---@return provium.SyscallResult
---@overload fun(self: provium.Worker, nr: integer|string, opts: provium.SyscallOptions): provium.SyscallResult
function worker:syscall(nr, ...) end

---As `vm:syscall_async`, in the worker's process.
---@param nr integer|string
---@param ... integer Up to six arguments.
---@return provium.Call
---@overload fun(self: provium.Worker, nr: integer|string, opts: provium.SyscallOptions): provium.Call
function worker:syscall_async(nr, ...) end

---As `vm:ioctl`, in the worker's process.
---@param fd integer|provium.File
---@param cmd integer
---@param data? string|integer
---@param opts? provium.IoctlOptions
---@return provium.IoctlResult
function worker:ioctl(fd, cmd, data, opts) end

---Signals every process that the worker started.
---@param sig? integer|string Default TERM.
function worker:kill(sig) end

---Waits for the processes that the worker started and ends it; returns the worst exit code.
---@return integer
function worker:join() end

---Its number among the handles of this VM, above 0.
---@return integer
function worker:handle() end

---Ends the worker.
function worker:close() end

---What `vm:batch` records; each operation is as the VM's, its result comes from `batch`.
---@class provium.Batch
local batch = {}

---As `vm:run`.
---@param cmd string|string[]
---@param args? string[]|provium.RunOptions
function batch:run(cmd, args) end

---As `vm:read_file`.
---@param path string
function batch:read_file(path) end

---As `vm:write_file`.
---@param path string
---@param bytes string
---@param opts? provium.PermOptions
function batch:write_file(path, bytes, opts) end

---As `vm:stat`.
---@param path string
function batch:stat(path) end

---As `vm:lstat`.
---@param path string
function batch:lstat(path) end

---As `vm:listdir`.
---@param path string
function batch:listdir(path) end

---As `vm:mkdir`.
---@param path string
---@param opts? provium.MkdirOptions
function batch:mkdir(path, opts) end

---As `vm:unlink`.
---@param path string
function batch:unlink(path) end

---As `vm:rename`.
---@param from string
---@param to string
function batch:rename(from, to) end

---As `vm:exists`.
---@param path string
function batch:exists(path) end

---As `vm:syscall`.
---@param nr integer|string
---@param ... integer Up to six arguments.
---@overload fun(self: provium.Batch, nr: integer|string, opts: provium.SyscallOptions)
function batch:syscall(nr, ...) end

---As `vm:ioctl`.
---@param fd integer|provium.File
---@param cmd integer
---@param data? string|integer
---@param opts? provium.IoctlOptions
function batch:ioctl(fd, cmd, data, opts) end

---As `vm:read_mem`.
---@param addr integer
---@param n integer
function batch:read_mem(addr, n) end

---A system call in flight.
---@class provium.Call
local call = {}

---Waits for the call's end.
---@param timeout? provium.Duration
---@return provium.SyscallResult
function call:await(timeout) end

---An open file of the guest.
---@class provium.File
local file = {}

---Up to `n` bytes; an empty string at the end.
---@param n integer
---@return string
function file:read(n) end

---All bytes from the offset on.
---@return string
function file:read_all() end

---Writes all of `bytes`; returns how many that were.
---@param bytes string
---@return integer
function file:write(bytes) end

---Moves the offset; returns the new one.
---@param offset integer
---@param whence? "set"|"cur"|"end"
---@return integer
function file:seek(offset, whence) end

---The offset.
---@return integer
function file:tell() end

---Flushes the file to its device.
function file:sync() end

---Cuts or extends the file.
---@param length integer
function file:truncate(length) end

---The descriptor in the agent, for `syscall` and `ioctl`; 0 once closed.
---@return integer
function file:fd() end

---Follows the file as it grows.
---@return provium.Stream
function file:tail_stream() end

---Closes the file; once more does nothing.
function file:close() end

---Where something was opened.
---@class provium.Site
---@field file string
---@field line integer

---Bytes that come from the guest: a file's tail, a process's output, a console.
---@class provium.Stream
local stream = {}

---The next bytes; nil at the end, or when none come in time.
---@param timeout? provium.Duration Default 10 s.
---@return string|nil
function stream:next(timeout) end

---Everything up to and including the match. Raises at the end and when the time is over; the bytes are kept then.
---@param pattern provium.Pattern
---@param timeout? provium.Duration Default 10 s.
---@return string
function stream:read_until(pattern, timeout) end

---As `read_until`, but returns nothing.
---@param pattern provium.Pattern
---@param timeout? provium.Duration Default 10 s.
function stream:expect(pattern, timeout) end

---All that comes in this time, in the pieces in which it came.
---@param timeout? provium.Duration Default 0.5 s.
---@return string[]
function stream:drain(timeout) end

---An iterator over lines, without their ends.
---@return fun(): string|nil
function stream:lines() end

---Whether all was read and no more can come.
---@return boolean
function stream:eof() end

---Closes the stream.
function stream:close() end

---Where the stream was opened.
---@return provium.Site
function stream:creation_site() end

---@class provium.CloneOptions
---@field hostname? string The clone's own host name.
---@field agent_timeout? provium.Duration How long its agent may take.

---A stored snapshot.
---@class provium.Snapshot
local snapshot = {}

---Its directory.
---@return string
function snapshot:path() end

---Bytes that it takes.
---@return integer
function snapshot:size() end

---Removes it; VMs that were restored from it go on.
function snapshot:delete() end
