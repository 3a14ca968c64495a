"""What a cluster says of itself that a run will meet (pure)."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta

from shared.azure import update_bucket
from shared.doctor.checks import Area, Check, Level
from shared.doctor.needs import Wants
from shared.kubelet import minor_of, modelled
from shared.models import Cluster
from shared.runs.model import names, pace
from shared.settings import Settings

# From here on kubelets have a right of its own for their configuration (nodes/configz).
_DIRECT_FROM = 33


def rows(cluster: Cluster, wanted: Wants, settings: Settings) -> list[Check]:
    """What a person should know of a cluster, or one row that there is nothing."""
    subject = f"cluster {cluster.name} ({cluster.subscription})"
    found = list(_rows(cluster, subject, wanted, settings))
    return found or [Check(Area.CLUSTER, subject, "what it says of itself", Level.OK, "nothing stands against a run")]


def _rows(cluster: Cluster, subject: str, wanted: Wants, settings: Settings) -> Iterator[Check]:
    def check(what: str, status: Level, reason: str, command: str = "") -> Check:
        return Check(Area.CLUSTER, subject, what, status, reason, command)

    if cluster.power.lower() == "stopped":
        reason = "the cluster is stopped: its nodes are skipped until it has started."
        yield check("power", Level.WARN, reason, _az("start", cluster))
        return
    if cluster.provisioning.lower() not in {"succeeded", ""}:
        reason = f"it is {cluster.provisioning}: nodes may come and go, and fixes leave it alone until it is Succeeded."
        yield check("state", Level.WARN, reason)
    if cluster.pools and all(pool.os.lower() == "windows" for pool in cluster.pools):
        yield check("node pools", Level.WARN, "all of its pools run Windows, to which the controls do not apply.")
    if wanted.nodes and cluster.locked:
        # AKS Automatic hosts system nodes itself, and its lockdown cannot be taken away.
        command = (
            "" if cluster.hosted_system else _az("update", cluster, "--nrg-lockdown-restriction-level Unrestricted")
        )
        reason = (
            "its node resource group is under lockdown (restrictionLevel is ReadOnly): a deny assignment forbids run"
            " commands on its nodes. On AKS Automatic that is always so; "
        )
        then = (
            "GUARD_WITNESS=both asks its kubelets through the cluster besides."
            if settings.witness == "node"
            else "what only a node shows is an error in the findings, and nothing is fixed there."
        )
        yield check("node resource group lockdown", Level.FAIL, f"{reason}{then}", command)
    yield from _asked(cluster, wanted, settings, check)
    unknown = _unknown_versions(cluster)
    if unknown:
        reason = (
            f"Kubernetes {names.listed(unknown)} is not known to this version, which goes by the nearest that is: what"
            " cannot be proved by that is an error in the findings. A newer release may know it."
        )
        yield check("Kubernetes version", Level.WARN, reason)


def _asked(cluster: Cluster, wanted: Wants, settings: Settings, check: Callable[..., Check]) -> Iterator[Check]:
    """What keeps the cluster itself from being asked: no more than good to know where its nodes are, too."""
    looks = settings.witness in ("both", "smart") and not cluster.locked
    status, besides = (Level.WARN, " Its nodes are asked themselves.") if looks else (Level.FAIL, "")
    if wanted.invokes and cluster.invoke_disabled:
        yield check(
            "command invoke",
            status,
            f"command invoke is disabled on it, so that its kubelets cannot be asked through it.{besides}",
            _az("update", cluster, "--enable-run-command"),
        )
    if wanted.invokes and not cluster.entra:
        reason = (
            "it does not use Entra ID: AKS runs an invoked command with an administrator's rights there"
            " (docs/cluster-witness.md)."
        )
        yield check("Entra ID", Level.WARN, reason)
    if wanted.serves and not cluster.entra:
        reason = (
            "it does not use Entra ID, and without that the app has no credential for its API server: use"
            f" GUARD_SWEEP_WAY=direct, or turn Entra ID on.{besides}"
        )
        yield check("Entra ID", status, reason, _az("update", cluster, "--enable-aad"))
    if wanted.serves and cluster.private:
        reason = "it is private: its API server is reached from its own network only (see the row of its address)."
        yield check("API server", Level.WARN, reason)
    if wanted.invokes and settings.sweep_way == "direct":
        old = [version for version in _versions(cluster) if (minor_of(version) or _DIRECT_FROM) < _DIRECT_FROM]
        if old:
            reason = (
                f"kubelets of Kubernetes {names.listed(old)} tell their configuration to nobody with that right alone:"
                f" from 1.{_DIRECT_FROM} on they do. Upgrade, look at the nodes themselves (GUARD_WITNESS=both), or"
                f" grant the proxy knowingly (GUARD_SWEEP_WAY=proxy).{besides}"
            )
            yield check("Kubernetes version", status, reason)


def _versions(cluster: Cluster) -> list[str]:
    pools = [pool for pool in cluster.pools if pool.os.lower() != "windows"]
    found = [pool.kubernetes_version or cluster.kubernetes_version or "" for pool in pools]
    return sorted({version for version in found if version})


def _unknown_versions(cluster: Cluster) -> list[str]:
    return [version for version in _versions(cluster) if not modelled(version)]


def _az(verb: str, cluster: Cluster, option: str = "") -> str:
    where = (
        f"az aks {verb} --subscription {shlex.quote(cluster.subscription)}"
        f" --resource-group {shlex.quote(cluster.resource_group)} --name {shlex.quote(cluster.name)}"
    )
    return f"{where} {option}".rstrip()


def first_run(clusters: Sequence[Cluster], settings: Settings) -> Check:
    """How long an audit of these clusters takes at the least, by Azure's limits, where it asks every node itself."""
    lanes: dict[str, Counter[str]] = {}
    asked = [cluster for cluster in clusters if cluster.power.lower() != "stopped" and not cluster.locked]
    for cluster in asked:
        lane = lanes.setdefault(cluster.subscription, Counter())
        for pool in cluster.pools:
            if pool.os.lower() != "windows" and pool.power.lower() != "stopped":
                single = pool.kind.lower() == "virtualmachines"
                lane[update_bucket(cluster.location, single=single)] += pool.count or 0
    nodes = sum(sum(lane.values()) for lane in lanes.values())
    share = settings.budget_percent / 100
    longest = max((pace.last_start(lane, share) for lane in lanes.values() if lane), default=0.0)
    seconds = longest + settings.command_seconds * 1.5
    about = timedelta(seconds=round(seconds))
    reason = f"some {nodes:,} nodes in {len(asked):,} clusters: {about} (h:mm:ss) at the least, by Azure's limits"
    return Check(Area.SCHEDULE, "an audit of every node", "how long it takes", Level.OK, reason)
