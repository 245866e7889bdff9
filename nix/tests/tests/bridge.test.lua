-- provium: profiles=stable,mainline
local lan = provium:bridge("lan")
local a, b = provium:vm("a", "stable"), provium:vm("b", "mainline")
lan:attach({a, b})
provium:boot()

test("two kernels reach each other over a bridge in the sandbox", function(t)
    a:run({"ping", "-c", "1", "-W", "30", "b"}):assert_ok()
    b:run({"ping", "-c", "1", "-W", "30", "a"}):assert_ok()
end)

test("a partition keeps them apart", function(t)
    lan:partition(a, b)
    t:assert_eq(a:run({"ping", "-c", "1", "-W", "3", "b"}):ok(), false)
    lan:unpartition(a, b)
    a:run({"ping", "-c", "1", "-W", "30", "b"}):assert_ok()
end)
