"""A TCP proxy that can be cut: connections stay, and nothing goes through, as when a cable is pulled."""

import asyncio
import contextlib
import threading
from collections.abc import Generator
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass(slots=True, eq=False)
class CuttableProxy:
    """The way to a server. Used as `proxy_to`."""

    host: str
    port: int
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    is_open: asyncio.Event = field(default_factory=asyncio.Event)
    own_port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.own_port}"

    def cut(self) -> None:
        """Nothing goes through from here on."""
        self.loop.call_soon_threadsafe(self.is_open.clear)

    def mend(self) -> None:
        """What was sent meanwhile arrives, as TCP would have sent it again."""
        self.loop.call_soon_threadsafe(self.is_open.set)

    async def serve(self) -> asyncio.Server:
        self.is_open.set()
        server = await asyncio.start_server(self.connect, "127.0.0.1", 0)
        self.own_port = server.sockets[0].getsockname()[1]
        return server

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with contextlib.AsyncExitStack() as ends:
            ends.callback(writer.close)
            await self.is_open.wait()
            there, back = await asyncio.open_connection(self.host, self.port)
            ends.callback(back.close)
            await asyncio.gather(self.pass_on(reader, back), self.pass_on(there, writer))

    async def pass_on(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while read := await source.read(1 << 16):
                await self.is_open.wait()
                target.write(read)
                await target.drain()
        await self.is_open.wait()
        target.close()


@contextlib.contextmanager
def proxy_to(url: str) -> Generator[CuttableProxy, None, None]:
    """A proxy in front of a server, in a thread of its own."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    proxy = CuttableProxy(parts.hostname, parts.port)
    thread = threading.Thread(target=proxy.loop.run_forever, daemon=True)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(proxy.serve(), proxy.loop).result(10)
    try:
        yield proxy
    finally:
        asyncio.run_coroutine_threadsafe(end_all(server), proxy.loop).result(10)
        proxy.loop.call_soon_threadsafe(proxy.loop.stop)
        thread.join()
        proxy.loop.close()


async def end_all(server: asyncio.Server) -> None:
    server.close()
    connections = asyncio.all_tasks() - {asyncio.current_task()}
    for connection in connections:
        connection.cancel()
    await asyncio.gather(*connections, return_exceptions=True)
    # Transports are closed at the next turns of the loop.
    for _ in range(3):
        await asyncio.sleep(0)
