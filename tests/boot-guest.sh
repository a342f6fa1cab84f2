#!/bin/bash
# The test's part inside of the tree that boot.sh has booted: uses the service as an administrator
# does, and writes a line a step to /report. Started by a unit of its own; at its end all stops.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 HOME=/root
exec </dev/null

# A step is a function that runs with -e; what it says is shown if it fails.
step() { # NAME
    ( set -ex; "step_$1" ) >"/tmp/$1.log" 2>&1 &
    # Not as a condition, where -e would not hold.
    if wait $!; then
        echo "$1 ok" >>/report
    else
        { echo "$1 FAILED" && cat "/tmp/$1.log" && systemctl --no-pager --full status 'papayad*' && journalctl --no-pager -n 40; } >>/report 2>&1
    fi
}
# Until it is so, or for 60 s: what is asked is told by nobody.
until_so() { # COMMAND…
    local end=$((SECONDS + 60))
    until "$@" >/dev/null 2>&1; do [ $SECONDS -lt $end ] && sleep 0.1; done
}
main_pid() { systemctl show -P MainPID "${1:-papayad}"; }
process() { pgrep -n -f "^papayad: $1( |\$)"; }
none_left() { ! pgrep -f '^papayad: '; }
# Of a plain `! COMMAND` -e takes no notice.
not() { ! "$@"; }
said() { journalctl --no-pager -o cat -u papayad | grep -F "$1"; }

another_main() { [ "$(main_pid)" != "$1" ] && [ "$(systemctl is-active papayad)" = active ]; }
another_listener() { pid=$(process listener) && [ "$pid" != "$1" ] && papayad status | grep -F 'door open'; }

step_start() {
    systemctl start papayad
    [ "$(systemctl is-active papayad)" = active ]
    systemctl show -P StatusText papayad | grep 'the door is open'
    [ "$(stat -c %U:%a /var/lib/papayachat)" = papayad-keys:750 ]
    lsattr /var/lib/papayachat/room.log | grep -- '^-----a'
    [ "$(ps -o user= -p "$(main_pid)")" = papayad ]
    grep -x 'CapBnd:	0000000000000000' "/proc/$(main_pid)/status"
}
step_doctor() { papayad doctor; }
step_token() {
    papayad token add alice >/root/alice.token
    papaya profile add alice --server 127.0.0.1:7722 --token-file /root/alice.token
}
step_talk() {
    papaya send alice 'hello, room'
    papaya history alice --json | grep '"text":"hello, room"'
}
step_reload() {
    papaya tail alice --history 50 --follow >/tmp/reload & tail=$!
    until_so grep -F 'hello, room' /tmp/reload
    recv=$(process 'recv alice')
    mkdir -p /etc/papayachat
    echo 'room.motd = "news"' >/etc/papayachat/papayad.toml
    systemctl reload papayad
    until_so said 'configuration'
    [ "$(systemctl is-active papayad)" = active ]
    # With a mistake it fails, and goes on with what it had.
    echo 'room.mtod = "news"' >/etc/papayachat/papayad.toml
    not systemctl reload papayad
    said 'mtod'
    [ "$(systemctl is-active papayad)" = active ]
    echo 'room.motd = "news"' >/etc/papayachat/papayad.toml
    [ "$(process 'recv alice')" = "$recv" ]
    kill $tail
}
step_restart() {
    before=$(main_pid)
    papaya tail alice --history 50 --follow >/tmp/restart & tail=$!
    until_so grep -F 'hello, room' /tmp/restart
    systemctl restart papayad
    [ "$(main_pid)" != "$before" ]
    papaya send alice 'after the restart'
    until_so grep -F 'after the restart' /tmp/restart
    kill $tail
}
step_listener() {
    listener=$(process listener)
    kill -KILL "$listener"
    until_so another_listener "$listener"
    papaya send alice back
}
step_keeper() {
    before=$(main_pid)
    kill -KILL "$(process keeper)"
    until_so another_main "$before"
    papaya send alice 'after the keeper'
}
step_watchdog() {
    before=$(main_pid)
    kill -STOP "$before"
    until_so another_main "$before"
    journalctl --no-pager -o cat -u papayad | grep -i 'watchdog timeout'
    papaya send alice 'after the watchdog'
}
step_stop() {
    systemctl stop papayad
    [ "$(systemctl is-active papayad)" = inactive ]
    none_left
    not [ -e /run/papayachat ]
}
step_refused() {
    # A configuration that cannot be used: one try, and 78.
    echo 'room.mtod = "news"' >/etc/papayachat/papayad.toml
    not systemctl start papayad
    [ "$(systemctl show -P ExecMainStatus papayad)" = 78 ]
    [ "$(systemctl show -P ActiveState papayad)" = failed ]
    systemctl reset-failed papayad
    rm /etc/papayachat/papayad.toml
}
step_instance() {
    not systemctl start papayad@typo
    not [ -e /var/lib/papayachat-typo ]
    cat >/etc/papayachat/den.toml <<TOML
[listen]
addresses = ["[::]:7723"]
[paths]
state = "/var/lib/papayachat-den"
runtime = "/run/papayachat-den"
TOML
    systemctl start papayad papayad@den
    systemctl stop papayad
    export PAPAYAD_CONFIG=/etc/papayachat/den.toml
    papayad token add bob >/root/bob.token
    papaya profile add bob --server 127.0.0.1:7723 --token-file /root/bob.token
    papaya send bob 'in the den'
    lsattr /var/lib/papayachat-den/room.log | grep -- '^-----a'
    papayad doctor
    systemctl stop papayad@den
    # Below 1024 as the first unit says.
    sed -i 's/7723/723/' /etc/papayachat/den.toml
    not systemctl start papayad@den
    systemctl stop papayad@den
    mkdir -p /etc/systemd/system/papayad@.service.d
    printf '%s\n' '[Service]' CapabilityBoundingSet=CAP_NET_BIND_SERVICE >/etc/systemd/system/papayad@.service.d/port.conf
    systemctl daemon-reload
    systemctl start papayad@den
    papaya send --server 127.0.0.1:723 --token-file /root/bob.token 'below 1024'
    systemctl stop papayad@den
    none_left
}
step_activated() {
    papayad log unseal
    systemctl start papayad-activated
    papaya send alice 'through the socket'
    [ "$(ps -o user= -p "$(main_pid papayad-activated)")" = papayad ]
    grep -x 'CapPrm:	0000000000000000' "/proc/$(main_pid papayad-activated)/status"
    nsenter --net --target "$(main_pid papayad-activated)" ip -o link >/tmp/links
    not grep -v ': lo: ' /tmp/links
    runuser -u papayad -- papayad token add carol >/root/carol.token
    papaya profile add carol --server 127.0.0.1:7722 --token-file /root/carol.token
    papaya send carol 'me too'
    systemctl reload papayad-activated
    papayad doctor
    # Whoever comes while it restarts waits.
    systemctl restart papayad-activated
    papaya send carol 'again'
    # The socket alone starts it.
    systemctl stop papayad-activated
    none_left
    systemctl start papayad.socket
    papaya send carol 'knock'
    # And back: the one stops the other.
    systemctl stop papayad-activated papayad.socket
    chown -R papayad-keys:papayad-keys /var/lib/papayachat
    systemctl start papayad.socket
    systemctl start papayad
    not systemctl is-active papayad.socket
    papaya send alice 'home again'
    lsattr /var/lib/papayachat/room.log | grep -- '^-----a'
    papaya history alice --json | grep -c '"text"' | grep -x '[0-9]*'
    systemctl stop papayad
}

for name in "$@"; do
    step "$name"
done
echo end >>/report
systemctl poweroff --no-block
