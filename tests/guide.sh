#!/bin/bash
# Promise: each command of docs/admin.md works as it is printed.
#
# As root, with the programs built: `tests/guide.sh [DIRECTORY-OF-PROGRAMS]`. Every `sh` block is run in
# its order, in namespaces of its own (files, network, processes) with copies of /etc and /var/lib, so
# that nothing of this machine changes. There is no service manager in them: small stand-ins for apt,
# systemctl and journalctl start and stop the real programs as the units do; tests/boot.sh runs the same
# blocks under a real one. Blocks that begin with podman are not run.
set -euo pipefail
cd "$(dirname "$0")/.."

skip() {
    echo "guide.sh: not run: $1"
    exit 77
}

stand_ins() { # what is not there without a service manager
    cat >"$work/bin/apt" <<'END'
#!/bin/sh
# The package's users, directories and files.
[ "$1" = install ] || exit 1
for user in papayad papayad-keys; do
    id "$user" >/dev/null 2>&1 || useradd --system --no-create-home --shell /usr/sbin/nologin --user-group "$user"
done
install -d /etc/papayachat /usr/share/doc/papayachat/examples
[ -e /etc/papayachat/papayad.toml ] || install -m 0644 "$SOURCE/packaging/papayad.toml" /etc/papayachat/
[ -e /var/lib/papayachat ] || install -d -m 0750 -o papayad-keys -g papayad-keys /var/lib/papayachat
cp -r "$SOURCE/packaging/prometheus" /usr/share/doc/papayachat/examples/
[ ! -e "$WORK/papayad.pid" ] || systemctl restart papayad
END
    cat >"$work/bin/systemctl" <<'END'
#!/bin/bash
set -eu
config() { case $1 in papayad@*) echo "/etc/papayachat/${1#*@}.toml" ;; *) echo /etc/papayachat/papayad.toml ;; esac; }
start() {
    local as=()
    case $1 in
    papayad.socket) return ;;
    papayachat-metrics.timer)
        # As the timer would: the service's command, in which systemd reads $$ as $.
        command=$(sed -n "s/^ExecStart=\/bin\/sh -c '\(.*\)'\$/\1/p" /etc/systemd/system/papayachat-metrics.service)
        install -d /var/lib/prometheus/node-exporter
        sh -c "${command//\$\$/\$}"
        grep -q '^papayachat_up{room="lobby"} 1$' /var/lib/prometheus/node-exporter/papayachat.prom
        return
        ;;
    papayad-activated)
        as=(runuser -u papayad --)
        chown -R papayad:papayad /var/lib/papayachat
        install -d -o papayad -g papayad /run/papayachat
        ;;
    papayad | papayad@*) rm -rf /run/papayachat ;;
    *) echo "systemctl: no such unit: $1" >&2 && exit 5 ;;
    esac
    setsid "${as[@]}" papayad run --config "$(config "$1")" </dev/null >/dev/null 2>>"$WORK/journal" &
    echo $! >"$WORK/$1.pid"
    # Until it answers, or has ended.
    until papayad status --config "$(config "$1")" >/dev/null 2>&1; do
        kill -0 $! 2>/dev/null || exit 1
    done
}
stop() {
    [ -e "$WORK/$1.pid" ] || return 0
    # runuser passes the signal on.
    kill -TERM "$(cat "$WORK/$1.pid")"
    timeout 60 tail -s 0.1 --pid="$(cat "$WORK/$1.pid")" -f /dev/null
    rm "$WORK/$1.pid"
}
verb=$1
shift
[ "${1-}" != --now ] || shift
for unit; do
    case $verb in
    enable | start) start "$unit" ;;
    disable | stop) stop "$unit" ;;
    restart) stop "$unit" && start "$unit" ;;
    reload) papayad check --config "$(config "$unit")" && kill -HUP "$(cat "$WORK/$unit.pid")" ;;
    status) kill -0 "$(cat "$WORK/$unit.pid")" ;;
    *) exit 1 ;;
    esac
done
[ $# -gt 0 ] || [ "$verb" = daemon-reload ]
END
    printf '#!/bin/sh\ncat %s/journal\n' "$work" >"$work/bin/journalctl"
    chmod 755 "$work/bin"/*
}

inside() {
    work=$1
    export WORK=$work SOURCE=$work/source HOME=$work/home PATH=$work/bin:$PATH
    unset PAPAYAD_CONFIG XDG_CONFIG_HOME
    mount --bind "$work/etc" /etc
    mount --bind "$work/lib" /var/lib
    mount -t tmpfs -o mode=755 guide-test /run
    mount -t tmpfs -o mode=755 guide-test /var/backups
    mount -t tmpfs -o mode=755 guide-test /usr/share/doc
    ip link set lo up
    # A logger, for doctor finds it out if there is none.
    python3 -c 'import socket
log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
log.bind("/run/log")
while True: log.recv(9000)' </dev/null &
    until [ -S /run/log ]; do :; done
    echo '127.0.0.1 localhost chat.example.org' >/etc/hosts
    cd "$HOME"
    touch papayachat_0.1.0_amd64.deb
    local count=0 block
    for block in "$work"/blocks/*.sh; do
        if grep -q '^podman' "$block"; then
            echo "guide.sh: not run: a block that needs podman"
            continue
        fi
        echo "== ${block##*/}"
        sh -eu "$block" || {
            echo "guide.sh: this block of docs/admin.md failed:" >&2
            cat "$block" >&2
            tail -n 20 "$work/journal" >&2
            return 1
        }
        count=$((count + 1))
    done
    [ "$count" -gt 15 ]
    # What was said first has outlived backup, restore and all the rest.
    papayad log export | grep 'hello, room'
    if command -v nft >/dev/null; then
        nft -c -f "$work/blocks/rules.nft"
    else
        echo "guide.sh: not run: the packet filter's rules are not checked, there is no nft"
    fi
    echo "guide.sh: $count blocks work as they are printed"
}

# Each block in a file of its own, in their order.
take_blocks() { # DIRECTORY
    mkdir -p "$1"
    awk -v to="$1" '
        /^```sh$/ { file = sprintf("%s/%02d-line-%d.sh", to, ++n, NR); next }
        /^```nft$/ { file = to "/rules.nft"; next }
        /^```/ { file = ""; next }
        file { print > file }' docs/admin.md
}

if [ "${1-}" = --blocks ]; then
    take_blocks "$2"
    exit
fi
if [ "${1-}" = --inside ]; then
    inside "$2"
    exit
fi

[ "$(id -u)" -eq 0 ] || skip "needs root, for namespaces and users"
programs=$(realpath "${1:-target/debug}")
command -v python3 >/dev/null || skip "needs python3, for a logger"
[ -x "$programs/papayad" ] || skip "no papayad in $programs; build it first"
unshare --mount --net --pid --fork true 2>/dev/null || skip "no namespaces can be made here"

work=$(mktemp -d /var/tmp/papayachat-guide.XXXXXX)
trap 'chattr -R -f -a "$work" || true
    rm -rf --one-file-system "$work"' EXIT
chmod 755 "$work"
mkdir -p "$work"/{bin,lib,home,blocks,source}
cp -a /etc "$work/etc"
rm -rf "$work/etc/papayachat"
cp -r packaging "$work/source/"
cp "$programs/papayad" "$programs/papayad-session" "$programs/papaya" "$work/bin/"
: >"$work/journal"
stand_ins
take_blocks "$work/blocks"
unshare --mount --net --pid --fork --kill-child --mount-proc "$0" --inside "$work"
