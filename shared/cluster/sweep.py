"""The second witness: the script that asks a cluster's kubelets for their configuration, from within the cluster.

Two ways to ask. *direct*: the kubelets themselves (Kubernetes 1.33 and later), with a token, for minutes, of a service
account that may do nothing but `get nodes/configz`: a hostile node keeps what it is shown. *proxy*: through the API
server, with what the pod of the command has; that takes `nodes/proxy`, which can also run commands on the node.

Source of what the pod has at hand: AKS's "Use command invoke" (kubectl, jq, xargs, awk; logs up to 512 kB).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Literal

from shared.kubelet import SECRETS

Way = Literal["direct", "proxy"]

NODES_A_CALL = 400
"""How many nodes one call asks, where it does not name them. Measured with 13 settings: 560 bytes a node, and 0.15 s of
processor, which in the pod of a command (half of one) makes two minutes."""

ACCOUNT = "kubelet-guard/configz"
"""Namespace and name of the service account whose token the kubelets get; `infra/sweep-rbac.yaml` makes it."""

# The logs of a command keep 512 kB; what is around the report has room too.
ROOM = 480_000
# Longer than a kubelet that is well takes (50 ms), and than a busy one does, asked from a pod that is busy itself.
NODE_SECONDS = 6
# Side by side: a kubectl takes some 50 MB, and the pod of a command has 1 GiB and half a processor.
WIDTH = 6
# After so many seconds no further node is asked: many frozen ones must not make the command endless.
BUDGET_SECONDS = 150

_NONCE = re.compile(r"[0-9a-f]{16}")
_SETTING = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:\.[A-Za-z][A-Za-z0-9]*)*")
_NODE = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
_ACCOUNT = re.compile(r"[a-z0-9-]{1,63}/[a-z0-9.-]{1,253}")
_MOST_SETTINGS = 100


def node_name(text: str) -> bool:
    """Whether a text can be a node's name in a cluster."""
    return _NODE.fullmatch(text) is not None


def check_settings(settings: Sequence[str]) -> None:
    """Raises ValueError for settings that may not be asked for: no paths, too many of them, one that holds a secret."""
    wrong = [setting for setting in settings if not _SETTING.fullmatch(setting) or setting in SECRETS]
    if wrong or not 1 <= len(settings) <= _MOST_SETTINGS:
        raise ValueError(f"not settings that may be asked for: {wrong or len(settings)}")


def sweep_script(
    settings: Sequence[str],
    way: Way,
    nonce: str,
    *,
    nodes: Sequence[str] | None = None,
    after: str = "",
    most: int = NODES_A_CALL,
    account: str = ACCOUNT,
    seconds: int = NODE_SECONDS,
    width: int = WIDTH,
    budget: int = BUDGET_SECONDS,
    pods: bool = False,
) -> str:
    """The POSIX script that asks for `settings` (paths such as `authentication.anonymous.enabled`; a whole map too).

    It asks the nodes that are named in `nodes` (None: all), of these the first `most` whose names come after `after`;
    each for at most `seconds`, `width` side by side, and starts to ask none later than `budget` seconds. `account` is
    `NAMESPACE/NAME` and counts for *direct* alone. With `pods` those of each node are counted that are not well, which
    takes the right to list pods. `nonce` (16 hexadecimal digits) is in the answer.

    Raises ValueError for what cannot be asked: no path or node's name, too many of them, a setting that holds a secret.
    """
    check_settings(settings)
    if way not in ("direct", "proxy"):
        raise ValueError(f"not a way to ask a kubelet: {way!r}")
    if not _NONCE.fullmatch(nonce):
        raise ValueError(f"not a nonce: {nonce!r}")
    unnamed = [name for name in (*(nodes or ()), *([after] if after else ())) if not _NODE.fullmatch(name)]
    if unnamed or (nodes is not None and not 1 <= len(nodes) <= NODES_A_CALL):
        raise ValueError(f"not the names of at most {NODES_A_CALL} nodes: {unnamed or len(nodes or ())}")
    if not _ACCOUNT.fullmatch(account):
        raise ValueError(f"not a service account with its namespace: {account!r}")
    named = "null" if nodes is None else json.dumps(sorted(nodes))
    numbers = {"most": most, "seconds": seconds, "width": width, "budget": budget, "room": ROOM}
    return "".join(
        (
            f"nonce={nonce}\nway={way}\naccount={account}\npods={'yes' if pods else 'no'}\nafter='{after}'\n",
            f"settings='{json.dumps(list(settings))}'\nnames='{named}'\n",
            *(f"{name}={int(number)}\n" for name, number in numbers.items()),
            _source(),
        )
    )


@cache
def _source() -> str:
    here = files(__package__)

    def program(name: str, file: str) -> str:
        return f"{name}() {{\ncat <<'PROGRAM'\n{here.joinpath(file).read_text('utf-8')}PROGRAM\n}}\n"

    parts = (
        ("nodes_program", "nodes.jq"),
        ("answer_program", "answer.jq"),
        ("ask_program", "ask.sh"),
        ("pods_program", "pods.sh"),
    )
    return "".join(program(*part) for part in parts) + here.joinpath("sweep.sh").read_text("utf-8")
