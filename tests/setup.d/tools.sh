# shellcheck shell=bash
# shellcheck disable=SC2016,SC2154 # backticks in messages are quotation marks; tests/setup sets what is not set here
# Which programs are missing or too old. What counts is the program on PATH, not a package's name.

# version_at_least HAVE WANTED
version_at_least() { printf '%s\n%s\n' "$2" "$1" | LC_ALL=C sort -V -C; }

has() { command -v "$1" >/dev/null; }

# The first dotted number that a program prints of itself; nothing where there is no such program.
version_of() { "$@" 2>/dev/null | grep -oEm1 '[0-9]+(\.[0-9]+)+' | head -n1 || true; }

check_rust() {
    local wanted have
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$repository/Cargo.toml")
    has cargo || fail "there is no \`cargo\` on PATH; provium is built with Rust $wanted or newer" \
        "install the Rust toolchain, as https://www.rust-lang.org/tools/install says, then run this again" \
        "the packages of Debian 12, Debian 13 and Ubuntu 24.04 are too old"
    have=$(cd "$repository" && version_of cargo --version)
    version_at_least "${have:-0}" "$wanted" || fail "\`$(command -v cargo)\` is ${have:-of no known version}; provium is built with Rust $wanted or newer" \
        'with rustup: `rustup update stable`'
}

check_rust_components() {
    { cargo fmt --version && cargo clippy --version; } >/dev/null 2>&1 \
        || fail '`cargo fmt` or `cargo clippy` is missing' 'with rustup: `rustup component add rustfmt clippy`'
}

has_static_busybox() { has busybox && { ldd "$(command -v busybox)" 2>&1 || true; } | grep -qE 'not a dynamic executable|statically linked'; }

has_static_libc() { has cc && [[ -f $(cc -print-file-name=libc.a) ]]; }

qemu_version() { version_of "${PROVIUM_QEMU:-qemu-system-x86_64}" --version; }
nix_version() { version_of nix --version; }
minimum_qemu=8.2
minimum_nix=2.18

# Fills `missing` (what, in words) and `packages` (the names in Debian and Ubuntu).
find_missing() {
    local have command
    missing=() packages=()
    have=$(qemu_version)
    version_at_least "${have:-0}" $minimum_qemu || lacks "QEMU $minimum_qemu or newer${have:+ (here: $have)}" qemu-system-x86
    have=$(nix_version)
    version_at_least "${have:-0}" $minimum_nix || lacks "Nix $minimum_nix or newer${have:+ (here: $have)}" nix-bin
    has_static_busybox || lacks 'a static busybox' busybox-static
    has cc || lacks 'a C compiler' gcc
    has_static_libc || lacks 'the static C library' libc6-dev
    # Debian keeps file systems' tools where only root looks by itself.
    [[ -x $(PATH=$PATH:/usr/sbin:/sbin command -v mke2fs) ]] || lacks 'mke2fs' e2fsprogs
    # tcpdump and passt are for the tests of networks, which also make a network of their own with ip.
    for command in qemu-img:qemu-utils cpio:cpio xz:xz-utils zstd:zstd git:git tcpdump:tcpdump passt:passt ip:iproute2; do
        has "${command%%:*}" || lacks "${command%%:*}" "${command##*:}"
    done
}

lacks() { missing+=("$1") packages+=("$2"); }

list_words() { printf '%s, ' "$@" | sed 's/, $//'; }

setup_tools() {
    find_missing
    [[ ${#missing[@]} -gt 0 ]] || return 0
    say "missing: $(list_words "${missing[@]}")"
    has apt-get || fail "this system has no \`apt-get\`, so nothing can be installed from here" \
        "install by hand: $(list_words "${missing[@]}"); then run this again"
    [[ -z ${PROVIUM_QEMU:-} || " ${packages[*]} " != *" qemu-system-x86 "* ]] \
        || fail "PROVIUM_QEMU names \`$PROVIUM_QEMU\`, which is not QEMU $minimum_qemu or newer" 'unset it or name another one'
    apt_install "${packages[@]}"
    hash -r
    find_missing
    [[ ${#missing[@]} -eq 0 ]] || fail "still missing after the installation: $(list_words "${missing[@]}")" \
        "look at which programs come first on PATH: $PATH"
}
