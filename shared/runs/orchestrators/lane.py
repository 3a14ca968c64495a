"""A lane: one subscription's nodes, found, started as Azure's limits allow, and looked at when it is time."""

from __future__ import annotations

from collections.abc import Generator
from datetime import datetime
from typing import Any

from shared.runs.model import pace
from shared.runs.model.batch import total
from shared.runs.model.messages import (
    Advance,
    Advanced,
    BatchNow,
    Failed,
    FindNodes,
    Found,
    Lane,
    LaneEnd,
    LaneJob,
    Leave,
    Left,
    OpenBatch,
    OpenLane,
    SweepChunk,
    Swept,
)
from shared.runs.model.pace import Pace
from shared.runs.orchestrators.context import Context, Orchestrator, Task
from shared.runs.orchestrators.hand import WINDOW, Call, Ended, Hand, drive

_AHEAD = 600
"""So many nodes may wait for their start before more are looked for: none wait for nodes to be found, and no fleet is
held."""

_TOGETHER = 100
"""Open nodes of batches that are looked at by one call."""

_FIND, _SWEEP = "find", "sweep"

_SWEEPS = 4
"""So many chunks' clusters may be asked at once, while the nodes of the first are listed."""


def lane(context: Context) -> Orchestrator:
    """One subscription's nodes. Input: a LaneJob; gives a LaneEnd."""
    job = LaneJob.model_validate(context.get_input())
    walk = _Walk(context, job)
    if job.lane is None:
        opening = Call("open_lane", walk.message(OpenLane), Lane, last=walk.message(OpenLane, last=True))
        opened = yield from walk.hand.call(opening)
        if isinstance(opened, Failed):
            return (yield from _unopened(walk, opened))
        walk.take_over(opened)
    rests = yield from drive(context, walk)
    if rests:
        context.continue_as_new(walk.job().model_dump(mode="json"))
        return None
    return walk.end().model_dump(mode="json")


def _unopened(walk: _Walk, failed: Failed) -> Generator[Task, Any, Any]:
    leave = walk.message(Leave, chunks_from=0, reason=failed.failed)
    left = yield from walk.hand.call(Call("leave", leave, Left))
    walk.hand.let_go()
    if isinstance(left, Failed):
        return LaneEnd(lost=left.failed).model_dump(mode="json")
    return LaneEnd(tally=left.tally, missed=failed.failed, over=left.over).model_dump(mode="json")


class _Walk:
    """Where a lane is, and what it does next: everything but waiting."""

    def __init__(self, context: Context, job: LaneJob) -> None:
        self.hand = Hand(context)
        self.over = False
        self._job = job
        self._lane = job.lane or Lane()
        self._waiting = list(self._lane.waiting)
        self._open = {batch.name: batch for batch in self._lane.open}
        self._closed = [self._lane.closed]
        self._next_chunk = self._lane.next_chunk
        self._pace = job.pace or Pace(at=context.current_utc_datetime, share=job.share)
        self._first_look = job.first_look
        self._cancelled = job.cancelled
        self._lost = job.lost
        self._missed = self._lane.missed
        self._swept: set[int] = set()
        self._sweeps_due: dict[int, datetime] = {}
        self._in_hand: dict[str, tuple[str, ...]] = {}
        self._calls = 0

    def message(self, kind: type[Any], **fields: Any) -> Any:
        """A message of this lane."""
        place = {"subscription": self._job.subscription} if "subscription" in kind.model_fields else {}
        return kind(run_id=self._job.run_id, epoch=self._job.epoch, **place, **fields)

    def take_over(self, lane: Lane) -> None:
        """Begin with what the store knows of the lane."""
        self.over = lane.over
        self._lane = lane
        self._waiting = list(lane.waiting)
        self._open = {batch.name: batch for batch in lane.open}
        self._closed = [lane.closed]
        self._next_chunk = lane.next_chunk
        self._missed = lane.missed

    def job(self) -> LaneJob:
        """What the lane goes on with, with a history of its own."""
        lane = self._lane.model_copy(
            update={
                "next_chunk": self._next_chunk,
                "waiting": tuple(self._waiting),
                "open": tuple(self._open.values()),
                "closed": total(self._closed),
                "missed": self._missed,
            }
        )
        return self._job.model_copy(
            update={
                "lane": lane,
                "pace": self._pace,
                "first_look": self._first_look,
                "cancelled": self._cancelled,
                "lost": self._lost,
            }
        )

    def end(self) -> LaneEnd:
        """What the lane came to."""
        return LaneEnd(tally=total(self._closed), lost=self._lost, missed=self._missed, over=self.over)

    # What is begun

    def begin(self, now: datetime) -> datetime | None:
        """Begin what may begin now; gives the time at which more may, None where nothing waits for one."""
        times: list[datetime | None] = []
        if self._cancelled:
            self._leave_rest()
        elif self._next_chunk < self._lane.chunks and self._ahead() < _AHEAD:
            times.append(self._begin_sweeps(now))
            self._begin_finding()
        times += [self._begin_starts(now), self._begin_looks(now)]
        return min((time for time in times if time is not None), default=None)

    def _begin_sweeps(self, now: datetime) -> datetime | None:
        """Ask the clusters of the next chunks for configz; gives when one of them is to be gone on with."""
        again: datetime | None = None
        for chunk in range(self._next_chunk, min(self._next_chunk + _SWEEPS, self._lane.chunks)):
            if not self._job.sweeps or chunk in self._swept or f"{_SWEEP}{chunk}" in self.hand:
                continue
            due = self._sweeps_due.get(chunk)
            if due is not None and due > now:
                again = due if again is None else min(again, due)
                continue
            call = Call("sweep", self.message(SweepChunk, chunk=chunk), Swept)
            self.hand.begin(f"{_SWEEP}{chunk}", call)
        return again

    def _begin_finding(self) -> None:
        """List the nodes of the next chunk, once its clusters were asked where they are."""
        chunk = self._next_chunk
        if _FIND in self.hand or (self._job.sweeps and chunk not in self._swept):
            return
        find = self.message(FindNodes, chunk=chunk)
        self.hand.begin(_FIND, Call("find_nodes", find, Found, last=find.model_copy(update={"last": True})))

    def _finding(self) -> bool:
        return _FIND in self.hand or any(f"{_SWEEP}{chunk}" in self.hand for chunk in range(self._lane.chunks))

    def _ahead(self) -> int:
        return sum(batch.nodes for batch in self._waiting)

    def _leave_rest(self) -> None:
        if not self._waiting and self._next_chunk >= self._lane.chunks:
            return
        if self._finding():  # what it finds is left with the rest
            return
        names = tuple(batch.name for batch in self._waiting)
        leave = self.message(Leave, batches=names, chunks_from=self._next_chunk, cancelled=True)
        self._begin(names, Call("leave", leave, Left))
        self._waiting, self._next_chunk = [], self._lane.chunks

    def _begin_starts(self, now: datetime) -> datetime | None:
        # Regions take turns by themselves: the first batch that may start does.
        blocked: dict[str, float] = {}
        for batch in list(self._waiting):
            if len(self.hand) >= WINDOW:
                return None
            if batch.region in blocked:
                continue
            seconds = self._pace.wait(batch.region, batch.nodes, now)
            if seconds > 0:
                blocked[batch.region] = seconds
                continue
            self._waiting.remove(batch)
            self._pace = self._pace.took(batch.region, batch.nodes, now)
            self._advance((batch.name,))
        return pace.after(now, min(blocked.values())) if blocked else None

    def _begin_looks(self, now: datetime) -> datetime | None:
        busy = {name for names in self._in_hand.values() for name in names}
        quiet = sorted((b for b in self._open.values() if b.name not in busy), key=lambda b: (b.due, b.name))
        group: list[str] = []
        nodes = 0
        for batch in quiet:
            if batch.due > now or len(self.hand) >= WINDOW:
                break
            if batch.alone:
                self._advance((batch.name,))
                continue
            if group and nodes + batch.open > _TOGETHER:
                self._advance(tuple(group))
                group, nodes = [], 0
            group.append(batch.name)
            nodes += batch.open
        if group:
            self._advance(tuple(group))
        return next((b.due for b in quiet if b.due > now), None)

    def _advance(self, names: tuple[str, ...]) -> None:
        advance = self.message(Advance, batches=names, first_look=round(self._first_look, 3))
        self._begin(names, Call("advance", advance, Advanced))

    def _begin(self, names: tuple[str, ...], call: Call) -> None:
        self._calls += 1
        key = f"{call.name}{self._calls}"
        self._in_hand[key] = names
        self.hand.begin(key, call)

    # What comes of it

    def heed(self, ended: Ended, now: datetime) -> None:
        """Take note of a call that is over."""
        names = self._in_hand.pop(ended.key, ())
        match ended.answer:
            case Swept() as swept:
                self.over = self.over or swept.over
                self._cancelled = self._cancelled or swept.cancelled
                self._heed_swept(int(ended.key.removeprefix(_SWEEP)), swept.due)
            case Found() as found:
                self._next_chunk += 1
                self._waiting += found.batches
                self._closed.append(found.tally)
                self._missed = self._missed or found.missed
            case Advanced() as advanced:
                self._heed_advanced(advanced, now)
            case Left() as left:
                self.over = self.over or left.over
                for name in names:
                    self._open.pop(name, None)
                self._closed.append(left.tally)
            case Failed() as failed:
                self._heed_failed(ended.key, names, failed)

    def _heed_swept(self, chunk: int, due: datetime | None) -> None:
        if due is None:
            self._swept.add(chunk)
        else:
            self._sweeps_due[chunk] = due

    def _heed_advanced(self, advanced: Advanced, now: datetime) -> None:
        self.over = self.over or advanced.over
        self._cancelled = self._cancelled or advanced.cancelled
        for batch in advanced.batches:
            self._set(batch)
        if advanced.levels:
            self._pace = self._pace.told(advanced.levels, now)
        self._first_look = pace.next_first_look(
            self._first_look,
            advanced.looked,
            advanced.ended,
            advanced.waited,
            least=self._job.first_look_least,
            most=90.0,
        )

    def _set(self, batch: BatchNow) -> None:
        if batch.due is None:
            self._open.pop(batch.name, None)
            self._closed.append(batch.tally)
        else:
            self._open[batch.name] = OpenBatch(name=batch.name, open=batch.open, due=batch.due)

    def _heed_failed(self, key: str, names: tuple[str, ...], failed: Failed) -> None:
        if key.startswith("leave"):  # it could not be recorded, after many tries
            self._lost = self._lost or failed.failed
            for name in names:
                self._open.pop(name, None)
        elif key.startswith(_SWEEP):  # the nodes say so that were to be judged by it
            self._missed = self._missed or failed.failed
            self._swept.add(int(key.removeprefix(_SWEEP)))
        elif key == _FIND:
            chunk, self._next_chunk = self._next_chunk, self._next_chunk + 1
            self._missed = self._missed or failed.failed
            leave = self.message(Leave, chunks_from=chunk, chunks_to=chunk + 1, reason=failed.failed)
            self._begin((), Call("leave", leave, Left))
        elif len(names) > 1:  # one of them may be at fault: each by itself
            for name in names:
                self._open[name] = self._open[name].model_copy(update={"alone": True})
        else:
            self._begin(names, Call("leave", self.message(Leave, batches=names, reason=failed.failed), Left))
