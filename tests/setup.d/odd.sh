# shellcheck shell=bash
# shellcheck disable=SC2016,SC2154 # backticks in messages are quotation marks; tests/setup sets what is not set here
# The odd guests: .images/odd, as tests/guests/odd/make-initrds says. Two of the compressors come from the packages of
# tests/setup.d/debian.sh.

setup_odd() {
    local source=$repository/tests/guests/odd made=$images/odd/parts.img
    if [[ -s $made ]] && [[ -z $(find "$source" "$images/bin/busybox" -newer "$made" -print -quit) ]]; then return 0; fi
    sh "$source/make-initrds" "$images/bin/busybox" "$cache/debian" "$images/odd" || fail "the odd guests can't be made"
    say "built $images/odd"
}
