# Reads what a kubelet runs with and what is on disk for it, and prints it as frames (shared/node/frames.py).
# Changes nothing and leaves nothing behind. POSIX sh; needs coreutils, awk, gzip, base64, systemctl, curl.
# Set before this text: `first`, the number of the first of the two parts to print (one to stdout, one to stderr);
# `report`, what to print to stderr instead of the second part (empty: nothing); `nonce`, which every header repeats;
# `settings`, those whose values in the kubelet's own log count; `present_flags` and `present_keys`, which name files that
# must be there; `file_flags` and `file_paths`, which name files whose mode and owner count (of these nothing is read);
# all of them words of letters, digits and `-./_@`; and the function `mask_program`, mask.awk.
# KUBELET_GUARD_ROOT is an alternative root directory, unset on a real node.
set -u
LC_ALL=C TZ=UTC0
export LC_ALL TZ
exec 3>&2 2>/dev/null
root=${KUBELET_GUARD_ROOT-}
unit=kubelet.service
max_bytes=65536 # of one file
max_files=64
max_depth=8 # of a configuration directory, and
max_names=1000 # in it and below
nl='
'

# A node without one of these cannot send a frame: it says so in plain words.
lacking=
for tool in awk base64 cat cut date gzip head readlink sed sha256sum sort stat tail tr; do
    command -v "$tool" >/dev/null || lacking="$lacking $tool"
done
if [ -n "$lacking" ]; then
    printf 'KG2 missing %s%s\n' "$nonce" "$lacking"
    [ -z "$report" ] || printf '%s\n' "$report" >&3
    exit 0
fi
mask_text=$(mask_program)
program() { # program NAME=VALUE...: mask.awk with these variables; none of the values has a backslash
    for assignment; do
        shift
        set -- "$@" -v "$assignment"
    done
    awk "$@" -v keep="$keep" -v continued="$continued" -v present=" $present_flags " "$mask_text"
}

# Change times in nanoseconds. Where stat has no fraction the whole second counts as its end: never earlier than it was.
nanoseconds() { # nanoseconds SECONDS TIME-OF-DAY: sets $changed
    case $2 in
    *.000000000) changed=${1}999999999 ;;
    *.?????????) changed=$1${2##*.} ;;
    *) changed=${1}999999999 ;;
    esac
}

directory() { # directory PATH ('' for the root)
    case $directories in *"$nl$1$nl"*) return ;; esac
    directories="$directories$1$nl"
    # shellcheck disable=SC2046 # numbers and times, no more
    set -- "$1" $(stat -c '%Z %z' "$within$1/")
    [ $# -eq 5 ] || return
    nanoseconds "$2" "$4"
    printf 'directory %s %s\n' "$changed" "${1:-/}"
}

# Follows a path as the kernel would, but within $within only (the process's root as this shell reaches it), and reports
# each link and directory on the way. Sets $real, where it leads in that root; fails where that is not known.
walk() { # walk PATH
    rest=$1 real='' hops=0
    directory ''
    while [ -n "$rest" ]; do
        name=${rest%%/*}
        case $rest in */*) rest=${rest#*/} more=/ ;; *) rest='' more='' ;; esac
        case $name in
        '' | .) continue ;;
        ..)
            real=${real%/*}
            continue
            ;;
        esac
        at=$real/$name
        if [ -L "$within$at" ]; then
            hops=$((hops + 1))
            [ "$hops" -le 40 ] || return 1
            target=$(readlink "$within$at" && printf .)
            target=${target%"$nl".}
            case $target in '' | *"$nl"*) return 1 ;; esac
            link "$at" "$target" || return
            case $target$rest in
            /dev/null)
                real=/dev/null
                return 1
                ;;
            /*) real= ;;
            esac
            rest=$target$more$rest
        elif [ -d "$within$at" ]; then
            real=$at
            directory "$real"
        else
            real=$at
            [ -z "$rest$more" ] && [ -e "$within$real" ]
            return
        fi
    done
}

link() { # link PATH TARGET
    case $links in *"$nl$1$nl"*) return ;; esac
    links="$links$1$nl" ways="$ways$1$nl"
    # shellcheck disable=SC2046
    set -- "$1" "$2" $(stat -c '%Z %z' "$within$1")
    [ $# -eq 6 ] || return
    nanoseconds "$3" "$5"
    printf 'link %s %s %s %s\n' "$changed" "${#1}" "$1" "$2"
}

# One file as a record: `file MODE UID GID SIZE CHANGED LENGTH HOSTED DIGEST PATH`, then LENGTH bytes. SIZE is the
# file's, CHANGED its ctime (mode and content both move it), HOSTED is no where the host has another file at this path
# than the process, DIGEST that of the unmasked content where masking altered it, else `-`.
file() { # file PATH KIND
    case $seen in *"$nl$1$nl"*) return ;; esac
    seen="$seen$1$nl"
    named=$1 kind=$2
    files=$((files + 1))
    if [ "$files" -gt "$max_files" ]; then
        printf 'fact overflow files\n'
        return
    fi
    walk "$named"
    found=$?
    if [ "$real" = /dev/null ]; then # how systemd masks a drop-in
        printf 'file 666 0 0 0 0 0 yes - %s\n' "$named"
        return
    fi
    place=$within$real
    # shellcheck disable=SC2046
    set -- $(stat -c '%a %u %g %s %Z %z %d:%i' "$place")
    if [ "$found" -ne 0 ] || [ $# -ne 9 ] || ! [ -f "$place" ] || ! [ -r "$place" ]; then
        printf 'gone %s\n' "$named"
        return
    fi
    nanoseconds "$5" "$7"
    hosted=yes
    [ "$within" = "$root" ] || [ "$(stat -L -c '%d:%i' "$root$named")" = "$9" ] || hosted=no
    [ "$kind" != config ] || ways="$ways$real$nl"
    # A dot at the end keeps trailing newlines; awk ends the last line, so where the file does not, it is cut again.
    whole=$(head -c "$max_bytes" "$place" && printf .)
    whole=${whole%.}
    masked=$(printf '%s' "$whole" | program kind="$kind" && printf .)
    masked=${masked%.}
    case $whole in *"$nl") ;; *) masked=${masked%"$nl"} ;; esac
    digest=-
    [ "$masked" = "$whole" ] || digest=$(sha256sum <"$place" | cut -d ' ' -f 1)
    printf 'file %s %s %s %s %s %s %s %s %s\n%s' "$1" "$2" "$3" "$4" "$changed" "${#masked}" "$hosted" "$digest" \
        "$named" "$masked"
}

# A configuration directory as Go's filepath.WalkDir walks it, which asks for the root's own kind (Lstat: a link is
# followed only where a slash ends the name), goes by the bytes of the names and follows no link to a directory.
listing() { # listing PATH, perhaps with a slash at its end
    known=yes entries='' count=0
    path=${1%/}
    if [ "$path" = "$1" ] && walk "${path%/*}/" && [ -L "$within$real/${path##*/}" ]; then
        walk "$path"
        entry "$path"
    elif ! walk "$1"; then
        known=no
        printf 'gone %s\n' "${path:-/}"
    elif [ -d "$within$real" ]; then
        tree "$path" "$real" 0
    else
        entry "$path"
    fi
    printf 'listing %s %s\n%s' "$known" "$1" "$entries"
    while IFS= read -r record; do
        case $record in entry*) file "${record#entry }" config ;; esac
    done <<END
$entries
END
}

tree() { # tree NAMED REAL DEPTH
    directory "$2"
    ways="$ways$2$nl"
    entries="${entries}walked ${1:-/}$nl"
    if ! [ -r "$within$2/" ] || ! [ -x "$within$2/" ] || [ "$3" -ge "$max_depth" ]; then
        known=no
        return
    fi
    while IFS= read -r name; do
        count=$((count + 1))
        if [ "$count" -gt "$max_names" ]; then
            known=no
            return
        fi
        if [ -n "$name" ] && ! [ -L "$within$2/$name" ] && [ -d "$within$2/$name" ]; then
            case $name in
            *[!\ -~]*) known=no ;;
            *) tree "$1/$name" "$2/$name" $(($3 + 1)) ;;
            esac
        elif [ -n "$name" ]; then
            entry "$1/$name"
        fi
    done <<END
$(names "$within$2")
END
}

entry() { # entry PATH
    case ${1##*/} in
    *[!\ -~]*.conf) known=no ;;
    *.conf) entries="${entries}entry $1$nl" ;;
    esac
}

names() { # names DIRECTORY: a name of two lines comes as one that no record carries
    for name in "$1"/* "$1"/.[!.]* "$1"/..?*; do
        { [ -e "$name" ] || [ -L "$name" ]; } || continue
        name=${name##*/}
        case $name in
        *"$nl"*.conf) printf '\001.conf\n' ;;
        *"$nl"*) if [ -d "$1/$name" ]; then printf '\001.conf\n'; else printf '\001\n'; fi ;;
        *) printf '%s\n' "$name" ;;
        esac
    done | sort | head -n $((max_names + 1))
}

# `config PATH`, `dir PATH` and `ca PATH` lines, as a command line has the paths: absolute now, and as Go's
# filepath.Clean has them, but with the slash that ends a directory. What cannot be a line is left out: it is missed.
plain() {
    directory=$1 awk '
        { at = index($0, " "); kind = substr($0, 1, at - 1); path = substr($0, at + 1) }
        path == "" || path ~ /[\001-\037\177]/ { next }
        {
            slash = kind == "dir" && path ~ /\/$/ ? "/" : ""
            if (path !~ /^\//) path = ENVIRON["directory"] "/" path
            n = split(path, part, "/"); top = 0; up = 0
            for (i = 1; i <= n; i++) {
                if (part[i] == "" || part[i] == ".") continue
                if (part[i] == "..") { up = 1; if (top) top--; continue }
                clean[++top] = part[i]
            }
            if (up && kind == "dir") next # a walk goes there by links, its entries are named without them
            if (up && kind == "file") next # the kernel goes there by links as well, and names nothing anew
            path = ""
            for (i = 1; i <= top; i++) path = path "/" clean[i]
            line = kind " " (path == "" ? "/" : path slash)
            if (!seen[line]++) print line
        }'
}

# Where systemd looks for units, first things first (systemd.unit(5), "Unit File Load Path").
unit_paths='/etc/systemd/system.control /run/systemd/system.control /run/systemd/transient /run/systemd/generator.early
    /etc/systemd/system /etc/systemd/system.attached /run/systemd/system /run/systemd/system.attached
    /run/systemd/generator /usr/local/lib/systemd/system /lib/systemd/system /usr/lib/systemd/system
    /run/systemd/generator.late'

# The unit file that a daemon-reload would load: NeedDaemonReload= does not tell of a new one that stands before the
# loaded one.
fragment() {
    for base in $unit_paths; do
        if [ -e "$root$base/$unit" ] || [ -L "$root$base/$unit" ]; then
            printf '%s\n' "$base/$unit"
            return
        fi
    done
}
identity() { stat -L -c '%d:%i' "$root$1"; }

# The drop-ins on disk in the order in which systemd applies them: by name, the first directory of a name wins
# (systemd.unit(5)).
dropins() {
    number=0
    for kind in "$unit.d" service.d; do
        for base in $unit_paths; do
            number=$((number + 1))
            for path in "$root$base/$kind"/*.conf; do
                { [ -e "$path" ] || [ -L "$path" ]; } || continue
                printf '%s\t%02d\t%s\n' "${path##*/}" "$number" "${path#"$root"}"
            done
        done
    done | sort | awk -F '\t' '!seen[$1]++ { print $3 }'
}

each_unit() { # each_unit COMMAND...: with the start of every unit file as its input
    printf '%s\n' "$units" | while IFS= read -r path; do
        [ -f "$root$path" ] && head -c "$max_bytes" "$root$path" | "$@"
    done
}

# The arguments, one a line; a newline within one travels as \001.
arguments() { tr '\0\n' '\n\001' <"$root/proc/$pid/cmdline"; }

is_kubelet() { case ${1##*/} in kubelet | kubelet[-_.0-9]* | hyperkube*) ;; *) return 1 ;; esac; }

# What the process's own executable answers; where that is an interpreter, what the program that it is called by does.
version() {
    command -v timeout >/dev/null || return
    for program in "$root/proc/$pid/exe" "$within$1"; do
        answer=$(timeout -k 1 5 "$program" --version </dev/null | head -c 200 | sed -n '1s/^Kubernetes \(v[0-9][-+.0-9A-Za-z]*\)$/\1/p')
        [ -z "$answer" ] || break
    done
    printf '%s\n' "$answer"
}

# ADDRESS PORT of every place where a command line or a file may put healthz, the default first.
healthz_places() {
    {
        [ ! -r "$root/proc/$pid/cmdline" ] || arguments
        printf '%s\n' "$seen" | while IFS= read -r path; do
            [ -f "$within$path" ] && head -c "$max_bytes" "$within$path"
        done
    } | tr '\n' ' ' | awk '
        function values(s, name, shape,   out, value) {
            out = ""
            while (match(s, name "[\"'"'"']?[ \t]*[:= ][ \t\"'"'"']*" shape)) {
                value = substr(s, RSTART, RLENGTH); s = substr(s, RSTART + RLENGTH)
                match(value, shape "$")
                sub(name "[\"'"'"']?[ \t]*[:= ][ \t\"'"'"']*", "", value)
                if (index(" " out, " " value " ") == 0) out = out value " "
            }
            return out
        }
        {
            ports = ports values($0, "healthz([-_]port|Port)", "[0-9]+")
            addresses = addresses values($0, "healthz([-_]bind[-_]address|BindAddress)", "[0-9a-fA-F.:]+")
        }
        END {
            n = split("10248 " ports, port, " "); m = split("127.0.0.1 " addresses, address, " ")
            for (i = 1; i <= m; i++) for (j = 1; j <= n; j++) {
                a = address[i]
                if (a == "0.0.0.0") a = "127.0.0.1"
                if (a == "::") a = "::1"
                if (a !~ /^[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+$/ && a !~ /^[0-9a-fA-F:]*:[0-9a-fA-F:]*$/) continue
                if (port[j] + 0 < 1 || port[j] + 0 > 65535 || length(port[j]) > 5 || seen[a, port[j] + 0]++) continue
                if (++places <= 6) print a, port[j] + 0
            }
        }'
}

# Of a config file's lines, what the keys in $present_keys name, as `ca PATH`.
for_each_key() {
    lines=$(cat)
    for key in $present_keys; do
        printf '%s\n' "$lines" |
            sed -n 's/.*'"$key"'["'\'']\{0,1\}[ \t]*:[ \t]*["'\'']\{0,1\}\([^"'\'',}#]*\).*/ca \1/p' | sed 's/[ \t]*$//'
    done
}

# What the process's arguments give the flags in $file_flags, the last of each, as `file PATH`.
named_files() {
    arguments | awk -v flags=" $file_flags " '
        function flag(s) { gsub(/_/, "-", s); return index(flags, " " s " ") ? s : "" }
        NR == 1 { next }
        before != "" { value[before] = $0; before = ""; next }
        $0 == "--" { exit }
        (at = index($0, "=")) && (name = flag(substr($0, 1, at - 1))) != "" { value[name] = substr($0, at + 1); next }
        { before = flag($0) }
        END { for (name in value) print "file " value[name] }'
}

# metadata PATH: `metadata MODE UID GID REGULAR HOSTED PATH` of what it leads to, or `absent PATH`; nothing where something
# is there to which the way is not known.
metadata() {
    named=$1 regular=no hosted=yes
    # shellcheck disable=SC2046 # numbers, no more
    walk "$named" >/dev/null && set -- $(stat -c '%a %u %g %d:%i' "$within$real")
    if [ $# -ne 4 ]; then
        [ -e "$within$named" ] || printf 'absent %s\n' "$named"
        return
    fi
    [ ! -f "$within$real" ] || regular=yes
    [ "$within" = "$root" ] || [ "$(stat -L -c '%d:%i' "$root$named")" = "$4" ] || hosted=no
    printf 'metadata %s %s %s %s %s %s\n' "$1" "$2" "$3" "$regular" "$hosted" "$named"
}

health() {
    if ! command -v curl >/dev/null; then
        printf 'missing curl\n'
        return
    fi
    healthz_places | while read -r address port; do
        case $address in *:*) host="[$address]" ;; *) host=$address ;; esac
        answer=$(curl -s -m 3 --noproxy '*' "http://$host:$port/healthz" | tr -cd 'a-zA-Z0-9 ' | head -c 64)
        printf 'health %s %s %s\n' "$address" "$port" "$answer"
    done
}

# Every mount on the way of the paths in $ways, also one that another hides, as the process has them (proc(5), mountinfo):
# its escapes stay. A mount is the same where it shows what its parent has at that place.
mounts() {
    [ -r "$root/proc/$pid/mountinfo" ] || return
    {
        printf '%s' "$ways"
        printf '\n'
        cat "$root/proc/$pid/mountinfo"
    } | awk '
        function plain(s,   out) {
            out = ""
            while (match(s, /\\[0-3][0-7][0-7]/)) {
                out = out substr(s, 1, RSTART - 1) sprintf("%c", 64 * substr(s, RSTART + 1, 1) + 8 * substr(s, RSTART + 2, 1) + substr(s, RSTART + 3, 1))
                s = substr(s, RSTART + 4)
            }
            return out s
        }
        function below(path, point) { return point == "/" ? path : substr(path, length(point) + 1) }
        !table { if ($0 == "") table = 1; else way[++ways] = $0; next }
        {
            n++
            number[$1] = n; parent[n] = $2; device[n] = $3; from[n] = $4; shown[n] = $5; point[n] = plain($5)
            for (i = 7; i <= NF && $i != "-"; i++);
            type[n] = $(i + 1); source[n] = $(i + 2)
        }
        END {
            for (m = 1; m <= n; m++) {
                if (point[m] == "/") continue
                for (w = 1; w <= ways && index(way[w] "/", point[m] "/") != 1; w++);
                if (w > ways) continue
                p = number[parent[m]]
                under = p ? (plain(from[p]) == "/" ? "" : plain(from[p])) below(point[m], point[p]) : ""
                same = p && device[p] == device[m] && plain(from[m]) == (under == "" ? "/" : under)
                print "mount", same ? "yes" : "no", type[m], shown[m], from[m], source[m]
            }
        }'
}

# The conditions and asserts that count: an empty assignment drops the ones before it.
unit_conditions() {
    each_unit cat | awk '
        /^[ \t]*[#;]/ { next }
        { l = more $0; more = "" }
        l ~ /\\$/ { more = substr(l, 1, length(l) - 1) " "; next }
        l ~ /^[ \t]*\[/ { section = l; gsub(/[ \t\r]/, "", section); next }
        section == "[Unit]" && match(l, /^[ \t]*(Condition|Assert)[A-Za-z]+[ \t]*=/) {
            key = substr(l, 1, RLENGTH - 1); value = substr(l, RLENGTH + 1)
            gsub(/[ \t]/, "", key); gsub(/^[ \t]+|[ \t\r]+$/, "", value)
            kind = key ~ /^C/ ? "C" : "A"
            if (value == "") { for (i = 1; i <= n; i++) if (kinds[i] == kind) kinds[i] = "" }
            else { kinds[++n] = kind; lines[n] = key "=" value }
        }
        END { for (i = 1; i <= n; i++) if (kinds[i] != "") print lines[i] }' | head -n 32
}

conditions() {
    unit_conditions | while IFS= read -r line; do
        key=${line%%=*} value=${line#*=} negated=no answer=unknown
        case $value in \|*) value=$(unindented "${value#?}") ;; esac
        plain=$value
        case $plain in !*) plain=$(unindented "${plain#?}") negated=yes ;; esac
        case $key:$plain in
        *:*%*) ;;
        *PathExists:/*) answer=$(answer -e "$root$plain") ;;
        *PathExistsGlob:/*) answer=$(answer -n "$(matches "$root$plain")") ;;
        *PathIsDirectory:/*) answer=$(answer -d "$root$plain") ;;
        *PathIsSymbolicLink:/*) answer=$(answer -L "$root$plain") ;;
        *DirectoryNotEmpty:/*) answer=$(answer -n "$(names "$root$plain")") ;;
        *FileNotEmpty:/*) answer=$(answer -s "$root$plain") && [ -f "$root$plain" ] || answer=no ;;
        *FileIsExecutable:/*) answer=$(answer -x "$root$plain") && [ -f "$root$plain" ] || answer=no ;;
        *)
            negated=no
            case $(systemd-analyze condition "$key=$value" 2>&1) in
            *' succeeded.'*) answer=yes ;;
            *' failed.'*) answer=no ;;
            esac
            ;;
        esac
        case $negated$answer in yesyes) answer=no ;; yesno) answer=yes ;; esac
        printf 'condition %s %s\n' "$answer" "$line"
    done
}
unindented() { printf '%s\n' "$1" | sed 's/^[ \t]*//'; }
answer() { if test "$@"; then echo yes; else echo no; fi; }
matches() ( # matches PATTERN: the first path, by file names only
    IFS=
    for path in $1; do
        { [ -e "$path" ] || [ -L "$path" ]; } && printf '%s\n' "$path" && break
    done
)

# The settings that count, as the process's own log has them: from its start on, the first "Effective
# KubeletConfiguration" (Kubernetes 1.37 and later), and only where it is whole. Nothing else of the log is kept.
log() {
    boot=$(tr -d '\n-' <"$root/proc/sys/kernel/random/boot_id")
    invocation=$(property InvocationID)
    case $boot:$invocation in *[!0-9a-f:]* | :* | *:) return ;; esac
    command -v journalctl >/dev/null && command -v timeout >/dev/null || return
    timeout 20 journalctl -q --no-pager -o cat "_PID=$pid" "_BOOT_ID=$boot" "_SYSTEMD_INVOCATION_ID=$invocation" |
        awk -v settings="$settings" '
        function take(l,   depth, key, i) {
            match(l, /^ */); depth = RLENGTH / 2; l = substr(l, RLENGTH + 1)
            if (l ~ /^- / || l == "-") { if (last != "") list[last] = list[last] ", " substr(l, 3); return }
            last = ""
            if (!match(l, /^[A-Za-z0-9_.\/-]+:( |$)/)) return
            key = substr(l, 1, index(l, ":") - 1)
            path[depth] = depth ? path[depth - 1] "." key : key
            for (i in wanted) if (i == path[depth]) { value[i] = substr(l, length(key) + 3); there[i] = 1; if (value[i] == "") last = i }
            if (l == "apiVersion: kubelet.config.k8s.io/v1beta1") heads++
            if (l == "kind: KubeletConfiguration") heads++
        }
        function show(   i) {
            if (heads != 2) exit
            print "log"
            for (i in there) print "logged", i, list[i] == "" ? value[i] : "[" substr(list[i], 3) "]"
            exit
        }
        BEGIN { n = split(settings, part, " "); for (i = 1; i <= n; i++) wanted[part[i]] = 1 }
        NR > 5000 { exit }
        within && $0 == " >" { show() }
        within && !/^\t/ { exit }
        within { take(substr($0, 2)); next }
        /^[IWE][0-9]+ .* "Effective KubeletConfiguration" config=<$/ { within = 1; next }
        /^\{.*"msg":"Effective KubeletConfiguration".*"config":"[^"].*"\}$/ {
            text = substr($0, index($0, "\"config\":\"") + 10)
            sub(/"\}$/, "", text)
            gsub(/\\\\/, "\001", text) # a backslash of the value itself
            if (text !~ /\\n$/) exit
            n = split(text, line, /\\n/)
            for (i = 1; i < n; i++) { gsub(/\\"/, "\"", line[i]); take(line[i]) }
            show()
        }'
}

# The letter of /proc/PID/stat, F where its control group is frozen. A disk access is not taken for a hang, and running is the same as sleeping: what is told
# in two calls must be the same.
state() {
    for _ in 1 2 3; do
        letter=$(sed 's/.*) //' "$root/proc/$pid/stat" | cut -c 1)
        [ "$letter" = D ] || break
        sleep 1
    done
    case $letter in [RI]) letter=S ;; esac
    group=$(sed -n 's/^0:://p' "$root/proc/$pid/cgroup")
    [ "$(sed -n 's/^frozen //p' "$root/sys/fs/cgroup$group/cgroup.events")" != 1 ] || letter=F
    printf '%s\n' "$letter"
}

collect() {
    files=0 seen=$nl directories=$nl links=$nl ways='' keep=' ' continued='' within=$root cwd=/ argv=''
    state=$(
        systemctl show --timestamp=us+utc "$unit" >/dev/null && precise=--timestamp=us+utc || precise=
        # shellcheck disable=SC2086
        systemctl show $precise "$unit" -p LoadState -p ActiveState -p SubState -p MainPID -p NRestarts \
            -p NeedDaemonReload -p FragmentPath -p DropInPaths -p EnvironmentFiles -p ExecMainStartTimestamp \
            -p ExecMainStartTimestampMonotonic -p InvocationID -p CanStop -p RefuseManualStop -p RefuseManualStart
    )
    property() { printf '%s\n' "$state" | sed -n "s/^$1=//p"; }
    command -v systemctl >/dev/null || printf 'missing systemctl\n'
    for name in LoadState ActiveState SubState NRestarts NeedDaemonReload CanStop RefuseManualStop RefuseManualStart \
        ExecMainStartTimestamp ExecMainStartTimestampMonotonic; do
        printf 'fact %s %s\n' "$name" "$(property "$name")"
    done
    systemd=$(systemctl --version | sed -n '1s/^systemd \([0-9]*\).*/\1/p')
    printf 'fact systemd %s\n' "$systemd"
    case $systemd in '' | *[!0-9]*) ;; *) [ "$systemd" -ge 254 ] || continued=1 ;; esac
    if [ -f "$root/var/lib/kubelet-guard/journal" ]; then
        printf 'fact unfinished %s\n' "$(head -c 200 "$root/var/lib/kubelet-guard/journal" | sed -n 2,3p | tr -cd '0-9A-Za-z_.\n-' | tr '\n' ' ')"
    fi
    pid=$(property MainPID)
    case $pid in '' | *[!0-9]*) pid=0 ;; esac
    if [ "$pid" -gt 0 ] && [ -r "$root/proc/$pid/cmdline" ]; then
        [ ! -d "$root/proc/$pid/root/" ] || within=$root/proc/$pid/root
        top=$(readlink "$root/proc/$pid/root")
        cwd=$(readlink "$root/proc/$pid/cwd")
        # Where the process's root is a directory of the host, its working directory shows below that.
        case $top in '' | /) ;; *) case $cwd/ in "$top"/*) cwd=${cwd#"$top"} ;; esac ;; esac
        case $cwd in /*) ;; *) cwd=/ ;; esac
        executable=$(readlink "$root/proc/$pid/exe") other=''
        is_kubelet "$(arguments | head -n 1)" || is_kubelet "${executable% (deleted)}" || other=1
        argv=$(arguments | program kind=arguments other="$other" && printf .)
        argv=${argv%.}
    else
        pid=0
    fi
    # As loaded; where the disk has others by now, as a daemon-reload would load them.
    reload=$(property NeedDaemonReload) loaded=$(property FragmentPath) found=$(fragment)
    if [ -n "$loaded" ] && [ -n "$found" ] && [ "$(identity "$found")" != "$(identity "$loaded")" ]; then
        reload=yes loaded=$found
        printf 'fact NeedDaemonReload yes\n'
    fi
    units="$loaded$nl$(
        if [ "$reload" = yes ]; then dropins; else property DropInPaths | tr ' ' '\n'; fi
    )"
    # As loaded, and as the units on disk name them.
    environments=$(
        {
            property EnvironmentFiles | sed 's/ (ignore_errors=[a-z]*)$//'
            each_unit tr '\r' '\n' | sed -n 's/^[ \t]*EnvironmentFile[ \t]*=[ \t]*-\{0,1\}\(\/[^*?[]*[^*?[ \t]\)[ \t]*$/\1/p'
        } | sed 's/^/file /' | plain / | cut -c 6-
    )
    # A variable that the kubelet's command line expands is needed; every other stays on the node.
    keep=" $(each_unit program kind=unit find=uses | sort -u | tr '\n' ' ')"
    inputs=$(
        {
            [ "$pid" -eq 0 ] || arguments | program kind=arguments find=1
            each_unit program kind=unit find=1
            printf '%s\n' "$environments" | while IFS= read -r path; do
                [ -f "$root$path" ] && head -c "$max_bytes" "$root$path" | program kind=environment find=1
            done
        } | plain "$cwd"
    )
    printf '%s\n' "$units" | while IFS= read -r path; do [ -n "$path" ] && printf 'unit %s\n' "$path"; done
    printf '%s\n' "$environments" | while IFS= read -r path; do [ -n "$path" ] && printf 'environment %s\n' "$path"; done
    if [ "$pid" -gt 0 ]; then
        printf 'argv %s\n%s' "${#argv}" "$argv"
        named=$(arguments | head -n 1)
        ! is_kubelet "$named" || printf 'fact version %s\n' "$(version "$named")"
        printf 'fact pid %s\nfact boot_id %s\nfact state %s\n' "$pid" "$(cat "$root/proc/sys/kernel/random/boot_id")" "$(state)"
        # Field 22 of stat, counted behind the command's closing bracket: clock ticks since boot.
        printf 'fact ticks %s\n' "$(sed 's/.*) //' "$root/proc/$pid/stat" | cut -d ' ' -f 20)"
        printf 'fact uid %s\n' "$(stat -c %u "$root/proc/$pid")"
        printf 'fact executable %s\nfact root %s\nfact directory %s\n' "$executable" "${top:-/}" "$cwd"
        log
    fi
    # Here-documents, not pipes: the loops count files in this shell.
    while IFS= read -r record; do
        case $record in
        config*) file "${record#config }" config ;;
        dir*) listing "${record#dir }" ;;
        esac
    done <<END
$inputs
END
    {
        printf '%s\n' "$inputs" | sed -n 's/^ca //p'
        printf '%s\n' "$seen" | while IFS= read -r path; do
            [ -f "$within$path" ] || continue
            authority=$(head -c "$max_bytes" "$within$path" | program kind=config | tr '\r' '\n' | for_each_key)
            # Loading a config file makes it one from that file's directory, a drop-in's stays as it is.
            for base in "$cwd" "${path%/*}"; do printf '%s\n' "$authority" | plain "$base"; done | sed 's/^ca //'
        done
    } | sort -u | head -n 16 | while IFS= read -r path; do
        there=no
        walk "$path" >/dev/null && [ -f "$within$real" ] && there=yes
        printf 'exists %s %s\n' "$there" "$path"
    done
    # What a flag names is the process's own; what has a place of its own is the host's.
    [ "$pid" -eq 0 ] || named_files | plain "$cwd" | cut -c 6- | sort -u | head -n 16 |
        while IFS= read -r path; do
            case " $file_paths " in *" $path "*) ;; *) metadata "$path" ;; esac
        done
    for path in $file_paths; do (within=$root && metadata "$path"); done
    [ "$pid" -eq 0 ] || mounts
    [ "$pid" -eq 0 ] || health
    within=$root
    while IFS= read -r path; do
        [ -n "$path" ] && file "$path" unit
    done <<END
$units
END
    while IFS= read -r path; do
        [ -n "$path" ] && file "$path" environment
    done <<END
$environments
END
    conditions
    systemctl show-environment | program kind=manager
    printf 'end\n'
}

payload=$(collect | gzip -9 -c -n | base64 | tr -d '\n')
length=${#payload}
digest=$(printf '%s' "$payload" | sha256sum | cut -d ' ' -f 1)
# Both clocks at one moment: between two looks at the one there is not a tick of it more than the other takes.
uptime=$root/proc/uptime
[ -r "$uptime" ] || uptime=/proc/uptime
for _ in 1 2 3 4 5; do
    read -r before _ <"$uptime"
    wall=$(date +%s.%N)
    read -r since _ <"$uptime"
    [ "$before" != "$since" ] || break
done
case $wall in
*.?????????) wall=${wall%.*}${wall#*.} ;;
*) wall=${wall%%.*}000000000 since=0. ;; # a clock of whole seconds proves nothing
esac
since=${since%.*}${since#*.}0000000
chunk=3950
parts=$(((length + chunk - 1) / chunk))
part() { # part NUMBER: the frame's header comes last, since only the tail of a stream arrives
    from=$((($1 - 1) * chunk + 1))
    [ "$from" -le "$length" ] || return 0
    text=$(printf '%s' "$payload" | tail -c +"$from" | head -c "$chunk")
    printf '%s\nKG2 %s %s %s %s %s %s %s %s\n' "$text" "$1" "$parts" "$length" "${#text}" "$wall" "$since" "$nonce" "$digest"
}
part "$first"
if [ -n "$report" ]; then printf '%s\n' "$report" >&3; else part "$((first + 1))" >&3; fi
