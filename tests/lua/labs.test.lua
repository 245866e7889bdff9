-- Labs, scopes and names; nothing boots. tests/lua_api.rs puts a provium.toml with the profile `p` beside this file.

local shared = provium:vm("shared", "p")
local group = provium:lab("group")
local first = group:vm("first", "p", {memory = "64M"})
local kept = {}

local function raises(t, pattern, fn, ...)
  local args = table.pack(...)
  local err = t:assert_raises(function() fn(table.unpack(args, 1, args.n)) end)
  t:assert_match(err, "^labs%.test%.lua:%d+: ")
  t:assert_contains(err, pattern)
end

test("a test lists its own and finds the file's", function(t)
  t:assert_eq(provium:members(), {})
  t:assert_eq(provium:vm("shared"), shared)
  t:assert_eq(provium.shared, shared)
  local own = provium:vm("own", "p")
  local inner = provium:lab("inner")
  t:assert_eq(provium:members(), {{kind = "vm", name = "own"}, {kind = "sub_lab", name = "inner"}})
  t:assert_eq({provium:vm_names(), provium:sub_lab_names(), provium:bridge_names()}, {{"own"}, {"inner"}, {}})
  t:assert_eq({provium.own, provium.inner, provium.group}, {own, inner, group})
  t:assert_eq(provium.nothing, nil)
  t:assert_eq({provium:name(), inner:name(), tostring(inner)}, {"provium", "inner", "lab `inner`"})
  t:assert_eq({own:state(), own:name(), own:profile(), first:memory()}, {"created", "own", "p", 64 << 20})
  kept.own, kept.inner = own, inner
end)

test("names are free again in the next test, and what was kept is over", function(t)
  t:assert_eq(provium.own, nil)
  t:assert_eq(provium:vm_names(), {})
  raises(t, "`inner` is of the test `a test lists its own and finds the file's`, which has ended", kept.inner.vm, kept.inner, "x", "p")
  for _, method in ipairs({"name", "members", "vm_names", "bridge_names", "sub_lab_names"}) do
    raises(t, "which has ended", kept.inner[method] or provium[method], kept.inner)
  end
  t:assert_eq(kept.inner.x, nil)
  raises(t, "its test has ended", kept.own.boot, kept.own)
  t:assert_neq(provium:vm("own", "p"), kept.own)
  t:assert_raises(function() provium:include(kept.inner) end)
end)

test("a name that is taken names both places", function(t)
  raises(t, "there is a VM `shared` already, created at labs.test.lua:3", provium.vm, provium, "shared", "p")
  raises(t, "there is a sub-lab `group` already, created at labs.test.lua:4", provium.vm, provium, "group", "p")
  raises(t, "there is a sub-lab `group` already", provium.lab, provium, "group")
  raises(t, "there is a VM `first` already, created at labs.test.lua:5", group.vm, group, "first", "p")
end)

test("looking up", function(t)
  raises(t, "lab:vm: no VM `shraed` in the lab `provium`: there are shared, group\nhint: did you mean `shared`?", provium.vm, provium, "shraed")
  raises(t, "`group` is a sub-lab, not a VM", provium.vm, provium, "group")
  -- No way from one lab to its siblings or its parent.
  raises(t, "no VM `shared` in the lab `group`", group.vm, group, "shared")
  t:assert_eq(group.shared, nil)
  t:assert_eq({group.first, group:vm("first")}, {first, first})
end)

test("bad names and arguments", function(t)
  for _, name in ipairs{"pack", "unpack", "vm_fixture", "lab_fixture"} do
    raises(t, "`" .. name .. "` is reserved", provium.vm, provium, name, "p")
    raises(t, "`" .. name .. "` is reserved", provium.lab, provium, name)
  end
  raises(t, "`name`: expected 1 to 63 letters", provium.vm, provium, "a/b", "p")
  raises(t, "`name`: expected 1 to 63 letters", provium.lab, provium, "")
  raises(t, "there is no profile `q`", provium.vm, provium, "x", "q")
  raises(t, "expected a profile's name, found 5", provium.vm, provium, "x", 5)
  raises(t, "unknown option `memroy`\nhint: did you mean `memory`?", provium.vm, provium, "x", "p", {memroy = 1})
  raises(t, "methods are called with a colon", provium.vm, "x", "p")
  raises(t, "methods are called with a colon", provium.name)
  t:assert_eq(provium.x, nil, "nothing was created")
  -- Any other name will do; a method is found before a member of its name.
  t:assert_eq(provium:vm("members", "p"):name(), "members")
  t:assert_eq(type(provium.members), "function")
  t:assert_eq(provium:vm("members"):name(), "members")
end)

test("labs without a name", function(t)
  local one, two = provium:lab(), provium:lab()
  t:assert_eq({one:name(), two:name()}, {"__lab_0", "__lab_1"})
  t:assert_eq(group:lab():name(), "__lab_0")
  t:assert_eq(provium.__lab_1, two)
end)

test("membership", function(t)
  local a, b = provium:vm("a", "p"), provium:vm("b", "p")
  local set = provium:lab("set")
  t:assert_eq(set:include(a), set)
  set:include{a, b, group}
  t:assert_eq(set:members(), {{kind = "vm", name = "a"}, {kind = "vm", name = "b"}, {kind = "sub_lab", name = "group"}})
  t:assert_eq(set.group.first, first)
  t:assert_eq(set:remove("a"):remove(group), set)
  t:assert_eq(set:vm_names(), {"b"})
  t:assert_eq(provium:vm_names(), {"a", "b"}, "still members of provium")
  raises(t, "`a` is no member of this lab", set.remove, set, "a")
  raises(t, "`a` is no member of this lab", set.remove, set, a)
  raises(t, "`shared` is a member for the whole file (created at labs.test.lua:3): a test can't remove it", provium.remove, provium, shared)
  raises(t, "expected a VM, a bridge or a lab, found 5", set.include, set, 5)
  raises(t, "expected a VM, a bridge or a lab, found \"a\"", set.include, set, {a, "a"})
  raises(t, "the lab `provium` would hold itself", set.include, set, provium)
  local other = provium:lab("other")
  other:vm("b", "p")
  raises(t, "there is a VM `b` already, created at labs.test.lua:", other.include, other, b)
  provium:remove("a")
  t:assert_eq(provium.a, nil)
  t:assert_eq(a:state(), "created")
  provium:vm("a", "p")
end)

test("a member that a test adds to a lab of the file", function(t)
  group:vm("second", "p")
  t:assert_eq(group:vm_names(), {"first", "second"})
end)

test("goes with the test", function(t)
  t:assert_eq(group:vm_names(), {"first"})
end)

test("nothing to do is done", function(t)
  t:assert_eq(provium:boot(), provium)
  t:assert_eq(provium:vm("x", "p"):state(), "created")
  t:assert_eq(provium:shutdown(), provium)
  t:assert_eq(provium.x:state(), "shutdown")
end)

test("barriers", function(t)
  local log = {}
  local function branch(name, time)
    return function()
      for round = 1, 3 do
        sleep(time)
        log[#log + 1] = name .. round
        provium:barrier("all", 2)
      end
    end
  end
  parallel(branch("a", "1ms"), branch("b", "15ms"))
  t:assert_eq({log[1], log[2], log[5], log[6]}, {"a1", "b1", "a3", "b3"})
  provium:barrier("alone", 1)
  raises(t, "lab:barrier: `all`: 1 of 2 arrived within 20ms", provium.barrier, provium, "all", 2, "20ms")
  raises(t, "`count`: expected a whole number from 1, found 0", provium.barrier, provium, "x", 0)
  raises(t, "`count`: expected a whole number from 1, found 1.5", provium.barrier, provium, "x", 1.5)
  raises(t, "5 parsecs", provium.barrier, provium, "x", 1, "5 parsecs")
  local err = t:assert_raises(function()
    parallel(function() provium:barrier("n", 2, "5s") end, function() provium:barrier("n", 3, "5s") end)
  end)
  t:assert_contains(err, "`n`: expected by 3 here, but by 2 where others wait")
end)

test("pack and unpack, with a dot and with a colon", function(t)
  local bytes = provium.pack("<I4z", 0x01020304, "x")
  t:assert_eq(bytes, "\4\3\2\1x\0")
  t:assert_eq({provium:unpack("<I4z", bytes)}, {0x01020304, "x", 7})
  t:assert_eq({group:pack(">i2", -1), provium.unpack(">i2", "\255\255")}, {"\255\255", -1, 3})
  raises(t, "lab:pack: ", provium.pack, "Q", 1)
  raises(t, "lab:unpack: ", provium.unpack, "<I4", "x")
end)

test("files that fixtures depend on", function(t)
  provium:depends_on_file("labs.test.lua")
  provium:depends_on_file("provium.toml")
  raises(t, "no such file", provium.depends_on_file, provium, "no/such/file")
  raises(t, "is a directory", provium.depends_on_file, provium, ".")
  raises(t, "`path`: expected a string, found nil", provium.depends_on_file, provium)
end)

test("settings of the file are set at file scope", function(t)
  t:assert_eq({provium.timeout, provium.reset_between_tests}, {20.0, false})
  raises(t, "set it at file scope", function() provium.timeout = 1 end)
  raises(t, "a lab has no setting `tiemout`\nhint: did you mean `timeout`?", function() provium.tiemout = 1 end)
  raises(t, "a lab has no setting `x`", function() group.x = 1 end)
end)

provium.timeout = "20s"
provium.reset_between_tests = false
local ok, err = pcall(function() provium.timeout = "soon" end)
assert(not ok and err:find("provium.timeout: `soon`"), err)
ok, err = pcall(function() provium.reset_between_tests = 1 end)
assert(not ok and err:find("expected true or false, found 1"), err)

test("a claim", function(t)
  raises(t, "needs 1024 TiB, the pool has ", provium.claim, provium, {memory = "1024T"})
  raises(t, "needs 100000 CPUs, the pool has ", provium.claim, provium, {cpus = 100000})
  raises(t, "expected `memory`, `cpus` or both", provium.claim, provium, {})
  raises(t, "expected a size above 0", provium.claim, provium, {memory = 0})
  raises(t, "expected a whole number from 1", provium.claim, provium, {cpus = 0})
  raises(t, "did you mean `memory`?", provium.claim, provium, {memroy = 1})
  provium:claim{memory = "1M", cpus = 1}
  raises(t, "this file has claimed already, at labs.test.lua:", provium.claim, provium, {cpus = 1})
end)
