# Stands in for journalctl on a node of the sandbox: the journal has been rotated, nothing is left of the kubelet's log.
exit 0
