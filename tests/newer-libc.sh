#!/bin/bash
# The test suite, and with it both programs, on a newer C library: the executables that were built
# here run in a tree of Debian's next release, on this machine's kernel.
#
#   tests/newer-libc.sh [--list FILE] [--logs DIRECTORY] [--as USER]
#
# Makes the tree once, below ${XDG_CACHE_HOME:-/var/cache}/papayachat-tests. Ends with 77 and a line
# "not run: …" where that cannot be done.
set -euo pipefail
suite=sid
here=$(cd "$(dirname "$0")/.." && pwd)
cache=${XDG_CACHE_HOME:-/var/cache}/papayachat-tests
tree=$cache/$suite

not_run() {
    echo "newer-libc.sh: not run: $1"
    exit 77
}

if [ "${PAPAYA_MOUNTS-}" != private ]; then
    [ "$(id -u)" -eq 0 ] || not_run "only root can make a system's tree and enter it"
    # What is mounted below goes with this process.
    exec env PAPAYA_MOUNTS=private unshare --mount --propagation private "$0" "$@"
fi

list=
passed_on=()
while [ $# -gt 0 ]; do
    case $1 in
    --list) list=$2 ;;
    *) passed_on+=("$1" "$2") ;;
    esac
    shift 2
done

if ! [ -e "$tree" ]; then
    if ! command -v debootstrap >/dev/null; then
        DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends debootstrap >/dev/null 2>&1 ||
            not_run "debootstrap is missing and cannot be installed"
    fi
    mkdir -p "$cache"
    rm -rf "$tree.new"
    if ! timeout 900 debootstrap --variant=minbase "$suite" "$tree.new" >"$cache/$suite.log" 2>&1; then
        not_run "no tree of $suite can be made: $(tail -n 1 "$cache/$suite.log")"
    fi
    rm -rf "$tree.new"/var/cache/apt/archives/*.deb
    mv "$tree.new" "$tree"
fi

version() { "$@" ldd --version | sed -n '1s/.* //p'; }
ours=$(version env)
theirs=$(version chroot "$tree")
echo "newer-libc.sh: C library $theirs of $suite; this machine's is $ours; kernel $(uname -r)"
if [ "$(printf '%s\n' "$ours" "$theirs" | sort -V | tail -n 1)" = "$ours" ]; then
    not_run "the tree's C library is not newer; remove $tree, and it is made anew"
fi

# Nothing is written to the tree, and the tests' files are on a real disk.
work=$(mktemp -d /var/tmp/papaya-libc.XXXXXX)
trap 'umount -l "$work/root" 2>/dev/null || true; rm -rf "$work" || true' EXIT
if [ -z "$list" ]; then
    list=$work/list
    "$here/tests/executables.sh" >"$list"
fi
mkdir "$work/upper" "$work/work" "$work/root" "$work/tmp"
chmod 755 "$work" "$work/upper"
chmod 1777 "$work/tmp"
root=$work/root
mount -t overlay overlay -o "lowerdir=$tree,upperdir=$work/upper,workdir=$work/work" "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --rbind /sys "$root/sys"
mount --bind "$work/tmp" "$root/tmp"
# The same files at the same paths: the tests know them by absolute ones.
target=$(head -n 1 "$list")
target=${target%/deps/*}
for directory in "$here" "$target"; do
    mkdir -p "$root$directory"
    mount --bind "$directory" "$root$directory"
    mount -o remount,bind,ro "$root$directory"
done
"$here/tests/levels.sh" --inside "$root" --list "$list" "${passed_on[@]}" full
