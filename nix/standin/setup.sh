# A small stdenv: runs the phases of a derivation with the host's programs. Sourced by the builder.
set -eu -o pipefail
export PATH=/usr/bin:/bin:/usr/sbin HOME=/homeless-shelter LC_ALL=C.UTF-8
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-315532800}

for input in ${nativeBuildInputs:-} ${buildInputs:-}; do
    [ ! -d "$input/bin" ] || PATH=$input/bin:$PATH
done
for output in ${outputs:-out}; do export "${output?}"; done

runHook() {
    if declare -F "$1" >/dev/null; then "$1"; elif [ -n "${!1:-}" ]; then eval "${!1}"; fi
}

# makeWrapper PROGRAM WRAPPER OPTIONS… - as nixpkgs' hook of that name.
makeWrapper() {
    local program=$1 wrapper=$2 flags=''
    shift 2
    mkdir -p "$(dirname "$wrapper")"
    {
        echo '#!/bin/bash'
        while [ $# -gt 0 ]; do
            case $1 in
                --set) printf 'export %s=%q\n' "$2" "$3"; shift 3 ;;
                --set-default) printf 'export %s="${%s-%s}"\n' "$2" "$2" "$3"; shift 3 ;;
                --prefix) printf 'export %s="%s${%s:+%s$%s}"\n' "$2" "$4" "$2" "$3" "$2"; shift 4 ;;
                --suffix) printf 'export %s="${%s:+$%s%s}%s"\n' "$2" "$2" "$2" "$3" "$4"; shift 4 ;;
                --unset) printf 'unset %s\n' "$2"; shift 2 ;;
                --add-flags) flags="$flags $2"; shift 2 ;;
                --inherit-argv0) shift ;;
                *) echo "makeWrapper: unknown option $1" >&2; return 1 ;;
            esac
        done
        echo "exec \"$program\"$flags \"\$@\""
    } >"$wrapper"
    chmod 755 "$wrapper"
}

unpack() {
    [ -n "${src:-}" ] || return 0
    mkdir source
    if [ -d "$src" ]; then cp -r "$src/." source; else tar -xf "$src" -C source --strip-components=1; fi
    chmod -R u+w source
    cd source
}

genericBuild() {
    local phase text
    if [ -n "${buildCommandPath:-}" ]; then . "$buildCommandPath"; return; fi
    if [ -n "${buildCommand:-}" ]; then eval "$buildCommand"; return; fi
    if [ -n "${unpackPhase:-}" ]; then eval "$unpackPhase"; elif [ -z "${dontUnpack:-}" ]; then unpack; fi
    for phase in patch configure build check install installCheck; do
        [ "$phase" != check ] || [ -n "${doCheck:-}" ] || continue
        [ "$phase" != installCheck ] || [ -n "${doInstallCheck:-}" ] || continue
        runHook "pre${phase^}"
        text=${phase}Phase
        if [ "$phase" = patch ]; then
            for text in ${patches:-}; do patch -p1 <"$text"; done
        elif [ -n "${!text:-}" ]; then
            echo "Running phase: $text"
            eval "${!text}"
        fi
        runHook "post${phase^}"
    done
}
