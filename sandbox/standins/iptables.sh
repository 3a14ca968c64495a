# Stands in for iptables on a node of the sandbox: lists a table's chains, the kubelet's own where it has made them.
state=${KUBELET_GUARD_ROOT:?is not set}/run/sandbox
table=filter list= chain=
while [ $# -gt 0 ]; do
    case $1 in
    -t | --table) table=$2 && shift ;;
    -w | --wait) case ${2-} in [0-9]*) shift ;; esac ;;
    -n | --numeric | -v | --verbose) ;;
    -S | --list-rules) list=rules ;;
    -L | --list | -nL | -Ln | -nvL | -vnL) list=chains ;;
    -*) echo "iptables: unknown option \"$1\"" >&2 && exit 2 ;;
    *) chain=$1 ;;
    esac
    shift
done
case $table in
mangle) chains='PREROUTING INPUT FORWARD OUTPUT POSTROUTING' ;;
nat) chains='PREROUTING INPUT OUTPUT POSTROUTING' ;;
filter) chains='INPUT FORWARD OUTPUT' ;;
*) echo "iptables: can't initialize iptables table \`$table': Table does not exist" >&2 && exit 3 ;;
esac
canary=
[ -f "$state/canary" ] && canary=KUBE-KUBELET-CANARY
if [ -n "$chain" ]; then
    case " $chains $canary " in
    *" $chain "*) ;;
    *) echo 'iptables: No chain/target/match by that name.' >&2 && exit 1 ;;
    esac
fi
shown() { [ -z "$chain" ] || [ "$chain" = "$1" ]; }
case $list in
rules)
    for name in $chains; do shown "$name" && echo "-P $name ACCEPT"; done
    if [ -n "$canary" ] && shown "$canary"; then echo "-N $canary"; fi
    ;;
chains)
    for name in $chains $canary; do
        shown "$name" || continue
        policy='policy ACCEPT' && [ "$name" = "$canary" ] && policy='0 references'
        printf 'Chain %s (%s)\ntarget     prot opt source               destination\n\n' "$name" "$policy"
    done
    ;;
*) echo 'iptables: no command specified' >&2 && exit 2 ;;
esac
exit 0
