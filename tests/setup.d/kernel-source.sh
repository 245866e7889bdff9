# shellcheck shell=bash
# shellcheck disable=SC2016,SC2154 # backticks in messages are quotation marks; tests/setup sets what is not set here
# The source of a kernel and what building it takes: for tests/nix-check --kernels, which builds variants of it.

# Prints where the source is: what PROVIUM_KERNEL_SOURCE names, else that of Debian's or Ubuntu's newest package.
setup_kernel_source() {
    local directory=$cache/kernel-source command package packages=()
    for command in bison flex bc make perl; do has "$command" || packages+=("$command"); done
    [[ -e /usr/include/libelf.h ]] || packages+=(libelf-dev)
    [[ ${#packages[@]} -eq 0 ]] || apt_install "${packages[@]}" >&2
    if [[ -n ${PROVIUM_KERNEL_SOURCE:-} ]]; then
        [[ -e $PROVIUM_KERNEL_SOURCE ]] || fail "PROVIUM_KERNEL_SOURCE: there is no \`$PROVIUM_KERNEL_SOURCE\`"
        printf '%s\n' "$PROVIUM_KERNEL_SOURCE"
        return
    fi
    if ! compgen -G "$directory/linux-source-*.tar.*" >/dev/null; then
        apt_update >&2
        package=$(newest_package linux-source- '^linux-source-[0-9]+(\.[0-9]+)+$') || fail 'apt knows no package with the source of a kernel' \
            'PROVIUM_KERNEL_SOURCE names one, such as linux-6.12.1.tar.xz'
        say "downloading, not installing: $package" >&2
        apt_download "$directory.deb" "$package" || { tail -n 5 "$(apt_log)" >&2; fail "apt-get download of $package failed"; }
        rm -rf "$directory"
        mkdir -p "$directory"
        dpkg-deb --fsys-tarfile "$directory.deb"/*.deb \
            | tar -xf - -C "$directory" --no-same-owner --strip-components=3 --wildcards './usr/src/linux-source-*.tar.*'
        rm -rf "$directory.deb"
    fi
    compgen -G "$directory/linux-source-*.tar.*" | head -n 1
}
