-- No head line: everything is this file's input.
local helper = require("helper")

test("the file knows what the sandbox is", function(t)
    t:assert_eq(helper.answer, 42)
end)
