# What apply.sh and rollback.sh share: where their state is, and how to restart the kubelet and see that it is well.
# Set before this text, in seconds: `limit`, how long a restarted kubelet may take to be well, and `settle`, how long
# it must stay so. KUBELET_GUARD_ROOT is an alternative root directory, unset on a real node.
set -u
LC_ALL=C
export LC_ALL
umask 077
root=${KUBELET_GUARD_ROOT-}
unit=kubelet.service
state=$root/var/lib/kubelet-guard # root only; holds `lock`, `journal`, `rollback.sh` and `backups/`

digest_of() { sha256sum <"$1" | cut -d ' ' -f 1; }

# The files made beside a target have names that systemd and the kubelet's --config-dir (`*.conf`) pass over.
staged_beside() { printf '%s/.%s.kubelet-guard' "${1%/*}" "${1##*/}"; }

# The kernel's clock, which no correction of the time moves. Sets `now`, in seconds.
clock() { IFS='. ' read -r now _ </proc/uptime; }

look() { # what systemd says now: sets `active`, `sub`, `pid`, `restarts`, `job` (empty where none is queued)
    active='' sub='' pid=0 restarts=0 job=''
    for property in $(timeout 10 systemctl show "$unit" -p ActiveState -p SubState -p MainPID -p NRestarts -p Job); do
        case $property in
        ActiveState=*) active=${property#*=} ;;
        SubState=*) sub=${property#*=} ;;
        MainPID=*) pid=${property#*=} ;;
        NRestarts=*) restarts=${property#*=} ;;
        Job=*) job=${property#*=} ;;
        esac
    done
    [ "$job" != 0 ] || job=''
    case $pid in '' | *[!0-9]*) pid=0 ;; esac
    case $restarts in '' | *[!0-9]*) restarts=0 ;; esac
}

well() { # well PID: a process other than PID runs, with nothing queued, and says that it is healthy. Else sets `why`
    why="$active/$sub, restarted $restarts times"
    [ "$active/$sub" = active/running ] && [ "$pid" -gt 0 ] || return 1
    why='the old process still runs'
    [ "$pid" != "$1" ] && [ -z "$job" ] || return 1
    why='healthz does not answer ok'
    [ "$(curl -s -m 2 --noproxy '*' http://127.0.0.1:10248/healthz | head -c 3)" = ok ]
}

# await_kubelet PID LIMIT SETTLE [end]: until the kubelet is well for SETTLE seconds as one process other than PID, at
# most LIMIT seconds. Gives up early where systemd has (`failed`), or after five restarts. With `end`, a stop that hangs
# is ended after a fifth of LIMIT. `why` says what was seen last.
await_kubelet() {
    clock
    deadline=$((now + $2)) stop_deadline=$((now + $2 / 5))
    steady=0 least=''
    while :; do
        look
        if well "$1"; then
            clock
            [ "$pid" = "$steady" ] || { steady=$pid since=$now; }
            why="it did not stay up for $3 s"
            [ $((now - since)) -lt "$3" ] || return 0
        else
            steady=0
        fi
        # A restart by hand sets systemd's counter to 0 at some moment: count from the least that was seen.
        if [ -z "$least" ] || [ "$restarts" -lt "$least" ]; then least=$restarts; fi
        [ $((restarts - least)) -lt 5 ] || return 1
        case $active/$job in failed/ | inactive/) return 1 ;; esac
        clock
        [ "$now" -lt "$deadline" ] || return 1
        if [ "${4-}" = end ] && [ "$active" = deactivating ] && [ "$now" -ge "$stop_deadline" ]; then
            # As systemd itself would, but after TimeoutStopSec, whose default (90 s) is most of our time.
            case $(timeout 10 systemctl show "$unit" -p KillMode) in
            *=process | *=none) timeout 10 systemctl kill --signal=KILL --kill-who=main "$unit" ;;
            *) timeout 10 systemctl kill --signal=KILL "$unit" ;;
            esac
        fi
        sleep 1
    done
}

restart_kubelet() { # with what is on disk now, and wait for it (await_kubelet)
    timeout 30 systemctl daemon-reload
    timeout 10 systemctl reset-failed "$unit" # else a start limit that was hit refuses the restart
    look
    was=$pid
    # Only queued: a stop or a start that hangs must not hang this script.
    timeout 10 systemctl restart --no-block "$unit" || {
        why='systemctl restart failed'
        return 1
    }
    await_kubelet "$was" "$limit" "$settle" end
}

# The journal says what is under way, so that a killed run can be finished: its phase (`staging`: targets are as they
# were; `replacing`: they may be new, and the kubelet may run with them) and the backup's name, also the timer's.
write_journal() { # write_journal PHASE ID
    printf 'KGJ1\n%s\n%s\n' "$1" "$2" >"$state/journal.new" && sync "$state/journal.new" &&
        mv -f "$state/journal.new" "$state/journal" && sync "$state"
}

end_journal() { # end_journal ID: nothing is under way any more, so the timer goes too
    rm -f "$state/journal" && sync "$state" || return 1
    timeout 10 systemctl stop "kubelet-guard-$1.timer"
    return 0
}
