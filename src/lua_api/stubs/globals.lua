---@meta provium
-- Type definitions of provium's Lua API: the globals, and types that several classes use.

---A time: seconds (fractions allowed), or a string with a unit: `"500ms"`, `"5s"`, `"2m"`, `"1h"`.
---@alias provium.Duration number|string

---A size: bytes, or a string with `K`, `M`, `G` or `T` (powers of 1024).
---@alias provium.Size integer|string

---What a stream is searched for: a plain substring, or a Lua pattern in a table.
---@alias provium.Pattern string|{pattern: string}

---A value that came from JSON; `null` inside containers is dropped.
---@alias provium.Json nil|boolean|integer|number|string|table

---What the runner reads of a test's metadata; every other key is kept and passed on with events and reports.
---@class provium.Meta
---@field slow? boolean Left out unless `--include-slow` or `--only-slow` is given.
---@field skip? boolean|string The test is skipped; a string is the reason.
---@field tags? string|string[] Selected by `--tag` and `--no-tag`.
---@field timeout? provium.Duration The test's own limit; 0 for none.
---@field splats? "fail"|"log" Whether a kernel report fails the test.
---@field profiles? string[] The test runs once for each of these profiles; `t.profile` names the one.
---@field [string] provium.Json

---Registers a test. Tests run in the order of their registration; two tests of one name are an error.
---@param name string
---@param meta provium.Meta
---@param fn fun(t: provium.Test)
---@overload fun(name: string, fn: fun(t: provium.Test))
function test(name, meta, fn) end

---At file scope: every test of this file is skipped for this reason.
---@param reason? string Default `"todo"`.
function todo(reason) end

---@class provium.WaitOptions
---@field timeout? provium.Duration Default 10 s.
---@field interval? provium.Duration Time between two calls; default 0.1 s.
---@field desc? string What is waited for, for the message.

---Calls `fn` until it returns a true value, and returns that. Raises once the time is over; an error in `fn` is raised at once.
---@generic T
---@param fn fun(): T
---@param opts? provium.WaitOptions
---@return T
function wait_until(fn, opts) end

---Runs functions at the same time inside one test and returns each one's first result in their order. The first error gives
---the others up and is raised.
---@generic T
---@param ... fun(): T
---@return T ...
function parallel(...) end

---Waits on the host.
---@param time provium.Duration
function sleep(time) end

---JSON with exact 64-bit integers.
---@class provium.JsonModule
json = {}

---A value as JSON text. A table with keys 1…N is an array (gaps become `null`), an empty table is an object.
---@param value provium.Json
---@return string
function json.encode(value) end

---The value of a JSON text.
---@param text string
---@return provium.Json
function json.decode(text) end

---Marks a table (or a new one) as an array, so that it is one even when it is empty.
---@generic T: table
---@param values? T
---@return T
function json.array(values) end

---@class provium.Asked
---@field profile? string In a fixture: the profile that it was asked for with.

---The file's root lab.
---@class provium.RootLab: provium.Lab, provium.Asked
---@field timeout provium.Duration The limit of each test of this file that sets none itself; nil for the command's.
---@field reset_between_tests boolean Whether file-scope VMs are as the file left them before each test.
provium = {}
