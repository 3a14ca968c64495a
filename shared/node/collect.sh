# Reads what a kubelet runs with and what is on disk for it, and prints it as frames (shared/node/frames.py).
# Changes nothing and leaves nothing behind. POSIX sh; needs coreutils, awk, gzip, base64, systemctl, curl.
# Set before this text: `first`, the number of the first of the two parts to print (one to stdout, one to stderr), and
# `report`, what to print to stderr instead of the second part (empty: nothing).
# KUBELET_GUARD_ROOT is an alternative root directory, unset on a real node.
set -u
LC_ALL=C
export LC_ALL
exec 3>&2 2>/dev/null
root=${KUBELET_GUARD_ROOT-}
unit=kubelet.service
max_bytes=65536 # of one file
max_files=64
nl='
'

# Values that no control needs leave the node masked, one character for one, so that offsets stay true: credentials in
# URLs, environment variables that the unit does not name (`keep` has those that it does; in environment files and in
# the units' own Environment=), node label values (both as `name=value,…`), and headers for static pods.
mask() { # mask config|unit|environment|arguments
    awk -v kind="$1" -v keep="$keep" '
        function stars(s) { gsub(/[^"'"'"'\\ \t\r,]/, "*", s); return s }
        function letters(s) { gsub(/[A-Za-z0-9]/, "x", s); return s }
        function labels(s,   out, n, i, part, at) {
            n = split(s, part, ",")
            for (i = 1; i <= n; i++) {
                at = index(part[i], "=")
                out = out (i > 1 ? "," : "") (at ? substr(part[i], 1, at) stars(substr(part[i], at + 1)) : part[i])
            }
            return out
        }
        function urls(s,   out) { # up to the last @ of a word: a password may have one
            while (match(s, /:\/\/[^ \t"'"'"']+@/)) {
                out = out substr(s, 1, RSTART + 2) stars(substr(s, RSTART + 3, RLENGTH - 4)) "@"
                s = substr(s, RSTART + RLENGTH)
            }
            return out s
        }
        function needed(name) { return index(keep, " " name " ") > 0 }
        # Whether `s`, begun within the quote `open`, ends within one, or in a backslash: then the next line belongs to it.
        function unfinished(s,   i, c) {
            for (i = 1; i <= length(s); i++) {
                c = substr(s, i, 1)
                if (c == "\\" && open != "'"'"'") i++
                else if (open == "") { if (c == "\"" || c == "'"'"'") open = c }
                else if (c == open) open = ""
            }
            return open != "" || s ~ /(^|[^\\])(\\\\)*\\$/
        }
        function assignments(s,   out, i, c, name, hide) { # the words of Environment=: NAME=VALUE, quoted or not
            name = ""; hide = word_hidden
            for (i = 1; i <= length(s); i++) {
                c = substr(s, i, 1)
                if (open == "" && (c == " " || c == "\t")) { in_value = hide = 0; name = "" }
                else if (c == "\"" || c == "'"'"'") {
                    if (open == "") open = c; else if (open == c) open = ""
                } else if (in_value) { if (hide && c !~ /[\\\r]/) c = "*" }
                else if (c == "=") { in_value = 1; hide = !needed(name) }
                else name = name c
                out = out c
            }
            word_hidden = hide
            return out
        }
        kind == "environment" && more {
            more = unfinished($0)
            print urls(hidden ? stars($0) : name ~ /NODE_LABELS$/ ? labels($0) : $0); next
        }
        kind == "environment" && /^[ \t]*[#;]/ { print urls($0); next }
        kind == "environment" && match($0, /^[ \t]*[A-Za-z_][A-Za-z0-9_]*[ \t]*=/) {
            name = substr($0, 1, RLENGTH - 1); gsub(/[ \t]/, "", name)
            head = substr($0, 1, RLENGTH); value = substr($0, RLENGTH + 1)
            open = ""; more = unfinished(value); hidden = !needed(name)
            print urls(head (hidden ? stars(value) : name ~ /NODE_LABELS$/ ? labels(value) : value)); next
        }
        kind == "environment" { print stars($0); next }
        kind == "unit" && (more || match($0, /^[ \t]*Environment[ \t]*=/)) {
            if (!more) { open = ""; in_value = word_hidden = 0; head = substr($0, 1, RLENGTH) } else head = ""
            rest = substr($0, length(head) + 1)
            more = rest ~ /\\[ \t]*$/
            print urls(head assignments(rest)); next
        }
        kind == "arguments" && was { print was == "labels" ? labels($0) : stars($0); was = ""; next }
        kind == "arguments" && /^--node[-_]labels=/ { print "--node-labels=" labels(substr($0, 15)); next }
        kind == "arguments" && /^--manifest[-_]url[-_]header=/ { print substr($0, 1, 22) stars(substr($0, 23)); next }
        kind == "arguments" {
            was = $0 ~ /^--node[-_]labels$/ ? "labels" : $0 ~ /^--manifest[-_]url[-_]header$/ ? "header" : ""
        }
        kind == "config" && header && ($0 ~ /^[ \t]*$/ || match($0, /[^ \t]/) > header) { print letters($0); next }
        kind == "config" { header = 0 }
        kind == "config" && (at = index(tolower($0), "staticpodurlheader")) {
            header = match($0, /[^ \t]/)
            print substr($0, 1, at + 17) letters(substr($0, at + 18)); next
        }
        { print urls($0) }'
}

# One file as a record: `file MODE UID GID SIZE CHANGED LENGTH DIGEST PATH`, then LENGTH bytes. SIZE is the
# file's, CHANGED its ctime (seconds; mode and content both move it), DIGEST that of the unmasked content
# where masking altered it, else `-`.
file() { # file PATH KIND
    case $seen in *"$nl$1$nl"*) return ;; esac
    seen="$seen$1$nl"
    files=$((files + 1))
    if [ "$files" -gt "$max_files" ]; then
        printf 'fact overflow files\n'
        return
    fi
    if [ -d "$root$1" ]; then
        printf 'dir %s 0 - %s\n' "$(stat -L -c '%a %u %g %s %Z' "$root$1")" "$1"
        return
    fi
    if ! meta=$(stat -L -c '%a %u %g %s %Z' "$root$1") || ! [ -f "$root$1" ] || ! [ -r "$root$1" ]; then
        printf 'gone 0 0 0 0 0 0 - %s\n' "$1"
        return
    fi
    # A dot at the end keeps trailing newlines; awk ends the last line, so where the file does not, it is cut again.
    whole=$(head -c "$max_bytes" "$root$1" && printf .)
    whole=${whole%.}
    masked=$(printf '%s' "$whole" | mask "$2" && printf .)
    masked=${masked%.}
    case $whole in *"$nl") ;; *) masked=${masked%"$nl"} ;; esac
    digest=-
    [ "$masked" = "$whole" ] || digest=$(sha256sum "$root$1" | cut -d ' ' -f 1)
    printf 'file %s %s %s %s\n%s' "$meta" "${#masked}" "$digest" "$1" "$masked"
}

# Paths in their plain form; such as lead upwards are left out, and the verdict says that they are missing.
plain() {
    sed 's#^\([^/]\)#/\1#; s#//*#/#g; s#/\(\./\)*#/#g; s#\(.\)/$#\1#' | grep -v '/\.\.\(/\|$\)'
}

# Every path that follows --config or --config-dir: of arguments, one a line, exactly; in a text, word by word. More
# than the kubelet takes is harmless.
argument_paths() {
    awk '/^--config([-_]dir)?=/ { sub(/^[^=]*=/, ""); print; next }
        was { print } { was = /^--config([-_]dir)?$/ }'
}
config_paths() {
    tr '\n"'"'" '   ' | awk '{
        for (i = 1; i <= NF; i++) {
            sub(/^[A-Za-z_][A-Za-z0-9_]*=--/, "--", $i) # a variable that begins with the flag
            if ($i ~ /^--config([-_]dir)?=/) { sub(/^[^=]*=/, "", $i); print $i }
            else if ($i ~ /^--config([-_]dir)?$/ && i < NF) print $(i + 1)
        }
    }'
}

# The drop-ins on disk in the order in which systemd applies them: by name, the first directory of a name wins
# (systemd.unit(5)).
dropins() {
    number=0
    for kind in "$unit.d" service.d; do
        for base in /etc/systemd/system /run/systemd/system /usr/local/lib/systemd/system /usr/lib/systemd/system \
            /lib/systemd/system; do
            number=$((number + 1))
            for path in "$root$base/$kind"/*.conf; do
                [ -e "$path" ] && printf '%s\t%02d\t%s\n' "${path##*/}" "$number" "${path#"$root"}"
            done
        done
    done | sort | awk -F '\t' '!seen[$1]++ { print $3 }'
}

collect() {
    files=0
    seen=$nl
    state=$(systemctl show "$unit" -p LoadState -p ActiveState -p SubState -p MainPID -p NRestarts \
        -p NeedDaemonReload -p FragmentPath -p DropInPaths -p EnvironmentFiles)
    property() { printf '%s\n' "$state" | sed -n "s/^$1=//p"; }
    for name in LoadState ActiveState SubState NRestarts NeedDaemonReload; do
        printf 'fact %s %s\n' "$name" "$(property "$name")"
    done
    pid=$(property MainPID)
    case $pid in '' | *[!0-9]*) pid=0 ;; esac
    printf 'fact pid %s\n' "$pid"
    printf 'fact healthz %.64s\n' "$(curl -s -m 3 --noproxy '*' http://127.0.0.1:10248/healthz | tr -cd 'a-zA-Z0-9 ' | head -c 64)"
    units="$(property FragmentPath)$nl$(
        # As loaded; where systemd knows that the disk has others by now, as a daemon-reload would load them.
        if [ "$(property NeedDaemonReload)" = yes ]; then dropins; else property DropInPaths | tr ' ' '\n'; fi
    )"
    # As loaded, and as the units on disk name them.
    environments=$(
        {
            property EnvironmentFiles | sed 's/ (ignore_errors=[a-z]*)$//'
            printf '%s\n' "$units" | while IFS= read -r path; do
                [ -f "$root$path" ] && sed -n 's/^[ \t]*EnvironmentFile[ \t]*=[ \t]*-\{0,1\}\(\/[^*?[]*[^*?[ \t]\)[ \t]*$/\1/p' "$root$path"
            done
        } | plain | awk '!seen[$0]++'
    )
    # A variable that a unit expands is needed; every other stays on the node.
    keep=" $(printf '%s\n' "$units" | while IFS= read -r path; do [ -f "$root$path" ] && cat "$root$path"; done |
        grep -o '\$[{]*[A-Za-z_][A-Za-z0-9_]*' | sed 's/[^A-Za-z0-9_]//g' | sort -u | tr '\n' ' ')"
    printf 'fact systemd %s\n' "$(systemctl --version | sed -n '1s/^systemd \([0-9]*\).*/\1/p')"
    args=
    if [ "$pid" -gt 0 ] && [ -r "$root/proc/$pid/cmdline" ]; then
        # Arguments end in NUL; a newline within one travels as \001.
        args=$(tr '\0\n' '\n\001' <"$root/proc/$pid/cmdline" | mask arguments && printf .)
        args=${args%.}
        printf 'argv 0 0 0 0 0 %s - -\n%s' "${#args}" "$args"
        # Field 22 of stat, counted behind the command's closing bracket: clock ticks since boot.
        printf 'fact started %s %s %s\n' "$(sed 's/.*) //' "$root/proc/$pid/stat" | cut -d ' ' -f 20)" \
            "$(getconf CLK_TCK || echo 100)" "$(sed -n 's/^btime //p' "$root/proc/stat")"
    fi
    printf '%s\n' "$units" | while IFS= read -r path; do [ -n "$path" ] && printf 'unit %s\n' "$path"; done
    printf '%s\n' "$environments" | while IFS= read -r path; do [ -n "$path" ] && printf 'environment %s\n' "$path"; done
    paths=$(
        {
            printf '%s\n' "$args" | argument_paths
            printf '%s\n%s\n' "$units" "$environments" | while IFS= read -r path; do
                [ -f "$root$path" ] && head -c "$max_bytes" "$root$path" | config_paths
            done
        } | plain | sort -u
    )
    # Here-documents, not pipes: the loops count files in this shell.
    while IFS= read -r path; do
        [ -n "$path" ] && file "$path" unit
    done <<EOF
$units
EOF
    while IFS= read -r path; do
        [ -n "$path" ] && file "$path" environment
    done <<EOF
$environments
EOF
    while IFS= read -r path; do
        [ -n "$path" ] || continue
        file "$path" config
        if [ -d "$root$path" ]; then
            while IFS= read -r inner; do
                [ -n "$inner" ] && file "${inner#"$root"}" config
            done <<EOF
$(find "$root$path" \( -name '*.conf' -o -type d \) ! -path "$root$path" | sort | head -n "$max_files")
EOF
        fi
    done <<EOF
$paths
EOF
    printf 'end\n'
}

payload=$(collect | gzip -9 -c -n | base64 | tr -d '\n')
length=${#payload}
digest=$(printf '%s' "$payload" | sha256sum | cut -d ' ' -f 1)
now=$(date +%s)
chunk=3960
parts=$(((length + chunk - 1) / chunk))
part() { # part NUMBER: the frame's header comes last, since only the tail of a stream arrives
    from=$((($1 - 1) * chunk + 1))
    [ "$from" -le "$length" ] || return 0
    text=$(printf '%s' "$payload" | tail -c +"$from" | head -c "$chunk")
    printf '%s\nKG1 %s %s %s %s %s %s\n' "$text" "$1" "$parts" "$length" "${#text}" "$now" "$digest"
}
part "$first"
if [ -n "$report" ]; then printf '%s\n' "$report" >&3; else part "$((first + 1))" >&3; fi
