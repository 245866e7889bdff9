-- A client of one kernel talks to a server of another.

local function talk(server_profile, client_profile)
    return function(t)
        local lan    = provium:bridge("lan")
        local server = provium:vm("server", server_profile):boot()
        local client = provium:vm("client", client_profile):boot()
        lan:attach({server, client})

        -- Run a real protocol against the mismatched pair. The guest has no python: busybox serves.
        server:run("httpd -f -p 8080 -h /etc &")
        wait_until(function()
            return server:run("netstat -ltn | grep :8080"):ok()
        end, {timeout = "30s"})
        client:run("wget -q -O - http://server.lan:8080/passwd"):assert_ok()
    end
end

test("stable client can talk to mainline server", {tags = "cross-version"}, talk("mainline", "stable"))
test("mainline client can talk to stable server", {tags = "cross-version"}, talk("stable", "mainline"))
