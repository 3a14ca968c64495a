# Stands in for the kubelet's binary on a node of the sandbox: it only says its version.
case ${1-} in
--version) echo "Kubernetes v$(sed 's/.*"version": "\([^"]*\)".*/\1/' "${KUBELET_GUARD_ROOT:?is not set}/run/sandbox/node.json")" ;;
*) echo "kubelet: the sandbox's service manager runs it, not a shell" >&2 && exit 1 ;;
esac
