# Counts the pods of one node that are not well, as a child of xargs: NAME, whose characters need no quoting. A pod is not
# well where it should be up and is not ready; those of command invoke itself do not count. Prints one line, in one write.
name=$1
count=-1
if [ "$(date +%s)" -lt "$KG_END" ]; then
    said=$(kubectl "--request-timeout=${KG_SECONDS}s" get --raw "/api/v1/pods?limit=500&fieldSelector=spec.nodeName%3D$name" |
        jq '[.items[] | select(.metadata.namespace != "aks-command" and .status.phase != "Succeeded")
            | select([.status.conditions[]? | select(.type == "Ready" and .status == "True")] == [])] | length')
    case $said in '' | *[!0-9]*) ;; *) count=$said ;; esac
fi
printf '{"pods":"%s","failing":%s}\n' "$name" "$count"
