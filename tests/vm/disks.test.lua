-- Disks: their options, what a guest sees of them, faults, power cuts. One machine boots with disks on all buses.

local MiB = 1024 * 1024
local here = debug.getinfo(1, "S").source:match("^@(.*)/[^/]*$") or "."

local function raises(t, part, fn)
  local err = t:assert_raises(fn)
  t:assert_contains(err, part)
  return err
end

-- A file of the host beside this one, with `bytes`.
local function host_file(name, bytes)
  local file = assert(io.open(here .. "/" .. name, "wb"))
  file:write(bytes)
  file:close()
  return name
end

local function host_bytes(name)
  local file = assert(io.open(here .. "/" .. name, "rb"))
  local bytes = file:read("a")
  file:close()
  return bytes
end

local function sectors(text, n) return (text:rep(512 // #text)):rep(n or 1) end

local image = host_file("disk.img", sectors("imag", 64))
local through = host_file("through.img", sectors("thru", 8))
local before = host_bytes(image)

local vm = provium:vm("disks", "linux", {
  memory = "192M",
  disks = {{scratch = "2M", id = "scratch"}, {template = image, id = "template", mediated = true}, {path = through, id = "path"}},
})
local plain = vm:attach_disk()
local scsi = vm:attach_disk({id = "a-scsi-disk", size = "4M", bus = "scsi"})
local nvme = vm:attach_disk({id = "an-nvme-disk", size = "4M", bus = "nvme"})
local fixed = vm:attach_disk({id = "fixed", image = image, readonly = true, serial = "other-serial", bus = "scsi"})
vm:boot()

test("options are checked", function(t)
  local new = provium:vm("new", "linux")
  for part, options in pairs({
    ["unknown option `sise`\nhint: did you mean `size`?"] = {sise = 1},
    ["option `size`: expected whole sectors of 512 bytes, at least one and 1024T at most, found 100"] = {size = 100},
    ["option `scratch`: expected a size"] = {scratch = {}},
    ["option `image`: a disk has one source, and `scratch` is another"] = {scratch = "1M", image = image},
    ["option `path`: a disk has one source, and `template` is another"] = {template = image, path = image},
    ["option `bus`: expected \"virtio\" or \"scsi\" or \"nvme\", found \"ide\""] = {bus = "ide"},
    ["option `format`: expected \"raw\" or \"qcow2\", found \"vmdk\""] = {image = image, format = "vmdk"},
    ["option `cache`: expected \"writeback\""] = {cache = "best"},
    ["option `readonly`: expected true or false, found 1"] = {readonly = 1},
    ["option `id`: expected 20 bytes at most, since it is the disk's serial number, found `a-name-of-21-letters-"] = {id = "a-name-of-21-letters-"},
    ["option `serial`: expected 20 bytes at most"] = {id = "x", serial = ("s"):rep(21)},
    ["option `id`: expected printable"] = {id = "two words"},
    ["option `write_through`: it needs an `image`"] = {write_through = true},
    ["option `image`: expected a path or a state of a disk, found true"] = {image = true},
    ["option `image`: expected a path, found an empty string"] = {image = ""},
  }) do
    raises(t, part, function() new:attach_disk(options) end)
  end
  raises(t, "attach_disk: `options`: expected a table", function() new:attach_disk("x") end)
  raises(t, "can't open `", function() new:attach_disk({image = "no/such/image"}) end)
  raises(t, "no qcow2 image", function() new:attach_disk({image = image, format = "qcow2"}) end)
  raises(t, "more than the size 512", function() new:attach_disk({image = image, size = 512}) end)
  t:assert_eq(new:attach_disk({id = ("s"):rep(36), bus = "scsi", size = 512}):id(), ("s"):rep(36))
  t:assert_eq(new:attach_disk({size = "1M"}):id(), "attached-new")
  t:assert_eq(new:attach_disk({size = "1M"}):id(), "attached-new-2")
  t:assert_eq(provium:vm("a-rather-long-name", "linux"):attach_disk({size = "1M"}):id(), "attached-a-rather-lo")
  new:attach_disk({id = "one", size = "1M"})
  raises(t, "attach_disk: there is a disk `one` already", function() new:attach_disk({id = "one"}) end)
  for part, disks in pairs({
    ["`disks`: expected an array of tables, found \"x\""] = "x",
    ["`disks`: expected an array of tables, found 1"] = {1},
    ["`disks`: entry 1: each disk has exactly one source"] = {{id = "x"}},
    ["`disks`: expected an array of tables, found other keys"] = {scratch = "1M"},
    ["a disk has one source"] = {{scratch = "1M", template = image}},
    ["unknown option `temlate`\nhint: did you mean `template`?"] = {{temlate = "x"}},
  }) do
    raises(t, part, function() provium:vm("bad", "linux", {disks = disks}) end)
  end
  raises(t, "disk: disk `nobody`: there is no such disk\nhint: there are `", function() new:disk("nobody") end)
  raises(t, "the VM has none", function() provium:vm("empty", "linux"):disk("x") end)
  raises(t, "device: the VM is `created`", function() new:disk("one"):device() end)
  local missing = provium:vm("missing", "linux", {disks = {{template = "no/such/image"}}})
  raises(t, "no such file", function() missing:boot() end)
  raises(t, "a colon", function() new.attach_disk({}) end)
  raises(t, "`id`: expected a string", function() new:disk() end)
end)

test("every disk is found by its serial number", function(t)
  t:assert_eq({vm:disk("scratch"):device(), vm:disk("template"):device(), vm:disk("path"):device(), plain:device()},
    {"/dev/vda", "/dev/vdb", "/dev/vdc", "/dev/vdd"})
  t:assert_match(scsi:device(), "^/dev/sd[ab]$")
  t:assert_match(fixed:device(), "^/dev/sd[ab]$")
  t:assert_eq(nvme:device(), "/dev/nvme0n1")
  t:assert_eq(vm:run("blockdev --getsize64 " .. plain:device()):trim(), tostring(4 * 1024 * MiB))
  t:assert_eq({plain:size(), plain:id(), tostring(plain)}, {4 * 1024 * MiB, "attached-disks", "disk `attached-disks` of vm `disks`"})
  t:assert(vm:disk("attached-disks") == plain and plain ~= scsi)
  t:assert_eq(vm:run("cat /sys/block/vda/serial").stdout, "scratch")
  t:assert_eq(vm:run("head -c 8 " .. fixed:device()).stdout, "imagimag")
  -- A guest that has no node, and no /sys.
  vm:run("umount /sys; rm " .. scsi:device()):assert_ok()
  local device = scsi:device()
  t:assert_eq(vm:stat(device).entry_type, "block_device")
  vm:run("mount -t sysfs sysfs /sys"):assert_ok()
end)

test("writes on every bus arrive, and the image stays as it is", function(t)
  for _, disk in ipairs({vm:disk("scratch"), vm:disk("template"), plain, scsi, nvme}) do
    local device = disk:device()
    vm:run("head -c 8192 /dev/urandom > /tmp/random; dd if=/tmp/random of=" .. device .. " bs=4k seek=2 conv=fsync"):assert_ok()
    t:assert_eq(disk:read_sectors(16, 16), vm:read_file("/tmp/random"))
    disk:write_sectors(24, sectors("host"))
    vm:run("echo 1 > /proc/sys/vm/drop_caches"):assert_ok()
    t:assert_eq(vm:run("dd if=" .. device .. " bs=512 skip=24 count=1").stdout, sectors("host"))
    t:assert(disk:stats().flushes > 0)
  end
  vm:run("dd if=/tmp/random of=" .. vm:disk("path"):device() .. " bs=512 count=1 conv=fsync"):assert_ok()
  t:assert_eq(host_bytes(through):sub(1, 512), vm:read_file("/tmp/random"):sub(1, 512))
  t:assert(not vm:run("echo x | dd of=" .. fixed:device() .. " conv=fsync"):ok())
  raises(t, "EPERM", function() fixed:write_sectors(0, sectors("x")) end)
  t:assert_eq(host_bytes(image), before)
end)

test("sectors and their errors", function(t)
  local disk = vm:disk("scratch")
  raises(t, "sectors 4095 to 4096 are not on the disk, which has 4096 (0 to 4095): EINVAL", function() disk:read_sectors(4095, 2) end)
  raises(t, "write_sectors: disk `scratch`: sectors 4096 to 4096 are not on the disk", function() disk:write_sectors(4096, sectors("x")) end)
  raises(t, "`first`: expected a whole number, at least 0, found -1", function() disk:read_sectors(-1, 1) end)
  raises(t, "`n`: expected a whole number, at least 1, found 0", function() disk:read_sectors(0, 0) end)
  raises(t, "524288 sectors at most", function() disk:read_sectors(0, 10000000) end)
  raises(t, "expected whole sectors of 512 bytes, found 3 bytes", function() disk:write_sectors(0, "abc") end)
  raises(t, "`bytes`: expected a string", function() disk:write_sectors(0) end)
  t:assert(not vm:run("dd if=/dev/zero of=" .. disk:device() .. " bs=512 seek=4096 count=1 conv=fsync"):ok())
end)

-- The host's own `dd`, with its libraries: busybox's can't go around the page cache.
local function bring_dd()
  local file = io.popen("command -v dd; ldd $(command -v dd)")
  for line in file:lines() do
    local path = line:match("/%S+")
    if path then
      vm:mkdir(path:match("^.*/"), {parents = true})
      vm:push_file(path, path:match("/dd$") and "/dd" or path)
    end
  end
  file:close()
end

local function direct(device, arguments) return vm:run("/dd if=" .. device .. " of=/dev/null iflag=direct bs=512 " .. arguments) end

test("eio_read strikes its sectors and no others", function(t)
  bring_dd()
  for _, disk in ipairs({plain, scsi, nvme}) do
    local device = disk:device()
    disk:fault_inject({mode = "eio_read", first = 100, count = 8})
    local failed = direct(device, "skip=100 count=8")
    -- NVMe's error is one of the medium, which Linux tells so.
    t:assert_contains(failed.stderr, disk == nvme and "No data available" or "Input/output error")
    t:assert(not failed:ok())
    for sector = 100, 107 do t:assert(not direct(device, "count=1 skip=" .. sector):ok(), "sector " .. sector) end
    direct(device, "count=100"):assert_ok()
    direct(device, "skip=108 count=100"):assert_ok()
    raises(t, "sectors 99 to 100: the read failed: EIO", function() disk:read_sectors(99, 2) end)
    disk:clear_faults()
    direct(device, "skip=100 count=8"):assert_ok()
  end
end)

test("slow, hang, enospc, eio_flush, corrupt_read, torn_write", function(t)
  local device = plain:device()
  plain:fault_inject({mode = "slow", delay = "30ms"})
  t:assert(direct(device, "count=10"):assert_ok().duration >= 0.3)
  plain:clear_faults()
  plain:fault_inject({mode = "hang", first = 8, count = 8})
  direct(device, "count=8"):assert_ok()
  local errors = plain:stats().requests
  parallel(
    function() direct(device, "skip=8 count=1"):assert_ok() end,
    function()
      wait_until(function() return plain:stats().requests > errors end, {timeout = "60s"})
      t:assert_eq(plain:active_faults(), {"hang"})
      plain:clear_faults()
    end)
  for _, mode in ipairs({"enospc", "eio_write"}) do
    plain:fault_inject({mode = mode, times = 1})
    t:assert(not vm:run("dd if=/dev/zero of=" .. device .. " bs=4k count=1 conv=fsync"):ok(), mode)
    plain:clear_faults()
  end
  plain:fault_inject("eio_flush")
  t:assert(not vm:run("dd if=/dev/zero of=" .. device .. " bs=4k count=1 conv=fsync"):ok())
  plain:clear_faults()
  plain:write_sectors(0, sectors("good", 4))
  plain:fault_inject({mode = "corrupt_read", first = 1, count = 1})
  local read = plain:read_sectors(0, 3)
  t:assert_eq({read:sub(1, 512), read:sub(1025)}, {sectors("good"), sectors("good")})
  t:assert_neq(read:sub(513, 1024), sectors("good"))
  plain:clear_faults()
  t:assert_eq(plain:read_sectors(0, 4), sectors("good", 4))
  plain:fault_inject("torn_write")
  plain:write_sectors(0, sectors("torn", 4))
  t:assert_eq(plain:read_sectors(0, 4), sectors("torn", 2) .. sectors("good", 2))
  plain:clear_faults()
end)

test("faults are counted, several at once, and checked", function(t)
  local disk = vm:disk("scratch")
  disk:fault_inject({mode = "eio_write", after = 1, times = 2})
  disk:fault_inject({mode = "slow", delay = 0.001})
  t:assert_eq(disk:active_faults(), {"eio_write", "slow"})
  local outcomes = {}
  for _ = 1, 5 do table.insert(outcomes, (pcall(disk.write_sectors, disk, 0, sectors("x")))) end
  t:assert_eq(outcomes, {true, false, false, true, true})
  t:assert_eq(disk:active_faults(), {"slow"})
  disk:clear_faults()
  disk:fault_inject({mode = "eio_read", p = 0})
  disk:read_sectors(0, 1)
  disk:clear_faults()
  disk:fault_inject({mode = "eio_read", p = 0.5, seed = 3})
  local failed = 0
  for _ = 1, 200 do failed = failed + (pcall(disk.read_sectors, disk, 0, 1) and 0 or 1) end
  t:assert(failed > 50 and failed < 150, failed)
  disk:clear_faults()
  raises(t, "expected one of `eio_read`, `eio_write`, `eio_flush`, `enospc`, `slow`, `corrupt_read`, `torn_write`, `hang`, found `eio`",
    function() disk:fault_inject("eio") end)
  raises(t, "hint: did you mean `corrupt_read`?", function() disk:fault_inject({mode = "corupt_read"}) end)
  raises(t, "`mode`: expected one of", function() disk:fault_inject({first = 1}) end)
  raises(t, "`mode`: expected the name of a mode", function() disk:fault_inject(5) end)
  raises(t, "`p`: expected a probability from 0 to 1, found 1.5", function() disk:fault_inject({mode = "slow", p = 1.5}) end)
  raises(t, "`p`: expected a probability from 0 to 1, found", function() disk:fault_inject({mode = "slow", p = 0 / 0}) end)
  raises(t, "option `count`", function() disk:fault_inject({mode = "slow", count = 0}) end)
  raises(t, "unknown option `delai`\nhint: did you mean `delay`?", function() disk:fault_inject({mode = "slow", delai = 1}) end)
  raises(t, "`delay`: it belongs to the mode `slow`", function() disk:fault_inject({mode = "hang", delay = 1}) end)
  t:assert_eq(disk:active_faults(), {})
end)

test("requests are recorded", function(t)
  local disk = vm:disk("scratch")
  disk:log(true)
  vm:run("dd if=/dev/zero of=" .. disk:device() .. " bs=4k seek=10 count=1 conv=fsync"):assert_ok()
  disk:log(false)
  disk:read_sectors(0, 1)
  local writes, kinds = {}, {}
  for _, request in ipairs(disk:requests()) do
    kinds[request.kind] = true
    if request.kind == "write" then table.insert(writes, {request.sector, request.count}) end
    t:assert(request.time >= 0)
  end
  t:assert_eq(writes, {{80, 8}})
  t:assert(kinds.flush)
  raises(t, "`on`: expected true or false", function() disk:log() end)
end)

test("disks are plugged in and out, and resized, while the guest runs", function(t)
  for _, bus in ipairs({"virtio", "scsi", "nvme"}) do
    local disk = vm:attach_disk({id = "hot-" .. bus, size = "1M", bus = bus})
    local device = disk:device()
    vm:run("echo hello > " .. device .. "; sync"):assert_ok()
    t:assert_eq(disk:read_sectors(0, 1):sub(1, 6), "hello\n")
    if bus == "nvme" then
      raises(t, "an NVMe disk keeps its size while the machine runs", function() disk:resize("2M") end)
    else
      for _, size in ipairs({2, 1}) do
        disk:resize(size * MiB)
        t:assert_eq(vm:run("blockdev --getsize64 " .. device):trim(), tostring(size * MiB))
      end
      t:assert_eq(disk:size(), MiB)
    end
    -- One that hangs lets go as well.
    disk:fault_inject("hang")
    disk:detach()
    t:assert(disk:is_detached())
    disk:detach()
    wait_until(function() return not vm:exists(device) end, {timeout = "60s"})
    raises(t, "device: disk `hot-" .. bus .. "`: it was detached", function() disk:device() end)
    raises(t, "there is no such disk", function() vm:disk("hot-" .. bus) end)
  end
  raises(t, "whole sectors of 512 bytes", function() vm:disk("scratch"):resize(100) end)
  raises(t, "`n`: `big` is not a size", function() vm:disk("scratch"):resize("big") end)
  -- A disk that was there at boot.
  nvme:detach()
  wait_until(function() return not vm:exists("/dev/nvme0n1") end, {timeout = "60s"})
end)

test("states: what it holds, what a power cut would leave", function(t)
  local disk = vm:attach_disk({id = "states", size = "64K"})
  local device = disk:device()
  local function write(text, how) vm:run("printf " .. text .. " | /dd of=" .. device .. " bs=512 count=1 conv=sync" .. how):assert_ok() end
  local function first(thing) return thing:read_sectors(0, 1):match("^%a+") end
  write("flushed", ",fsync")
  write("cached", " oflag=direct")
  t:assert_eq({first(disk), first(disk:state())}, {"cached", "cached"})
  local left = {}
  for seed = 1, 40 do left[first(disk:crash({seed = seed}))] = true end
  t:assert_eq(left, {flushed = true, cached = true})
  t:assert_eq(first(disk:crash({seed = 9})), first(disk:crash({seed = 9})))
  local kept = disk:state()
  raises(t, "unknown option `sed`", function() disk:crash({sed = 1}) end)
  raises(t, "nothing was recorded\nhint: `disk:log(true)`", function() disk:crash_states() end)
  disk:log(true)
  write("second", ",fsync")
  write("third", " oflag=direct")
  disk:log(false)
  local seen = {}
  for state in disk:crash_states({exhaustive = true}) do seen[first(state)] = state:point() end
  t:assert_eq(seen, {cached = 0, second = 1, third = 3})
  local samples = 0
  for state in disk:crash_states({samples = 30, seed = 5, torn = false}) do
    samples = samples + 1
    t:assert(seen[first(state)], first(state))
    t:assert_match(tostring(state), "after a power cut %d writes and flushes")
  end
  t:assert_eq(samples, 30)
  raises(t, "there are 3 states, more than the limit of 2", function() disk:crash_states({exhaustive = true, limit = 2}) end)
  raises(t, "`seed`: it has no meaning beside `exhaustive`", function() disk:crash_states({exhaustive = true, seed = 1}) end)
  raises(t, "`limit`: it belongs to `exhaustive = true`", function() disk:crash_states({limit = 1}) end)
  raises(t, "unknown option `sample`\nhint: did you mean `samples`?", function() disk:crash_states({sample = 1}) end)
  disk:restore(kept)
  t:assert_eq({first(disk), kept:size(), kept:point()}, {"cached", 65536, nil})
  raises(t, "`state`: expected a state of a disk, found nil", function() disk:restore() end)
  raises(t, "the state has 128 sectors, and the disk 4096", function() vm:disk("scratch"):restore(kept) end)
  raises(t, "are not on the disk", function() kept:read_sectors(128, 1) end)
  raises(t, "`n`: expected a whole number", function() kept:read_sectors(0, "x") end)
  kept:save("kept.img")
  t:assert_eq({#host_bytes("kept.img"), host_bytes("kept.img"):sub(1, 6)}, {65536, "cached"})
  raises(t, "can't create", function() kept:save("no/such/directory/x") end)
  raises(t, "an empty string", function() kept:save("") end)
  local copy = vm:attach_disk({id = "copy", image = kept, size = "128K"})
  t:assert_eq({first(copy), copy:size()}, {"cached", 131072})
  raises(t, "a state of a disk can't be written through", function() vm:attach_disk({path = kept}) end)
  for _, op in ipairs({"crash", "state"}) do
    raises(t, op .. ": disk `path`: the image is written through", function() vm:disk("path")[op](vm:disk("path")) end)
  end
  raises(t, "the image is written through", function() vm:disk("path"):restore(kept) end)
  copy:detach()
end)

test("a power cut drops what was not flushed", function(t)
  local disk = vm:disk("states")
  local function write(text, how) vm:run("printf " .. text .. " | /dd of=" .. disk:device() .. " bs=512 count=1 conv=sync" .. how):assert_ok() end
  local function first() return disk:read_sectors(0, 1):match("^%a+") end
  write("flushed", ",fsync")
  write("cached", " oflag=direct")
  -- A reset takes no power away.
  disk:fault_inject({mode = "hang", first = 64})   -- firmware reads the first sectors
  vm:run("/dd if=" .. disk:device() .. " of=/dev/null iflag=direct bs=512 count=1 skip=64 > /dev/null 2>&1 &")
  vm:reset()
  disk:clear_faults()
  t:assert_eq(first(), "cached")
  bring_dd()
  write("flushed", ",fsync")
  write("cached", " oflag=direct")
  raises(t, "`torn`: it needs a `seed`", function() disk:power_cut({torn = true}) end)
  disk:power_cut()
  t:assert_eq(first(), "flushed")
  t:assert(not vm:run("printf late | /dd of=" .. disk:device() .. " bs=512 count=1 conv=sync oflag=direct"):ok())
  vm:reset()
  t:assert_eq(vm:run("head -c 7 " .. disk:device()).stdout, "flushed")
  bring_dd()
  write("cached", " oflag=direct")
  raises(t, "unknown option", function() vm:power_cut({tron = 1}) end)
  vm:power_cut()
  t:assert_eq(first(), "flushed")
  raises(t, "shut down", function() disk:device() end)
  -- Detached without a guest, and back with another boot.
  plain:detach()
  disk:resize("128K")
  vm:boot()
  t:assert_eq(vm:run("head -c 7 " .. disk:device()).stdout, "flushed")
  t:assert_eq(vm:run("blockdev --getsize64 " .. disk:device()):trim(), "131072")
  t:assert_eq(host_bytes(image), before)
  raises(t, "power_cut: the VM is `created`", function() provium:vm("dark", "linux"):power_cut() end)
end)
