"""`python -m bench.app` audits the bench's fleet with the serverless app, in the tests' host with a real Azurite.

Prints as JSON what a run of the app costs besides calls to Azure: activities by name, orchestrations, the size of their
histories, transactions of the store's tables. The host replays as the real one does (every episode from the start), but
its own storage is memory: Durable's transactions are not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from azure.core.pipeline.transport import AioHttpTransport

from shared.store import FindingQuery, open_store
from tests.support import azurite
from tests.support.host import Host, running
from tests.support.hub import Hub

_OVER = ("completed", "failed", "cancelled")


def _count_transactions(table: str) -> Counter[str]:
    """Count from now on what is sent to the table service, by method; a batch is one transaction."""
    counted: Counter[str] = Counter()
    place = urlsplit(table).netloc
    send = AioHttpTransport.send

    async def counting(self: AioHttpTransport, request: Any, **options: Any) -> Any:
        parts = urlsplit(request.url)
        if parts.netloc == place:
            counted["batch" if parts.path.endswith("$batch") else request.method] += 1
        return await send(self, request, **options)

    AioHttpTransport.send = counting
    return counted


async def _audit(host: Host, controls: Sequence[str]) -> tuple[str, str]:
    """An audit of everything, from the call to its end; gives its id and its state. No `controls` are all."""
    answer = await host.http("POST", "/api/audits", {"controls": list(controls)})
    if answer.status != 202:
        raise RuntimeError(f"the audit was not started: {answer.status} {answer.body!r}")
    run_id = str(answer.json()["id"])
    while True:
        await asyncio.sleep(5)
        state = (await host.http("GET", f"/api/runs/{run_id}")).json()["state"]
        if state in _OVER:
            return run_id, str(state)


async def _measure(controls: Sequence[str]) -> dict[str, Any]:
    with azurite.running() as storage:
        account = storage.account()
        os.environ.update(AzureWebJobsStorage=account)
        transactions = _count_transactions(storage.table)
        hub = Hub()
        async with running(hub) as host:
            began = time.monotonic()
            run_id, state = await _audit(host, controls)
            seconds = time.monotonic() - began
        counted = dict(transactions)
        async with open_store(account) as store:
            findings = [item async for item in store.all_findings(FindingQuery(run_id=run_id))]
        usage = resource.getrusage(resource.RUSAGE_SELF)
        sizes = [max(item.peak, len(json.dumps(item.history))) for item in hub.instances.values()]
        return {
            "state": state,
            "seconds": seconds,
            "activities": dict(Counter(host.activities)),
            "orchestrations": dict(Counter(item.name for item in hub.instances.values())),
            "episodes": sum(item.episodes for item in hub.instances.values()),
            "largest_history_characters": max(sizes, default=0),
            "transactions": counted,
            "findings": [
                {"node": item.node, "control": item.control, "status": item.status.value} for item in findings
            ],
            "cpu_seconds": usage.ru_utime + usage.ru_stime,
            "peak_mb": usage.ru_maxrss / 1024,
        }


def main() -> int:
    """Audit once, and print what it cost."""
    parser = argparse.ArgumentParser(prog="python -m bench.app", description=__doc__)
    parser.add_argument("--control", action="append", default=[], help="judge this one alone (default: all)")
    print(json.dumps(asyncio.run(_measure(parser.parse_args().control))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
