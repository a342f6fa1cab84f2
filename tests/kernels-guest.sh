#!/bin/bash
# The first process of a virtual machine of kernels.sh: tries everything there and reports it on the
# console, a line a step. Nothing else runs there; at its end the machine stops.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 HOME=/root
mountpoint -q /proc || mount -t proc proc /proc
mountpoint -q /sys || mount -t sysfs sysfs /sys
mountpoint -q /dev || mount -t devtmpfs devtmpfs /dev
exec </dev/null
ip link set lo up
dmesg -n 1 2>/dev/null
level=$(sed -n 's/.*papaya_level=\([^ ]*\).*/\1/p' /proc/cmdline)
room=/var/tmp/room
mkdir -m 755 "$room"
export PAPAYAD_CONFIG=$room/papayad.toml

report() { echo "report: $*"; }
# A step is a function; what it says is shown if it fails.
step() { # NAME
    if "step_$1" >"/tmp/$1.log" 2>&1; then
        report "$1 ok"
    else
        report "$1 FAILED"
        cat "/tmp/$1.log"
    fi
}
configure() { # THE SECTION [sandbox]
    cat >"$PAPAYAD_CONFIG" <<TOML
[listen]
addresses = ["127.0.0.1:7722"]
[identity]
user = "nobody"
keeper_user = "daemon"
[paths]
state = "$room/state"
runtime = "$room/run"
[syslog]
facility = "none"
$1
TOML
}
# The sentence that names what this kernel has.
reached="this kernel reaches sandbox level \"$level\", but \"full\" is required"

# Nothing is configured, so full is required.
step_refuses-full() {
    configure ""
    timeout 60 papayad run 2>/tmp/refused
    [ $? -eq 78 ] && grep -F "$reached" /tmp/refused && grep -F "sandbox.require = \"$level\"" /tmp/refused
    local outcome=$?
    cat /tmp/refused
    return "$outcome"
}
step_check-refuses-full() {
    timeout 60 papayad check >/tmp/refused
    [ $? -eq 78 ] && grep -F "$reached" /tmp/refused
}
step_check() {
    configure "[sandbox]
require = \"$level\""
    timeout 60 papayad check
}
step_starts() {
    papayad run 2>/tmp/run.log &
    for _ in $(seq 120); do
        grep -q "serves room" /tmp/run.log && return
        sleep 0.5
    done
    cat /tmp/run.log
    return 1
}
step_warns() {
    cat /tmp/run.log
    grep -F "the sandbox level is \"$level\", weaker than \"full\": this kernel reaches no more" /tmp/run.log &&
        [ "$(grep -c "confined, level $level: " /tmp/run.log)" -eq 3 ]
}
step_status() {
    timeout 60 papayad status --json && timeout 60 papayad status --json | grep -F "\"level\":\"$level\""
}
step_talks() {
    local name
    for name in alice bob; do
        timeout 60 papayad token add "$name" >"/tmp/$name.token" || return 1
        chmod 600 "/tmp/$name.token"
    done
    papaya() { timeout 120 /usr/bin/papaya "$1" --server 127.0.0.1:7722 --token-file "/tmp/$2.token" "${@:3}"; }
    papaya tail bob --json --from 0 --follow --count 2 >/tmp/bob.shown &
    local bob=$!
    papaya send alice 'hello, bob' && papaya send bob 'hello, alice' && wait "$bob" &&
        papaya tail alice --json --from 0 --count 2 >/tmp/alice.shown
    cat /tmp/*.shown
    grep -F '"text":"hello, alice"' /tmp/alice.shown && grep -F '"text":"hello, bob"' /tmp/bob.shown &&
        timeout 60 papayad log verify
}
# While somebody is here.
step_doctor() {
    timeout 300 papaya tail bob --follow >/dev/null &
    local bob=$!
    for _ in $(seq 60); do
        timeout 60 papayad status --json | grep -q '"name":"bob"' && break
        sleep 0.5
    done
    timeout 120 papayad doctor >/tmp/found && grep -F "$level, $level is required" /tmp/found
    local outcome=$?
    cat /tmp/found
    kill "$bob"
    return "$outcome"
}
# What the level changes is in the launcher, and Landlock's: the filters are the same on every kernel.
step_attacks() {
    papayad sandbox attack launcher nothing "$level" || return 1
    local attack role
    for attack in open open-past-directory execute-at execute-descriptor; do
        papayad sandbox attack launcher "$attack" "$level" 2>/tmp/attack && return 1
        cat /tmp/attack
        grep -qx 'came back: EACCES' /tmp/attack || return 1
    done
    for role in keeper listener recv recv-joined send; do
        papayad sandbox attack "$role" nothing "$level" || return 1
        papayad sandbox attack "$role" trace "$level" 2>/dev/null && return 1
        [ $? -eq 159 ] || return 1 # SIGSYS
    done
    return 0
}

report "kernel $(uname -r)"
for name in refuses-full check-refuses-full check starts warns status talks doctor attacks; do
    step "$name"
done
while read -r test; do
    name=${test##*/}
    name=${name%-*}
    if PAPAYA_TEST_LEVEL=$level timeout 600 "$test" >"/tmp/$name.log" 2>&1 &&
        grep -q '^test result: ok' "/tmp/$name.log"; then
        report "$name ok"
    else
        report "$name FAILED"
        tail -n 60 "/tmp/$name.log"
    fi
done </tests
report end
sync
echo b >/proc/sysrq-trigger
sleep 60
