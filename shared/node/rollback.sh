# Ends what the journal says an apply.sh began: undoes it, so that the targets are as they were before and the kubelet
# is well with them, or where the new files were verified already, only tidies up.
# `sh rollback.sh` (the timer): waits for the lock first. `sh rollback.sh held`: descriptor 9 of the caller holds it.
# `sh rollback.sh boot`: before the kubelet starts, which it does not wait for, since that waits for this script.
# Prints `NAME DETAIL` lines. Exit status 0: nothing was left to end, or all is undone and the kubelet is well;
# 1: the files are as they were but the kubelet is not well; 2: a file could not be restored. With 1 and 2 the journal
# stays, so that the next run tries again. Follows the text of kubelet.sh.
trap '' PIPE # whoever reads the lines may be killed

say() { printf '%s %s\n' "$1" "$2"; }

restore() { # restore NUMBER OLD NEW TARGET
    staged=$(staged_beside "$4")
    rm -f "$staged"
    [ "$phase" = replacing ] || return 0
    current=$(digest_of "$4")
    if [ "$current" = "$2" ]; then
        rm -f "$backup/$1" # it may be the target's second name, where a rollback was cut off
        return 0
    fi
    if [ "$current" != "$3" ]; then
        say kept "$4: neither the old nor the new text, so somebody else wrote it since"
        foreign=yes
        return 0
    fi
    # A second name for the backup needs no space on a full disk, and has the owner, mode and label of the original.
    # Across file systems it takes a copy; there the label is safer from the target, which had it from the original.
    ln "$backup/$1" "$staged" || { cp -a "$4" "$staged" && cat "$backup/$1" >"$staged" && sync "$staged"; }
    if [ "$(digest_of "$staged")" = "$2" ] && mv -f "$staged" "$4" && sync "${4%/*}"; then
        # Its second name would move the change time of what is restored when it went, after the restart.
        rm -f "$backup/$1"
        say restored "$4"
    else
        rm -f "$staged"
        say not-restored "$4: its backup is $backup/$1"
        return 1
    fi
}

restart() { # the kubelet, with the restored files; at boot only what makes sure that it starts with them
    if [ "$mode" != boot ]; then
        restart_kubelet && return
        say not-healthy "$why$(last_words)"
        return 1
    fi
    # Its unit may have been loaded with the new texts, or not at all, and then nothing else would start it.
    timeout 30 systemctl daemon-reload && timeout 10 systemctl restart --no-block "$unit" && return
    say not-healthy 'systemd could not be told to load and start its unit again'
    return 1
}

roll_back() {
    if ! [ -e "$state/journal" ]; then
        remove_recovery
        return 0
    fi
    version='' phase='' id=''
    { read -r version && read -r phase && read -r id; } <"$state/journal"
    case $version/$phase/$id in
    */*/*[!0-9TZ-]* | */*/) phase=unknown ;;
    KGJ1/staging/* | KGJ1/replacing/* | KGJ1/verified/*) ;;
    *) phase=unknown ;;
    esac
    if [ "$phase" = unknown ]; then
        say not-restored "$state/journal is not one of ours"
        return 2
    fi
    backup=$state/backups/$id foreign=no lost=no
    if [ "$phase" = verified ]; then
        say finished "the change was verified, and stays: its backup is $backup"
        end_journal "$id" || say journal-left "$state/journal"
        return 0
    fi
    if [ -r "$backup/manifest" ]; then
        while IFS= read -r line; do # NUMBER OLD NEW TARGET; a target may end in blanks
            number=${line%% *} line=${line#* }
            old=${line%% *} line=${line#* }
            restore "$number" "$old" "${line%% *}" "${line#* }" || lost=yes
        done <"$backup/manifest"
    elif [ "$phase" = replacing ]; then
        say not-restored "$backup/manifest is gone"
        return 2
    fi
    if [ "$phase" = replacing ] && ! restart; then
        [ "$lost" = yes ] || return 1
    fi
    [ "$lost" = no ] || return 2
    if ! end_journal "$id"; then # it is followed again, and finds nothing to restore
        say journal-left "$state/journal"
        return 0
    fi
    [ "$phase" = staging ] || [ "$mode" = boot ] || say healthy "pid $pid, was restarted"
    # The originals are back in their places, so that their copies are of no use.
    [ "$foreign" = yes ] || rm -rf "$backup"
}

mode=${1-timer}
case $mode in
held) ;;
boot)
    exec 9>>"$state/lock"
    flock -n 9 || exit 0 # not the boot then: a run is at work, and ends what it began
    ;;
*)
    exec 9>>"$state/lock"
    timeout 300 flock 9 || exit 2
    ;;
esac
# Inside, the descriptor is the shell's own, out of reach of its children: one that outlives it must not keep the lock.
{ roll_back; } 9>&- 2>/dev/null
