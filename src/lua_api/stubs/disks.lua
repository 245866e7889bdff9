---@meta provium
-- Type definitions of provium's Lua API: disks.

---A disk. At most one source; without one it is blank.
---@class provium.DiskOptions
---@field id? string Its serial number too: 20 bytes at most. Default `attached-<vm>`, shortened.
---@field size? provium.Size Default 4G, or that of the image.
---@field scratch? provium.Size Another name of `size`.
---@field image? string|provium.DiskState Raw or qcow2; never written: writes go to a private overlay.
---@field template? string|provium.DiskState Another name of `image`.
---@field path? string `image` with `write_through`.
---@field write_through? boolean Writes go to the image itself, which must be raw.
---@field format? "raw"|"qcow2" Default: the image tells.
---@field readonly? boolean
---@field serial? string Where it is not the id.
---@field bus? "virtio"|"scsi"|"nvme" Default `virtio`.
---@field cache? "writeback"|"none"|"writethrough"|"directsync"|"unsafe" When what was written is durable.
---@field mediated? boolean Accepted: every disk is.

---@alias provium.FaultMode "eio_read"|"eio_write"|"eio_flush"|"enospc"|"slow"|"corrupt_read"|"torn_write"|"hang"

---@class provium.FaultOptions
---@field mode provium.FaultMode
---@field first? integer The first sector; default 0.
---@field count? integer How many sectors; default: to the end.
---@field p? number The probability that a request is struck, from 0 to 1.
---@field after? integer So many requests pass before the first is struck.
---@field times? integer So many are struck.
---@field delay? provium.Duration Of `slow`; default 50 ms.
---@field seed? integer Of the probability.

---@class provium.DiskStats
---@field requests integer
---@field bytes integer
---@field reads integer
---@field writes integer
---@field flushes integer
---@field read_bytes integer
---@field written_bytes integer
---@field errors integer

---@class provium.DiskRequest
---@field kind "read"|"write"|"flush"
---@field sector integer
---@field count integer
---@field time number Seconds since the recording began.

---@class provium.CrashOptions
---@field seed? integer Chooses which writes are kept, dropped or torn.
---@field torn? boolean Whether a write may be kept in part; default true.

---@class provium.CrashStatesOptions
---@field seed? integer Default 1.
---@field samples? integer How many states; default 100.
---@field torn? boolean Whether a write may be kept in part; default true.
---@field exhaustive? boolean Every state once, with whole writes.
---@field limit? integer The most that `exhaustive` may come to; default 10000.

---A disk of a VM. Sectors have 512 bytes.
---@class provium.Disk
local disk = {}

---Its id.
---@return string
function disk:id() end

---Its size in bytes.
---@return integer
function disk:size() end

---The path of its node in the guest, such as `/dev/vda`.
---@return string
function disk:device() end

---Whether it was detached.
---@return boolean
function disk:is_detached() end

---Takes it away from the VM; from a guest that runs, as if it was unplugged.
function disk:detach() end

---Makes it larger or smaller; a guest that runs sees it.
---@param n provium.Size
function disk:resize(n) end

---What a guest would read there.
---@param first integer
---@param n integer
---@return string
function disk:read_sectors(first, n) end

---Writes whole sectors, durable at once.
---@param first integer
---@param bytes string
function disk:write_sectors(first, bytes) end

---Adds a fault, at once.
---@param fault provium.FaultMode|provium.FaultOptions
function disk:fault_inject(fault) end

---Ends all faults; requests that they hold up go on.
function disk:clear_faults() end

---The modes of the faults that may still strike.
---@return provium.FaultMode[]
function disk:active_faults() end

---Counters.
---@return provium.DiskStats
function disk:stats() end

---Begins to record requests anew, or stops; what was recorded stays.
---@param on boolean
function disk:log(on) end

---The recorded requests.
---@return provium.DiskRequest[]
function disk:requests() end

---What the disk would hold after a power cut now.
---@param opts? provium.CrashOptions Default `{seed = 1}`.
---@return provium.DiskState
function disk:crash(opts) end

---An iterator over states that a power cut at any time of the recording could have left.
---@param opts? provium.CrashStatesOptions
---@return fun(): provium.DiskState|nil
function disk:crash_states(opts) end

---Drops what was not flushed; until the VM is reset, the guest's writes fail.
---@param opts? provium.CrashOptions Without a seed nothing that was not flushed is left.
function disk:power_cut(opts) end

---What it holds now.
---@return provium.DiskState
function disk:state() end

---Makes it hold a state of the same size.
---@param state provium.DiskState
function disk:restore(state) end

---What a disk holds, or would hold after a power cut; `image = state` begins another disk with it.
---@class provium.DiskState
local state = {}

---Its size in bytes.
---@return integer
function state:size() end

---After how many writes and flushes of the recording the power went; nil where it is of no recording.
---@return integer|nil
function state:point() end

---Its content.
---@param first integer
---@param n integer
---@return string
function state:read_sectors(first, n) end

---Writes it to a raw image on the host; returns the path.
---@param path string Relative to the calling file.
---@return string
function state:save(path) end
