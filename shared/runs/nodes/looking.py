"""Getting one node's evidence: run the collect script, fetch what did not fit, take it apart."""

from __future__ import annotations

from shared.models import Evidence, Problem, Status
from shared.node import evidence, frames
from shared.runs.nodes.program import Program, Send

# A frame that arrives broken is asked for once more; a node that changes while its parts are fetched, too.
_ATTEMPTS = 2


def collect(run_id: str, node_key: str, look: str = "collect") -> Program[Evidence | Problem]:
    """The node's evidence, or why there is none. Every other look of the same run has a name of its own."""
    broken = "no attempt was made"
    for attempt in range(1, _ATTEMPTS + 1):
        parts: list[frames.Frame] = []
        first = 1
        try:
            while True:
                step = f"{look}.{attempt}.{first}"
                nonce = frames.request_nonce(run_id, node_key, step)
                answer = yield Send(frames.collect_script(first, nonce), harmless=True)
                result = answer.result
                if isinstance(result, Problem):
                    return result
                parts += frames.parse_streams(result.stdout, result.stderr, nonce)
                first += frames.PARTS_PER_CALL
                if first > parts[0].parts:
                    break
            return evidence.read(frames.unpack(parts), parts[0].wall, parts[0].uptime)
        except frames.MissingTools as missing:
            return Problem(
                status=Status.ERROR,
                code="missing_tool",
                reason=f"the node lacks commands that the script needs: {', '.join(missing.tools)}",
                hint="Look at the node's image: every AKS node has them.",
            )
        except (frames.FrameError, evidence.EvidenceError) as error:
            broken = str(error)
    return Problem(
        status=Status.ERROR,
        code="garbled",
        reason=f"what the node sent back cannot be trusted: {broken}",
        hint="Look at /var/lib/waagent/run-command/download on the node: something else may print to the script's"
        " output.",
    )
