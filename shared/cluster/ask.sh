# Asks one kubelet, as a child of xargs: NAME ADDRESS, both with characters that need no quoting. Prints one line, in one
# write: many of them print at the same time.
name=$1 address=$2
if [ "$(date +%s)" -ge "$KG_END" ]; then
    printf '{"answer":"%s","trouble":"not_asked"}\n' "$name"
    exit 0
fi
case $KG_WAY in
direct)
    case $address in *:*) address="[$address]" ;; esac
    # Of the configuration around it nothing counts here: no certificate or other token of ours goes to a node.
    set -- --kubeconfig=/dev/null "--server=https://$address:10250" "--certificate-authority=$KG_CA" \
        "--token=$KG_TOKEN" get --raw /configz
    ;;
*) set -- get --raw "/api/v1/nodes/$name/proxy/configz" ;;
esac
kubectl "--request-timeout=${KG_SECONDS}s" "$@" 2>&1 | head -c 262144 |
    jq -Rsac --arg name "$name" --argjson settings "$KG_SETTINGS" "$KG_ANSWER"
