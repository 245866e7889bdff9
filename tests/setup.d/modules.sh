# shellcheck shell=bash
# shellcheck disable=SC2016,SC2154 # backticks in messages are quotation marks; tests/setup sets what is not set here
# The modules of tests/guests/modules, built for both kernels: .images/<name>/lib/modules/<release>/extra/*.ko.
# The kernels' headers are downloaded as packages and unpacked in the cache; nothing is installed.

modules_are_built() {
    local extra=$images/$1/lib/modules/$2/extra source
    [[ -s $extra/provoke.ko ]] || return 1
    for source in "$repository"/tests/guests/modules/* "$images/$1/release"; do
        [[ ! $source -nt $extra/provoke.ko ]] || return 1
    done
}

# headers_of RELEASE - the packages that building a module for it takes, each on a line.
headers_of() {
    [[ -n $(apt_candidate "linux-headers-$1") ]] || return 1
    printf '%s\n' "linux-headers-$1"
    LC_ALL=C apt-cache depends "linux-headers-$1" | sed -nE 's/^ +Depends: (linux-(headers|kbuild)-.*)/\1/p'
}

# fetch_headers RELEASE DIRECTORY - downloads and unpacks them; DIRECTORY appears whole or not at all.
fetch_headers() {
    local release=$1 directory=$2 packages part=$2.part.$$ package makefile
    packages=$(headers_of "$release") || { apt_update; packages=$(headers_of "$release"); } || return 1
    say "downloading, not installing: ${packages//$'\n'/, }"
    # shellcheck disable=SC2086
    apt_download "$directory.debs" $packages || { apt_update; apt_download "$directory.debs" $packages; } || return 1
    rm -rf "$part"
    mkdir -p "$part"
    for package in "$directory.debs"/*.deb; do dpkg-deb -x "$package" "$part" || return 1; done
    # Debian's headers name each other by the place where they would be installed.
    makefile=$part/usr/src/linux-headers-$release/Makefile
    if [[ ! -L $makefile ]]; then sed -i "s|include /usr/src/|include $directory/usr/src/|" "$makefile"; fi
    rm -rf "$directory" "$directory.debs"
    mv "$part" "$directory"
}

# Sets PATH and LD_LIBRARY_PATH so that `make` and the headers' own programs run, with what the machine lacks from packages.
find_build_tools() {
    local headers=$1 directory=$cache/build-tools packages=() package objtool
    objtool=$(find -L "$headers/usr" -path '*/tools/objtool/objtool' -type f -print -quit)
    has make || packages+=(make)
    if [[ -n $objtool ]] && ldd "$objtool" | grep -q 'libelf.*not found'; then
        package=libelf1t64
        [[ -n $(apt_candidate $package) ]] || package=libelf1
        packages+=("$package")
    fi
    [[ ${#packages[@]} -gt 0 ]] || return 0
    if [[ ! -d $directory/usr ]]; then
        say "downloading, not installing: ${packages[*]}"
        apt_download "$directory.debs" "${packages[@]}" || fail "apt-get download of ${packages[*]} failed; see $(apt_log)"
        mkdir -p "$directory"
        for package in "$directory.debs"/*.deb; do dpkg-deb -x "$package" "$directory"; done
    fi
    export PATH=$PATH:$directory/usr/bin LD_LIBRARY_PATH=$directory/usr/lib/x86_64-linux-gnu
}

# A compiler older than the kernel's own lacks an option that the kernel's configuration takes for granted; the kernel's
# makefiles have another way for it. Reports name source files as the compiler saw them. BTF would take the kernel's `vmlinux` and `pahole`, and modules load without it.
build_flags() {
    printf '%s\n' "KCFLAGS=-ffile-prefix-map=$1/=" CC=cc HOSTCC=cc CROSS_COMPILE= CONFIG_DEBUG_INFO_BTF= CONFIG_DEBUG_INFO_BTF_MODULES=
    cc -fmin-function-alignment=16 -fsyntax-only -xc /dev/null 2>/dev/null || echo CONFIG_CC_HAS_MIN_FUNCTION_ALIGNMENT=
}

build_modules() {
    local name=$1 release=$2 headers=$3 build=$cache/modules/$1.part.$$ extra=$images/$1/lib/modules/$2/extra flags
    mapfile -t flags < <(build_flags "$build")
    rm -rf "$build"
    mkdir -p "$build"
    cp "$repository"/tests/guests/modules/* "$build"
    (find_build_tools "$headers" && make -C "$headers/usr/src/linux-headers-$release" "M=$build" "${flags[@]}" modules) \
        >"$cache/modules.log" 2>&1 || {
        tail -n 20 "$cache/modules.log" >&2
        fail "the modules of tests/guests/modules can't be built for $release; the whole output is in $cache/modules.log"
    }
    strip --strip-debug "$build"/*.ko
    rm -rf "$extra.part" "$extra"
    mkdir "$extra.part"
    mv "$build"/*.ko "$extra.part"
    mv "$extra.part" "$extra"
    rm -rf "$build"
    say "built $extra"
}

setup_modules() {
    local name release headers
    for name in stable mainline; do
        release=$(cat "$images/$name/release")
        modules_are_built "$name" "$release" && continue
        headers=$cache/headers/$release
        if [[ ! -d $headers ]] && ! fetch_headers "$release" "$headers"; then
            # The mirror has moved on since the kernel was downloaded: headers are only to be had for the newer one.
            say "apt has no headers of $release any more; taking the newest kernel \`$name\` instead"
            rm -rf "${cache:?}/kernels/$name" "${images:?}/$name"
            setup_kernels
            release=$(cat "$images/$name/release")
            headers=$cache/headers/$release
            [[ -d $headers ]] || fetch_headers "$release" "$headers" \
                || fail "apt-get download of linux-headers-$release failed; see $(apt_log)" 'a mirror that is not there: try again'
        fi
        build_modules "$name" "$release" "$headers"
    done
}
