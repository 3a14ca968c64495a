# Stands in for stat on a node of the sandbox, whose files belong to whoever runs the sandbox: what is theirs is root's here,
# but for the files in run/sandbox/owners (see chown). All else is the machine's own stat.
PATH=${PATH#*:}
root=$(cd -P -- "${KUBELET_GUARD_ROOT:?is not set}" && pwd)
owners=$root/run/sandbox/owners
case " $* " in
*%u* | *%g*) [ -s "$owners" ] || [ "$(id -u):$(id -g)" != 0:0 ] || exec stat "$@" ;;
*) exec stat "$@" ;;
esac
follow='' format=''
while [ $# -gt 0 ]; do
    case $1 in
    -L) follow=yes ;;
    -c) format=$2 && shift ;;
    --) shift && break ;;
    -*) echo "stat: the sandbox does not know $1" >&2 && exit 1 ;;
    *) break ;;
    esac
    shift
done
status=0
for path; do
    real=$(cd -P -- "$(dirname -- "$path")" && pwd)/${path##*/}
    [ -z "$follow" ] || real=$(readlink -e -- "$path")
    if ! owner=$(stat ${follow:+-L} -c '%u:%g' -- "$path"); then
        status=1
        continue
    fi
    [ "$owner" != "$(id -u):$(id -g)" ] || owner=0:0
    while read -r given inside; do
        [ "$root$inside" != "$real" ] || owner=$given
    done <"$owners"
    stat ${follow:+-L} -c "$(printf '%s' "$format" | sed "s/%u/${owner%:*}/g; s/%g/${owner#*:}/g")" -- "$path" || status=1
done
exit "$status"
