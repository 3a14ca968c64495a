"""A whole run, in both hosts: its record, the survey; for a fix the plan, its approval and the waves; its end.

All it is told is which run it is: what was asked for stands in the run's record, and what was done in the store. So it
can be begun again at any time, and goes on from there.
"""

from __future__ import annotations

from collections.abc import Generator
from datetime import timedelta
from typing import Any

from shared.errors import GuardError
from shared.runs.model.batch import total
from shared.runs.model.messages import (
    Ask,
    Asked,
    Begun,
    Decided,
    End,
    Failed,
    Finish,
    Finished,
    FixEnd,
    Gathered,
    LaneEnd,
    LaneJob,
    Ref,
    Scope,
)
from shared.runs.orchestrators.context import Context, Orchestrator, Task
from shared.runs.orchestrators.hand import TRIES, Call, Hand, first_line

WAKE = "wake"
"""The event that makes a waiting run look into the store; it carries nothing."""

# How long a waiting run sleeps at most before it looks again, whether it was woken or not; the watchdog wakes one that
# missed its event.
_LOOK_AGAIN = timedelta(hours=1)
_SOON = timedelta(seconds=5)
# Whoever sits at a terminal hears at once that Azure cannot be reached.
_FEW_TRIES = 2


class _Over(Exception):
    """The run was begun anew, or has ended: nothing is left to do here."""


def run(context: Context) -> Orchestrator:
    """A run. Input: a Ref; gives a Finished."""
    ref = Ref.model_validate(context.get_input())
    hand = Hand(context)
    begun = yield from hand.call(Call("begin", ref, Begun))
    if isinstance(begun, Begun) and begun.over:
        return Finished(state="").model_dump(mode="json")
    try:
        if isinstance(begun, Failed):
            end = End(error=begun.failed)
        elif begun.fix is not None:
            end = yield from _fix(context, hand, ref, begun)
        else:
            end = yield from _survey(hand, ref, begun, "")
    except _Over:
        return Finished(state="").model_dump(mode="json")
    except Exception as error:
        # Whatever it was: a run that is not going must not look as if it were.
        end = End(error=f"{type(error).__name__}: {first_line(error)}")
    finished = yield from hand.call(Call("finish", Finish(**ref.model_dump(), end=end), Finished))
    hand.let_go()
    if isinstance(finished, Failed):
        raise GuardError(f"the end of the run could not be recorded: {finished.failed}")
    return finished.model_dump(mode="json")


def _survey(hand: Hand, ref: Ref, begun: Begun, prefix: str) -> Generator[Task, Any, End]:
    """Look at every node in scope, a lane for each subscription. `prefix` keeps children of two surveys apart."""
    scope = yield from hand.call(Call("scope", ref, Scope, tries=TRIES if begun.patient else _FEW_TRIES))
    if isinstance(scope, Failed):
        return End(error=scope.failed)
    if scope.error:
        return End(error=scope.error, usage=scope.usage)
    for subscription in scope.subscriptions:
        job = LaneJob(
            **ref.model_dump(),
            subscription=subscription,
            sweeps=begun.sweeps,
            share=begun.share,
            first_look=begun.first_look,
            first_look_least=begun.first_look_least,
        )
        hand.begin(subscription, Call("lane", job, LaneEnd, child=f"{ref.epoch}{prefix}:{subscription}"))
    ends: list[LaneEnd] = []
    lost = ""
    while len(hand):
        ended = yield from hand.wait()
        assert ended is not None  # something is in hand
        if isinstance(ended.answer, Failed):
            lost = lost or ended.answer.failed
        else:
            ends.append(ended.answer)
    if any(end.over for end in ends):
        raise _Over
    tally = total(end.tally for end in ends)
    lost = lost or next((end.lost for end in ends if end.lost), "")
    if lost:  # and so not everything was counted
        return End(error=f"not everything could be recorded: {lost}")
    missed = next((end.missed for end in ends if end.missed), "")
    return End(nodes=tally.nodes, missed=f"not everything could be looked at: {missed}" if missed else "")


def _fix(context: Context, hand: Hand, ref: Ref, begun: Begun) -> Generator[Task, Any, End]:
    """Plan as a run of its own (as a person would with `plan`, then `fix`) where that was not done; carry it out."""
    if not begun.made:
        plan = Ref(run_id=begun.plan_run, epoch=ref.epoch)
        planned = yield from hand.call(Call("begin", plan, Begun))
        if isinstance(planned, Failed):
            return End(error=f"the plan could not be begun: {planned.failed}")
        end = End()
        if not planned.over:
            end = yield from _survey(hand, plan, begun, "p")
            ended = yield from hand.call(Call("finish", Finish(**plan.model_dump(), end=end), Finished))
            if isinstance(ended, Failed):
                return End(error=f"the plan's end could not be recorded: {ended.failed}")
        if end.error:
            return End(error=f"nothing was changed, for the plan failed: {end.error}", usage=end.usage)
    gathered = yield from hand.call(Call("gather", ref, Gathered))
    if isinstance(gathered, Failed):
        return End(error=f"the plan could not be taken over: {gathered.failed}")
    if gathered.over:
        raise _Over
    if gathered.error or gathered.ended:
        return End(error=gathered.error, ended=gathered.ended)
    # Whoever sits at a terminal was asked there, also where the app began the fix.
    if gathered.pools and begun.patient and (begun.manual or gathered.ask):
        ask = Ask(**ref.model_dump(), digest=gathered.digest, why=gathered.ask)
        refused = yield from _await_approval(context, hand, ask)
        if refused is not None:
            return refused.model_copy(update={"nodes": gathered.nodes})
    assert begun.fix is not None  # it is a fix
    job = begun.fix.model_copy(update={"run_id": ref.run_id, "epoch": ref.epoch})
    fixed = yield from hand.call(Call("fix", job, FixEnd, child=f"{ref.epoch}:fix"))
    if isinstance(fixed, Failed):
        return End(error=fixed.failed, nodes=gathered.nodes)
    if fixed.over:
        raise _Over
    error = f"not everything could be recorded: {fixed.lost}" if fixed.lost else ""
    return End(error=error, nodes=gathered.nodes)


def _await_approval(context: Context, hand: Hand, ask: Ask) -> Generator[Task, Any, End | None]:
    """Wait until the plan is approved (None), refused, cancelled or the time is over: gives the run's end.

    The store is asked, not the event: an event can get lost or come twice. That the time is over stands there as well.
    """
    asked = yield from hand.call(Call("ask_approval", ask, Asked))
    if isinstance(asked, Failed):
        return End(error=f"no approval could be asked for: {asked.failed}")
    ref = Ref(run_id=ask.run_id, epoch=ask.epoch)
    woken: Task | None = None
    while True:
        said = yield from hand.call(Call("decision", ref, Decided))
        now = context.current_utc_datetime
        if isinstance(said, Decided):
            if said.over:
                raise _Over
            if said.refused is not None:
                return End(ended=said.refused) if said.refused else None
        elif now >= asked.expires:
            return End(error=f"what was said to the plan could not be read: {said.failed}")
        hand.let_go()
        if woken is None:
            woken = context.wait_for_external_event(WAKE)
        # The clock of whoever carries out the step may be a little behind.
        timer = context.create_timer(max(min(asked.expires, now + _LOOK_AGAIN), now + _SOON))
        first = yield context.task_any([woken, timer])
        if first is woken:
            woken = None
            if not timer.is_completed:
                timer.cancel()
