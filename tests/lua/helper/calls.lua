local calls = {}

function calls.bad_sleep()
  sleep("never")
  return true
end

return calls
