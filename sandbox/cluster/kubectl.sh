#!/bin/sh
# Stands in for kubectl in the pod of a command on the sandbox, where no real cluster is given. It knows what the sweep
# asks for, and answers from the folder that the sandbox has recorded (SANDBOX_CLUSTER):
#     nodes.N.json         page N of the list of nodes, or nodes.error
#     token.json           the token of the service account, or token.error
#     pods.NAME.json       the pods of a node, or pods.NAME.error
#     node.NAME.json       a kubelet's configuration, or node.NAME.error; each is also there as direct.ADDRESS.…
answer() { # answer NAME: what is recorded under it; an error goes to stderr and fails
    if [ -f "$SANDBOX_CLUSTER/$1.json" ]; then
        cat "$SANDBOX_CLUSTER/$1.json"
    else
        cat "$SANDBOX_CLUSTER/$1.error" >&2
        exit 1
    fi
}
server='' words='' token=''
for word; do
    case $word in
    --server=*) server=${word#--server=} ;;
    --token=*) token=${word#--token=} ;;
    --*) ;;
    *) words="$words $word" ;;
    esac
done
case $server$words in
'https://'*':10250 get /configz')
    address=${server#https://}
    # The kubelets of this cluster know the one token that it gives out.
    grep -q "\"$token\"" "$SANDBOX_CLUSTER/token.json" || {
        echo 'error: You must be logged in to the server (Unauthorized)' >&2
        exit 1
    }
    answer "direct.${address%:10250}"
    ;;
' get /api/v1/nodes?limit='*'&continue='*) answer "nodes.${words##*continue=}" ;;
' get /api/v1/nodes?limit='*) if [ -f "$SANDBOX_CLUSTER/nodes.error" ]; then answer nodes; else answer nodes.0; fi ;;
' get /api/v1/pods?limit='*'&fieldSelector=spec.nodeName%3D'*) answer "pods.${words##*%3D}" ;;
' create /api/v1/namespaces/'*'/serviceaccounts/'*'/token') cat >/dev/null && answer token ;;
' get /api/v1/nodes/'*'/proxy/configz')
    name=${words#' get /api/v1/nodes/'}
    answer "node.${name%/proxy/configz}"
    ;;
' config view') printf 'c2FuZGJveA==' ;;
*) echo "error: the sandbox's kubectl does not know$words" >&2 && exit 1 ;;
esac
