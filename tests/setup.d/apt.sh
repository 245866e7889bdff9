# shellcheck shell=bash
# shellcheck disable=SC2016,SC2154 # backticks in messages are quotation marks; tests/setup sets what is not set here
# Installing and downloading packages with apt. The one source file that is ever written is apt_source, the one pin apt_pin.

apt_source=/etc/apt/sources.list.d/provium.sources
apt_pin=/etc/apt/preferences.d/provium
apt_options=()

as_root() {
    if [[ $(id -u) -eq 0 ]]; then
        "$@"
    elif has sudo; then
        sudo "$@" || fail "this command failed: sudo $*" 'without the right to use sudo, run tests/setup once as root'
    else
        fail "this takes root, and there is no \`sudo\`: $*" 'run tests/setup once as root, or install sudo'
    fi
}

# Refreshes the package lists, once a run. A broken source of somebody else's is no reason to stop.
apt_update() {
    [[ -z ${apt_is_updated:-} ]] || return 0
    apt_is_updated=1
    say 'reading the package lists: apt-get update'
    as_root apt-get -qq -o DPkg::Lock::Timeout=300 update || say 'apt-get update complained; going on with the lists that there are'
}

# The archives in use, a line each: origin, suite, code name, component, address, file that names it.
apt_archives() {
    apt-get indextargets --format '$(ORIGIN)|$(RELEASE)|$(CODENAME)|$(COMPONENT)|$(REPO_URI)|$(SOURCESENTRY)' 'Created-By: Packages' \
        | awk -F'|' -v own="$apt_source:" 'index($6, own) != 1'
}

# Whose archive the machine uses: `Debian`, `Ubuntu` or nothing. The machine's os-release doesn't say: it changes with one package.
apt_distribution() {
    apt_archives | awk -F'|' '($1 == "Debian" || $1 == "Ubuntu") && $4 == "main" { print $1; exit }'
}

# The version that apt would take of a package; nothing where there is none.
apt_candidate() { LC_ALL=C apt-cache policy "$1" | awk '$1 == "Candidate:" && $2 != "(none)" { print $2; exit }'; }

# The value of Signed-By (lines after the first included) beside ADDRESS in a source file of either format.
signed_by() {
    local file=$1 address=${2%/}
    case $file in
        *.sources)
            sed '/^#/d' "$file" | awk -v address="$address" -v RS= '
                index($0, address "\n") || index($0, address "/") || index($0, address " ") {
                    count = split($0, line, "\n")
                    for (i = 1; i <= count; i++) {
                        if (tolower(line[i]) ~ /^signed-by:/) { sub(/^[^:]*:[ \t]*/, "", line[i]); print line[i]; inside = 1 }
                        else if (inside && line[i] ~ /^[ \t]/) print line[i]
                        else inside = 0
                    }
                    exit
                }'
            ;;
        *) grep -F "$address" "$file" | sed -n 's/^deb .*signed-by=\([^] ]*\).*/\1/p' | head -n1 ;;
    esac
}

# Makes a Debian suite available that the machine's own configuration lacks, from the mirror that it uses.
apt_add_suite() {
    local suite=$1 archive address file signature suites
    archive=$(apt_archives | awk -F'|' '$1 == "Debian" && $4 == "main" && $2 !~ /-/ { print; exit }')
    [[ -n $archive ]] || fail "the suite \`$suite\` of Debian is needed, and no Debian mirror is configured in apt" \
        'see `apt-get indextargets`; this script reads the mirror from there'
    IFS='|' read -r _ _ _ _ address file <<<"$archive"
    file=${file%:*}
    if apt_archives | awk -F'|' -v suite="$suite" '$1 == "Debian" && $4 == "main" && $3 == suite { found = 1 } END { exit !found }'; then
        return 0
    fi
    signature=$(signed_by "$file" "$address")
    suites=$({ sed -n 's/^Suites: *//p' "$apt_source" 2>/dev/null || true; } | tr ' ' '\n' | cat - <(echo "$suite") | sort -u | paste -sd' ')
    say "writing $apt_source: suite(s) $suites of $address, as named in $file"
    say "writing $apt_pin: priority 50, so that nothing is upgraded to them by itself"
    {
        printf '%s\n' '# Written by tests/setup of provium, for what this release lacks. Delete it, and the pin that belongs to it' \
            "# ($apt_pin), before an upgrade of the system to one of these suites, or whenever you like." \
            'Types: deb' "URIs: $address" "Suites: $suites" 'Components: main' 'Architectures: amd64'
        [[ -z $signature ]] || printf 'Signed-By: %s\n' "$signature"
    } | as_root tee "$apt_source" >/dev/null
    for suite in $suites; do
        printf 'Package: *\nPin: release n=%s\nPin-Priority: 50\n\n' "$suite"
    done | as_root tee "$apt_pin" >/dev/null
    as_root apt-get -qq -o DPkg::Lock::Timeout=300 -o "Dir::Etc::sourcelist=$apt_source" -o Dir::Etc::sourceparts=- \
        -o APT::Get::List-Cleanup=0 update \
        || fail "apt can't read the suite(s) $suites of $address" "see the lines above; the source stands in $apt_source"
}

# announce_install PLAN SUITE PACKAGE… - what apt is about to do, from its own simulation.
announce_install() {
    local plan=$1 suite=$2 new upgraded removed='' renamed='' package answer
    shift 2
    new=$(awk '$1 == "Inst" && $3 !~ /^\[/ { print $2 }' <<<"$plan" | paste -sd' ')
    upgraded=$(awk '$1 == "Inst" && $3 ~ /^\[/ { print $2 }' <<<"$plan" | paste -sd' ')
    while read -r package; do
        # Debian 13 renamed the libraries that got 64-bit times; a new one serves the programs of the old one.
        case " $new " in
            *" ${package}t64 "* | *" ${package%%-*}t64"* | *" $package-static "*) renamed+=" $package" ;;
            *) removed+=" $package" ;;
        esac
    done < <(awk '$1 == "Remv" { print $2 }' <<<"$plan")
    say "installing $*${suite:+ from the suite $suite}"
    say "  new packages: $new"
    [[ -z $upgraded ]] || say "  upgraded, because these need it: $upgraded"
    [[ -z $renamed ]] || say "  replaced by a new package that serves the same programs:$renamed"
    [[ -z $removed ]] || say "  REMOVED, because they can't stay beside these:$removed"
    [[ -n $removed && -t 0 ]] || return 0
    read -rp 'setup: go on? [y/N] ' answer
    [[ $answer == [yY]* ]] || fail 'nothing was installed' "install by hand: $*"
}

# apt_install PACKAGE… - takes them from this release where its QEMU and Nix are new enough, else from Debian 13.
apt_install() {
    local options=(-y --no-install-recommends -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold
        -o DPkg::Lock::Timeout=300)
    local suite='' plan package
    apt_update
    for package in qemu-system-x86:$minimum_qemu nix-bin:$minimum_nix; do
        [[ " $* " == *" ${package%%:*} "* ]] || continue
        # The part before a colon is Debian's epoch.
        version_at_least "$(apt_candidate "${package%%:*}" | sed 's/^[0-9]*://')" "${package##*:}" || suite=trixie
    done
    if [[ -n $suite ]]; then
        [[ $(apt_distribution) == Debian ]] || fail 'the QEMU or the Nix of this release is too old (needed: QEMU 8.2, Nix 2.18)' \
            'use Ubuntu 24.04, Debian 12 or newer, or install both by hand'
        apt_add_suite $suite
        options+=(-t "$suite")
    fi

    plan=$(LC_ALL=C apt-get -s install "${options[@]}" "$@" 2>&1) \
        || fail "apt can't install $*: $(grep -E '^(E:| )' <<<"$plan" | tail -n 20)" \
            'mend what apt says (often: `apt-get -f install`), then run this again'
    announce_install "$plan" "$suite" "$@"
    as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 apt-get -q install "${options[@]}" "$@" >"$(apt_log)" 2>&1 </dev/null || {
        tail -n 30 "$(apt_log)" >&2
        fail "apt-get install failed; the whole output is in $(apt_log)" \
            'a mirror that is not there: try again; a half-configured package: `dpkg --configure -a`'
    }
}

apt_log() { mkdir -p "$cache" && printf %s "$cache/apt.log"; }

# apt_download DIRECTORY PACKAGE… - the packages as files, installed nowhere; DIRECTORY appears whole or not at all.
# The array `apt_options` may hold further options.
apt_download() {
    local directory=$1 options=("${apt_options[@]}") part
    shift
    part=$directory.part.$$
    mkdir -p "$part"
    # apt runs downloads as the user _apt, which can't write here; as root it would complain of that.
    if [[ $(id -u) -eq 0 ]]; then options+=(-o APT::Sandbox::User=root); fi
    (cd "$part" && apt-get -q "${options[@]}" download "$@" >"$(apt_log)" 2>&1) || {
        rm -rf "$part"
        return 1
    }
    rm -rf "$directory"
    mv "$part" "$directory"
}
