# shellcheck shell=bash
# shellcheck disable=SC2016,SC2154 # backticks in messages are quotation marks; tests/setup sets what is not set here
# The stand-in for nixpkgs (nix/standin) with what it takes of this machine: the crates, the kernels and the versions of programs.
# What it consists of is put into the Nix store and kept there by links in $standin_roots.

standin_roots=$cache/standin

# Nix's settings for all that is built with the stand-in: the host's programs come into the sandbox, and the Rust toolchain under a
# path that is the same everywhere. Two at a time, because a machine that boots keeps one CPU busy.
standin_nix_config() {
    printf '%s\n' \
        'extra-experimental-features = nix-command flakes' \
        'substituters =' \
        'sandbox = true' \
        'sandbox-fallback = false' \
        'max-jobs = 2' \
        "sandbox-paths = /bin=/usr/bin /usr /lib=/usr/lib /lib64=/usr/lib64 /etc/alternatives /opt/rust=$(rustc --print sysroot)"
}

# store_add NAME PATH - puts it into the store under this name, kept by a link; prints the store path.
store_add() {
    local name=$1 path=$2 stored
    [[ $(basename "$path") == "$name" ]] || fail "store_add: \`$path\` is not called $name"
    stored=$(nix-store --add "$path")
    nix-store --realise --add-root "$standin_roots/$name" "$stored" >/dev/null
    printf '%s\n' "$stored"
}

# standin_kernel NAME - the kernel of tests/examples as the stand-in takes it: its files and its release.
standin_kernel() {
    local name=$1 release part=$standin_roots/part/kernel-$1
    release=$(cat "$images/$name/release")
    rm -rf "$part"
    mkdir -p "$part/lib/modules"
    cp "$images/$name/bzImage" "$images/$name/config" "$part"
    # Without what tests/setup adds for the suite.
    cp -r "$images/$name/lib/modules/$release" "$part/lib/modules"
    rm -rf "$part/lib/modules/$release/extra"
    printf '    %s = { files = "%s"; release = "%s"; version = "%s"; };\n' \
        "$name" "$(store_add "kernel-$name" "$part")" "$release" "$(grep -oE '^[0-9]+\.[0-9]+(\.[0-9]+)?' <<<"$release")"
}

# Makes the stand-in; prints its store path.
standin_make() {
    local part=$standin_roots/part
    rm -rf "$part"
    mkdir -p "$part"
    (cd "$repository" && cargo vendor --quiet --locked --versioned-dirs "$part/crates" >/dev/null)
    cp -r "$repository/nix/standin" "$part/nixpkgs"
    {
        echo '{'
        printf '  crates = "%s";\n' "$(store_add crates "$part/crates")"
        printf '  rust = "%s";\n' "$(rustc --version)"
        printf '  qemu = "%s";\n' "$(qemu_version)"
        printf '  busybox = "%s";\n' "$(busybox | sed 's/"//g; q')"
        printf '  kernelSource = %s;\n' "$(standin_kernel_source)"
        echo '  kernels = {'
        standin_kernel stable
        standin_kernel mainline
        printf '  };\n}\n'
    } >"$part/nixpkgs/host.nix"
    store_add nixpkgs "$part/nixpkgs"
    rm -rf "$part"
}

# The source of a kernel, for variants that are built from it; null where nobody asked for one.
standin_kernel_source() {
    local name
    if [[ -n ${kernel_source:-} ]]; then
        name=$(basename "$kernel_source")
        printf '{ file = "%s"; version = "%s"; }' "$(store_add "$name" "$kernel_source")" "$(grep -oE '[0-9]+(\.[0-9]+)+' <<<"$name")"
    else
        printf null
    fi
}
