"""What can go wrong when a cluster's kubelets are asked, by the words of the script: one table, for people."""

from __future__ import annotations

from shared.models import Problem, Status

_MANIFEST = "apply infra/sweep-rbac.yaml with the identity's object id (docs/cluster-witness.md)"
_AZURE_RBAC = (
    " Where the cluster authorizes by Azure RBAC, Kubernetes' own roles may not count for the identity: then leave the"
    " cluster to the nodes' own witness."
)

_PROXY_MANIFEST = "apply infra/sweep-rbac-proxy.yaml with the identity's object id (docs/cluster-witness.md)"

# Word → reason and hint for one node; with the way of asking where that makes a difference. In the texts: {node},
# {seconds}.
_NODES: dict[str, tuple[str, str]] = {
    "refused": (
        "nothing answers on the kubelet's port of {node}: its kubelet does not run, or a firewall refuses it.",
        "Look at the node by run command; kubectl get node says since when it is not Ready.",
    ),
    "timeout": (
        "the kubelet of {node} did not answer within {seconds} s: it is frozen, or the node is off the network.",
        "Look at the node by run command; kubectl get node says since when it is not Ready.",
    ),
    "unreachable": (
        "the API server or the kubelet of {node} broke off before it answered.",
        "Run again; where it stays so, look at the cluster's tunnel between API server and nodes (konnectivity).",
    ),
    "forbidden_direct": (
        "the kubelet of {node} refuses to tell its configuration: the service account may not get nodes/configz.",
        f"On the cluster, {_MANIFEST}.",
    ),
    "forbidden_proxy": (
        "the API server refuses to ask the kubelet of {node}: the identity has no right to get nodes/proxy.",
        "Ask the kubelets directly, or grant nodes/proxy knowingly: it can run commands on nodes "
        "(infra/sweep-rbac-proxy.yaml)." + _AZURE_RBAC,
    ),
    "forbidden_api": (
        "the API server refuses to ask the kubelet of {node}: the identity has no right to get nodes/proxy.",
        "Grant nodes/proxy knowingly, it can run commands on nodes (infra/sweep-rbac-proxy.yaml), or ask by command "
        "invoke (GUARD_SWEEP_WAY=direct)." + _AZURE_RBAC,
    ),
    "unauthorized": (
        "the kubelet of {node} does not know our token: it does not take tokens, or cannot ask the API server of them.",
        "Look at the node's kubelet: authentication.webhook.enabled must be true.",
    ),
    "certificate": (
        "the kubelet of {node} shows a certificate that the cluster's authority has not signed: it gets no token.",
        "Update the node pool's image or upgrade it, so that the cluster's authority signs the kubelets' certificates.",
    ),
    "not_found": (
        "{node} is not in the cluster (any more), or its kubelet does not tell its configuration.",
        "Nothing to do where it was removed; else look at enableDebuggingHandlers and enableServer of its kubelet.",
    ),
    "unknown_node": (
        "{node} is not a node of the cluster (any more).",
        "Nothing to do where it was removed; else the machine has not joined: look at it by run command.",
    ),
    "malformed": (
        "what the kubelet of {node} answered is not its configuration.",
        "Look at the node by run command: something else may be answering on the kubelet's port.",
    ),
    "too_long": (
        "the settings of {node} are longer than such settings can be.",
        "Look at the node by run command.",
    ),
    "too_old": (
        "the kubelet of {node} is older than 1.33 and tells its configuration only to who may do anything with it.",
        "Upgrade the node pool, or look at the node by run command.",
    ),
    "own_certificate": (
        "the kubelet of {node} has a serving certificate of its own: it gets no token "
        "(label kubernetes.azure.com/kubelet-serving-ca).",
        "Upgrade the node pool, or take back the tag that opts it out of the rotation of serving certificates.",
    ),
    "no_address": (
        "{node} has no internal address in the cluster.",
        "Look at the node with kubectl get node -o yaml.",
    ),
    "not_asked": (
        "{node} was not asked: so many nodes did not answer in time that the command's own time was over.",
        "It is asked again by the next sweep.",
    ),
    "not_asked_api": (
        "{node} was not asked: the API server had too many requests at that time.",
        "It is asked again by the next sweep.",
    ),
    "no_room": (
        "the answer of {node} had no room in what a command may print.",
        "It is asked again by the next sweep.",
    ),
    "lost": (
        "the question to the kubelet of {node} was begun and no answer came of it: the command's pod may be too small.",
        "Run again.",
    ),
    "doubled_id": (
        "{node} names a machine that another node of the cluster names too: one of them is not what it says.",
        "Look at both with kubectl get nodes -o custom-columns=NAME:.metadata.name,ID:.spec.providerID.",
    ),
    "no_id": (
        "{node} names no machine of Azure's.",
        "Nothing to do for a virtual node; else look at spec.providerID of the node.",
    ),
}

# Word → reason and hint for a whole sweep; with _api where the app asks the API server by itself and that is another
# thing. In the texts: {detail}.
_SWEEPS: dict[str, tuple[str, str]] = {
    "list_forbidden": (
        "the identity may not list the nodes of the cluster.",
        f"On the cluster, {_MANIFEST}.{_AZURE_RBAC}",
    ),
    "list_unauthorized": (
        "the API server does not take the credentials of the command's pod.",
        "Look at the cluster's Entra integration: the identity must be of the cluster's tenant.",
    ),
    "token_forbidden": (
        "the identity may not make a token of the service account that may ask the kubelets.",
        f"On the cluster, {_MANIFEST}.{_AZURE_RBAC}",
    ),
    "token_not_found": (
        "the service account that may ask the kubelets is not in the cluster.",
        f"On the cluster, {_MANIFEST}.",
    ),
    "no_ca": (
        "the certificate of the cluster's authority was not found in the command's pod, so no kubelet got a token.",
        "Ask by the proxy, or leave the cluster to the nodes' own witness.",
    ),
    "missing_tools": (
        "the pod of the command lacks {detail}.",
        "The image of AKS's command invoke has changed, or is not the one that runs here.",
    ),
    "garbled": (
        "the answer of the command is not a whole, honest report: {detail}.",
        "Run again.",
    ),
    "list_forbidden_api": (
        "the identity may not list the nodes of the cluster.",
        f"On the cluster, {_PROXY_MANIFEST}.{_AZURE_RBAC}",
    ),
    "list_unauthorized_api": (
        "the API server does not take the identity's token.",
        "Look at the cluster's Entra integration: the identity must be of the cluster's tenant.",
    ),
    "not_entra": (
        "the cluster does not use Entra ID: its API server takes no token of the identity.",
        "Ask it by command invoke (GUARD_SWEEP_WAY=direct or proxy), or turn on Entra ID.",
    ),
    "foreign_server": (
        "the API server that Azure names in the credentials ({detail}) is not the cluster's own: it gets no token.",
        "Run again; look at the cluster's fqdn and privateFQDN (az aks show).",
    ),
    "no_server": (
        "what Azure gave does not say where the API server is and which authority signs its certificate: {detail}.",
        "Run again; look at the output of az aks get-credentials.",
    ),
    "certificate": (
        "the API server's certificate is not one of the cluster's authority: it got no token.",
        "Look for a proxy or firewall between the app and the API server that opens connections.",
    ),
    "unreachable": (
        "the API server cannot be reached from here ({detail}).",
        "Allow the app's address (apiServerAccessProfile.authorizedIPRanges), look at its way out, or ask by command "
        "invoke (GUARD_SWEEP_WAY=direct).",
    ),
    "unreachable_private": (
        "the API server cannot be reached from here ({detail}): the cluster is private.",
        "Put the app into the API server's network, private DNS zone included, or ask by command invoke "
        "(GUARD_SWEEP_WAY=direct).",
    ),
    "failed": (
        "the API server did not answer as it should ({detail}).",
        "Run again; look at the cluster's state in Azure.",
    ),
}


def node_problem(word: str, way: str, node: str, seconds: int) -> Problem:
    """What a word of the script means for one node."""
    reason, hint = _NODES.get(f"{word}_{way}") or _NODES.get(word) or _NODES["malformed"]
    return Problem(Status.ERROR, f"configz_{word}", reason.format(node=f"node {node}", seconds=seconds), hint)


def sweep_problem(word: str, detail: str = "", kind: str = "") -> Problem:
    """What a word of the script means for the whole sweep; `kind` chooses a text of its own where there is one."""
    reason, hint = _SWEEPS.get(f"{word}_{kind}") or _SWEEPS.get(word) or _SWEEPS["failed"]
    return Problem(Status.ERROR, f"sweep_{word}", reason.format(detail=detail or word), hint)
