#!/bin/bash
# rc.d/papayad, every command of it, with the real program, under a stand-in for FreeBSD's rc.subr(8)
# and daemon(8): FreeBSD itself is not here. Also: it is clean for shellcheck, and the port's copy of it
# is the same.
#
#   tests/rc_script.sh [PROGRAM]      # papayad; without it, it is built. As root or not.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
command -v shellcheck >/dev/null || { echo "rc_script.sh: not run: shellcheck is missing" && exit 77; }
program=${1-}
if [ -z "$program" ]; then
    (cd "$here" && cargo build --quiet --locked --bins)
    program=${CARGO_TARGET_DIR:-$here/target}/debug/papayad
fi
program=$(realpath "$program")

work=$(mktemp -d /var/tmp/papaya-rc.XXXXXX)
supervisor() { cat "$work/run/papayad.pid" 2>/dev/null; }
server() { cat "$work/run/papayad.child.pid" 2>/dev/null; }
# shellcheck disable=SC2317 # Called by the trap.
end() {
    # The supervisor ends the service with itself.
    if pid=$(supervisor); then
        kill "$pid" 2>/dev/null || true
        until_so gone "$pid" || true
    fi
    chattr -f -a "$work/state/room.log" 2>/dev/null || true
    rm -rf "$work"
}
trap end EXIT
fail() {
    echo "rc_script.sh: FAILED: $1" >&2
    shift
    for file in "$@" "$work/said" "$work/log"; do
        [ ! -e "$file" ] || sed "s|^|${file##*/}: |" "$file" >&2
    done
    exit 1
}
until_so() { # COMMAND…, for 60 s at most
    local end=$((SECONDS + 60))
    until "$@" >/dev/null 2>&1; do [ $SECONDS -lt $end ] && sleep 0.1; done
}
gone() { ! kill -0 "$1"; }

mkdir "$work/run" "$work/bin"
# What rc.subr(8) does in this order: the variable, the pid, required files, precmd, cmd, postcmd.
cat >"$work/bin/rc.subr" <<'SUBR'
load_rc_config() { . "$RC_CONF"; }
checkyesno() { eval "case \$$1 in [Yy][Ee][Ss]) return 0 ;; *) return 1 ;; esac"; }
# The first word of the process's title is the program, or its name with a colon.
check_pidfile() {
    pid=$(cat "$1" 2>/dev/null) || return 0
    title=$(ps -o args= -p "$pid") || return 0
    case " $title " in *"/${2##*/} "* | *" ${2##*/}: "*) echo "$pid" ;; esac
}
run_rc_command() {
    rc_arg=$1
    case $rc_arg in one*) rc_arg=${rc_arg#one} && eval "$rcvar=YES" ;; esac
    keywords="start stop restart rcvar enabled describe extracommands $extra_commands status poll"
    case " $keywords " in
    *" $rc_arg "*) ;;
    *) echo "usage: $0 [one]($keywords)" >&2 && exit 1 ;;
    esac
    rc_pid=$(check_pidfile "$pidfile" "${procname:-$command}")
    case $rc_arg in
    rcvar | describe | status) ;;
    stop) [ -n "$rc_pid" ] || checkyesno "$rcvar" || { echo "Cannot 'stop' $name." && return 0; } ;;
    *) checkyesno "$rcvar" || { echo "Cannot '$rc_arg' $name. Set $rcvar to YES" && return 0; } ;;
    esac
    if [ "$rc_arg" = start ] && [ -n "$rc_pid" ]; then
        echo "$name already running? (pid=$rc_pid)." >&2
        return 1
    fi
    eval "cmd=\${${rc_arg}_cmd-} precmd=\${${rc_arg}_precmd-} postcmd=\${${rc_arg}_postcmd-}"
    if [ "$rc_arg" = start ] && [ -z "$cmd" ]; then
        for file in $required_files; do
            [ -r "$file" ] || { echo "$name: $file is not readable." >&2 && return 1; }
        done
    fi
    if [ -n "$precmd" ]; then eval "$precmd" || return 1; fi
    if [ -n "$cmd" ]; then
        eval "$cmd" || return 1
    else
        case $rc_arg in
        start) eval "$command \${${name}_flags-} $command_args" || return 1 ;;
        stop)
            [ -n "$rc_pid" ] || { echo "$name not running? (check $pidfile)." >&2 && return 1; }
            kill -TERM "$rc_pid"
            while kill -0 "$rc_pid" 2>/dev/null; do sleep 0.1; done
            ;;
        restart) (run_rc_command stop) || true; (run_rc_command start) || return 1 ;;
        rcvar) eval "echo $rcvar=\$$rcvar" ;;
        describe) echo "$desc" ;;
        esac
    fi
    if [ -n "$postcmd" ]; then eval "$postcmd"; fi
}
SUBR
# Supervises as daemon(8) does, without its pause: SIGHUP is for its own output, SIGTERM ends both.
cat >"$work/bin/daemon" <<'DAEMON'
#!/bin/bash
if [ "$1" != supervise ]; then
    setsid "$0" supervise "$@" </dev/null >/dev/null 2>&1 &
    exit 0
fi
shift
while getopts fHR:P:p:o:t: option; do
    case $option in
    P) supervisor=$OPTARG ;;
    p) child=$OPTARG ;;
    o) output=$OPTARG ;;
    f | H | R | t) ;;
    *) exit 64 ;;
    esac
done
shift $((OPTIND - 1))
echo $$ >"$supervisor"
trap 'stopped=yes; kill "$pid"' TERM
trap 'echo "daemon: opened again" >>"$output"' HUP
until [ "${stopped-}" ]; do
    "$@" >>"$output" 2>&1 &
    pid=$!
    echo $pid >"$child"
    # A signal ends the wait, and not the child.
    while kill -0 $pid 2>/dev/null; do wait $pid; done
done
rm -f "$child" "$supervisor"
DAEMON
chmod 755 "$work/bin/daemon"
script=$work/bin/papayad
sed "s|/etc/rc.subr|$work/bin/rc.subr|; s|/usr/sbin/daemon|$work/bin/daemon|; s|/var/run/|$work/run/|
    s|/usr/local/sbin/papayad|$program|" "$here/rc.d/papayad" >"$script"
export RC_CONF=$work/rc.conf
enabled() { # YES or NO
    printf '%s\n' "papayad_enable=$1" "papayad_config=$work/papayad.toml" "papayad_logfile=$work/log" >"$RC_CONF"
}
configured() { # A LINE MORE
    cat >"$work/papayad.toml" <<TOML
$1
[listen]
addresses = ["127.0.0.1:0"]
[identity]
user = "nobody"
keeper_user = "daemon"
[paths]
state = "$work/state"
runtime = "$work/run/papayachat"
[syslog]
facility = "none"
TOML
}
# Runs a command of the script; what it said is in $work/said.
rc() { sh "$script" "$@" >"$work/said" 2>&1; }
says() { grep -qF -- "$1" "$work/said" || fail "expected: $1"; }
# shellcheck disable=SC2317 # Called by until_so.
door() { rc status && grep -qF "door $1" "$work/said"; }

shellcheck "$here/rc.d/papayad"
for word in PROVIDE REQUIRE KEYWORD; do
    grep -q "^# $word: " "$here/rc.d/papayad" || fail "no $word for rcorder(8)"
done
sed 's|/usr/local|%%PREFIX%%|' "$here/rc.d/papayad" | diff - "$here/packaging/freebsd/files/papayad.in" ||
    fail "packaging/freebsd/files/papayad.in is not rc.d/papayad with its prefix left open"

chmod 755 "$work" "$work/run"
printf '' >"$RC_CONF"
rc rcvar || fail rcvar
says "papayad_enable=NO"
enabled NO
configured ""
rc start || fail "start without being enabled is no error in rc.subr"
says "Cannot 'start' papayad"
[ ! -e "$work/run/papayad.pid" ] || fail "a service that is not enabled was started"

enabled YES
! rc nonsense || fail "an unknown command is taken"
for word in checkconfig reload pause resume status; do says "$word"; done
! rc status || fail "status of a service that does not run is success"
says "papayad is not running."
for word in reload pause resume; do
    ! rc "$word" || fail "$word of a service that does not run is success"
    says running
done

mv "$work/papayad.toml" "$work/papayad.toml.away"
! rc start || fail "it starts without its configuration"
says "papayad.toml is not readable"
configured 'room.mtod = "a mistake"'
for word in checkconfig start; do
    ! rc "$word" || fail "$word accepts a mistake"
    says "papayad.toml:1: room.mtod"
done
[ ! -e "$work/run/papayad.pid" ] || fail "it was started with a mistake in its configuration"

configured ""
rc checkconfig || fail "checkconfig refuses a good configuration"
says "configuration ok"
rc start || fail "start"
until_so rc status || fail "it does not answer"
says "papayad is running as pid $(supervisor)."
says "door open"
! rc start || fail "it is started twice"
says "already running"

rc pause || fail pause
# It closes in its own time.
until_so door closed || fail "the door does not close"
rc resume || fail resume
rc status || fail status
says "door open"

# The supervisor notes it after it has started it.
until_so [ -s "$work/run/papayad.child.pid" ] || fail "there is no file of the service's process id"
before="$(supervisor) $(server)"
configured 'room.mtod = "a mistake"'
for word in reload restart; do
    ! rc "$word" || fail "$word accepts a mistake"
    says "papayad.toml:1: room.mtod"
done
configured 'room.motd = "news"'
rc reload || fail reload
until_so grep -F "the configuration was read again" "$work/log" || fail "it was not reloaded"
[ "$(supervisor) $(server)" = "$before" ] || fail "reload or a refused restart has ended it"
! grep -F "daemon: opened again" "$work/log" || fail "the supervisor got the service's SIGHUP"

rc restart || fail restart
until_so rc status || fail "it does not answer after restart"
until_so [ -s "$work/run/papayad.child.pid" ] || fail "there is no file of the service's process id"
[ "$(server)" != "${before#* }" ] || fail "restart did nothing"

pids="$(supervisor) $(server)"
rc stop || fail stop
for pid in $pids; do gone "$pid" 2>/dev/null || fail "process $pid is left after stop"; done
! compgen -G "$work/run/*pid" || fail "files of process ids are left"
! rc stop || fail "stop of a service that does not run is success"

enabled NO
rc onestart || fail onestart
until_so rc status || fail "it does not answer after onestart"
rc onestop || fail onestop
echo "rc_script.sh: rc.d/papayad: clean for shellcheck, and each command does what it must (under a stand-in for rc.subr)"
