# shellcheck shell=bash
# shellcheck disable=SC2016,SC2154 # backticks in messages are quotation marks; tests/setup sets what is not set here
# Makes a Nix without a daemon usable: root needs a nix.conf that asks for no build users, anybody else a /nix of their own.
# A Nix with a daemon, or one that somebody configured, is left as it is.

setup_nix() {
    [[ ! -S /nix/var/nix/daemon-socket/socket ]] || return 0
    if [[ $(id -u) -eq 0 ]]; then
        if [[ ! -e /etc/nix/nix.conf ]] && ! getent group nixbld >/dev/null; then
            say 'writing /etc/nix/nix.conf: `build-users-group =`, because there is no group nixbld'
            mkdir -p /etc/nix
            printf '%s\n' '# Written by tests/setup of provium: root builds without build users, for there is no group nixbld.' \
                'build-users-group =' >/etc/nix/nix.conf
        fi
        return 0
    fi
    if getent group nixbld >/dev/null; then
        fail 'there is a group nixbld, but no Nix daemon answers at /nix/var/nix/daemon-socket/socket' 'start it: systemctl start nix-daemon.socket'
    fi
    if [[ ! -d /nix/store || ! -d /nix/var/nix ]] || [[ -n $(find /nix -path '/nix/store/*/*' -prune -o ! -user "$(id -un)" -print -quit) ]]; then
        say "giving /nix to $(id -un), who then builds without a Nix daemon"
        as_root mkdir -p /nix/store /nix/var/nix
        as_root chown -R "$(id -un):" /nix
    fi
}
