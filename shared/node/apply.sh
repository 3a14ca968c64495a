# Changes files that the kubelet starts with, restarts it, and keeps the change only where the kubelet is well with it:
# compare and swap. Follows the text of kubelet.sh, and is followed by collect.sh, which prints the evidence after it.
# Set before this text, all of it words of base64, digits and punctuation only:
#   `edits`     one word a file: PATH,DIGEST,NEW_DIGEST,SPLICE,SPLICE...; a splice is START:LENGTH:OLD:NEW. Paths and texts
#               are base64, digests SHA-256 of the whole file as it must be now and as it will be (`-`: not known)
#   `modes`     one word a file whose mode and owner change: PATH,MODE:USER:GROUP,NEW_MODE:NEW_USER:NEW_GROUP, in numbers
#   `restart`   no where only `modes` are to be changed, for which nothing is restarted and no kubelet need be well
#   `undo`      the name of a backup whose files are to be as they were before, in the place of `edits`; else empty
#   `present`, `absent`  arguments that the new process must and must not have, base64, a newline within one as \001
#   `running_pid`  the kubelet that is to be restarted; empty: whichever runs
#   `rollback`  the rollback script, base64
#   `nonce`     the request's own word, which its report repeats
# Sets `report`: lines `step NAME DETAIL`, `reason TEXT` (unless applied), and last `KGR2 OUTCOME LENGTH NONCE SHA256`
# over what stands before. Killed at any moment, it leaves each file old or new, and a journal by which a timer, or the
# next run, or after a power cut the next boot before the kubelet starts, rolls back or finishes.
outcome=failed reason='' body=''
nl='
'

decoded() { printf '%s' "$1" | base64 -d; }
printable() { printf '%s' "$1" | tr -c ' -~' '?' | head -c "$2"; }

note() { # note NAME DETAIL
    [ "${#body}" -gt 2600 ] || body="${body}step $1 $(printable "$2" 240)$nl"
}

refuse() { # refuse OUTCOME REASON
    outcome=$1 reason=$2
    return 1
}

split_edit() { # split_edit WORD: sets `path`, `digest`, `new_digest`, `splices`
    path=$(decoded "${1%%,*}")
    splices=${1#*,}
    digest=${splices%%,*} splices=${splices#*,}
    new_digest=${splices%%,*} splices=${splices#*,}
}

edited() { # edited FILE SPLICES: the file's new text; fails where an old text is not what a splice says
    case $2 in
    @*) # the whole text that a backup has under this number
        cat "$undone/${2#@}"
        return
        ;;
    esac
    at=0 rest=$2,
    while [ -n "$rest" ]; do
        new=${rest%%,*} rest=${rest#*,}
        start=${new%%:*} new=${new#*:}
        length=${new%%:*} new=${new#*:}
        old=${new%%:*} new=${new#*:}
        [ "$(tail -c "+$((start + 1))" "$1" | head -c "$length" | base64 | tr -d '\n')" = "$old" ] || return 1
        tail -c "+$((at + 1))" "$1" | head -c "$((start - at))"
        decoded "$new"
        at=$((start + length))
    done
    tail -c "+$((at + 1))" "$1"
}

check() { # every target is what the edits were made for, and can be replaced; nothing is touched here
    seen=$nl
    for edit in $edits; do
        split_edit "$edit"
        [ -e "$root$path" ] || refuse changed_meanwhile "$path is not there any more" || return
        target=$(readlink -f "$root$path")
        [ -f "$target" ] || refuse failed "$path is not a regular file" || return
        case $target in *"$nl"*) refuse failed "$path leads to a name with a line end" || return ;; esac
        [ "$(digest_of "$target")" = "$digest" ] || refuse changed_meanwhile "$path has changed" || return
        [ -w "$target" ] && [ -w "${target%/*}" ] && (: 1<>"$target") && replaceable "$target" "${target%/*}" ||
            refuse failed "$path cannot be written: immutable, append-only, or a read-only file system" || return
        [ "$(stat -c %h "$target")" = 1 ] ||
            refuse failed "$path has a second name (a hard link), which would keep the old text" || return
        case $seen in *"$nl$target$nl"*) refuse failed "$path is the same file as another path" || return ;; esac
        seen=$seen$target$nl
    done
}

each_mode() { # each_mode COMMAND: COMMAND PATH OLD NEW of every file in $modes, until one fails
    for word in $modes; do
        "$1" "$(decoded "${word%%,*}")" "$(printf '%s' "$word" | cut -d , -f 2)" "${word##*,}" || return
    done
}

check_mode() { # check_mode PATH OLD NEW: it is what was planned for, and can be changed; nothing is touched here
    [ -f "$root$1" ] || refuse changed_meanwhile "$1 is not there any more" || return
    target=$(readlink -f "$root$1")
    [ "$(mode_of "$target")" = "$2" ] || refuse changed_meanwhile "the mode or owner of $1 has changed" || return
    if ! [ -w "$target" ] || ! replaceable "$target" "$target"; then
        refuse failed "the mode or owner of $1 cannot be set: immutable, append-only, or a read-only file system"
    fi
}

mode_of() { stat -c '%a:%u:%g' "$1"; }

put_mode() { # put_mode PATH MODE:USER:GROUP; the owner first, since a new one takes some bits of the mode away
    target=$(readlink -f "$root$1")
    chown -h "${2#*:}" "$target" && chmod "${2%%:*}" "$target" && [ "$(mode_of "$target")" = "$2" ]
}

set_mode() { # set_mode PATH OLD NEW
    put_mode "$1" "$3" || refuse failed "the mode or owner of $1 cannot be set" || return
    note mode "$1 $2 is now $3"
}

unset_mode() { # unset_mode PATH OLD NEW: as it was, where it was set; no other file waits for one that cannot be
    [ "$(mode_of "$(readlink -f "$root$1")")" = "$2" ] || put_mode "$1" "$2" || note mode-left "$1 is not $2 again"
}

change_modes() { # all of them or none
    each_mode check_mode || return
    each_mode set_mode || {
        each_mode unset_mode
        return 1
    }
}

# replaceable PATH PATH: neither is append-only or immutable, as far as lsattr can be asked. `-w` does not see the former,
# and to open for writing only that of a file.
replaceable() {
    case $(lsattr -d "$1" "$2" | cut -d ' ' -f 1) in *a* | *i*) return 1 ;; esac
}

# The edits of an undo: each file of the backup as it was before, where it still is as that run left it.
edits_of_backup() {
    undone=$state/backups/$undo
    [ -s "$undone/manifest" ] || refuse failed "the backup $undo is not on this node" || return
    while IFS= read -r line; do # NUMBER OLD NEW TARGET
        number=${line%% *} line=${line#* }
        old=${line%% *} line=${line#* }
        target=${line#* }
        edits="$edits $(printf '%s' "${target#"$root"}" | base64 | tr -d '\n'),${line%% *},$old,@$number"
    done <"$undone/manifest"
}

back_up() { # the originals, and the manifest that says whose they are: NUMBER OLD_DIGEST NEW_DIGEST TARGET
    mkdir -p "$state/backups" && mkdir "$backup" || refuse failed "cannot write $backup" || return
    number=0
    for edit in $edits; do
        split_edit "$edit"
        number=$((number + 1)) target=$(readlink -f "$root$path")
        cp -a "$target" "$backup/$number" && sync "$backup/$number" ||
            refuse failed "cannot back up $path: is $state full?" || return
        [ "$(digest_of "$backup/$number")" = "$digest" ] || refuse changed_meanwhile "$path has changed" || return
        edited "$backup/$number" "$splices" >/dev/null ||
            refuse failed "the edit of $path does not fit its text" || return
        result=$(edited "$backup/$number" "$splices" | sha256sum | cut -d ' ' -f 1)
        case $new_digest in
        - | "$result") ;;
        *) refuse failed "the edit of $path does not give the text that was planned" || return ;;
        esac
        printf '%s %s %s %s\n' "$number" "$digest" "$result" "$target" >>"$backup/manifest" ||
            refuse failed "cannot write $backup/manifest" || return
    done
    sync "$backup/manifest" "$backup" "$state/backups" || refuse failed "cannot write $backup" || return
    body="${body}step backed-up $backup$nl" # however many steps there were: an undo is asked for with it
}

prune() { # the newest five backups stay
    set -- "$state"/backups/*
    while [ $# -gt 5 ]; do
        rm -rf "$1"
        shift
    done
}

# each_target COMMAND: COMMAND NUMBER NEW_DIGEST TARGET for each line of the manifest, until one fails.
each_target() {
    while IFS= read -r line; do
        number=${line%% *} line=${line#* }
        line=${line#* }
        "$1" "$number" "${line%% *}" "${line#* }" || return
    done <"$backup/manifest"
}

stage() { # the new text, beside its target
    staged=$(staged_beside "$3")
    rm -f "$staged"
    # The copy is for owner, mode, label and attributes, which stay when its text is written over.
    if cp -a "$3" "$staged" && stage_text "$1" >"$staged" && sync "$staged" && [ "$(digest_of "$staged")" = "$2" ] &&
        [ "$(stat -c '%a %u %g' "$staged")" = "$(stat -c '%a %u %g' "$3")" ]; then
        note staged "$3"
    else
        refuse failed "cannot write beside ${3#"$root"}: is its file system full?"
    fi
}

stage_text() { # stage_text NUMBER
    count=0
    for edit in $edits; do
        count=$((count + 1))
        [ "$count" -ne "$1" ] || { split_edit "$edit" && edited "$backup/$1" "$splices"; }
    done
}

replace() {
    mv -f "$(staged_beside "$3")" "$3" && sync "${3%/*}" || refuse failed "cannot replace ${3#"$root"}" || return
    note replaced "$3"
}

arm() { # should this script be killed, a timer rolls back, before node auto-repair looks
    if timeout 10 systemd-run --quiet --collect --unit="kubelet-guard-$id" --on-active="${limit}s" \
        --timer-property=AccuracySec=1s /bin/sh "$state/rollback.sh"; then
        note timer "rolls back in $limit s unless this run ends before"
    else
        note timer 'none: systemd-run is missing or failed; a killed run waits for the next one, or the next boot'
    fi
}

arguments_as_wanted() { # of process $pid
    running=$(tr '\0\n' '\n\001' <"$root/proc/$pid/cmdline")
    for word in $present; do
        printf '%s\n' "$running" | grep -Fxq -e "$(decoded "$word")" ||
            refuse failed "the new process runs without $(decoded "$word")" || return
    done
    for word in $absent; do
        ! printf '%s\n' "$running" | grep -Fxq -e "$(decoded "$word")" ||
            refuse failed "the new process still runs with $(decoded "$word")" || return
    done
}

install_rollback() {
    decoded "$rollback" >"$state/rollback.new" && sync "$state/rollback.new" &&
        mv -f "$state/rollback.new" "$state/rollback.sh" && sync "$state" "${state%/*}"
}

# No timer outlives a power cut: the next boot runs the rollback script before the kubelet. multi-user.target asks for
# it, not the kubelet, since what a unit wants is started with each of its restarts. Until it asks, the unit is idle text.
install_recovery() {
    mkdir -p "$wants" && replaceable "$units" "$wants" && printf '%s\n' >"$units/$recovery" \
        '[Unit]' "Description=End a change of the kubelet's files that was cut off" "Before=$unit" \
        "RequiresMountsFor=$state" "ConditionPathExists=$state/rollback.sh" '' \
        '[Service]' Type=oneshot "ExecStart=/bin/sh $state/rollback.sh boot" TimeoutStartSec=120 &&
        sync "$units/$recovery" "$units" && ln -sf "../$recovery" "$wants/$recovery" && sync "$wants"
}

journal_phase() { sed -n 2p "$state/journal"; }

# From here on the new files stay, whatever ends this run. Where the journal says so but could not be made durable, a
# power cut now still gives the old files, whole.
keep_new() {
    write_journal verified "$id" || [ "$(journal_phase)" = verified ] ||
        refuse failed "cannot write $state/journal" || return
    end_journal "$id" || note journal-left "$state/journal: the next run or boot removes it"
    prune
}

attempt() {
    if [ "$restart" = no ]; then
        change_modes && outcome=applied
        return
    fi
    # What is not well now could not be told from what this change broke.
    await_kubelet 0 10 0 ||
        refuse not_ready "the kubelet was not well before, so nothing was touched: $why$(last_words)" || return
    note before "$active/$sub pid $pid"
    case $running_pid in
    '' | "$pid") ;;
    *) refuse changed_meanwhile 'the kubelet was restarted since it was looked at' || return ;;
    esac
    [ -z "$undo" ] || edits_of_backup || return
    check && each_mode check_mode || return
    if [ -n "$edits" ]; then
        backup=$state/backups/$id
        install_rollback || refuse failed "cannot write $state/rollback.sh" || return
        install_recovery || refuse failed "cannot write $units/$recovery" || return
        write_journal staging "$id" || refuse failed "cannot write $state/journal" || return
        back_up || return
        each_target stage || return
        check || return # nobody wrote meanwhile
        write_journal replacing "$id" || refuse failed "cannot write $state/journal" || return
        arm
        each_target replace || return
    fi
    restart_kubelet || refuse failed "the restarted kubelet was not well: $why$(last_words)" || return
    arguments_as_wanted || return
    note verified "$active/$sub pid $pid, healthz $([ "$healthz" = - ] && echo off || echo ok)"
    change_modes || return
    if [ -n "$edits" ] && ! keep_new; then
        each_mode unset_mode
        return 1
    fi
    outcome=applied
}

# Runs the rollback script with the lock held: its status, its lines as steps, and in `detail` what it could not do.
roll_back() {
    lines=$(sh "$state/rollback.sh" held)
    status=$?
    detail=''
    IFS=$nl
    for line in $lines; do
        note "${line%% *}" "${line#* }"
        case $line in not-*) detail=${detail:+$detail; }${line#* } ;; esac
    done
    unset IFS
    return "$status"
}

under_lock() {
    if [ -e "$state/journal" ]; then
        [ -e "$state/rollback.sh" ] || install_rollback
        note unfinished 'an earlier run was cut off; finishing or undoing it first'
        roll_back ||
            refuse failed "LOOK AT THIS NODE: an earlier run was cut off and cannot be rolled back: $detail" || return
    fi
    id=$(date -u +%Y%m%dT%H%M%SZ)-$$
    { attempt; } 9>&- && return
    if ! [ -e "$state/journal" ]; then
        remove_recovery
        return
    fi
    phase=$(journal_phase)
    roll_back
    case $?/$phase in
    0/replacing) refuse rolled_back "$reason" ;;
    0/*) ;;
    1/*) refuse failed "LOOK AT THIS NODE: its kubelet is down, though its files are as before: $detail. Undone: $reason" ;;
    *) refuse failed "LOOK AT THIS NODE: not all of its files could be restored: $detail. Undone: $reason" ;;
    esac
}

open_lock() { # opens descriptor 9; fails, where a redirection of `exec` would end the shell
    mkdir -p "$state" && [ -d "$state" ] && ! [ -L "$state" ] && chmod 700 "$state" && (: >>"$state/lock")
}

main() {
    command -v flock >/dev/null || refuse failed 'flock (util-linux) is missing' || return
    open_lock || refuse failed "cannot write $state" || return
    exec 9>>"$state/lock"
    flock -n 9 || refuse busy 'another run is changing this node' || return
    # The lock is held inside by the shell itself and the rollback script only: no other child may outlive it with it.
    under_lock
}

main 2>/dev/null
[ "$outcome" = applied ] || body="${body}reason $(printable "$reason" 700)$nl"
report="${body}KGR2 $outcome ${#body} $nonce $(printf '%s' "$body" | sha256sum | cut -d ' ' -f 1)"
