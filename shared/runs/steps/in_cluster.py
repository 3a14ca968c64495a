"""One question to a cluster, by the way that this deployment asks: begun, or gone on with; nothing is waited for."""

from __future__ import annotations

from collections.abc import Sequence

from shared.azure import Invoked, Pending
from shared.cluster import Sweep, parse_sweep, sweep_script
from shared.models import Cluster, Problem
from shared.runs.services import Services

# Seconds: a pod is there in some ten, and asks a thousand kubelets in as many.
_FIRST_LOOK = 10.0


async def ask(
    services: Services,
    cluster: Cluster,
    names: Sequence[str],
    command: Pending | None,
    nonce: str,
    *,
    nodes: Sequence[str] | None = None,
    after: str = "",
    pods: bool = False,
) -> Pending | Sweep | Problem:
    """Ask kubelets for the settings `names`, or look at the `command` that does; see `sweep_script` for the rest."""
    azure, way = services.azure, services.settings.sweep_way
    if way == "api":
        return await azure.ask_api_server(cluster, names, command, nodes=nodes, after=after, pods=pods)
    if command is not None and command.url:
        outcome = await azure.look_in_cluster(cluster, command)
    else:
        script = sweep_script(names, way, nonce, nodes=nodes, after=after, pods=pods)
        outcome = await azure.start_in_cluster(cluster, script, command, _FIRST_LOOK)
    return parse_sweep(outcome.logs, nonce, names, way, nodes=nodes) if isinstance(outcome, Invoked) else outcome
