-- The parts of the API that call back into the author's functions: done in Lua, so that error values pass unchanged.
local native = ...
local error, xpcall, pcall, select, pack, unpack = error, xpcall, pcall, select, table.pack, table.unpack
local prelude = {}

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

-- The body of a branch of `parallel`: true and its first result, or false and the error value.
function prelude.branch(fn)
  local ok, value = pcall(fn)
  return ok, value
end

-- A failed assertion inside is the expected error, not the test's failure.
function prelude.assert_raises(t, fn, msg)
  native.raises_begin(t, fn)
  local ok, value = pcall(fn)
  native.raises_end(t, ok, msg)
  return value
end

return prelude
