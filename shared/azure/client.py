"""Azure as this product uses it: clusters, nodes and run command, over one connection pool and one credential."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from shared.azure import discovery, graph, invoke, rights, runcommand
from shared.azure.arm import Arm
from shared.cluster import Sweep
from shared.models import Cluster, Node, Problem, ScopeProblem, Subscription

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Sequence
    from types import TracebackType

    from azure.core.credentials_async import AsyncTokenCredential

    from shared.azure.throttle import Stats
    from shared.settings import Settings


class Azure:
    """An async context manager: `async with Azure(settings) as azure`.

    Without `credential`, DefaultAzureCredential's: environment, managed identity (AZURE_CLIENT_ID names a
    user-assigned one), Azure CLI and so on. A credential that is given stays the caller's to close.
    """

    def __init__(self, settings: Settings, credential: AsyncTokenCredential | None = None) -> None:
        self.settings = settings
        self._arm = Arm(settings, credential)

    async def __aenter__(self) -> Self:
        await self._arm.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._arm.__aexit__(kind, error, trace)

    @property
    def stats(self) -> Stats:
        """Calls made and waits for rate limits, for the run's summary."""
        return self._arm.throttle.stats

    def levels(self, subscription: str) -> dict[str, float]:
        """How many commands may be started now as far as this process knows: see `Throttle.levels`."""
        return self._arm.throttle.levels(subscription)

    async def subscriptions(self) -> list[Subscription]:
        """All subscriptions that the identity sees. Raises CredentialError or EndpointError."""
        return await discovery.subscriptions(self._arm)

    async def subscriptions_below(self, management_group: str) -> list[Subscription]:
        """All subscriptions below a management group, whether the identity sees into them or not.

        Raises CredentialError, EndpointError, and ScopeError where the group cannot be read.
        """
        return await graph.subscriptions_below(self._arm, management_group)

    async def clusters(self, subscription: str) -> list[Cluster]:
        """The AKS clusters of a subscription with their pools.

        Raises CredentialError and EndpointError (which concern the whole run), and SubscriptionError with the
        problem of this one subscription; it says whether that passes.
        """
        return await discovery.clusters(self._arm, subscription)

    async def graph_clusters(self, subscriptions: Sequence[str]) -> graph.GraphAnswer:
        """The clusters of many subscriptions by few queries, as far as Azure Resource Graph answers for them."""
        return await graph.clusters(self._arm, subscriptions)

    async def signed_in(self) -> rights.SignedIn | Problem:
        """Who the identity is."""
        return await rights.signed_in(self._arm)

    async def permissions(self, subscription: str, group: str = "") -> tuple[rights.Permission, ...] | Problem:
        """What the identity's roles allow in a subscription, or in one of its resource groups."""
        return await rights.permissions(self._arm, subscription, group)

    async def cluster_permissions(self, cluster: Cluster) -> tuple[rights.Permission, ...] | Problem:
        """What the identity's roles allow on a cluster."""
        return await rights.cluster_permissions(self._arm, cluster)

    async def deny_assignments(self, subscription: str) -> tuple[rights.DenyAssignment, ...] | Problem:
        """The deny assignments of a subscription: at it, above it, and within it."""
        return await rights.deny_assignments(self._arm, subscription)

    async def locks(self, subscription: str) -> tuple[rights.Lock, ...] | Problem:
        """The management locks of a subscription and within it."""
        return await rights.locks(self._arm, subscription)

    async def policy_assignments(self, subscription: str) -> tuple[rights.PolicyAssignment, ...] | Problem:
        """The policies that are assigned to a subscription, above it, and within it."""
        return await rights.policy_assignments(self._arm, subscription)

    async def cluster(self, subscription: str, resource_group: str, name: str) -> Cluster | Problem:
        """A cluster as it is now; a problem with the code `vanished` where it is gone.

        Raises CredentialError or EndpointError for trouble that passes.
        """
        return await discovery.cluster(self._arm, subscription, resource_group, name)

    def nodes(self, cluster: Cluster, pools: Collection[str] | None = None) -> AsyncIterator[Node | ScopeProblem]:
        """The nodes of a cluster (of the `pools` named, or of all), and what cannot be looked at, page by page."""
        return discovery.nodes(self._arm, cluster, pools)

    async def node(self, node: Node) -> Node | Problem:
        """A node as it is now; a problem with the code `vanished` where it is gone.

        Raises CredentialError or EndpointError for trouble that passes.
        """
        return await discovery.node(self._arm, node)

    async def start(
        self,
        node: Node,
        script: str,
        before: runcommand.Pending | None,
        first_look: float,
        *,
        harmless: bool = False,
    ) -> runcommand.Pending | runcommand.Ended:
        """Try once to start `script` on `node`; `harmless`: it may be sent twice. See `runcommand.start`."""
        return await runcommand.start(self._arm, node, script, before, first_look, harmless=harmless)

    async def look(self, node: Node, pending: runcommand.Pending) -> runcommand.Pending | runcommand.Ended:
        """Look once at a started command, in this process or in another than started it: see `runcommand.look`."""
        return await runcommand.look(self._arm, node, pending)

    async def start_in_cluster(
        self, cluster: Cluster, command: str, before: runcommand.Pending | None, first_look: float
    ) -> runcommand.Pending | invoke.Invoked | Problem:
        """Try once to start a command that changes nothing in a pod of the cluster: see `invoke.start`."""
        return await invoke.start(self._arm, cluster, command, before, first_look)

    async def look_in_cluster(
        self, cluster: Cluster, pending: runcommand.Pending
    ) -> runcommand.Pending | invoke.Invoked | Problem:
        """Look once at a command that was started in a cluster: see `invoke.look`."""
        return await invoke.look(self._arm, cluster, pending)

    async def ask_api_server(
        self,
        cluster: Cluster,
        settings: Sequence[str],
        before: runcommand.Pending | None,
        *,
        nodes: Sequence[str] | None = None,
        after: str = "",
        pods: bool = False,
    ) -> runcommand.Pending | Sweep | Problem:
        """Ask a cluster's kubelets through its API server, from here: see `apiserver.sweep`."""
        from shared.azure import apiserver  # with aiohttp, as late as the SDK

        return await apiserver.sweep(self._arm, cluster, settings, before, nodes=nodes, after=after, pods=pods)
