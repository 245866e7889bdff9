# shellcheck shell=bash
# shellcheck disable=SC2016,SC2154 # backticks in messages are quotation marks; tests/setup sets what is not set here
# The guest with a whole userland: .images/debian/initrd.cpio.zst, whose PID 1 is systemd, made from the packages of the
# machine's own Debian or Ubuntu. They are downloaded, not installed. .images/debian/packages lists them.

# The last two are for tests/setup.d/odd.sh, which compresses with them.
debian_wanted=(systemd udev dbus bash dash coreutils util-linux login passwd libpam-modules kmod grep sed procps iproute2 lz4 lzop)
# What the packages above need only for their installation or for a part that the guest has no use for.
debian_unwanted='^(perl|libperl|libgdbm|dpkg$|tar$|debconf|usrmerge|lib.*-perl$|adduser|gcc-|init-system-helpers|mawk|libpam-runtime|libkrb5|libk5|libgss|libkeyutils|libcom-err|libtirpc|libsemanage|libsepol|base-passwd|install-info)'

# apt as it would be on a machine without any package: the answer doesn't depend on what is installed here.
apt_of_nothing() {
    local state=$cache/apt-of-nothing
    mkdir -p "$state/cache/archives/partial"
    : >"$state/status"
    printf '%s\n' -o "Dir::State::status=$state/status" -o "Dir::Cache=$state/cache"
}

debian_packages() {
    local options
    mapfile -t options < <(apt_of_nothing)
    LC_ALL=C apt-get "${options[@]}" -s install --no-install-recommends "${debian_wanted[@]}" 2>"$(apt_log)" \
        | awk '$1 == "Inst" { print $2 }' | grep -Ev "$debian_unwanted"
}

fetch_debian() {
    local directory=$1 packages apt_options attempt
    has apt-get || fail "this system has no \`apt-get\`, so the packages of the Debian guest can't be downloaded from here"
    mapfile -t apt_options < <(apt_of_nothing)
    # Lists that are not there yet know no package, and lists older than the mirror's newest update name some that are gone.
    for attempt in first second; do
        [[ $attempt == first ]] || apt_update
        mapfile -t packages < <(debian_packages)
        [[ ${#packages[@]} -gt ${#debian_wanted[@]} ]] || continue
        say "downloading, not installing: systemd and the $((${#packages[@]} - 1)) packages beside it"
        apt_download "$directory" "${packages[@]}" && return 0
    done
    tail -n 5 "$(apt_log)" >&2
    fail "the packages of the Debian guest can't be downloaded" 'a mirror that is not there: try again'
}

debian_is_built() {
    local initrd=$images/debian/initrd.cpio.zst
    [[ -s $initrd ]] && [[ -z $(find "$repository/tests/guests/debian" "$cache/debian" -newer "$initrd" -print -quit) ]]
}

setup_debian() {
    local directory=$cache/debian initrd=$images/debian/initrd.cpio.zst
    compgen -G "$directory/*.deb" >/dev/null || fetch_debian "$directory"
    debian_is_built && return 0
    mkdir -p "$images/debian"
    sh "$repository/tests/guests/debian/make-initrd" "$directory" "$initrd" \
        || fail "the initrd of the Debian guest can't be made" "to download its packages anew, remove $directory"
    (cd "$directory" && printf '%s\n' *.deb) >"$images/debian/packages"
    say "built $initrd"
}
