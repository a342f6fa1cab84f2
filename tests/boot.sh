#!/bin/bash
# The package under a real service manager: boots a Debian tree, installs, uses, upgrades and removes the
# package there as an administrator does (boot-guest.sh), and looks at what it reports, a line a step.
# What it shows on the way is in docs/admin.md: the two must say the same.
#
#   tests/boot.sh [--release DIRECTORY] [--logs DIRECTORY] [--kernels] [--update-guide] [STEP…]
#
# DIRECTORY is packaging/build's; without it, the programs are built unoptimised. --kernels: in virtual
# machines with Debian's kernels instead of a container with this one (tests/kernels.sh makes their
# tree). The trees are made once, below ${XDG_CACHE_HOME:-/var/cache}/papayachat-tests, and not changed.
# Ends with 77 and a line "not run: …" where something is missing.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=tests/machines.sh
. "$here/tests/machines.sh"
tree=$cache/$suite-boot

not_run() {
    echo "boot.sh: not run: $1"
    exit 77
}

release=
logs=
with_kernels=
update_guide=
arguments=("$@")
while [[ ${1-} == --* ]]; do
    case $1 in
    --kernels) with_kernels=yes && shift && continue ;;
    --update-guide) update_guide=yes && shift && continue ;;
    --release) release=$(realpath "$2") ;;
    --logs) logs=$2 ;;
    *) echo "boot.sh: unknown option $1" >&2 && exit 64 ;;
    esac
    shift 2
done
all="install start doctor token talk refusal violation reload restart listener keeper watchdog stop"
all="$all refused instance activated upgrade remove purge reinstall"
# The guide is about the kernel that needs no weaker level.
[ -n "$with_kernels" ] || all="$all guide"
steps=${*:-$all}

[ "$(id -u)" -eq 0 ] || not_run "only root can boot a tree"
for tool in debootstrap dpkg-deb cargo; do
    command -v "$tool" >/dev/null || not_run "$tool is missing"
done
if [ -n "$with_kernels" ]; then
    if ! have_emulator || ! command -v debugfs >/dev/null || ! [ -e "$kernels_tree" ]; then
        not_run "the kernels or the emulator are missing; tests/kernels.sh --install makes both"
    fi
else
    command -v systemd-nspawn >/dev/null || not_run "systemd-nspawn is missing (package systemd-container)"
fi
if [ "${PAPAYA_MOUNTS-}" != private ]; then
    # What is mounted below goes with this process.
    exec env PAPAYA_MOUNTS=private unshare --mount --propagation private "$0" "${arguments[@]}"
fi

make_tree() {
    mkdir -p "$cache"
    rm -rf "$tree.new"
    timeout 900 debootstrap --variant=minbase \
        --include=systemd,systemd-sysv,dbus,iproute2,procps,e2fsprogs "$suite" "$tree.new"
    mv "$tree.new" "$tree"
}
if ! [ -e "$tree" ]; then
    # Not as a condition of `if`, where -e would not hold.
    ( set -e; make_tree ) >"$cache.log" 2>&1 &
    wait $! || not_run "no tree of $suite can be made: $(tail -n 1 "$cache.log")"
fi

work=$(mktemp -d /var/tmp/papaya-boot.XXXXXX)
machines=()
# shellcheck disable=SC2317 # Called by the trap.
end() {
    for machine in "${machines[@]}"; do kill "$machine" 2>/dev/null || true; done
    umount -l "$work/root" 2>/dev/null || true
    chattr -R -f -a "$work" 2>/dev/null || true
    rm -rf "$work"
}
trap end EXIT
logs=${logs:-$work/logs}
mkdir -p "$logs" "$work/upper" "$work/work" "$work/root"
root=$work/root
mount -t overlay overlay -o "lowerdir=$tree,upperdir=$work/upper,workdir=$work/work" "$root"

if [ -z "$release" ]; then
    (cd "$here" && cargo build --quiet --locked --bins)
    release=$work/release
    mkdir "$release"
    cp "${CARGO_TARGET_DIR:-$here/target}"/debug/{papayad,papayad-session,papaya} "$release/"
    touch "$release"/{papayad,papayad-session,papaya}.cdx.json
fi
# The same program twice, as a version and the next.
for revision in 1 2; do
    "$here/packaging/deb" --revision "$revision" "$release" "$root/packages" >/dev/null 2>&1
done
install -m 755 "$here/tests/boot-guest.sh" "$root/guest"
"$here/tests/guide.sh" --blocks "$root/guide-blocks"
cat >"$root/etc/systemd/system/guest.service" <<UNIT
[Unit]
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/guest $steps
UNIT
mkdir -p "$root/etc/systemd/system/default.target.wants"
ln -s ../guest.service "$root/etc/systemd/system/default.target.wants/"
echo papaya >"$root/etc/hostname"

# Whether each step was reported well, once, and the end.
judge() { # NAME REPORT CONSOLE SECONDS
    local step missing=()
    for step in $steps end; do
        [ "$(grep -cxE "$step( ok)?" "$2")" -eq 1 ] || missing+=("$step")
    done
    if [ ${#missing[@]} -ne 0 ]; then
        echo "boot.sh: $1 FAILED: ${missing[*]}; the console and the report:" >&2
        tr -d '\r' <"$3" >&2
        cat "$2" >&2
        return 1
    fi
    echo "boot.sh: $1, $4 s, passed: $steps"
}

# What the guide shows is what came out, but for numbers, the day, and what is said at the same moment.
same() { sed -E 's/[0-9a-f]{16}/ID/g; s/\b((Mon|Tue|Wed|Thu|Fri|Sat|Sun) )?((Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) +)?([0-9])/\5/g; s/([0-9][0-9.:]*(ms|us|min|[KMGsh])? )+ago/N ago/g; s/[0-9][0-9.:]*(ms|us|min|[KMGsh])?/N/g; s/ +/ /g; s/ $//' "$@" | sort; }
one_day='Active: active (running) since Fri 2026-11-27 12:05:56 UTC; 29ms ago
Nov 27 12:05:56 papaya papayad[81]: listener: level full, Landlock ABI 7'
another='Active: active (running) since Tue 2026-12-01 02:05:06 UTC; 1min 2s ago
Dec  1 02:05:06 papaya papayad[812]: listener: level full, Landlock ABI 7'
diff <(same <<<"$one_day") <(same <<<"$another") >&2 ||
    { echo "boot.sh: what it shows differs from the guide with the day alone" >&2 && exit 1; }

began=$SECONDS
if [ -n "$with_kernels" ]; then
    rm -rf "$root"/usr/share/{doc,locale,man,zoneinfo}/*
    make_disk "$root" "$work/disk"
    for entry in "${kernels[@]}"; do
        read -r kernel level <<<"$entry"
        start_machine "$kernel" "$work/disk" "$work/$level.disk" "$logs/boot-$level.console" "papaya_level=$level"
    done
    for machine in "${machines[@]}"; do
        wait "$machine" || echo "boot.sh: a machine ended with $?" >&2
    done
    machines=()
    outcome=0
    for entry in "${kernels[@]}"; do
        read -r kernel level <<<"$entry"
        debugfs -R "cat /report" "$work/$level.disk" >"$logs/boot-$level.report" 2>/dev/null
        judge "kernel $kernel at $level" "$logs/boot-$level.report" "$logs/boot-$level.console" $((SECONDS - began)) || outcome=1
    done
    exit "$outcome"
fi

# Landlock and the log's attribute are the program's; a container has neither by default.
timeout 600 systemd-nspawn -q -D "$root" --machine=papaya --boot --register=no --keep-unit --private-network \
    --capability=CAP_LINUX_IMMUTABLE,CAP_IPC_LOCK \
    --system-call-filter="landlock_create_ruleset landlock_add_rule landlock_restrict_self @memlock" \
    </dev/null >"$logs/boot.console" 2>&1 &
machines=($!)
wait "${machines[0]}" || echo "boot.sh: the machine ended with $?" >&2
machines=()
grep -q 'Reached target' "$logs/boot.console" ||
    not_run "no tree can be booted here: $(tr -d '\r' <"$logs/boot.console" | tail -n 1)"
cp "$root/report" "$logs/boot.report"
judge "$suite" "$root/report" "$logs/boot.console" $((SECONDS - began))

guide=$here/docs/admin.md
for shown in "$root"/shown/*; do
    [ -e "$shown" ] || continue
    name=${shown##*/}
    grep -qxF "<!-- boot.sh: $name -->" "$guide" || { echo "boot.sh: docs/admin.md has no place for $name" >&2 && exit 1; }
    if [ -n "$update_guide" ]; then
        awk -v name="$name" -v file="$shown" '
            /^<!-- boot.sh: end -->$/ { inside = 0 }
            !inside { print }
            $0 == "<!-- boot.sh: " name " -->" {
                inside = 1
                print "```console"
                while ((getline line <file) > 0) print line
                print "```"
            }' "$guide" >"$work/guide"
        cat "$work/guide" >"$guide"
    fi
    awk -v name="$name" '
        /^<!-- boot.sh: end -->$/ { inside = 0 }
        inside && !/^```/ { print }
        $0 == "<!-- boot.sh: " name " -->" { inside = 1 }' "$guide" >"$work/printed"
    diff <(same "$work/printed") <(same "$shown") >&2 ||
        { echo "boot.sh: docs/admin.md shows something else at $name; tests/boot.sh --update-guide mends it" >&2 && exit 1; }
done
