#!/bin/bash
# The test's part inside of the tree that boot.sh has booted: uses the service as an administrator
# does, and writes a line a step to /report. Started by a unit of its own; at its end all stops.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 HOME=/root
exec </dev/null

# A step is a function that runs with -e; what it says is shown if it fails.
step() { # NAME
    # The trace goes past what a step itself redirects.
    ( exec 9>&1; BASH_XTRACEFD=9; set -ex; "step_$1" ) >"/tmp/$1.log" 2>&1 &
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
# What the service has said already is in the journal then.
journal() { command journalctl --sync && command journalctl --no-pager -q "$@"; }
said() { journal -o cat -u papayad | grep -F "$1"; }

another_main() { [ "$(main_pid)" != "$1" ] && [ "$(systemctl is-active papayad)" = active ]; }
another_listener() { pid=$(process listener) && [ "$pid" != "$1" ] && papayad status | grep -F 'door open'; }

package() { echo /packages/papayachat_*-"$1"_*.deb; }
# What docs/admin.md shows: a command, and what it says.
show() { # NAME COMMAND…
    local name=$1
    shift
    mkdir -p /shown
    # What systemd counts depends on the system that the tree runs on.
    { printf '$' && printf ' %s' "$@" && echo && "$@"; } 2>&1 |
        sed -E 's/[[:space:]]*$//; /^ +(Tasks|Memory|CPU):/d' >"/shown/$name"
}
# The lines since a moment that `mark` has set.
mark() { journal -n 0 --show-cursor | sed -n 's/^-- cursor: //p' >/tmp/cursor; }
said_since() { journal -o cat -u papayad --after-cursor="$(cat /tmp/cursor)" | grep -F "$1"; }
show_journal() { # NAME
    mkdir -p /shown
    # What systemd counts depends on the system that the tree runs on.
    { echo '$ journalctl -u papayad' && journal -u papayad --after-cursor="$(cat /tmp/cursor)"; } |
        grep -v ': Consumed ' >"/shown/$1"
}

step_install() {
    dpkg -i "$(package 1)" >/tmp/installed
    grep -F 'papayad token add NAME' /tmp/installed
    [ "$(systemctl is-enabled papayad)" = disabled ]
    [ "$(systemctl is-active papayad)" = inactive ]
    [ "$(stat -c %U:%a /var/lib/papayachat)" = papayad-keys:750 ]
    [ "$(stat -c %U:%a /usr/sbin/papayad)" = root:755 ]
    [ "$(stat -c %U:%a /usr/libexec/papayachat/papayad-session)" = root:755 ]
    for program in papayad papaya; do "$program" --version; done
    dpkg --verify papayachat
    level=$(sed -n 's/.*papaya_level=\([^ ]*\).*/\1/p' /proc/cmdline)
    if [ -n "$level" ]; then
        # The default refuses this kernel, and says what would be accepted.
        not systemctl start papayad
        said "sandbox.require = \"$level\""
        systemctl reset-failed papayad
        install -d /etc/papayachat/conf.d
        printf '[sandbox]\nrequire = "%s"\n' "$level" >/etc/papayachat/conf.d/level.toml
    fi
    papayad check
}
step_start() {
    systemctl start papayad
    # The door is open then, and the state has been told.
    until_so papayad status
    show start systemctl status papayad
    [ "$(systemctl is-active papayad)" = active ]
    systemctl show -P StatusText papayad | grep 'the door is open'
    [ "$(stat -c %U:%a /var/lib/papayachat)" = papayad-keys:750 ]
    lsattr /var/lib/papayachat/room.log | grep -- '^-----a'
    [ "$(ps -o user= -p "$(main_pid)")" = papayad ]
    grep -x 'CapBnd:	0000000000000000' "/proc/$(main_pid)/status"
}
step_doctor() { papayad doctor; }
step_token() {
    umask 077
    papayad token add alice >/root/alice.token
    papayad token add mallory >/root/mallory.token
    papaya profile add alice --server 127.0.0.1:7722 --token-file /root/alice.token
}
step_talk() {
    mark
    papaya send alice 'hello, room'
    until_so said_since 'ended (status 0)'
    show_journal join
    papaya history alice --json | grep '"text":"hello, room"'
}
step_refusal() {
    papayad token revoke mallory
    mark
    not papaya send --server 127.0.0.1:7722 --token-file /root/mallory.token 'let me in'
    until_so said_since 'is refused: the token was revoked'
    show_journal refusal
}
step_violation() {
    papaya tail alice --follow >/dev/null 2>&1 & tail=$!
    until_so process 'recv alice'
    mark
    # The signal that a filter kills by.
    kill -SYS "$(process 'recv alice')"
    until_so said_since 'killed by its filter'
    until_so said_since 'after a violation of the confinement'
    kill $tail
    show_journal violation
    papayad status | grep '1 violations'
    # Its source, and all of this is one, is punished: forgotten at a new start.
    systemctl restart papayad
}
step_reload() {
    papaya tail alice --history 50 --follow >/tmp/reload & tail=$!
    until_so grep -F 'hello, room' /tmp/reload
    recv=$(process 'recv alice')
    mkdir -p /etc/papayachat/conf.d
    echo 'room.motd = "news"' >/etc/papayachat/conf.d/news.toml
    systemctl reload papayad
    until_so said 'configuration'
    [ "$(systemctl is-active papayad)" = active ]
    # With a mistake it fails, and goes on with what it had.
    echo 'room.mtod = "news"' >/etc/papayachat/conf.d/news.toml
    not systemctl reload papayad
    said 'mtod'
    [ "$(systemctl is-active papayad)" = active ]
    echo 'room.motd = "news"' >/etc/papayachat/conf.d/news.toml
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
    journal -o cat -u papayad | grep -i 'watchdog timeout'
    papaya send alice 'after the watchdog'
}
step_stop() {
    mark
    systemctl stop papayad
    show_journal stop
    [ "$(systemctl is-active papayad)" = inactive ]
    none_left
    not [ -e /run/papayachat ]
}
step_refused() {
    # A configuration that cannot be used: one try, and 78.
    echo 'room.mtod = "news"' >/etc/papayachat/conf.d/news.toml
    not systemctl start papayad
    [ "$(systemctl show -P ExecMainStatus papayad)" = 78 ]
    [ "$(systemctl show -P ActiveState papayad)" = failed ]
    systemctl reset-failed papayad
    rm /etc/papayachat/conf.d/news.toml
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

step_upgrade() {
    systemctl enable --now papayad
    papaya tail alice --history 50 --follow >/tmp/upgrade & tail=$!
    until_so grep -F 'hello, room' /tmp/upgrade
    before=$(main_pid)
    dpkg -i "$(package 2)"
    [ "$(main_pid)" != "$before" ]
    [ "$(dpkg-query -f '${Version}' -W papayachat)" != "$(dpkg-deb -f "$(package 1)" Version)" ]
    papayad doctor
    # Who was connected is there again, and nothing was lost or doubled.
    papaya send alice 'after the upgrade'
    until_so grep -F 'after the upgrade' /tmp/upgrade
    [ "$(grep -cF 'hello, room' /tmp/upgrade)" = 1 ]
    kill $tail
}
step_remove() {
    dpkg -r papayachat
    none_left
    not [ -e /usr/sbin/papayad ]
    [ -e /var/lib/papayachat/room.log ]
    [ -e /etc/papayachat/papayad.toml ]
}
step_purge() {
    dpkg -P papayachat
    for left in /var/lib/papayachat /var/lib/papayachat-den /etc/papayachat /run/papayachat /etc/fail2ban /etc/logcheck \
        /etc/systemd/system/multi-user.target.wants/papayad.service; do
        not [ -e "$left" ]
    done
    not systemctl cat papayad
    id papayad
}
step_reinstall() {
    step_install
    papayad token add alice >/root/alice.token
    systemctl enable --now papayad
    papaya send --server 127.0.0.1:7722 --token-file /root/alice.token 'a new room'
    papayad log verify
    systemctl stop papayad
}
# The guide as a new administrator would use it: on a system that has never had the package, each command
# as it is printed, one block after the other.
step_guide() {
    dpkg -P papayachat || true
    rm -rf /root/* /root/.config
    echo '127.0.0.1 localhost chat.example.org' >/etc/hosts
    cd /root
    local revision=1 blocks=0 block
    # That there is nothing to show is no failure of a command.
    # shellcheck disable=SC2317 # Called in the blocks.
    journalctl() { command journalctl "$@" || [ $? = 1 ]; }
    export -f journalctl
    for block in /guide-blocks/*.sh; do
        if grep -q '^apt install' "$block"; then
            rm -f ./*.deb
            cp "$(package $revision)" .
            revision=2
        fi
        if grep -q '^podman' "$block"; then
            continue
        fi
        bash -eux "$block"
        blocks=$((blocks + 1))
    done
    [ "$revision" = 2 ]
    [ "$blocks" -gt 15 ]
    # What was said first has outlived backup, restore and all the rest.
    papayad log export | grep 'hello, room'
    systemctl stop papayad papayad@den
    none_left
}

for name in "$@"; do
    step "$name"
done
echo end >>/report
systemctl poweroff --no-block
