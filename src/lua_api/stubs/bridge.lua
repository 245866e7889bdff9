---@meta provium
-- Type definitions of provium's Lua API: bridges and network cards.

---Addresses of a member.
---@class provium.Address
---@field ipv4 string
---@field ipv6? string
---@field mac string
---@field prefix integer Bits of the IPv4 network's part.

---@class provium.BridgeOptions
---@field subnet? string Such as `10.1.0.0/24`.
---@field ipv6? boolean With true, names stand for IPv6 addresses too.
---@field mtu? integer
---@field dhcp? boolean
---@field dns? boolean
---@field addresses? boolean With false, the guests' interfaces are left alone.

---@class provium.CaptureOptions
---@field path? string A file of the host.

---A direction between two members.
---@class provium.Direction
---@field from provium.VM|string
---@field to provium.VM|string

---@class provium.LatencyOptions
---@field from? provium.VM|string
---@field to? provium.VM|string
---@field ms number|string
---@field jitter? number|string

---@class provium.RateOptions
---@field from? provium.VM|string
---@field to? provium.VM|string
---@field p? number|string Percent.

---@class provium.BandwidthOptions
---@field from? provium.VM|string
---@field to? provium.VM|string
---@field bps? number|string

---@class provium.Counters
---@field rx_bytes integer
---@field tx_bytes integer
---@field rx_packets integer
---@field tx_packets integer
---@field dropped integer
---@field errors integer

---A switch inside provium.
---@class provium.Bridge
local bridge = {}

---Its name.
---@return string
function bridge:name() end

---The members' names.
---@return string[]
function bridge:members() end

---Makes VMs members, before or after boot; all or none.
---@param vms provium.VM|provium.VM[]
---@return provium.Bridge
function bridge:attach(vms) end

---Ends a membership.
---@param vm provium.VM|string
---@return provium.Bridge
function bridge:detach(vm) end

---A member's card.
---@param vm provium.VM|string
---@return provium.Nic
function bridge:nic(vm) end

---A member's addresses.
---@param vm provium.VM|string
---@return provium.Address
function bridge:address(vm) end

---Ends the bridge.
function bridge:close() end

---Forwards packets between this bridge and others.
---@param others provium.Bridge|provium.Bridge[]
---@return provium.Bridge
function bridge:route(others) end

---Forwards no more; to none at all where no bridge is given.
---@param others? provium.Bridge|provium.Bridge[]
---@return provium.Bridge
function bridge:unroute(others) end

---The names of the bridges that packets are forwarded to.
---@return string[]
function bridge:routes() end

---Gives the members a way out, through `passt`.
---@return provium.Bridge
function bridge:enable_uplink() end

---Takes the way out away.
---@return provium.Bridge
function bridge:disable_uplink() end

---All frames from now on, as pcap.
---@param opts? provium.CaptureOptions
---@return provium.Stream
function bridge:capture(opts) end

---Puts a frame on the wire.
---@param bytes string
---@return provium.Bridge
function bridge:inject(bytes) end

---Sets the seed of random decisions; without a number, returns it.
---@param n? integer
---@return provium.Bridge|integer
function bridge:seed(n) end

---Cuts both directions, one direction, or all between groups.
---@param a provium.VM|string|provium.Direction|provium.VM[][]
---@param b? provium.VM|string
---@return provium.Bridge
function bridge:partition(a, b) end

---Undoes `partition`.
---@param a provium.VM|string|provium.Direction|provium.VM[][]
---@param b? provium.VM|string
---@return provium.Bridge
function bridge:unpartition(a, b) end

---Cuts every member off from every other.
---@return provium.Bridge
function bridge:partition_all() end

---Undoes all partitions.
---@return provium.Bridge
function bridge:restore_all() end

---Whether nothing gets from the first to the second.
---@param a provium.VM|string|provium.Direction|provium.VM[][]
---@param b? provium.VM|string
---@return boolean
function bridge:is_partitioned(a, b) end

---Cuts a member off from everything.
---@param vm provium.VM|string
---@return provium.Bridge
function bridge:isolate(vm) end

---Undoes `isolate`.
---@param vm provium.VM|string
---@return provium.Bridge
function bridge:unisolate(vm) end

---Whether a member is cut off from everything.
---@param vm provium.VM|string
---@return boolean
function bridge:is_isolated(vm) end

---Clears impairments, partitions and isolation.
---@return provium.Bridge
function bridge:reset() end

---Holds frames back; milliseconds.
---@param x number|string|provium.LatencyOptions
---@return provium.Bridge
function bridge:add_latency(x) end

---Holds the frames of one direction back.
---@param x provium.LatencyOptions
---@return provium.Bridge
function bridge:add_directional_latency(x) end

---Loses frames; percent.
---@param x number|string|provium.RateOptions
---@return provium.Bridge
function bridge:drop_rate(x) end

---Another name of `drop_rate`.
---@param x number|string|provium.RateOptions
---@return provium.Bridge
function bridge:loss(x) end

---Loses frames of one direction.
---@param x provium.RateOptions
---@return provium.Bridge
function bridge:directional_drop_rate(x) end

---Delivers frames twice; percent.
---@param x number|string|provium.RateOptions
---@return provium.Bridge
function bridge:duplicate_rate(x) end

---Turns one bit of frames; percent.
---@param x number|string|provium.RateOptions
---@return provium.Bridge
function bridge:corrupt_rate(x) end

---Has frames overtaken by the next one; percent.
---@param x number|string|provium.RateOptions
---@return provium.Bridge
function bridge:reorder_rate(x) end

---Limits bits per second; 0 is no limit.
---@param x number|string|provium.BandwidthOptions
---@return provium.Bridge
function bridge:bandwidth_limit(x) end

---The whole bridge's latency.
---@return number
function bridge:latency_ms() end

---The whole bridge's loss.
---@return number
function bridge:drop_rate_pct() end

---The whole bridge's limit; 0 is none.
---@return integer
function bridge:bandwidth_bps() end

---A VM's card on a bridge.
---@class provium.Nic
local nic = {}

---The VM's name.
---@return string
function nic:vm_name() end

---The bridge's name.
---@return string
function nic:bridge() end

---Its hardware address.
---@return string
function nic:mac() end

---What went through it, as the guest sees it.
---@return provium.Counters
function nic:counters() end

---Its frames from now on, as pcap.
---@param opts? provium.CaptureOptions
---@return provium.Stream
function nic:capture(opts) end

---Takes its carrier away.
---@return provium.Nic
function nic:disconnect() end

---Gives its carrier back.
---@return provium.Nic
function nic:reconnect() end
