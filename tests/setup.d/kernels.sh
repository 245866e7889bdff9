# shellcheck shell=bash
# shellcheck disable=SC2016,SC2154 # backticks in messages are quotation marks; tests/setup sets what is not set here
# The two kernels of tests/examples: `stable`, the older series, and `mainline`, the newer one. They are downloaded as
# packages and unpacked below tests/examples/.images; nothing is installed.
#
#     .images/<name>/bzImage, config, release   the kernel, its configuration, what its `uname -r` prints
#     .images/<name>/lib/modules/<release>      its modules
#     .images/mainline/packages/*.tar           the packages' content, from which Nix builds the profile `mainline`
#
# Debian: the cloud kernels 6.1 and 6.12. Ubuntu: the oldest and the newest series that it offers.

kernel_is_complete() {
    local directory=$images/$1 release
    release=$(cat "$directory/release" 2>/dev/null) || return 1
    [[ $1 == stable ]] || compgen -G "$directory/packages/*.tar" >/dev/null || return 1
    [[ -s $directory/bzImage && -s $directory/config && -d $directory/lib/modules/$release/kernel ]]
}

# newest_package PREFIX REGEX - the newest package name that apt knows and can get.
newest_package() {
    local name
    name=$(apt-cache pkgnames "$1" | grep -E "$2" | LC_ALL=C sort -V | tail -n 1) || return 1
    [[ -n $(apt_candidate "$name") ]] && printf '%s\n' "$name"
}

debian_kernel() {
    case $1 in
        stable) newest_package linux-image-6.1. '^linux-image-6\.1\.[0-9][^ ]*-cloud-amd64$' ;;
        mainline) newest_package linux-image-6.12. '^linux-image-6\.12\.[0-9][^ ]*-cloud-amd64$' ;;
    esac
}

ubuntu_kernel() {
    local series image
    series=$(apt-cache pkgnames linux-image- | sed -nE 's/^linux-image-([0-9]+\.[0-9]+)\.[0-9]+-[0-9]+-generic$/\1/p' | LC_ALL=C sort -Vu)
    [[ $(wc -l <<<"$series") -gt 1 ]] || return 1
    if [[ $1 == stable ]]; then series=${series%%$'\n'*}; else series=${series##*$'\n'}; fi
    image=$(newest_package "linux-image-$series." "^linux-image-${series//./\\.}\.[0-9]+-[0-9]+-generic\$") || return 1
    printf '%s\nlinux-modules-%s\n' "$image" "${image#linux-image-}"
}

# kernel_packages NAME - the names of the packages to download, resolved as far as apt's lists go.
kernel_packages() {
    case $(apt_distribution) in
        Debian) debian_kernel "$1" ;;
        Ubuntu) ubuntu_kernel "$1" ;;
        *) return 1 ;;
    esac
}

fetch_kernel() {
    local name=$1 directory=$2 packages suite
    has apt-get || fail "this system has no \`apt-get\`, so the kernel \`$name\` can't be downloaded from here" \
        "put bzImage, config, release and lib/modules/<release> of a kernel into $images/$name, and its files as packages/kernel.tar"
    if ! packages=$(kernel_packages "$name"); then
        apt_update
        case $name in stable) suite=bookworm ;; *) suite=trixie ;; esac
        packages=$(kernel_packages "$name") || {
            [[ $(apt_distribution) == Debian ]] || fail "apt knows no package for the kernel \`$name\`" \
                'on Ubuntu the suite with -updates must be enabled, which has a second kernel series'
            apt_add_suite $suite
            packages=$(kernel_packages "$name") || fail "apt knows no cloud kernel for \`$name\`, in the suite $suite neither"
        }
    fi
    say "downloading, not installing: ${packages//$'\n'/, }"
    # shellcheck disable=SC2086
    apt_download "$directory" $packages || {
        # Lists that are older than the mirror's newest update name packages that are gone.
        apt_update
        packages=$(kernel_packages "$name")
        # shellcheck disable=SC2086
        apt_download "$directory" $packages || {
            tail -n 5 "$(apt_log)" >&2
            fail "apt-get download of ${packages//$'\n'/, } failed" 'a mirror that is not there: try again'
        }
    }
}

# Lays the content of the packages out as the profiles want it.
unpack_kernel() {
    local name=$1 debs=$2 part=$images/.$1.part.$$ package tar modules release
    rm -rf "$part"
    mkdir -p "$part/packages" "$part/unpacked"
    for package in "$debs"/*.deb; do
        tar=$part/packages/$(basename "$package" .deb).tar
        { dpkg-deb --fsys-tarfile "$package" >"$tar" && tar -xf "$tar" -C "$part/unpacked" --no-same-owner; } || {
            rm -rf "$part" "$debs"
            fail "\`$package\` can't be unpacked; it is deleted" 'run this again: it is downloaded anew'
        }
    done
    [[ $name == mainline ]] || rm -r "$part/packages"
    modules=$part/unpacked/usr/lib/modules
    [[ -d $modules ]] || modules=$part/unpacked/lib/modules
    release=$(ls "$modules")
    mkdir "$part/lib"
    cp "$part/unpacked/boot/vmlinuz-$release" "$part/bzImage"
    cp "$part/unpacked/boot/config-$release" "$part/config"
    chmod 644 "$part/bzImage"
    mv "$modules" "$part/lib/modules"
    printf '%s\n' "$release" >"$part/release"
    rm -rf "$part/unpacked" "${images:?}/$name"
    mv "$part" "$images/$name"
    say "the kernel \`$name\` is $release"
}

setup_kernels() {
    local name debs
    for name in stable mainline; do
        kernel_is_complete "$name" && continue
        debs=$cache/kernels/$name
        compgen -G "$debs/*.deb" >/dev/null || fetch_kernel "$name" "$debs"
        unpack_kernel "$name" "$debs"
    done
}
