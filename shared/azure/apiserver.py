"""A cluster's API server, asked by the app itself: its nodes, and through its proxy the configuration of each kubelet.

For where the app reaches it (public, or in its network), and clusters with Entra ID: the same identity's token for
AKS's server application is the credential. It goes to that API server alone: by a name that Azure's list of clusters
has, over TLS of the authority that Azure's credentials name, through no proxy, and after no redirect. Kubelets never
see it.

Sources: the REST operation "Managed Clusters - List Cluster User Credentials"; Kubernetes' API (pages of lists by
`limit` and `continue`, the proxy of nodes).
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import aiohttp
import yaml

from shared.azure.discovery import CLUSTER_STOPPED
from shared.azure.operations import CREDENTIALS
from shared.azure.problems import Target, judge
from shared.azure.replies import Body, HeldBack, Refusal
from shared.azure.runcommand import MOST_WAIT, Pending, untaken
from shared.clouds import CLUSTER_SCOPE
from shared.cluster import (
    NODE_SECONDS,
    NodeConfig,
    Sweep,
    check_settings,
    failing_pods,
    heard,
    known_machines,
    read_node,
    sweep_problem,
    troubled,
)
from shared.models import Cluster, Problem
from shared.plain import plain

if TYPE_CHECKING:
    from shared.azure.arm import Arm

NODES_A_STEP = 200
"""How many nodes one call asks, so that it takes a minute or so even where each of them is frozen."""

# One of AKS's is some 10 KB; a parser of YAML takes long.
_LONGEST_KUBECONFIG = 64 * 1024
# A node object has 20 KB, with the names of its images.
_NODES_A_PAGE = 100
_LONGEST_PAGE = 16 * 1024 * 1024
_MOST_PAGES = 200
_LONGEST_CONFIGZ = 256 * 1024
_WIDTH = 16
_LIST_SECONDS = 30.0
_CONNECT_SECONDS = 10.0
_PAUSE, _LONGEST_PAUSE = 1.0, 5.0
_CONTINUE = re.compile(r"[A-Za-z0-9_=-]*", re.ASCII)


class _TroubleError(Exception):
    """No answer, or none that can be read: `word` and `detail` are of the troubles of a sweep."""

    def __init__(self, word: str, detail: str = "") -> None:
        super().__init__(detail)
        self.word, self.detail = word, detail


@dataclass(frozen=True, slots=True)
class _Server:
    url: str
    tls: ssl.SSLContext


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes
    pause: float = _PAUSE


async def sweep(
    arm: Arm,
    cluster: Cluster,
    settings: Sequence[str],
    before: Pending | None = None,
    *,
    nodes: Sequence[str] | None = None,
    after: str = "",
    pods: bool = False,
) -> Pending | Sweep | Problem:
    """Ask the kubelets of a cluster for `settings` (none: only how the nodes are), as the script of a sweep does.

    Those of `nodes`, or the first NODES_A_STEP whose names come after `after`. With `pods` those are counted that are
    not well.

    Pending: Azure has not given the address or the token, and may later; `before` is what the last try gave. Raises
    ValueError as `check_settings`.
    """
    if settings:
        check_settings(settings)
    if cluster.power.lower() == "stopped":
        return CLUSTER_STOPPED
    if not cluster.entra:
        return sweep_problem("not_entra")
    server = await _find(arm, cluster)
    if isinstance(server, Problem):
        return server
    if isinstance(server, Refusal):
        return _later(arm, cluster, before, server)
    token = await arm.token(CLUSTER_SCOPE)
    if isinstance(token, Refusal):
        return _later(arm, cluster, before, token)
    async with _open(server, token) as api:
        try:
            listed = await _list(api)
        except _TroubleError as error:
            word = "unreachable" if error.word == "timeout" else error.word
            return sweep_problem(word, error.detail, "private" if cluster.private else "api")
        if isinstance(listed, Problem):
            return listed
        wanted = [node for node in listed if (node.name > after if nodes is None else node.name in nodes)]
        wanted.sort(key=lambda node: node.name)
        chosen = wanted if nodes is not None else wanted[:NODES_A_STEP]
        gate = asyncio.Semaphore(_WIDTH)
        asked = await asyncio.gather(*(_ask(api, gate, node, settings, pods=pods) for node in chosen))
    found = {node.name: node for node in asked}
    unknown = {name: troubled(NodeConfig(name), "unknown_node") for name in nodes or () if name not in found}
    return Sweep({**found, **unknown}, len(listed), len(wanted) - len(chosen))


def _later(arm: Arm, cluster: Cluster, before: Pending | None, refused: Refusal) -> Pending | Problem:
    now = datetime.now(UTC)
    if isinstance(refused, HeldBack):
        return replace(before or Pending(now, now), due=now + timedelta(seconds=refused.asked))
    again = untaken(arm.settings, before, refused, now, harmless=True)
    return again or judge(refused.fault, Target(f"cluster {cluster.name}", CREDENTIALS.action, cluster.id))


async def _find(arm: Arm, cluster: Cluster) -> _Server | Refusal | Problem:
    """Where the API server is, and whom it is known by."""
    place = {"subscription": cluster.subscription, "group": cluster.resource_group, "cluster": cluster.name}
    body = await arm.query(CREDENTIALS, None, most_wait=MOST_WAIT, **place)
    return body if isinstance(body, Refusal) else read_credentials(body, cluster.api_servers)


def read_credentials(body: Body, names: Sequence[str]) -> _Server | Problem:
    """The API server of the kubeconfig in Azure's answer, where it has one of `names`. Users, keys and tokens in it are
    not looked at."""
    try:
        server, authority = _cluster_of(_kubeconfig(body))
    except _TroubleError as error:
        return sweep_problem(error.word, error.detail)
    try:
        parts = urlsplit(server)
        host, port = (parts.hostname or "").lower(), parts.port or 443
    except ValueError:
        return sweep_problem("no_server", "its address is none")
    if parts.scheme != "https" or host not in names or parts.username is not None or parts.path.strip("/"):
        return sweep_problem("foreign_server", plain(host, 253) or "without a name")
    # Not ssl.create_default_context: from Python 3.13 on that refuses authorities without key identifiers, which
    # clusters have, and where it is given none it takes those of the machine.
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        tls.load_verify_locations(cadata=base64.b64decode(authority, validate=True).decode("ascii"))
    except (ssl.SSLError, ValueError):
        return sweep_problem("no_server", "its authority's certificate cannot be read")
    return _Server(f"https://{f'[{host}]' if ':' in host else host}:{port}", tls)


def _kubeconfig(body: Body) -> object:
    listed = body.get("kubeconfigs")
    first = listed[0] if isinstance(listed, list) and listed else None
    value = first.get("value") if isinstance(first, Mapping) else None
    if not isinstance(value, str) or len(value) > 2 * _LONGEST_KUBECONFIG:
        raise _TroubleError("no_server", "there is no kubeconfig")
    try:
        text = base64.b64decode(value, validate=True).decode("utf-8")
        found: object = yaml.safe_load(text)
    except (ValueError, RecursionError, yaml.YAMLError):
        # Whatever it says stays unsaid: a kubeconfig can hold keys.
        raise _TroubleError("no_server", "the kubeconfig cannot be read") from None
    return found


def _cluster_of(kubeconfig: object) -> tuple[str, str]:
    """Server and authority of a kubeconfig's one cluster."""
    clusters = kubeconfig.get("clusters") if isinstance(kubeconfig, Mapping) else None
    if not isinstance(clusters, list) or len(clusters) != 1:
        raise _TroubleError("no_server", "the kubeconfig is not of one cluster")
    entry = clusters[0].get("cluster") if isinstance(clusters[0], Mapping) else None
    server, authority = (
        entry.get(name) if isinstance(entry, Mapping) else None for name in ("server", "certificate-authority-data")
    )
    if not isinstance(server, str) or not isinstance(authority, str):
        raise _TroubleError("no_server", "the kubeconfig names no server, or no authority")
    return server, authority


class _Api:
    """One API server, over connections that are for it alone."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def get(self, path: str, most: int, seconds: float, **query: str) -> _Answer:
        """An answer, at most `most` bytes of it. Raises _TroubleError where none came within `seconds`."""
        try:
            async with (
                asyncio.timeout(seconds),
                self._session.get(path, params=query, allow_redirects=False) as answer,
            ):
                body = bytearray()
                async for part in answer.content.iter_any():
                    body += part
                    if len(body) > most:
                        break
                pause = answer.headers.get("Retry-After", "")
                asked = float(pause) if pause.isdecimal() else _PAUSE
                return _Answer(answer.status, bytes(body[:most]), min(asked, _LONGEST_PAUSE))
        except TimeoutError:
            raise _TroubleError("timeout", f"no answer within {seconds:g} s") from None
        except aiohttp.ClientSSLError:
            raise _TroubleError("certificate") from None
        except aiohttp.ClientConnectorError as error:
            raise _TroubleError("unreachable", plain(error.os_error.strerror or "no connection", 200)) from None
        except aiohttp.ClientError:
            # Its words can quote what came.
            raise _TroubleError("unreachable", "the connection broke") from None


@asynccontextmanager
async def _open(server: _Server, token: str) -> AsyncIterator[_Api]:
    async with aiohttp.ClientSession(
        server.url,
        connector=aiohttp.TCPConnector(ssl=server.tls, limit=_WIDTH),
        cookie_jar=aiohttp.DummyCookieJar(),
        # Nothing to unpack: what is small on its way and large here would be a node's weapon.
        headers={"Authorization": f"Bearer {token}", "Accept": "application/json", "Accept-Encoding": "identity"},
        auto_decompress=False,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
        trust_env=False,
    ) as session:
        yield _Api(session)


async def _list(api: _Api) -> list[NodeConfig] | Problem:
    """All nodes, page by page, of which no more is held than is used. Raises _TroubleError."""
    listed: list[NodeConfig] = []
    following = ""
    for _ in range(_MOST_PAGES):
        answer = await _page(api, {"limit": str(_NODES_A_PAGE)} | ({"continue": following} if following else {}))
        match answer.status:
            case 200:
                pass
            case 401:
                return sweep_problem("list_unauthorized", kind="api")
            case 403:
                return sweep_problem("list_forbidden", kind="api")
            case status:
                return sweep_problem("failed", f"HTTP {status}")
        page = _read_page(answer.body)
        if page is None:
            return sweep_problem("list_malformed")
        nodes, following = page
        listed += nodes
        if not following:
            return known_machines(listed)
    return sweep_problem("list_malformed")


async def _page(api: _Api, query: Mapping[str, str]) -> _Answer:
    """A page; once more after trouble that may pass."""
    pause = _PAUSE
    try:
        answer = await api.get("/api/v1/nodes", _LONGEST_PAGE, _LIST_SECONDS, **query)
        if answer.status != 429 and answer.status < 500:
            return answer
        pause = answer.pause
    except _TroubleError as error:
        if error.word == "certificate":
            raise
    await asyncio.sleep(pause)
    return await api.get("/api/v1/nodes", _LONGEST_PAGE, _LIST_SECONDS, **query)


def _read_page(body: bytes) -> tuple[list[NodeConfig], str] | None:
    """The nodes of a page and what the next one begins with; None for what is no page of nodes."""
    page = _json(body)
    metadata, items = (page.get("metadata"), page.get("items")) if isinstance(page, Mapping) else (None, None)
    following = (metadata.get("continue") or "") if isinstance(metadata, Mapping) else None
    if not isinstance(items, list) or not isinstance(following, str) or not _CONTINUE.fullmatch(following):
        return None
    nodes = [node for item in items if (node := read_node(item)) is not None]
    return (nodes, following) if len(nodes) == len(items) else None


def _json(body: bytes) -> object:
    try:
        found: object = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return found


async def _ask(
    api: _Api, gate: asyncio.Semaphore, node: NodeConfig, settings: Sequence[str], *, pods: bool
) -> NodeConfig:
    """A node with what its kubelet says; one that does not answer takes no longer than its own time."""
    async with gate:
        if pods:
            node = replace(node, failing=await _failing(api, node.name))
        if node.trouble is not None or not settings:
            return node
        try:
            answer = await api.get(f"/api/v1/nodes/{node.name}/proxy/configz", _LONGEST_CONFIGZ, NODE_SECONDS)
        except _TroubleError as error:
            return troubled(node, "timeout" if error.word == "timeout" else "unreachable")
    return heard(node, answer.status, answer.body, settings)


async def _failing(api: _Api, node: str) -> int | None:
    query = {"limit": "500", "fieldSelector": f"spec.nodeName={node}"}
    try:
        answer = await api.get("/api/v1/pods", _LONGEST_PAGE, NODE_SECONDS, **query)
    except _TroubleError:
        return None  # not known, as where it may not be asked: then Ready alone counts
    return failing_pods(_json(answer.body)) if answer.status == 200 else None
