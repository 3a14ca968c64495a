# Stands in for chown on a node of the sandbox: only root could give a file away, so run/sandbox/owners says whose it is
# (USER:GROUP PATH, in numbers; what is not in it is root's), and stat goes by that.
root=$(cd -P -- "${KUBELET_GUARD_ROOT:?is not set}" && pwd)
owners=$root/run/sandbox/owners
[ "${1-}" != -h ] || shift # of a link: here no link is anybody's
owner=${1-}
case $owner in
*[!0-9:]* | '' | :* | *:)
    echo "chown: the sandbox takes USER:GROUP in numbers, not '$owner'" >&2
    exit 1
    ;;
esac
shift
for path; do
    real=$(readlink -e -- "$path") || { echo "chown: cannot access '$path': No such file or directory" >&2 && exit 1; }
    inside=${real#"$root"}
    [ "$inside" != "$real" ] || { echo "chown: '$path' is not on this node" >&2 && exit 1; }
    {
        while read -r given at; do
            [ "$at" = "$inside" ] || printf '%s %s\n' "$given" "$at"
        done <"$owners"
        [ "$owner" = 0:0 ] || printf '%s %s\n' "$owner" "$inside"
    } >"$owners.new"
    mv "$owners.new" "$owners"
done
