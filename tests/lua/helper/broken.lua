-- A syntax error.
local x = 1
local = 2
