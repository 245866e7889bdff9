-- The way out, in a network that the Rust test makes: one address, which a web server answers on, and a default route that leads to nobody.
local lan = provium:bridge("lan")
local a, b = provium:vm("a", "linux"), provium:vm("b", "mainline")
lan:attach({a, b})
provium:boot()

local function fetch(vm)
  return vm:run("wget -q -T 20 -O - http://192.0.2.2:8099/provium.toml", {timeout = "60s"})
end

test("guests of both kernels get out while they may", function(t)
  t:assert(not fetch(a):ok())
  t:assert_eq(lan:enable_uplink():enable_uplink(), lan)
  for _, vm in ipairs{a, b} do t:assert_contains(fetch(vm):assert_ok().stdout, "[profiles.linux]") end
  t:assert(a:run("ping -c 1 -W 30 b.lan"):ok())
  lan:disable_uplink()
  t:assert(not fetch(a):ok() and not a:run("ip route"):assert_ok().stdout:find("default"))
  lan:enable_uplink()
  t:assert(fetch(b):ok())
  lan:detach(b)
  t:assert(fetch(a):ok())
end)
