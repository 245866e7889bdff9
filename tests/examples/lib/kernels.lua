-- What several tests ask a guest about its kernel. A test file gets it with require("lib.kernels").

local kernels = {}

--- What `uname -r` prints, without the line end.
function kernels.release(vm)
    return vm:run("uname -r"):assert_ok():trim()
end

--- The two numbers a release begins with: 6 and 12 of "6.12.117+deb13-cloud-amd64".
function kernels.series(release)
    local major, minor = release:match("^(%d+)%.(%d+)")
    return tonumber(major), tonumber(minor)
end

--- Whether release `a` is of a newer series than release `b`.
function kernels.is_newer(a, b)
    local a_major, a_minor = kernels.series(a)
    local b_major, b_minor = kernels.series(b)
    if a_major ~= b_major then
        return a_major > b_major
    end
    return a_minor > b_minor
end

--- The words of the kernel's command line.
function kernels.cmdline(vm)
    local words = {}
    for word in vm:read_file("/proc/cmdline"):gmatch("%S+") do
        words[#words + 1] = word
    end
    return words
end

return kernels
