"""Recording a node's findings: with what earlier runs knew of it, and for what later ones will ask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from shared.models import Finding, Node
from shared.runs import history
from shared.runs.history import Past
from shared.runs.services import Services

NOTHING: Mapping[str, str] = MappingProxyType({})


async def past(services: Services, nodes: Sequence[Node]) -> Past:
    """What earlier runs knew of these nodes."""
    return await services.store.history(nodes)


async def record(
    services: Services, node: Node, made: Sequence[Finding], known: Past, proofs: Mapping[str, str] = NOTHING
) -> list[Finding]:
    """Save a node's findings and what they teach; gives them as saved. `proofs` are the verdicts', by control."""
    marked = [history.with_history(finding, known.get((node.key, finding.control))) for finding in made]
    lessons = [
        history.after(finding, node.key, known.get((node.key, finding.control)), proofs.get(finding.control, ""))
        for finding in marked
    ]
    # In this order: a node with findings is done, and would not be remembered after an interruption between the two.
    await services.store.save_history([lesson for lesson in lessons if lesson is not None])
    await services.store.save_findings(marked)
    services.on_findings(marked)
    return marked
