# What apply.sh and rollback.sh share: where their state is, and how to restart the kubelet and see that it is well.
# Set before this text, in seconds: `limit`, how long a restarted kubelet may take to be well, and `settle`, how long
# it must stay so; and `healthz`, the ADDRESS:PORT where it says so, `-` where that is off.
# KUBELET_GUARD_ROOT is an alternative root directory, unset on a real node.
set -u
LC_ALL=C
export LC_ALL
umask 077
root=${KUBELET_GUARD_ROOT-}
unit=kubelet.service
state=$root/var/lib/kubelet-guard # root only; holds `lock`, `journal`, `rollback.sh` and `backups/`
units=$root/etc/systemd/system
wants=$units/multi-user.target.wants
recovery=kubelet-guard-recover.service # runs rollback.sh at boot, there only while something is under way
restarted=0 was=0                      # when we restarted the kubelet (seconds since the epoch), and which process that ended

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
    why='its process is stopped by a signal'
    case $(sed 's/.*) //' "$root/proc/$pid/stat") in T* | t*) return 1 ;; esac
    [ "$healthz" != - ] || return 0
    why="healthz at $healthz does not answer ok"
    [ "$(curl -g -s -m 2 --noproxy '*' "http://$healthz/healthz" | head -c 3)" = ok ]
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
    # That it read these files is proved by their change times, which must lie well before its start: the clocks that
    # are compared are coarse, and the wall clock may be set a little meanwhile.
    sleep 1
    timeout 30 systemctl daemon-reload
    timeout 10 systemctl reset-failed "$unit" # else a start limit that was hit refuses the restart
    look
    was=$pid restarted=$(date +%s)
    # Only queued: a stop or a start that hangs must not hang this script.
    timeout 10 systemctl restart --no-block "$unit" || {
        why='systemctl restart failed'
        return 1
    }
    await_kubelet "$was" "$limit" "$settle" end
}

# Of the journal's lines of a failed kubelet the one that says most, since it was restarted: Go's panic, an error (klog's
# E and F) among the unit's own last 20, or else its own last; before it, systemd's word where a start step failed.
last_line() {
    timeout 10 journalctl --quiet --no-pager --boot --lines=500 --output=short-unix --unit="$unit" |
        awk -v since="$restarted" -v was="$was" '
            match($0, /^[0-9]+[.][0-9]+ [^ ]+ [^ ]+\[[0-9]+\]: /) && $1 + 0 >= since + 0 {
                text = substr($0, RLENGTH + 1)
                pid = substr($0, 1, RLENGTH - 3)
                sub(/.*\[/, "", pid)
                if (pid == was || text ~ /^[ \t]*$/) next
                if (pid != 1) {
                    own = text; lines++
                    if (text ~ /^panic:/) panic = text
                    if (text ~ /^[EF][0-9][0-9][0-9][0-9] /) { error = text; at = lines }
                } else if (text ~ /Control process exited/) step = text
                else if (text ~ /process exited|Failed (at|to)|start-limit/) manager = text
            }
            END {
                if (panic != "") own = panic; else if (error != "" && lines - at < 20) own = error
                if (own == "" && step == "") own = manager
                print step (step != "" && own != "" ? "; " : "") own
            }'
}

# Stars in the place of what may be secret: credentials and queries of URLs, and long random words. A line that names
# a secret is left out, since it may quote the value anywhere.
masked_line() {
    awk '{
        plain = tolower($0); gsub(/token[-_]?webhook/, "", plain)
        if (plain ~ /header|token|passw|secret|bearer|authorization:|api[-_]?key/) {
            print "*** (one that may quote a secret stays on the node: journalctl -u kubelet)"
            next
        }
        # The kubelet quotes a config without a kind whole, and prints the whole of one that it finds invalid.
        sub(/ is missing in .*/, " is missing")
        sub(/, path: &.*/, "")
        gsub(/`[^`]*`/, "`***`")
        sub(/^[EF][0-9][0-9][0-9][0-9] [0-9:.]+ +[0-9]+ /, "")
        sub(/:\/\/.*@/, "://***@")
        gsub(/[?][^ ]+/, "?***")
        out = ""
        while (match($0, /[A-Za-z0-9_=+.-]+/)) {
            word = substr($0, RSTART, RLENGTH)
            if (RLENGTH > 23 && word ~ /[0-9]/ && word ~ /[A-Za-z]/) word = "***"
            out = out substr($0, 1, RSTART - 1) word
            $0 = substr($0, RSTART + RLENGTH)
        }
        # Errors are wrapped: what is wrong stands last.
        $0 = out $0
        print (length($0) > 200 ? substr($0, 1, 60) "..." substr($0, length($0) - 136) : $0)
    }'
}

last_words() { # `; its last log line: ...`, at most 200 characters of it; nothing where there is none
    line=$(last_line | masked_line | tr -c ' -~' '?' | head -c 200)
    line=${line%\?}
    [ -z "$line" ] || printf '; its last log line: %s' "$line"
}

# The journal says what is under way, so that a run that was cut off can be finished: its phase (`staging`: targets are
# as they were; `replacing`: they may be new, and the kubelet may run with them; `verified`: they are new and good, and
# stay) and the backup's name, also the timer's.
write_journal() { # write_journal PHASE ID
    printf 'KGJ1\n%s\n%s\n' "$1" "$2" >"$state/journal.new" && sync "$state/journal.new" &&
        mv -f "$state/journal.new" "$state/journal" && sync "$state"
}

end_journal() { # end_journal ID: nothing is under way any more, so what was there to finish it goes too
    rm -f "$state/journal" && sync "$state" || return 1
    timeout 10 systemctl stop "kubelet-guard-$1.timer"
    remove_recovery
}

remove_recovery() { # what stays of it, say on a disk that became read-only, does nothing without a journal
    if [ -e "$units/$recovery" ] || [ -L "$wants/$recovery" ]; then # a power cut may leave either
        rm -f "$wants/$recovery" "$units/$recovery"
        sync "$wants" "$units"
        timeout 30 systemctl daemon-reload
    fi
    return 0
}
