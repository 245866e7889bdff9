-- The parts of the API that call back into the author's functions: done in Lua, so that error values pass unchanged.
local native, parents = ...
local error, xpcall, pcall, select, pack, unpack = error, xpcall, pcall, select, table.pack, table.unpack
local pairs, setmetatable, running, status = pairs, setmetatable, coroutine.running, coroutine.status
local prelude = {}

-- Of each coroutine: how many `assert_raises` are open in it, and its innermost open step.
local raising, stepping = setmetatable({}, {__mode = "k"}), setmetatable({}, {__mode = "k"})

-- What `open` holds for `co`, else for the coroutine that called `parallel`, if it is a branch.
local function upwards(open, co)
  while co do
    if open[co] ~= nil then return open[co] end
    co = parents[co]
  end
end

-- What `open` holds for the running call: for its own coroutine, for one that waits for it to come back. A branch of
-- `parallel` that is suspended is none of these.
local function enclosing(open)
  local found = upwards(open, running())
  if found ~= nil then return found end
  for co in pairs(parents) do
    found = status(co) == "normal" and upwards(open, co) or nil
    if found ~= nil then return found end
  end
  for co, value in pairs(open) do
    if status(co) == "normal" then return value end
  end
end

-- Whether the running call is inside of `assert_raises`, and its innermost open step.
function prelude.context()
  return enclosing(raising) ~= nil, enclosing(stepping)
end

function prelude.wait_until(fn, opts)
  local wait = native.wait_begin(fn, opts)
  while true do
    local value = fn()
    if value then
      native.wait_end()
      return value
    end
    native.wait_again(wait)
  end
end

-- Runs a test's body: true, or false with the error value and the author's frames where it was raised.
function prelude.run_body(fn, t)
  raising, stepping = setmetatable({}, {__mode = "k"}), setmetatable({}, {__mode = "k"})
  local trace
  local ok, raised = xpcall(fn, function(value)
    trace = native.stack()
    return value
  end, t)
  if ok then return true end
  return false, raised, trace
end

-- Records what `fn` asks of its argument, then does it.
function prelude.batch(vm, fn)
  local batch = native.batch_begin(vm, fn)
  fn(batch)
  return native.batch_run(batch)
end

-- The body of a branch of `parallel`: true and its first result, or false, the error value and the author's frames.
function prelude.branch(fn)
  local trace
  local ok, value = xpcall(fn, function(value)
    trace = native.stack()
    return value
  end)
  return ok, value, trace
end

-- A failed assertion inside is the expected error, not the test's failure.
function prelude.assert_raises(t, fn, msg)
  native.raises_begin(t, fn)
  local co = running()
  raising[co] = (raising[co] or 0) + 1
  local ok, value = pcall(fn)
  raising[co] = raising[co] > 1 and raising[co] - 1 or nil
  native.raises_end(t, ok, msg)
  return value
end

-- Nothing is caught here: the error of a step that fails passes by, and `step` is closed on its way.
function prelude.step(t, name, fn)
  local step <close> = native.step_begin(t, name, fn, enclosing(stepping))
  local co = running()
  local outer = stepping[co]
  stepping[co] = step
  local results = pack(fn(t))
  stepping[co] = outer
  native.step_end(step)
  return unpack(results, 1, results.n)
end

-- A module's chunk, known to be loading while it runs.
function prelude.loader(chunk, name, path, begin, finish)
  local mark = {__close = finish}
  return function(...)
    begin(name, path)
    local guard <close> = setmetatable({}, mark)
    return chunk(...)
  end
end

-- `fn` must cause a kernel report that matches; gives its text. An error that the report explains is none.
function prelude.expect_splat(vm, pattern, fn, opts)
  local call = native.splat_begin(vm, pattern, fn, opts)
  local ok, value = pcall(fn)
  local report = native.splat_end(call, ok, value)
  if report == nil then error(value, 0) end
  return report
end

return prelude
