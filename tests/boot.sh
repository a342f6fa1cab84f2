#!/bin/bash
# The service under a real service manager: boots a Debian tree, uses the units there as an
# administrator does (boot-guest.sh), and looks at what it reports, a line a step.
#
#   tests/boot.sh [--programs DIRECTORY] [--logs DIRECTORY] [STEP…]
#
# DIRECTORY holds papayad and papaya; without it, they are built. The tree is made once, below
# ${XDG_CACHE_HOME:-/var/cache}/papayachat-tests, and not changed. Ends with 77 and a line
# "not run: …" where something is missing.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
cache=${XDG_CACHE_HOME:-/var/cache}/papayachat-tests
suite=bookworm
tree=$cache/$suite-boot

not_run() {
    echo "boot.sh: not run: $1"
    exit 77
}

programs=
logs=
arguments=("$@")
while [[ ${1-} == --* ]]; do
    case $1 in
    --programs) programs=$2 ;;
    --logs) logs=$2 ;;
    *) echo "boot.sh: unknown option $1" >&2 && exit 64 ;;
    esac
    shift 2
done
steps=${*:-start doctor token talk reload restart listener keeper watchdog stop refused instance activated}

[ "$(id -u)" -eq 0 ] || not_run "only root can boot a tree"
for tool in debootstrap systemd-nspawn; do
    command -v "$tool" >/dev/null || not_run "$tool is missing (packages debootstrap, systemd-container)"
done
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

if [ -z "$programs" ]; then
    (cd "$here" && cargo build --quiet --locked --bins)
    programs=${CARGO_TARGET_DIR:-$here/target}/debug
fi
work=$(mktemp -d /var/tmp/papaya-boot.XXXXXX)
machine=
# shellcheck disable=SC2317 # Called by the trap.
end() {
    [ -z "$machine" ] || kill "$machine" 2>/dev/null || true
    umount -l "$work/root" 2>/dev/null || true
    chattr -R -f -a "$work" 2>/dev/null || true
    rm -rf "$work"
}
trap end EXIT
mkdir "$work/upper" "$work/work" "$work/root"
root=$work/root
mount -t overlay overlay -o "lowerdir=$tree,upperdir=$work/upper,workdir=$work/work" "$root"

# What a package does.
install -m 755 "$programs/papayad" "$root/usr/sbin/papayad"
install -m 755 "$programs/papaya" "$root/usr/bin/papaya"
cp "$here"/systemd/papayad*.service "$here"/systemd/papayad.socket "$root/usr/lib/systemd/system/"
cp "$here"/systemd/sysusers.d/*.conf "$root/usr/lib/sysusers.d/"
cp "$here"/systemd/tmpfiles.d/*.conf "$root/usr/lib/tmpfiles.d/"

install -m 755 "$here/tests/boot-guest.sh" "$root/guest"
cat >"$root/etc/systemd/system/guest.service" <<UNIT
[Unit]
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/guest $steps
UNIT
mkdir -p "$root/etc/systemd/system/default.target.wants"
ln -s ../guest.service "$root/etc/systemd/system/default.target.wants/"
: >"$root/report"

began=$SECONDS
# Landlock and the log's attribute are the program's; a container has neither by default.
timeout 600 systemd-nspawn -q -D "$root" --boot --register=no --keep-unit --private-network \
    --capability=CAP_LINUX_IMMUTABLE,CAP_IPC_LOCK \
    --system-call-filter="landlock_create_ruleset landlock_add_rule landlock_restrict_self @memlock" \
    </dev/null >"$work/console" 2>&1 &
machine=$!
wait "$machine" || echo "boot.sh: the machine ended with $?" >&2
machine=
if [ -n "$logs" ]; then
    mkdir -p "$logs"
    cp "$work/console" "$root/report" "$logs/"
fi

grep -q 'Reached target' "$work/console" ||
    not_run "no tree can be booted here: $(tr -d '\r' <"$work/console" | tail -n 1)"
missing=()
for step in $steps end; do
    [ "$(grep -cxE "$step( ok)?" "$root/report")" -eq 1 ] || missing+=("$step")
done
if [ ${#missing[@]} -ne 0 ]; then
    echo "boot.sh: FAILED: ${missing[*]}; the console and the report:" >&2
    tr -d '\r' <"$work/console" >&2
    cat "$root/report" >&2
    exit 1
fi
echo "boot.sh: $suite, $((SECONDS - began)) s, passed: $steps"
