#!/bin/bash
# Promise: the rules for fail2ban and logcheck are about the lines that the service really writes: the
# filter finds each source that is to be banned, and no other; what logcheck hides is daily business.
#
# As root or not: `tests/log_rules.sh [DIRECTORY-OF-PROGRAMS]`. Ends with 77 and a line "not run: …"
# where something is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
programs=$(realpath "${1:-target/debug}")

skip() {
    echo "log_rules.sh: not run: $1"
    exit 77
}
command -v python3 >/dev/null || skip "needs python3, to connect as no client does"
[ -x "$programs/papayad" ] || skip "no papayad in $programs; build it first"

work=$(mktemp -d /var/tmp/papayachat-lines.XXXXXX)
service=
end() {
    [ -z "$service" ] || kill "$service" 2>/dev/null || true
    [ -z "$service" ] || wait "$service" 2>/dev/null || true
    chattr -R -f -a "$work" 2>/dev/null || true
    rm -rf "$work"
}
trap end EXIT
chmod 755 "$work"
export PAPAYAD_CONFIG=$work/papayad.toml XDG_CONFIG_HOME=$work/profiles
cat >"$PAPAYAD_CONFIG" <<TOML
listen.addresses = ["127.0.0.1:0", "[::1]:0"]
identity = { user = "nobody", keeper_user = "daemon" }
paths = { state = "$work/state", runtime = "$work/run" }
limits = { grace = "10s", penalties = false }
syslog.facility = "none"
TOML
: >"$work/lines"
setsid "$programs/papayad" run 2>"$work/lines" </dev/null &
service=$!
until_said() { # PATTERN [TIMES]
    local end=$((SECONDS + 60))
    until [ "$(grep -cE "$1" "$work/lines")" -ge "${2:-1}" ]; do
        [ $SECONDS -lt $end ] || { echo "log_rules.sh: never said: $1" >&2 && cat "$work/lines" >&2 && exit 1; }
        kill -0 "$service" || { cat "$work/lines" >&2 && exit 1; }
        sleep 0.05
    done
}
until_said 'serves room'
ports=$(sed -n 's/.*127\.0\.0\.1:\([0-9]*\), \[::1\]:\([0-9]*\) .*/\1 \2/p' "$work/lines")
read -r four six <<<"$ports"

for name in alice bob; do
    (umask 077 && "$programs/papayad" token add "$name" 2>/dev/null >"$work/$name.token")
done
"$programs/papayad" token revoke bob 2>/dev/null
say() { "$programs/papaya" send --server "$1" --token-file "$work/$2.token" hello 2>/dev/null; }
say "127.0.0.1:$four" alice
say "[::1]:$six" alice
say "127.0.0.1:$four" bob && exit 1
say "[::1]:$six" bob && exit 1
# No hello; a hello to another server; and nothing at all for too long.
python3 - "$four" "$six" <<'PY'
import socket, sys
connections = []
for host, port in (("127.0.0.1", sys.argv[1]), ("::1", sys.argv[2])):
    for first in (b"GET / HTTP/1.0\r\n\r\n" + b"x" * 64, b"PPYA\x01" + b"x" * 48, b""):
        connections.append(socket.create_connection((host, int(port))))
        connections[-1].sendall(first)
# All at once: who is too slow is told so only after the grace, which must be long enough for an honest
# client to join in on a slow machine, too.
for connection in connections:
    connection.settimeout(60)
    try:
        while connection.recv(4096):
            pass
    except ConnectionResetError:
        pass
PY
"$programs/papayad" pause >/dev/null
until_said 'the door is closed: it was told'
until_said 'papayad resume'
"$programs/papayad" resume >/dev/null
until_said 'listener confined' 2
kill -HUP "$service"
until_said 'the configuration was read again'
until_said 'ended \(status 0\)' 2
# Whoever was turned away has heard of it before the log.
bad='is refused|no hello|does not know|within the grace'
until_said "$bad" 8
kill "$service"
wait "$service"
service=

# As syslog writes them.
sed 's/^papayad: /Nov 27 12:00:00 host papayad[4242]: /' "$work/lines" >"$work/syslog"
[ "$(grep -cE "$bad" "$work/syslog")" -eq 8 ] || { cat "$work/syslog" >&2 && exit 1; }

# What is said at the first start, of an older kernel, or without root is worth a look; the rest is not.
grep -vEf packaging/logcheck/papayachat "$work/syslog" >"$work/reported" || true
if grep -vE 'a new host key|is refused|does not know|level (landlock|seccomp)|started without root|append-only|swapped' "$work/reported"; then
    echo "log_rules.sh: logcheck would report these lines of daily business" >&2
    exit 1
fi
[ "$(grep -c 'is refused' "$work/reported")" -eq 2 ]
grep -qEf packaging/logcheck/papayachat <<'LINES' && { echo "log_rules.sh: logcheck would hide what matters" >&2; exit 1; }
Nov 27 12:00:00 host papayad[4242]: recv alice 192.0.2.1:5: ended (killed by its filter: system call 59 (execve))
Nov 27 12:00:00 host papayad[4242]: launcher: the keeper ended (status 70); without it nobody can join
Nov 27 12:00:00 host papayad[4242]: recv alice 192.0.2.1:5: the log takes no messages: No space left on device
LINES

command -v fail2ban-regex >/dev/null || skip "fail2ban is missing (the rest passed)"
cat >>"$work/syslog" <<'LINES'
Nov 27 12:00:00 host papayad[4242]: recv alice 192.0.2.1:5: ended (killed by its filter: system call 59 (execve))
LINES
# It includes fail2ban's own common.conf.
cp -r /etc/fail2ban/filter.d "$work/"
filter=$work/filter.d/papayachat.conf
cp packaging/fail2ban/papayachat.conf "$filter"
fail2ban-regex --print-all-missed --print-all-matched "$work/syslog" "$filter" >"$work/found"
total=$(wc -l <"$work/syslog")
grep -qE "^Lines: $total lines, 0 ignored, 9 matched, $((total - 9)) missed" "$work/found" ||
    { cat "$work/found" >&2 && echo "log_rules.sh: the filter finds something else than the 9 lines" >&2 && exit 1; }
fail2ban-regex --out ip "$work/syslog" "$filter" >"$work/found"
for address in 127.0.0.1 ::1 192.0.2.1; do
    grep -qxF "$address" "$work/found" ||
        { echo "log_rules.sh: the filter does not find $address" >&2 && exit 1; }
done
echo "log_rules.sh: $total lines, fail2ban finds 9 of them, logcheck reports $(wc -l <"$work/reported")"
