"""Advancing batches of nodes: what is due is started, looked at, judged and recorded; nothing is waited for.

A batch is a work row. It is written before commands are sent (so that nobody else sends them, and an heir knows that
they may have been) and after, always only over the row that was read: of two that advance the same batch one gives way.
What a node answered is kept only where its work goes on, before the row that names it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from shared.azure import MOST_WAIT, CommandResult, Pending, precheck
from shared.controls import Verdict
from shared.models import Evidence, Node, Problem, RunKind, Status, Told
from shared.node.edits import Method
from shared.runs import documents
from shared.runs.model import batch as batches
from shared.runs.model import findings, keys
from shared.runs.model.batch import Answer, Batch, OpenNode
from shared.runs.model.history import Past
from shared.runs.model.messages import Advance, Advanced, BatchNow, Ref
from shared.runs.model.plans import NodePlan, entry_digest, held_back, not_now, plan_node
from shared.runs.nodes.hearing import heard, still_told
from shared.runs.nodes.looking import collect
from shared.runs.nodes.program import Done, Send, resume
from shared.runs.nodes.repairing import RestartLimits, lost, repair
from shared.runs.nodes.verdicts import internal, judged
from shared.runs.services import Services
from shared.runs.steps import answers, left_undone, plan_pages
from shared.runs.steps.node_record import (
    Judged,
    as_internal,
    failing_since,
    from_problem,
    past,
    record,
    without_control,
)
from shared.runs.steps.progress_rows import save_progress
from shared.runs.steps.standing import Standing, stand

log = logging.getLogger(__name__)

# A command may end at once, and the next one too; whatever still has something to do after this comes again.
_ROUNDS = 8
# A fix that is sent again may restart the kubelet again: after its sender died this often, a person has to look.
_MOST_DOUBTS = 3
_SOON = timedelta(seconds=MOST_WAIT)
# Where the store was away for longer than a run's lease lasts, another run may have taken its place meanwhile.
_STANDS = timedelta(seconds=150)


class OvertakenError(Exception):
    """Another one has written the batch or ended the run meanwhile: what it says now is what holds."""


async def advance(services: Services, message: Advance) -> Advanced:
    """Do what is due in the batches; gives how they stand. Raises StoreError; then it may be done again."""
    asked = datetime.now(UTC)
    standing = await stand(services, message)
    if standing.over:
        return Advanced(over=True)
    turns = [_Turn(services, standing, asked, name, message.first_look) for name in message.batches]
    ended = await asyncio.gather(*(turn.take() for turn in turns), return_exceptions=True)
    for error in ended:
        if isinstance(error, BaseException):
            raise error  # now that the others are written down
    started = sum(turn.started for turn in turns)
    looked = sum(turn.looked for turn in turns)
    subscription = next((node.node.subscription for turn in turns for node in turn.batch.nodes), "")
    return Advanced(
        cancelled=standing.cancelled,
        batches=tuple(result for result in ended if isinstance(result, BatchNow)),
        looked=looked,
        ended=sum(turn.ended for turn in turns),
        waited=round(sum(turn.waited for turn in turns) / looked, 3) if looked else 0.0,
        started=started,
        levels=services.azure.levels(subscription) if started and subscription else {},
    )


@dataclass(slots=True)
class _Ready:
    """A node that is done: what is recorded of it, and the plan that was made."""

    at: OpenNode
    seen: Evidence | Problem | Judged | Told


@dataclass
class _Turn:
    """One advance of one batch.

    `fresh` are the answers, by node, that came in it and are not kept: until a node's next command is to be sent, its
    row says what led to the answer, so that an heir asks again.
    """

    services: Services
    standing: Standing
    asked: datetime
    name: str
    first_look: float
    batch: Batch = field(default_factory=lambda: Batch("", 0, ()))
    started: int = 0
    looked: int = 0
    ended: int = 0
    waited: float = 0.0
    etag: str = ""
    written: Batch | None = None
    tried: set[str] = field(default_factory=set)
    fresh: dict[str, Answer] = field(default_factory=dict)
    told: dict[str, Told] = field(default_factory=dict)

    async def take(self) -> BatchNow:
        """Advance the batch. Raises OvertakenError where another one did."""
        work = await self.services.store.work(self.standing.run.id, self.name)
        if work is None:
            raise LookupError(f"run {self.standing.run.id} has no batch {self.name}")
        self.batch, self.etag = batches.from_text(work.text, self.name), work.etag
        read = self.written = self.batch
        now = datetime.now(UTC)
        await self._look(now)
        for _ in range(_ROUNDS):
            done, sends = await self._next(datetime.now(UTC))
            if done:
                await self._record(done)
            if not sends:
                break
            await self._start(sends)
        await self._keep(self.batch.nodes)
        if self.batch != self.written:
            self.batch = replace(self.batch, costs=self.batch.costs.plus(self.services.costs()))
            await self._write()
        if self.batch.tally != read.tally:
            await save_progress(self.services, self.standing.run.id, self.name, self.batch)
        return self.batch.now(self.name, datetime.now(UTC))

    async def _write(self) -> None:
        text = batches.to_text(self.batch)
        etag = await self.services.store.put_work(self.standing.run.id, self.name, text, self.etag)
        if etag is None:
            raise OvertakenError(f"the batch {self.name} was advanced by another one meanwhile")
        self.etag, self.written = etag, self.batch

    def _set(self, changed: Sequence[OpenNode]) -> None:
        by_key = {node.node.key: node for node in changed}
        self.batch = replace(self.batch, nodes=tuple(by_key.get(node.node.key, node) for node in self.batch.nodes))

    # Looking

    async def _look(self, now: datetime) -> None:
        due = [
            node
            for node in self.batch.nodes
            if node.command is not None and node.command.url and node.command.due <= now
        ]
        self._set(await asyncio.gather(*(self._look_at(node) for node in due)))

    async def _look_at(self, node: OpenNode) -> OpenNode:
        command = node.command
        assert command is not None  # the caller chose it
        try:
            result = await self.services.azure.look(node.node, command)
        except Exception as error:
            log.exception("looking at %s failed", node.node.id)
            result = replace(internal(error), may_have_run=True)
        # One that Azure has not answered is made again, and tells nothing.
        unanswered = isinstance(result, Pending) and not result.looks
        if command.looks == 0 and command.started is not None and not unanswered:
            self.looked += 1
            self.waited += (command.due - command.started).total_seconds()
            self.ended += not isinstance(result, Pending)
        if isinstance(result, Pending):
            return replace(node, command=result)
        # It was started: what failed since does not undo it.
        self._hear(node, replace(result, may_have_run=True) if isinstance(result, Problem) else result)
        return node

    def _hear(self, node: OpenNode, result: CommandResult | Problem) -> None:
        self.fresh[node.node.key] = Answer(result, doubtful=node.doubts > 0)

    async def _keep(self, nodes: Sequence[OpenNode]) -> None:
        """Keep what these nodes have answered, so that it can be named in the batch's row."""
        self._set(await asyncio.gather(*(self._kept(node) for node in nodes if node.node.key in self.fresh)))

    async def _kept(self, node: OpenNode) -> OpenNode:
        answer = self.fresh.pop(node.node.key)
        token = await answers.keep(self.services.store, self.standing.run.id, self.name, answer)
        return replace(node, answers=(*node.answers, token), command=None, sending=None, doubts=0)

    # Deciding what comes next

    async def _next(self, now: datetime) -> tuple[list[_Ready], list[tuple[OpenNode, Send]]]:
        done: list[_Ready] = []
        sends: list[tuple[OpenNode, Send]] = []
        nodes = [node for node in self.batch.nodes if self._to_do(node, now)]
        plans = await self._plans(nodes)
        await self._load_told()
        said = await asyncio.gather(*(self._answers(node) for node in nodes))
        for node, answered in zip(nodes, said, strict=True):
            try:
                step = self._resumed(node, plans.get(node.plan), answered)
            except Exception as error:
                # Nothing that one node does may stop the others; what happened is in the finding and the log.
                log.exception("working on %s failed", node.node.id)
                step = Done(self._failed(error, plans.get(node.plan)))
            if isinstance(step, Done):
                done.append(_Ready(node, step.value))
            else:
                sends.append((node, step))
        return done, sends

    def _to_do(self, node: OpenNode, now: datetime) -> bool:
        """Whether the program of a node is to be gone on with: it has an answer, or something to send (again).

        Sends that have no room are due one by one, as Azure's limits flow: those of the next seconds go together, and
        wait for their room in `Azure.start`; but what was tried just now is not tried again at once.
        """
        if node.node.key in self.fresh:
            return True
        if node.command is not None:
            soon = node.command.due <= now + _SOON and node.node.key not in self.tried
            return not node.command.url and soon
        return node.due is None or node.due <= now

    async def _plans(self, nodes: Sequence[OpenNode]) -> dict[int, NodePlan]:
        wanted = [node.plan for node in nodes if node.plan >= 0]
        if not wanted:
            return {}
        pool = keys.pool_of(self.name)
        return await plan_pages.load(self.services.store, self.standing.run.id, pool, wanted)

    async def _load_told(self) -> None:
        """What the batch's nodes told their clusters, where these were asked."""
        if self.standing.run.kind is not RunKind.FIX and self.standing.request.sweeps and not self.told:
            store, run_id = self.services.store, self.standing.run.id
            told = await documents.load(store, run_id, keys.told(self.name), documents.TOLD)
            self.told = still_told(told)

    async def _answers(self, node: OpenNode) -> list[Answer]:
        """All that a node has answered."""
        kept = await answers.kept(self.services.store, self.standing.run.id, self.name, node.answers)
        fresh = self.fresh.get(node.node.key)
        return kept if fresh is None else [*kept, fresh]

    def _resumed(
        self, node: OpenNode, plan: NodePlan | None, answered: Sequence[Answer]
    ) -> Send | Done[Evidence | Problem | Judged | Told]:
        run_id = self.standing.run.id
        if plan is not None:
            settings = self.services.settings
            why = left_undone.CANCELLED_REASON if self.standing.cancelled else not_now(plan, settings)
            if why and not node.begun:
                return Done(left_undone.left_alone(run_id, plan, "left", why))
            limits = RestartLimits(settings.restart_seconds, settings.settle_seconds)
            step = resume(repair(run_id, plan, limits), answered)
            if isinstance(step, Done):
                return Done(Judged(plan.node, step.value.findings, step.value.proofs))
            if not step.harmless and node.node.key not in self.fresh and _doubts(node) > _MOST_DOUBTS:
                return Done(left_undone.sent_and_lost(run_id, plan, "who sends it dies again and again"))
            return step
        if not node.begun:
            if (unfit := without_control(run_id, node.node, self.standing.request.control_ids)) is not None:
                return Done(unfit)
            problem = precheck(node.node)
            # What keeps a command from a node does not count where none is sent.
            if not node.look and (problem is None or problem.status is Status.ERROR):
                return Done(self.told[node.node.key])
            problem = problem or (left_undone.CANCELLED if self.standing.cancelled else None)
            if problem is not None:
                return Done(problem)
        return resume(collect(run_id, node.node.key), answered)

    def _failed(self, error: Exception, plan: NodePlan | None) -> Problem | Judged:
        if plan is None:
            return internal(error)
        return Judged(plan.node, lost(self.standing.run.id, plan, error))

    # Starting

    async def _start(self, sends: Sequence[tuple[OpenNode, Send]]) -> None:
        await self._keep([node for node, _ in sends])
        steps = {node.node.key: step for node, step in sends}
        now = datetime.now(UTC)
        marked = [
            replace(node, sending=now, doubts=_doubts(node)) for node in self.batch.nodes if node.node.key in steps
        ]
        self._set(marked)
        self.tried.update(node.node.key for node in marked)
        await self._write()
        await self._stand_again()
        self._set(await asyncio.gather(*(self._send(node, steps[node.node.key]) for node in marked)))
        # At once: until it is written nobody else knows where to ask.
        self.batch = replace(self.batch, costs=self.batch.costs.plus(self.services.costs()))
        await self._write()

    async def _stand_again(self) -> None:
        if datetime.now(UTC) - self.asked < _STANDS:
            return
        run, self.asked = self.standing.run, datetime.now(UTC)
        if (await stand(self.services, Ref(run_id=run.id, epoch=run.epoch))).over:
            raise OvertakenError(f"the run {run.id} has ended, or was begun anew, while its store was away")

    async def _send(self, node: OpenNode, step: Send) -> OpenNode:
        try:
            result = await self.services.azure.start(
                node.node, step.script, node.command, self.first_look, harmless=step.harmless
            )
        except Exception as error:
            log.exception("starting a command on %s failed", node.node.id)
            result = replace(internal(error), may_have_run=True)
        if isinstance(result, Pending):
            self.started += bool(result.url)
            return replace(node, command=result, sending=None)
        self.started += isinstance(result, CommandResult)
        self._hear(node, result)
        return node

    # Recording

    async def _record(self, ready: Sequence[_Ready]) -> None:
        run, request = self.standing.run, self.standing.request
        known = await past(self.services, [one.at.node for one in ready])
        made: list[Judged] = []
        plans: list[NodePlan] = []
        for one in ready:
            done, plan = self._judged(one, request.control_ids, request.method, known, request.retry_rolled_back)
            made.append(done)
            plans += [plan] if plan is not None else []
        mend = as_internal(run.id) if run.kind is not RunKind.FIX else left_undone.unrecorded(run.id)
        made = await record(self.services, made, known, mend, request)
        if plans:
            place = keys.plans(self.name, len(self.batch.plans))
            await documents.save(self.services.store, run.id, place, documents.PLANS, plans)
            entries = tuple((plan.node.key, entry_digest(plan)) for plan in plans)
            self.batch = replace(self.batch, plans=(*self.batch.plans, entries))
        gone = {one.at.node.key for one in ready}
        self.batch = replace(self.batch, nodes=tuple(n for n in self.batch.nodes if n.node.key not in gone))
        for done in made:
            self.batch = self.batch.counted(done.findings, failing_since(done, known))

    def _judged(
        self, one: _Ready, controls: tuple[str, ...], method: Method, known: Past, retry: bool
    ) -> tuple[Judged, NodePlan | None]:
        run, node = self.standing.run, one.at.node
        if isinstance(one.seen, Judged):
            return one.seen, None
        told = self.told.get(node.key)
        try:
            if isinstance(one.seen, Told) and one.seen.trouble is not None:
                return from_problem(run.id, node, controls, one.seen.trouble), None
            if isinstance(one.seen, Told):
                return self._from_word(node, heard(node, controls, one.seen, known)), None
            if isinstance(one.seen, Problem):
                # Who may not look at a node, or could not, has its kubelet's word still.
                if one.seen.status is Status.ERROR and told is not None and told.trouble is None:
                    return self._from_word(node, heard(node, controls, told, known, one.seen)), None
                return from_problem(run.id, node, controls, one.seen), None
            return self._verdicts(node, one.seen, controls, method, known, retry)
        except Exception as error:
            log.exception("judging %s failed", node.id)
            return from_problem(run.id, node, controls, internal(error)), None

    def _from_word(self, node: Node, verdicts: Mapping[str, Verdict]) -> Judged:
        now = datetime.now(UTC)
        made = [findings.from_verdict(self.standing.run.id, now, node, name, item) for name, item in verdicts.items()]
        return Judged(node, made)

    def _verdicts(
        self, node: Node, seen: Evidence, controls: tuple[str, ...], method: Method, known: Past, retry: bool
    ) -> tuple[Judged, NodePlan | None]:
        run = self.standing.run
        also = self.standing.request.of_benchmark if run.kind is RunKind.PLAN else ()
        verdicts = judged(node, tuple(dict.fromkeys((*controls, *also))), seen, known, self.told.get(node.key))
        now = datetime.now(UTC)
        made = [findings.from_verdict(run.id, now, node, name, verdicts[name]) for name in controls]
        proofs = {name: verdict.proof for name, verdict in verdicts.items()}
        failing = tuple(name for name in controls if verdicts[name].status is Status.FAIL)
        plan = None
        if run.kind is RunKind.PLAN and failing:
            others = tuple(n for n, verdict in verdicts.items() if n not in controls and verdict.status is Status.FAIL)
            plan = held_back(plan_node(node, failing, seen, method, others), known, retry=retry)
            documents.PLANS.dump_json([plan])  # what could not be stored would take the batch along
        return Judged(node, made, proofs), plan


def _doubts(node: OpenNode) -> int:
    """How often the sender of a node's command died, the last one included where its mark is found."""
    return node.doubts + (node.sending is not None)
