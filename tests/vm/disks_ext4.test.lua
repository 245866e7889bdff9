-- Disks under ext4: a file system that turns read-only, and what is left of files after a power cut. The images are made, and
-- the states checked, by the host's own e2fsprogs.

local tools = "PATH=$PATH:/usr/sbin:/sbin; "
-- busybox has no `fsync`, but its `dd` can; on ext4 that commits the whole journal, names too.
local fsync = "fsync() { dd if=/dev/null of=$1 conv=notrunc,fsync 2> /dev/null; }; "
local vm = provium:vm("ext4", "linux", {memory = "192M"}):boot()

local function make(options)
  local image = os.tmpname()
  assert(os.execute(tools .. "truncate -s 8M " .. image .. " && mke2fs -q -F -t ext4 -b 1024 -J size=1 " .. (options or "") .. " " .. image))
  return image
end

local function output(command)
  local file = io.popen(tools .. command)
  local text = file:read("a")
  file:close()
  return text
end

local function mount(disk, options)
  vm:run("mkdir -p /mnt; mount -t ext4 -o " .. options .. " " .. disk:device() .. " /mnt"):assert_ok()
end

test("errors=remount-ro", function(t)
  local image = make()
  local disk = vm:attach_disk({id = "ro", image = image})
  mount(disk, "errors=remount-ro")
  vm:run("echo 1 > /mnt/before; sync"):assert_ok()
  t:assert_contains(vm:run("grep /mnt /proc/mounts").stdout, " rw,")
  disk:fault_inject("eio_write")
  wait_until(function()
    return vm:run("echo lost > /mnt/lost; sync; touch /mnt/x").stderr:find("Read-only file system", 1, true)
  end, {timeout = "60s"})
  disk:clear_faults()
  t:assert_contains(vm:run("touch /mnt/x").stderr, "Read-only file system")
  t:assert_eq(vm:read_file("/mnt/before"), "1\n")
  vm:run("umount /mnt"):assert_ok()
  disk:detach()
  os.remove(image)
end)

-- How many writes and flushes were recorded so far.
local function steps(disk)
  local count = 0
  for _, request in ipairs(disk:requests()) do count = count + (request.kind == "read" and 0 or 1) end
  return count
end

-- The files of a state, after the journal was replayed.
local function files(t, state, names)
  local path = os.tmpname()
  assert(io.open(path, "wb")):close()
  state:save(path)
  local _, _, code = os.execute(tools .. "e2fsck -fp " .. path .. " > /dev/null 2>&1")
  t:assert(code <= 1, "e2fsck: " .. tostring(code) .. " after " .. tostring(state))
  local found = {}
  for _, name in ipairs(names) do
    found[name] = output(("debugfs -R 'cat /%s' %s 2>/dev/null"):format(name, path))
  end
  os.remove(path)
  return found
end

test("what was fsynced survives every state", function(t)
  local image = make()
  local disk = vm:attach_disk({id = "fsynced", image = image})
  mount(disk, "defaults")
  disk:log(true)
  local names, safe = {}, {}
  for number = 1, 6 do
    local name = "file" .. number
    vm:run(fsync .. ("echo %s > /mnt/%s; fsync /mnt/%s; echo not safe > /mnt/unsafe%d"):format(name, name, name, number)):assert_ok()
    table.insert(names, name)
    safe[name] = steps(disk)
  end
  disk:log(false)
  vm:run("umount /mnt"):assert_ok()
  local states, missing = 0, 0
  for state in disk:crash_states({samples = 200, seed = 11}) do
    states = states + 1
    local found = files(t, state, names)
    for _, name in ipairs(names) do
      if state:point() >= safe[name] then
        t:assert_eq(found[name], name .. "\n", tostring(state))
      elseif found[name] ~= name .. "\n" then
        missing = missing + 1
      end
    end
  end
  t:assert_eq(states, 200)
  t:assert(missing > 0, "what was not fsynced yet may vanish")
  disk:detach()
  os.remove(image)
end)

-- A program that replaces its configuration, and something else that has the journal committed.
local programs = {
  wrong = "echo new > /mnt/tmp; mv /mnt/tmp /mnt/config",
  right = "echo new > /mnt/tmp; fsync /mnt/tmp; mv /mnt/tmp /mnt/config; fsync /mnt/config",
}

for name, program in pairs(programs) do
  test("the " .. name .. " program", function(t)
    local image = make()
    local disk = vm:attach_disk({id = name, image = image})
    mount(disk, "noauto_da_alloc")
    vm:run("echo old > /mnt/config; sync"):assert_ok()
    disk:log(true)
    vm:run(fsync .. program .. "; echo x > /mnt/other; fsync /mnt/other"):assert_ok()
    disk:log(false)
    vm:run("umount /mnt"):assert_ok()
    local broken
    for state in disk:crash_states({samples = 60, seed = 2}) do
      local config = files(t, state, {"config"}).config
      if config ~= "old\n" and config ~= "new\n" then broken = broken or {state = state, config = config} end
    end
    if name == "right" then
      t:assert(not broken, broken and broken.config)
    else
      t:assert(broken, "a state in which the configuration is lost")
      -- The guest itself finds the same.
      local copy = vm:attach_disk({id = "copy", image = broken.state})
      mount(copy, "defaults")
      t:assert_eq(vm:read_file("/mnt/config"), broken.config)
      vm:run("umount /mnt"):assert_ok()
      copy:detach()
    end
    disk:detach()
    os.remove(image)
  end)
end
