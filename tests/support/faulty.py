"""A TCP proxy before a server, that refuses, hangs, or cuts a connection once the request has been taken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit


class FaultyProxy:
    """Made by `faulty_proxy`. `requests` counts what clients sent on, by whatever became of it."""

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        self._to = (parts.hostname or "", parts.port or 0)
        self._port = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.hanging = False
        self.cuts = 0
        """So many answers, the next ones, are kept back and their connections cut."""
        self.requests = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def there(self) -> None:
        """Listen (again, on the same port)."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def gone(self) -> None:
        """Close the port and every connection: whoever comes is refused by the system."""
        assert self._server is not None
        self._server.close()
        for writer in self._open:
            writer.transport.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onwards_reader, onwards = await asyncio.open_connection(*self._to)
        self._open |= {writer, onwards}
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, onwards, answer=False))
                group.create_task(self._pump(onwards_reader, writer, answer=True))
        except* ConnectionError:
            pass  # cut by either side, or by us
        finally:
            self._open -= {writer, onwards}
            writer.close()
            onwards.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answer: bool) -> None:
        while data := await reader.read(65536):
            if self.hanging:
                await asyncio.Event().wait()  # until the client hangs up
            if answer and self.cuts:
                self.cuts -= 1
                raise ConnectionAbortedError
            self.requests += not answer
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError


@asynccontextmanager
async def faulty_proxy(upstream: str) -> AsyncIterator[FaultyProxy]:
    """A proxy to the base URL `upstream`, without a fault as yet."""
    proxy = FaultyProxy(upstream)
    await proxy.there()
    try:
        yield proxy
    finally:
        await proxy.gone()
