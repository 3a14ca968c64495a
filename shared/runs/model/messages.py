"""What orchestrators and activities say to each other: small, and only what JSON can say.

What is large goes through the store. Each is made with `model_dump(mode="json")` and read with `model_validate`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from shared.runs.model.pace import Pace


class Message(BaseModel):
    """A message: it cannot be changed, and a field that is not known is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Failed(Message):
    """A step that could not be done. `again` says whether it is worth another try."""

    failed: str
    again: bool = True


class Ref(Message):
    """Which run, and which beginning of it: an earlier one is over as soon as it sees a later number."""

    run_id: str
    epoch: int = 0


class Scope(Message):
    """The subscriptions to look at, one lane each; or what is wrong with the request."""

    subscriptions: tuple[str, ...] = ()
    error: str = ""
    usage: bool = Field(default=False, description="whether the request, and not Azure, is at fault")


class OpenLane(Ref):
    """Look at a subscription: from the beginning, or from where an earlier beginning of the run got to.

    `last`: there is no other try, so that trouble that passes is recorded as any other.
    """

    subscription: str
    last: bool = False


class BatchRef(Message):
    """A batch that was not begun: its work row, number of nodes, and what their starts count under (`region`)."""

    name: str
    region: str
    nodes: int


class Tally(Message):
    """What a part of a run came to so far."""

    nodes: int = 0
    statuses: Mapping[str, int] = Field(default_factory=dict)
    outcomes: Mapping[str, int] = Field(default_factory=dict)


class OpenBatch(Message):
    """A batch that has begun: how many of its nodes are open, and when to come again.

    `alone`: not together with others, for a call with it and others failed.
    """

    name: str
    open: int
    due: datetime
    alone: bool = False


class Lane(Message):
    """How far a lane is: `chunks` of clusters, those before `next_chunk` looked into; batches that wait for their start
    and that are open; what the closed ones came to. `missed`: what kept it from looking at everything, although such
    trouble passes. `over`: see Begun."""

    over: bool = False
    chunks: int = 0
    next_chunk: int = 0
    waiting: tuple[BatchRef, ...] = ()
    open: tuple[OpenBatch, ...] = ()
    closed: Tally = Tally()
    missed: str = ""


class LaneJob(Ref):
    """What a lane begins with. `sweeps`: each chunk's clusters are asked for configz before their nodes are listed.
    `lane` and what follows it: where it goes on with a history of its own.

    `first_look` is when most commands have ended, in seconds after their start.
    """

    subscription: str
    sweeps: bool = False
    share: float
    first_look: float
    first_look_least: float
    lane: Lane | None = None
    pace: Pace | None = None
    cancelled: bool = False
    lost: str = ""


class LaneEnd(Message):
    """What a lane came to. `lost`: why something could not be recorded; `missed`: see Lane."""

    tally: Tally = Tally()
    lost: str = ""
    missed: str = ""
    over: bool = False


class FindNodes(Ref):
    """List the nodes of a chunk of clusters, and make batches of them. `last`: see OpenLane."""

    subscription: str
    chunk: int
    last: bool = False


class SweepChunk(Ref):
    """Ask the clusters of a chunk for the configz of their nodes: begin, or go on with what is due."""

    subscription: str
    chunk: int


class Swept(Message):
    """How far that is: when to come again (`due`; None: all were asked)."""

    over: bool = False
    cancelled: bool = False
    due: datetime | None = None


class Found(Message):
    """The batches of a chunk, and what it came to where something could not be listed. `missed`: see Lane."""

    batches: tuple[BatchRef, ...] = ()
    tally: Tally = Tally()
    missed: str = ""


class Advance(Ref):
    """Do what is due in these batches; first looks come `first_look` seconds after a start."""

    batches: tuple[str, ...]
    first_look: float


class BatchNow(Message):
    """How a batch stands: `open` nodes, when to come again (`due`; None: it is closed), and what it came to in all."""

    name: str
    open: int
    due: datetime | None
    tally: Tally


class Advanced(Message):
    """How batches stand after a step.

    `looked` first looks were answered in it, which came `waited` seconds after the commands' starts (the mean); `ended`
    of them found the command ended. `started` commands were started;
    `levels` is how many more Azure's limits allow, as this process knows: in all (the empty name) and by region.
    """

    over: bool = False
    cancelled: bool = False
    batches: tuple[BatchNow, ...] = ()
    looked: int = 0
    ended: int = 0
    waited: float = 0.0
    started: int = 0
    levels: Mapping[str, float] = Field(default_factory=dict)


class Leave(Ref):
    """Record the nodes of these batches that have no finding, and where `chunks_from` is given, all that is open in the
    chunks from there on (before `chunks_to`): nodes of those that were looked into, clusters of the others."""

    subscription: str
    batches: tuple[str, ...] = ()
    chunks_from: int | None = None
    chunks_to: int | None = None
    cancelled: bool = False
    reason: str = ""


class Left(Message):
    """What the recorded batches came to in all, and what was recorded for clusters."""

    tally: Tally = Tally()
    over: bool = False


class PlanIndex(Message):
    """A plan, whole: the documents that hold it, how many nodes have an entry in all, and its digest.

    Of the `looked_at` nodes, which were found right or wrong, `newly_failing` were right once, and began to fail after
    the start of the last fix that was completed.
    """

    documents: tuple[str, ...] = ()
    digest: str = ""
    nodes: int = 0
    newly_failing: int = 0
    looked_at: int = 0


class Gathered(Message):
    """The pools of a fix: the number of nodes of each. `ask` says why a person is asked, where none was to be; `error`
    why nothing can be fixed at all, `ended` why nothing is to be."""

    error: str = ""
    ended: str = ""
    pools: tuple[int, ...] = ()
    digest: str = ""
    nodes: int = 0
    tally: Tally = Tally()
    ask: str = ""
    over: bool = False


class Ask(Ref):
    """Record that a fix waits for its plan to be approved."""

    digest: str
    why: str = ""


class Asked(Message):
    """Until when a fix waits."""

    expires: datetime


class Decided(Message):
    """What was said to a plan: why it is not carried out, '' where it is; None where nothing was said yet."""

    over: bool = False
    refused: str | None = None


class PoolNow(Message):
    """How a pool stands in a fix: nodes that are done, and the wave that is in hand, if one is.

    `asked`: its cluster was asked when so many were done.
    """

    nodes: int
    done: int = 0
    wave: int = 0
    batches: tuple[OpenBatch, ...] = ()
    tally: Tally = Tally()
    stop: str = ""
    not_before: datetime | None = None
    asked: int = -1


class FixJob(Ref):
    """What a fix begins with; see `FixRequest`. `pools` and what follows: where it goes on with a history of its own.

    `asks`: before each wave of a pool its cluster is asked how the nodes are. `first_look` is when most fixes have
    ended, in seconds; a fix that is held ends after `held_hours`.
    """

    max_unavailable: str
    max_failures: int
    canary: bool
    pause_seconds: int
    first_look: float
    held_hours: float
    asks: bool = False
    pools: tuple[PoolNow, ...] | None = None
    held_since: datetime | None = None
    lost: str = ""


class Begun(Message):
    """What a run that begins has to do. `over`: nothing, for it has ended or was begun anew.

    Looks: see LaneJob. A `fix` has its plan `made` before, or it is made as the run `plan_run`; `manual`: a person is
    asked before it is carried out. `patient`: nobody sits and waits, so that Azure may be away for a while.
    """

    over: bool = False
    patient: bool = False
    sweeps: bool = False
    share: float = 1.0
    first_look: float = 0.0
    first_look_least: float = 0.0
    fix: FixJob | None = None
    plan_run: str = ""
    made: bool = False
    manual: bool = False


class FixEnd(Message):
    """What a fix came to. `lost`: why something could not be recorded."""

    tally: Tally = Tally()
    lost: str = ""
    over: bool = False


class Pools(Message):
    """How the pools of a fix stand."""

    pools: tuple[PoolNow, ...] = ()


class OpenWave(Ref):
    """Make ready the wave of `count` nodes of a pool from the number `first` on."""

    pool: int
    first: int
    count: int


class WaveOpened(Message):
    """The wave's batches; or `stop`: why this pool is left; or `held`: no wave may begin now, later it may."""

    batches: tuple[str, ...] = ()
    stop: str = ""
    held: bool = False
    over: bool = False


class AskPool(Ref):
    """Ask a pool's cluster how its nodes are, of which `done` have been fixed: begin, or go on with what is due.

    `since` were fixed when it was asked before.
    """

    pool: int
    done: int
    since: int = 0


class PoolAsked(Message):
    """How far that is: when to come again (`due`; None: it was asked), or `stop`: why the pool is left."""

    over: bool = False
    due: datetime | None = None
    stop: str = ""


class LeavePool(Ref):
    """Record that `count` nodes of a pool from the number `first` on were left alone, and why.

    `lost`: their wave failed, and may have changed them.
    """

    pool: int
    first: int
    count: int
    reason: str
    lost: bool = False


class Word(Message):
    """What was said to a run from outside."""

    over: bool = False
    cancelled: bool = False


class End(Message):
    """How a run ends: failed with an `error` (the request's where `usage`), or early, for the reason `ended`.

    Or completed; then `missed` says where and why not everything could be looked at, if it is so.
    """

    error: str = ""
    usage: bool = False
    ended: str = ""
    nodes: int | None = None
    missed: str = ""


class Finish(Ref):
    """Record a run's end."""

    end: End


class Finished(Message):
    """The state in which a run ended."""

    state: str
