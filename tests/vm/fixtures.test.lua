-- Fixtures: what vm_fixture and lab_fixture give, and how they refuse.

local shared = provium.vm_fixture("fixtures/base", {name = "shared"})

test("a machine of its own, as the fixture left it", function(t)
  local vm = provium.vm_fixture("fixtures/base")
  t:assert_eq({vm:name(), vm:profile(), vm:state()}, {"base", "linux", "booted"})
  t:assert_eq(vm:read_file("/tmp/prepared"), "prepared for linux")
  t:assert_eq(vm:read_file("/tmp/helper"), "from the helper")
  t:assert_eq(vm:read_file("/tmp/data"), "some data\n")
  vm:write_file("/tmp/prepared", "dirty")
  t:assert_eq(provium.base, vm)
end)

test("and the next one is clean", function(t)
  local first, second = provium:vm_fixture("fixtures/base"), provium.vm_fixture("fixtures/base.fixture.lua")
  t:assert_eq({first:name(), second:name()}, {"base", "base-2"})
  for _, vm in ipairs({first, second, shared}) do t:assert_eq(vm:read_file("/tmp/prepared"), "prepared for linux") end
  local one, other = first:run("head -c16 /dev/urandom | od -tx1"), second:run("head -c16 /dev/urandom | od -tx1")
  t:assert_neq(one.stdout, other.stdout)
end)

test("named, in a lab, with a name of its own in the guest", function(t)
  local rack = provium:lab("rack")
  local vm = rack:vm_fixture("fixtures/base", {name = "node", hostname = "node-1", agent_timeout = "60s"})
  t:assert_eq({vm:name(), rack.node, vm:run("hostname"):trim()}, {"node", vm, "node-1"})
  local error = t:assert_raises(function() rack:vm_fixture("fixtures/base", {name = "node"}) end)
  t:assert_contains(error, "there is a VM `node` already")
end)

test("several at the same time", function(t)
  local function one() return provium.vm_fixture("fixtures/base"):name() end
  local names = {parallel(one, one, one)}
  table.sort(names)
  t:assert_eq(names, {"base", "base-2", "base-3"})
end)

test("built on another fixture", function(t)
  local vm = provium.vm_fixture("fixtures/nested")
  t:assert_eq({vm:name(), vm:read_file("/tmp/prepared"), vm:read_file("/tmp/more")}, {"base", "prepared for linux", "more"})
end)

test("a whole lab", function(t)
  local pair = provium.lab_fixture("fixtures/pair")
  t:assert_eq({pair:name(), pair:vm_names()}, {"pair", {"left", "right"}})
  t:assert_eq({pair.left:read_file("/tmp/who"), pair.right:read_file("/tmp/who")}, {"left", "right"})
  local again = provium:lab_fixture("fixtures/pair")
  t:assert_eq({again:name(), again.left == pair.left}, {"pair-2", false})
  t:assert_eq(provium:lab_fixture("fixtures/pair", {name = "third", profile = "linux"}):name(), "third")
end)

local function refuses(t, text, fn, ...)
  local error = t:assert_raises(fn, ...)
  t:assert_contains(error, "tests/fixtures.test.lua:")
  t:assert_contains(error, text)
end

test("what is no fixture", function(t)
  refuses(t, "did you mean `fixtures/base`?", function() provium.vm_fixture("fixtures/bse") end)
  refuses(t, "there is no profile `lnux`", function() provium.vm_fixture("fixtures/base", {profile = "lnux"}) end)
  refuses(t, "expected the path of a fixture", function() provium.vm_fixture("") end)
  refuses(t, "did you mean `profile`?", function() provium.vm_fixture("fixtures/base", {profil = "linux"}) end)
  refuses(t, "`path`: expected the path of a fixture, found 5", function() provium.vm_fixture(5) end)
  refuses(t, "returns a lab's snapshot\nhint: lab_fixture restores it", function() provium.vm_fixture("fixtures/pair") end)
  refuses(t, "returns a VM's snapshot\nhint: vm_fixture restores it", function() provium.lab_fixture("fixtures/base") end)
  refuses(t, "`tests/bad/nothing.fixture.lua` returned nil, expected a snapshot", function() provium.vm_fixture("bad/nothing") end)
  refuses(t, "tests/bad/raises.fixture.lua:2: on purpose", function() provium.vm_fixture("bad/raises") end)
  refuses(t, "tests/bad/syntax.fixture.lua:1: ", function() provium.vm_fixture("bad/syntax") end)
  refuses(t, "test: a fixture has no tests", function() provium.vm_fixture("bad/tests") end)
  refuses(t, "it is built on itself: `bad/one` → `bad/other` → `bad/one`", function() provium.vm_fixture("bad/one") end)
  t:assert_eq({provium.base, provium.pair, provium.profile}, {nil, nil, nil})
end)
