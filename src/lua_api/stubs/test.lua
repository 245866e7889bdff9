---@meta provium
-- Type definitions of provium's Lua API: what a test's body is given.

---The running test.
---@class provium.Test
---@field name string The name it was registered with.
---@field meta provium.Meta Its metadata; an empty table where it has none.
---@field profile string The profile that `meta.profiles` runs it with; nil without that.
local t = {}

---Fails unless `cond` is true; returns it.
---@generic T
---@param cond T
---@param msg? string
---@return T
function t:assert(cond, msg) end

---Fails unless both values are equal; tables are compared by content.
---@param a any Values of any type.
---@param b any
---@param msg? string
function t:assert_eq(a, b, msg) end

---Fails when both values are equal; tables are compared by content.
---@param a any Values of any type.
---@param b any
---@param msg? string
function t:assert_neq(a, b, msg) end

---Fails unless `needle` is a plain substring of a string or a member of an array.
---@param haystack string|table
---@param needle any A string, or a member of any type.
---@param msg? string
function t:assert_contains(haystack, needle, msg) end

---Fails unless the string matches the Lua pattern; returns the first capture, or the match.
---@param s string
---@param lua_pattern string
---@param msg? string
---@return string|integer
function t:assert_match(s, lua_pattern, msg) end

---Fails unless `fn` raises; returns what it raised. Failed assertions inside are the expected error.
---@param fn fun()
---@param msg? string
---@return any error The value that was raised: a string for every failure of this API.
function t:assert_raises(fn, msg) end

---Ends the test as failed.
---@param msg? string
function t:fail(msg) end

---Ends the test as skipped.
---@param reason string
function t:skip(reason) end

---Adds to the test's log; tables are shown with their content.
---@param value any Any value.
function t:log(value) end

---Keeps a file with the report.
---@param name string The file's name.
---@param bytes string Its content.
function t:attach(name, bytes) end

---Calls `fn` as a sub-result of its own in every output; returns what it returns. The first step that fails ends the test.
---@generic T
---@param name string
---@param fn fun(t: provium.Test): T
---@return T
function t:step(name, fn) end

---Turns KTAP or TAP lines, as of KUnit or kselftest, into sub-results.
---@param text string
function t:ktap(text) end
