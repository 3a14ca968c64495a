"""A fix: all pools side by side, each in waves, as `waves.decide` says."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from shared.runs.model import keys, waves
from shared.runs.model.batch import BATCH, failures, total
from shared.runs.model.messages import (
    Advance,
    Advanced,
    AskPool,
    Failed,
    FixEnd,
    FixJob,
    LeavePool,
    Left,
    OpenBatch,
    OpenWave,
    PoolAsked,
    PoolNow,
    Pools,
    Ref,
    WaveOpened,
    Word,
)
from shared.runs.orchestrators.context import Context, Orchestrator
from shared.runs.orchestrators.hand import WINDOW, Call, Ended, Hand, drive

_LISTEN_EVERY = timedelta(seconds=30)
_SHORT = timedelta(seconds=5)
_HELD = timedelta(seconds=60)


def fix(context: Context) -> Orchestrator:
    """All waves of a fix. Input: a FixJob; gives a FixEnd."""
    job = FixJob.model_validate(context.get_input())
    hand = Hand(context)
    if job.pools is None:
        opened = yield from hand.call(Call("open_fix", Ref(run_id=job.run_id, epoch=job.epoch), Pools))
        if isinstance(opened, Failed):
            return FixEnd(lost=opened.failed).model_dump(mode="json")
        job = job.model_copy(update={"pools": opened.pools})
    walk = _Walk(hand, job)
    rests = yield from drive(context, walk)
    if rests:
        context.continue_as_new(walk.job().model_dump(mode="json"))
        return None
    return walk.end().model_dump(mode="json")


class _Walk:
    """Where a fix is, and what it does next: everything but waiting."""

    def __init__(self, hand: Hand, job: FixJob) -> None:
        self.hand = hand
        self.over = False
        self._job = job
        self._pools = list(job.pools or ())
        self._lost = job.lost
        self._held = job.held_since
        self._listened: datetime | None = None
        self._in_hand: dict[str, tuple[int, tuple[str, ...]]] = {}
        self._calls = 0

    def job(self) -> FixJob:
        """What the fix goes on with, with a history of its own."""
        return self._job.model_copy(update={"pools": tuple(self._pools), "lost": self._lost, "held_since": self._held})

    def end(self) -> FixEnd:
        """What the fix came to."""
        return FixEnd(tally=total(pool.tally for pool in self._pools), lost=self._lost, over=self.over)

    # What is begun

    def begin(self, now: datetime) -> datetime | None:
        """Begin what may begin now; gives the time at which more may, None where nothing waits for one."""
        times = [self._begin_waves(now), self._begin_looks(now)]
        until = min((time for time in times if time is not None), default=None)
        if until is None or len(self.hand):
            return until
        # A long pause: a run that is cancelled meanwhile does not sit it out.
        listen = now if self._listened is None else self._listened + _LISTEN_EVERY
        if listen <= now and until - now > _SHORT:
            self._listened, listen = now, now + _LISTEN_EVERY
            self._begin(-1, (), Call("listen", self._message(Ref), Word))
        return min(until, listen) if listen > now else until

    def _pool(self, pool: PoolNow) -> waves.Pool:
        waits = self._job.asks and pool.asked != pool.done and pool.done < pool.nodes
        known = waves.Pool(pool.nodes, pool.done, pool.wave, stop=pool.stop, not_before=pool.not_before, waits=waits)
        return replace(known, failures=failures(pool.tally.outcomes))

    def _begin_waves(self, now: datetime) -> datetime | None:
        limits = waves.Limits(self._job.max_unavailable, self._job.max_failures, self._job.canary)
        decision = waves.decide([self._pool(pool) for pool in self._pools], limits, now)
        for leaving in decision.leave:
            pool = self._pools[leaving.pool]
            count = pool.nodes - leaving.first
            leave = self._message(LeavePool, pool=leaving.pool, first=leaving.first, count=count, reason=leaving.reason)
            self._set(leaving.pool, wave=count)
            self._begin(leaving.pool, (), Call("leave_pool", leave, Left))
        for number in decision.ask:
            if len(self.hand) >= WINDOW:
                return None
            if all(at != number for at, _ in self._in_hand.values()):
                self._ask(number, self._pools[number])
        for wave in decision.waves:
            if len(self.hand) >= WINDOW:
                return None
            self._set(wave.pool, wave=wave.count)
            opening = self._message(OpenWave, pool=wave.pool, first=wave.first, count=wave.count)
            self._begin(wave.pool, (), Call("open_wave", opening, WaveOpened))
        return decision.again

    def _ask(self, number: int, pool: PoolNow) -> None:
        """Ask the cluster of a pool whose next wave could begin how its nodes are."""
        ask = self._message(AskPool, pool=number, done=pool.done, since=max(0, pool.asked))
        self._begin(number, (), Call("ask_pool", ask, PoolAsked))

    def _begin_looks(self, now: datetime) -> datetime | None:
        busy = {name for _, names in self._in_hand.values() for name in names}
        again: datetime | None = None
        for number, pool in enumerate(self._pools):
            for batch in pool.batches:
                if batch.name in busy:
                    continue
                if batch.due > now or len(self.hand) >= WINDOW:
                    again = batch.due if again is None else min(again, batch.due)
                    continue
                advance = self._message(Advance, batches=(batch.name,), first_look=self._job.first_look)
                self._begin(number, (batch.name,), Call("advance", advance, Advanced))
        return None if again is not None and again <= now else again

    def _message(self, kind: type[Any], **fields: Any) -> Any:
        return kind(run_id=self._job.run_id, epoch=self._job.epoch, **fields)

    def _begin(self, pool: int, names: tuple[str, ...], call: Call) -> None:
        self._calls += 1
        key = f"{call.name}{self._calls}"
        self._in_hand[key] = pool, names
        self.hand.begin(key, call)

    # What comes of it

    def heed(self, ended: Ended, now: datetime) -> None:
        """Take note of a call that is over."""
        number, names = self._in_hand.pop(ended.key)
        match ended.answer:
            case Word() as word:
                self._heed_word(word)
            case PoolAsked() as asked:
                self._heed_asked(number, asked)
            case WaveOpened() as opened:
                self._heed_opened(number, opened, now)
            case Advanced() as advanced:
                self._heed_advanced(number, advanced, now)
            case Left() as left:
                self.over = self.over or left.over
                self._set(number, tally=total([self._pools[number].tally, left.tally]))
                self._close_wave(number, now)
            case Failed() as failed:
                self._heed_failed(number, names, ended.key, failed, now)

    def _heed_word(self, word: Word) -> None:
        self.over = self.over or word.over
        if word.cancelled:
            for number in range(len(self._pools)):
                self._stop(number, "the run was cancelled")

    def _heed_asked(self, number: int, asked: PoolAsked) -> None:
        self.over = self.over or asked.over
        if asked.stop:
            self._stop(number, asked.stop)
        elif asked.due is not None:
            self._set(number, not_before=asked.due)
        else:
            self._set(number, asked=self._pools[number].done)

    def _heed_opened(self, number: int, opened: WaveOpened, now: datetime) -> None:
        self.over = self.over or opened.over
        if opened.held:
            self._held = self._held or now
            self._set(number, wave=0, not_before=now + _HELD)
            if now - self._held > timedelta(hours=self._job.held_hours):
                self._stop(number, "fixes were held for too long")
        elif opened.stop:
            self._stop(number, opened.stop)
            self._set(number, wave=0)
        else:
            self._held = None
            batches = tuple(OpenBatch(name=name, open=1, due=now) for name in opened.batches)
            self._set(number, batches=batches)
            if not batches:
                self._close_wave(number, now)

    def _heed_advanced(self, number: int, advanced: Advanced, now: datetime) -> None:
        self.over = self.over or advanced.over
        for batch in advanced.batches:
            pool = self._pools[number]
            others = tuple(item for item in pool.batches if item.name != batch.name)
            if batch.due is not None:
                self._set(number, batches=(*others, OpenBatch(name=batch.name, open=batch.open, due=batch.due)))
                continue
            self._set(number, batches=others, tally=total([pool.tally, batch.tally]))
            if not others:
                self._close_wave(number, now)
        if advanced.cancelled:
            self._stop(number, "the run was cancelled")

    def _heed_failed(self, number: int, names: tuple[str, ...], key: str, failed: Failed, now: datetime) -> None:
        if number < 0:  # it listens again later
            return
        pool = self._pools[number]
        if key.startswith("leave"):  # it could not be recorded, after many tries
            self._lost = self._lost or failed.failed
            self._close_wave(number, now)
            return
        reason = f"a wave of this pool failed: {failed.failed}"
        self._stop(number, reason)
        if key.startswith(("open_wave", "ask_pool")):
            self._set(number, wave=0)
            return
        # It may have changed nodes, and could not say so.
        others = tuple(item for item in pool.batches if item.name not in names)
        self._set(number, batches=others)
        for name in names:
            first = keys.first_of(name)
            leave = self._message(
                LeavePool,
                pool=number,
                first=first,
                count=min(BATCH, pool.done + pool.wave - first),
                reason=failed.failed,
                lost=True,
            )
            self._begin(number, (), Call("leave_pool", leave, Left))

    def _close_wave(self, number: int, now: datetime) -> None:
        pool = self._pools[number]
        if pool.batches or any(at == number for at, _ in self._in_hand.values()):
            return
        done = pool.done + pool.wave
        self._set(number, done=done, wave=0, not_before=now + timedelta(seconds=self._job.pause_seconds))

    def _stop(self, number: int, reason: str) -> None:
        if not self._pools[number].stop:
            self._set(number, stop=reason)

    def _set(self, number: int, **changes: Any) -> None:
        self._pools[number] = self._pools[number].model_copy(update=changes)
