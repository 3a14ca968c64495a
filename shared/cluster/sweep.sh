# What runs in the pod of an AKS command invoke: lists the cluster's nodes, asks the kubelets for their configuration, and
# prints what was asked for of it. Reads only. Python puts before it: nonce, way, settings, names, after, most, seconds,
# width, budget, room, account, pods, and the functions nodes_program, ask_program, pods_program and answer_program.
#
# In what is printed stands nothing that a node or the API server has put into words: facts with a form of their own, the
# values of the settings, and words of this script for what went wrong. Nothing of a node reaches a shell as anything but
# a quoted word whose characters were checked. (No two dollars in a row: a pod's arguments would lose one of them.)
set -u
LC_ALL=C
export LC_ALL
# An error text of kubectl's can quote what a kubelet answered: nothing of it is let out.
exec 2>/dev/null

missing=
for tool in kubectl jq xargs awk base64 sha256sum head sort wc date mktemp; do
    command -v "$tool" >/dev/null || missing="$missing $tool"
done
if [ -n "$missing" ]; then
    echo "KC1 missing $nonce$missing"
    exit 0
fi

KG_ANSWER=$(answer_program)
KG_SETTINGS=$settings
KG_SECONDS=$seconds
KG_WAY=$way
KG_CA='' KG_TOKEN=''
export KG_ANSWER KG_SETTINGS KG_SECONDS KG_WAY KG_CA KG_TOKEN

folder=$(mktemp -d) || folder=''
clean() { [ -z "$folder" ] || rm -rf "$folder"; }
trap clean EXIT

# kubectl takes a pod's service account only where nothing else is said, not even a time limit: so it is said as a file.
pod=/var/run/secrets/kubernetes.io/serviceaccount
known=$(kubectl config view --minify --output='jsonpath={.clusters[0].cluster.server}')
if [ -z "$known" ] && [ -n "$folder" ] && [ -n "${KUBERNETES_SERVICE_HOST:-}" ] && [ -s "$pod/token" ]; then
    case $KUBERNETES_SERVICE_HOST in *:*) host="[$KUBERNETES_SERVICE_HOST]" ;; *) host=$KUBERNETES_SERVICE_HOST ;; esac
    KUBECONFIG=$folder/kubeconfig
    cat >"$KUBECONFIG" <<CONFIG
{"apiVersion": "v1", "kind": "Config", "current-context": "pod",
 "contexts": [{"name": "pod", "context": {"cluster": "pod", "user": "pod"}}],
 "users": [{"name": "pod", "user": {"tokenFile": "$pod/token"}}],
 "clusters": [{"name": "pod", "cluster": {
   "server": "https://$host:${KUBERNETES_SERVICE_PORT:-443}", "certificate-authority": "$pod/ca.crt"}}]}
CONFIG
    export KUBECONFIG
fi

# api ARGUMENT...: what kubectl says to stdout, in $said. Where it fails, the word for why is in $trouble.
trouble=
request='{"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest","spec":{"expirationSeconds":600}}'
api() {
    said=$(printf '%s' "$request" | kubectl --request-timeout=30s "$@") && return
    # Asked once more for its words alone: what it warns of must not stand in what it answers.
    trouble=$(printf '%s' "$request" | kubectl --request-timeout=30s "$@" 2>&1 >/dev/null | head -c 65536 | word_of)
    return 1
}
word_of() { jq -Rsr --arg name '' --argjson settings '[]' "$KG_ANSWER | .trouble"; }

# The nodes, page by page: one of 1,000 nodes at once would be 20 MB.
listed=0 lines='' next=''
while [ "$listed" -le 20000 ]; do
    if ! api get --raw "/api/v1/nodes?limit=200${next:+&continue=$next}"; then
        trouble=list_$trouble
        break
    fi
    if ! count=$(printf '%s' "$said" | jq '.items | length') ||
        ! found=$(printf '%s' "$said" |
            jq -ac --arg way "$way" --arg after "$after" --argjson names "$names" "$(nodes_program)") ||
        ! next=$(printf '%s' "$said" |
            jq -r '.metadata.continue // "" | if test("^[A-Za-z0-9_=-]*$") then . else error("") end'); then
        trouble=list_malformed
        break
    fi
    listed=$((listed + count))
    [ -z "$found" ] || lines="$lines$found
"
    [ -n "$next" ] || break
done
said=

ordered=$(printf '%s' "$lines" | sort)
chosen=$(printf '%s\n' "$ordered" | head -n "$most")
left=$(printf '%s' "$ordered" | awk -v most="$most" 'NR > most { more++ } END { print more + 0 }')

# The nodes get a token that is good for nothing but this, and for minutes: what a node is shown, a hostile one keeps. The
# pod's own may be good for the whole cluster, and an Entra token is for every cluster that its owner has a right in.
if [ "$way" = direct ] && [ -z "$trouble" ] && [ -n "$chosen" ]; then
    minted=/api/v1/namespaces/${account%/*}/serviceaccounts/${account#*/}/token
    if api create --raw "$minted" --filename=-; then
        KG_TOKEN=$(printf '%s' "$said" | jq -r '.status.token | select(test("^[A-Za-z0-9_.-]+$"))')
        said=
        [ -n "$KG_TOKEN" ] || trouble=token_malformed
    else
        trouble=token_$trouble
    fi
    # The authority that signed the API server's certificate signs the kubelets', too.
    KG_CA=$folder/ca.crt
    [ -z "$folder" ] || kubectl config view --raw --flatten --minify \
        --output='jsonpath={.clusters[0].cluster.certificate-authority-data}' | base64 -d >"$KG_CA"
    [ -n "$trouble" ] || [ -s "$KG_CA" ] || trouble=no_ca
fi

answers=
if [ -z "$trouble" ] && [ -n "$chosen" ]; then
    KG_END=$(($(date +%s) + budget))
    export KG_END
    asked=$(printf '%s\n' "$chosen" | jq -r 'select(.trouble == null) | "\(.node) \(.address)"')
    # POSIX does not know -P: where it is refused they are asked one after another.
    beside="-P $width"
    # shellcheck disable=SC2086 # an option and its number
    echo x | xargs -n 1 $beside true || beside=
    # shellcheck disable=SC2086
    [ -z "$asked" ] || answers=$(printf '%s\n' "$asked" | xargs -n 2 $beside sh -c "$(ask_program)" ask)
fi

failing=
if [ "$pods" = yes ] && [ -z "$trouble" ] && [ -n "$chosen" ]; then
    # shellcheck disable=SC2086
    failing=$(printf '%s\n' "$chosen" | jq -r .node | xargs -n 1 $beside sh -c "$(pods_program)" pods)
fi

# All of it within what the logs keep: what has no room is named, to be asked for again.
report=$(
    printf '{"sweep":"%s","listed":%d,"left":%d}\n' "$trouble" "$listed" "$left"
    [ -z "$chosen" ] || printf '%s\n' "$chosen"
    [ -z "$answers" ] || printf '%s\n' "$answers"
    [ -z "$failing" ] || printf '%s\n' "$failing"
)
report=$(printf '%s\n' "$report" | awk -v room="$room" '
    { used += length($0) + 1 }
    used > room && /^\{"answer":"/ { split($0, part, "\""); print "{\"answer\":\"" part[4] "\",\"trouble\":\"no_room\"}"; next }
    { print }
')
printf '%s\n' "$report"
printf 'KC1 %d %d %s %s\n' "$(printf '%s\n' "$report" | awk 'END { print NR }')" \
    "$(printf '%s\n' "$report" | wc -c)" "$nonce" "$(printf '%s\n' "$report" | sha256sum | head -c 64)"
