"""Processes that can be killed, inside this one: coroutines stop where they are, with no `finally` and no farewell.

What a task of asyncio does when it is cancelled (`except CancelledError`, `finally`, `async with`) is more than a
killed process does. So each task of a `Life` is driven by hand, and at its end is never resumed.
"""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable, Coroutine, Generator
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from types import coroutine
from typing import Any


@dataclass
class Life:
    """What one process has in hand: all tasks that were begun by `spawn`, and all that those began."""

    dead: bool = False
    _tasks: dict[asyncio.Task[Any], Coroutine[Any, Any, Any]] = field(default_factory=dict)

    def spawn(
        self, work: Coroutine[Any, Any, Any], suspended: Callable[[int], None] = lambda count: None
    ) -> asyncio.Task[Any]:
        """Begin a coroutine. `suspended` is told how often it, or what it began, has been suspended by now; it may
        `kill`. In a dead life the task is cancelled before it begins."""
        loop = asyncio.get_running_loop()
        if loop.get_task_factory() is None:
            loop.set_task_factory(_factory)
        context, outside = copy_context(), copy_context()
        context.run(_CALL.set, _Call(self, lambda count: outside.run(suspended, count)))
        task = loop.create_task(work, context=context)
        if self.dead:
            self.kill()
        return task

    def kill(self) -> None:
        """End all of it at once: tasks are cancelled, and the coroutines in them learn nothing of it."""
        self.dead = True
        for task, work in list(self._tasks.items()):
            _bury(work)
            if task is not asyncio.current_task():
                task.cancel()

    def _adopt(self, task: asyncio.Task[Any], work: Coroutine[Any, Any, Any]) -> None:
        self._tasks[task] = work
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        work = self._tasks.pop(task)
        if not self.dead:
            work.close()  # it has not begun where its task was cancelled before it could


@dataclass
class _Call:
    """What one `spawn` began."""

    life: Life
    suspended: Callable[[int], None]
    count: int = 0


_CALL: ContextVar[_Call | None] = ContextVar("call", default=None)


def _factory(
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any] | Generator[Any, None, Any], **options: Any
) -> asyncio.Task[Any]:
    context = options.get("context")
    call = context.get(_CALL) if context is not None else _CALL.get()
    if call is None or not isinstance(work, Coroutine):
        return asyncio.Task(work, loop=loop, **options)
    task = asyncio.Task(_run(work, call), loop=loop, **options)
    call.life._adopt(task, work)
    return task


async def _run(work: Coroutine[Any, Any, Any], call: _Call) -> Any:
    return await _drive(work, call)


@coroutine
def _drive(work: Coroutine[Any, Any, Any], call: _Call) -> Generator[Any, Any, Any]:
    resume: Callable[[Any], Any] = work.send
    value: Any = None
    while True:
        try:
            awaited = resume(value)
        except StopIteration as end:
            return end.value
        call.count += 1
        call.suspended(call.count)
        if call.life.dead:
            raise asyncio.CancelledError
        try:
            resume, value = work.send, (yield awaited)
        except BaseException as error:
            if call.life.dead:
                raise
            resume, value = work.throw, error


def _bury(work: Coroutine[Any, Any, Any]) -> None:
    """Keep a coroutine for ever: to be collected would be to be resumed, with GeneratorExit."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(work))
