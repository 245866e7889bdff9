# shellcheck shell=bash
# shellcheck disable=SC2016,SC2154 # backticks in messages are quotation marks; tests/setup sets what is not set here
# The guest of tests/examples: .images/bin/busybox, which Nix builds with, and .images/guest/initrd.cpio.gz.

setup_guest() {
    local busybox source=$repository/tests/examples/guest initrd=$images/guest/initrd.cpio.gz
    busybox=$(command -v busybox)
    mkdir -p "$images/bin" "$images/guest"
    if ! cmp -s "$busybox" "$images/bin/busybox"; then
        install -m 755 "$busybox" "$images/bin/busybox.part.$$"
        mv "$images/bin/busybox.part.$$" "$images/bin/busybox"
    fi
    if [[ -s $initrd && $initrd -nt $source/make-initrd && $initrd -nt $source/init && $initrd -nt $images/bin/busybox ]]; then
        return 0
    fi
    "$busybox" sh "$source/make-initrd" "$busybox" "$source/init" "$initrd"
    say "built $initrd"
}
