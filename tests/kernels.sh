#!/bin/bash
# The service on Debian's own kernels, in virtual machines: with the default configuration it refuses
# to start there and says why; at the level that the kernel really has it serves, and says so.
#
#   tests/kernels.sh [--list FILE] [--logs DIRECTORY]     # FILE: the built test executables
#   tests/kernels.sh --install                            # first installs what it needs, as root
#   tests/kernels.sh --long                               # also doctor's test, and each attack in each role
#
# The machines' system is made once, below ${XDG_CACHE_HOME:-/var/cache}/papayachat-tests. Ends with
# 77 and a line "not run: …" where something is missing.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=tests/machines.sh
. "$here/tests/machines.sh"
tree=$kernels_tree

# Of the suite, what is about the kernel.
chosen="people_talk the_bell_reaches_confined_workers the_log_only_grows a_weaker_level_is_never_hidden"
# What the guest reports, each exactly once; see kernels-guest.sh.
steps="refuses-full check-refuses-full check starts warns status talks doctor attacks"

not_run() {
    echo "kernels.sh: not run: $1"
    exit 77
}

install_tools() {
    [ "$(id -u)" -eq 0 ] || not_run "only root can install the emulator"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q
    apt-get install -q -y --no-install-recommends debootstrap e2fsprogs
    if ! have_emulator; then
        # The suite's backports have an emulator that knows all of `-cpu max`.
        # shellcheck disable=SC2016 # apt's own variable.
        uri=$(apt-get indextargets --format '$(REPO_URI)' "Codename: $suite" | sed -n 1p)
        [ -n "$uri" ] || not_run "apt knows no $suite here"
        echo "deb $uri $suite-backports main" >/etc/apt/sources.list.d/papayachat-tests.list
        apt-get update -q
        apt-get install -q -y --no-install-recommends -t "$suite-backports" qemu-system-x86 seabios
    fi
}

list=
logs=
while [ $# -gt 0 ]; do
    case $1 in
    --install) install_tools && shift && continue ;;
    --long) chosen="$chosen doctor_finds_what_differs a_forbidden_call_kills" && shift && continue ;;
    --list) list=$2 ;;
    --logs) logs=$2 ;;
    *) echo "kernels.sh: unknown option $1" >&2 && exit 64 ;;
    esac
    shift 2
done

[ "$(id -u)" -eq 0 ] || not_run "only root can make a system's tree"
for tool in debootstrap mkfs.ext4 strip; do
    command -v "$tool" >/dev/null || not_run "$tool is missing; tests/kernels.sh --install installs it"
done
have_emulator || not_run "qemu-system-x86_64 is missing or older than 10; tests/kernels.sh --install installs it"
if [ "${PAPAYA_MOUNTS-}" != private ]; then
    # What is mounted below goes with this process.
    exec env PAPAYA_MOUNTS=private unshare --mount --propagation private "$0" \
        ${list:+--list "$list"} ${logs:+--logs "$logs"}
fi

make_tree() {
    mkdir -p "$cache"
    rm -rf "$tree.new"
    timeout 900 debootstrap --variant=minbase --include=kmod,initramfs-tools,iproute2 "$suite" "$tree.new"
    # They have the newer kernel; what is not asked for from there comes from the suite itself.
    sed -n "s/^\(deb .*\) $suite main.*/\1 $suite-backports main/p" "$tree.new/etc/apt/sources.list" \
        >"$tree.new/etc/apt/sources.list.d/backports.list"
    cp -L /etc/resolv.conf "$tree.new/etc/resolv.conf"
    chroot "$tree.new" apt-get update -q
    local install=(timeout 600 chroot "$tree.new" env DEBIAN_FRONTEND=noninteractive
        apt-get install -q -y --no-install-recommends linux-image-cloud-amd64)
    "${install[@]}"
    "${install[@]}" -t "$suite-backports"
    rm -rf "$tree.new"/var/cache/apt "$tree.new"/var/lib/apt/lists
    mv "$tree.new" "$tree"
}
if ! [ -e "$tree" ]; then
    # Not as a condition of `if`, where -e would not hold.
    ( set -e; make_tree ) >"$cache.log" 2>&1 &
    wait $! || not_run "no tree of $suite with its kernels can be made: $(tail -n 1 "$cache.log")"
fi

work=$(mktemp -d /var/tmp/papaya-kernels.XXXXXX)
machines=()
# shellcheck disable=SC2317 # Called by the trap.
end() {
    for machine in "${machines[@]}"; do kill "$machine" 2>/dev/null || true; done
    umount -l "$work/root" 2>/dev/null || true
    rm -rf "$work"
}
trap end EXIT
logs=${logs:-$work/logs}
mkdir -p "$logs"
if [ -z "$list" ]; then
    list=$work/list
    "$here/tests/executables.sh" >"$list"
fi

# One disk for all: the tree, the programs and tests at the paths that they know, and the guest's part.
mkdir "$work/upper" "$work/work" "$work/root"
root=$work/root
mount -t overlay overlay -o "lowerdir=$tree,upperdir=$work/upper,workdir=$work/work" "$root"
rm -rf "${root:?}"/boot "$root"/usr/lib/modules "$root"/usr/share/{doc,locale,man,zoneinfo}
executables=()
for name in $chosen; do
    executables+=("$(grep -E "/$name-[0-9a-f]+\$" "$list")")
done
target=${executables[0]%/deps/*}
for file in "${executables[@]}" "$target/papayad" "$target/papayad-session" "$target/papaya"; do
    mkdir -p "$root${file%/*}"
    strip -o "$root$file" "$file"
done
mkdir -p "$root$here"
printf '%s\n' "${executables[@]}" >"$root/tests"
cp "$here/tests/kernels-guest.sh" "$root/guest"
ln -sf "$target/papayad" "$target/papaya" "$root/usr/bin/"
make_disk "$root" "$work/disk"

# Passed on by the guest as lines "report: STEP ok", or "report: STEP FAILED …".
said() { tr -d '\r' <"$logs/$1.console" | sed -n 's/^report: //p'; }

began=$SECONDS
for entry in "${kernels[@]}"; do
    read -r release level <<<"$entry"
    start_machine "$release" "$work/disk" "$work/$level.disk" "$logs/$level.console" "init=/guest papaya_level=$level"
done
for machine in "${machines[@]}"; do
    wait "$machine" || echo "kernels.sh: a machine ended with $?" >&2
done
machines=()

outcome=0
for entry in "${kernels[@]}"; do
    read -r release level <<<"$entry"
    missing=()
    kernel=$(said "$level" | sed -n 's/^kernel //p')
    [[ $kernel == "$release"* ]] || missing+=("kernel-$release")
    for step in $steps $chosen; do
        [ "$(said "$level" | grep -cx "$step ok")" -eq 1 ] || missing+=("$step")
    done
    said "$level" | grep -x "end" >/dev/null || missing+=(end)
    if [ ${#missing[@]} -eq 0 ]; then
        echo "kernels.sh: kernel $kernel: refuses full; at $level passed: $steps $chosen"
    else
        outcome=1
        echo "kernels.sh: kernel ${kernel:-$release?} at $level FAILED: ${missing[*]}; its console:" >&2
        tr -d '\r' <"$logs/$level.console" >&2
    fi
done
echo "kernels.sh: ${#kernels[@]} machines, $((SECONDS - began)) s"
exit "$outcome"
