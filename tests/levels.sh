#!/bin/bash
# The test suite at sandbox levels, as root and as nobody at the same time.
#
#   tests/levels.sh [--inside TREE] [--logs DIRECTORY] [--list FILE] [--as USER] LEVEL…
#
# Runs the built test executables themselves (those that FILE lists; by default they are built),
# with --inside in another system's tree, where the same paths must be. Needs root. Ends with 0 only
# if each executable said `test result: ok` as each user, and says what was run and what was not.
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null

# What neither starts a service nor confines a process: at a weaker level it would show the same
# again. That this is so is shown whenever the level is full, where these are told a level that does
# not exist: whatever asks for the level, as all must that start or confine something, panics.
level_free="
papaya papayad papayad_session client_commands client_session_is_exactly_once hostile_bytes_never_panic
log_full_disk log_guarantees manuals_are_the_options log_stalled_holder log_torn_record log_writers_do_not_starve
protocol_vectors root_cannot_be_regained sandbox_show_is_the_policy security_md_is_true
"
no_level=no-level

# Each of these may take this long, in seconds, on a busy machine.
patience=900

tree=
logs=
list=
users="root nobody"
while [ $# -gt 0 ]; do
    case $1 in
    --inside) tree=$2 ;;
    --logs) logs=$2 ;;
    --list) list=$2 ;;
    --as) users=$2 ;;
    *) break ;;
    esac
    shift 2
done
[ $# -gt 0 ] || set -- full

if [ "$(id -u)" -ne 0 ]; then
    echo "levels.sh: only root can run the tests as two users" >&2
    exit 77
fi

work=$(mktemp -d "${tree:+$tree}/tmp/papaya-levels.XXXXXX")
# A test that was killed may leave a log that can only grow.
trap 'chattr -R -f -a "$work" 2>/dev/null || true; rm -rf "$work" || true' EXIT
chmod 755 "$work"
logs=${logs:-$work/logs}
mkdir -p "$logs"
if [ -z "$list" ]; then
    list=$work/list
    tests/executables.sh >"$list"
fi
[ -s "$list" ]
mapfile -t executables <"$list"

# /path/NAME-0123456789abcdef
name_of() {
    local file=${1##*/}
    echo "${file%-*}"
}
is_level_free() { [[ " ${level_free//$'\n'/ } " == *" $1 "* ]]; }

for name in $level_free; do
    [ -e "tests/$name.rs" ] || [ -e "src/bin/${name//_/-}.rs" ] ||
        { echo "levels.sh: level_free names $name, which is no test" >&2; exit 1; }
    # The variable reaches what is confined through the tests' common files only.
    if [ -e "tests/$name.rs" ] && grep -nE 'confine::enter|"run"|"demo"' "tests/$name.rs"; then
        echo "levels.sh: level_free names $name, which starts or confines something" >&2
        exit 1
    fi
done

# One executable as one user; its output in a file of its own.
run_one() { # USER LEVEL EXECUTABLE LOG
    local as=() home=$work/$1 inside
    [ "$1" = root ] || as=(setpriv --reuid "$1" --regid nogroup --clear-groups --no-new-privs)
    inside=${home#"$tree"}
    # shellcheck disable=SC2016 # Expanded inside.
    ${tree:+chroot "$tree"} "${as[@]}" env -i HOME="$inside" TMPDIR="$inside" \
        PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 PAPAYA_TEST_LEVEL="$2" \
        timeout --foreground "$patience" sh -c 'cd "$1" && exec "$2"' sh "$PWD" "$3" >"$4" 2>&1
}

# All executables as one user, one after the other. Prints what failed, and a line for the end.
run_all() { # USER LEVEL EXECUTABLE…
    local user=$1 level=$2 failed=0 began=$SECONDS executable name asked log began_one
    shift 2
    mkdir -p "$logs/$level.$user"
    for executable in "$@"; do
        name=$(name_of "$executable")
        log=$logs/$level.$user/$name
        asked=$level
        is_level_free "$name" && asked=$no_level
        began_one=$SECONDS
        if ! run_one "$user" "$asked" "$executable" "$log" || ! grep -q '^test result: ok' "$log"; then
            failed=$((failed + 1))
            { printf '\n-- FAILED at level %s as %s: %s\n' "$level" "$user" "$name" && cat "$log"; } >&2
        elif grep -q '^running 0 tests' "$log" && [[ $name != @(papaya|papayad|papayad_session) ]]; then
            failed=$((failed + 1))
            echo "-- FAILED as $user: no tests in $name" >&2
        fi
        echo "$((SECONDS - began_one)) $name" >>"$logs/$level.$user.seconds"
    done
    total() { cat "$logs/$level.$user"/* | sed -n 's/^test result: ok\..* \([0-9]*\) '"$1"';.*/\1/p' | awk '{ n += $1 } END { print n + 0 }'; }
    echo "level $level as $user: $# executables, $(total passed) passed, $(total ignored) ignored," \
        "$failed executables failed; $((SECONDS - began)) s; the longest:" \
        "$(sort -rn "$logs/$level.$user.seconds" | head -n 3 | awk '{ printf "%s%s %s s", s, $2, $1; s = ", " }')"
    [ "$failed" -eq 0 ]
}

outcome=0
for level in "$@"; do
    chosen=()
    left_out=()
    for executable in "${executables[@]}"; do
        name=$(name_of "$executable")
        if [ "$level" != full ] && is_level_free "$name"; then
            left_out+=("$name")
        else
            chosen+=("$executable")
        fi
    done
    mkdir -p "$work/root" "$work/nobody"
    chown nobody:nogroup "$work/nobody"
    # The two begin at the two ends of the list, so that they seldom need the same at once.
    mapfile -t backwards < <(printf '%s\n' "${chosen[@]}" | tac)
    running=()
    case $users in *nobody*)
        run_all nobody "$level" "${backwards[@]}" &
        running+=($!)
        ;;
    esac
    case $users in *root*) run_all root "$level" "${chosen[@]}" || outcome=1 ;; esac
    for each in "${running[@]}"; do
        wait "$each" || outcome=1
    done
    if [ ${#left_out[@]} -gt 0 ]; then
        echo "level $level: left out, for they confine nothing: ${left_out[*]}"
    fi
done
exit "$outcome"
