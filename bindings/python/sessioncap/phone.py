"""Runs a connection on an asyncio loop."""

from __future__ import annotations

import asyncio
import time
from typing import Awaitable, Callable, Protocol

from .generated import Connection, ConnectionState, Event


class Closed(Exception):
    """The WebSocket could not be opened, was closed or broke; ``code`` is that of the agent's close frame, if any."""

    def __init__(self, code: int | None = None) -> None:
        super().__init__(code)
        self.code = code


class PermissionDenied(Exception):
    """The system does not let this program reach the network."""


class WebSocket(Protocol):
    """An open WebSocket. ``receive`` and ``send`` raise ``Closed``."""

    async def send(self, message: bytes) -> None: ...

    async def receive(self) -> bytes: ...

    async def close(self, code: int) -> None: ...


class Keychain(Protocol):
    """A store of pairings. ``put`` raises ``OSError`` if it cannot store now."""

    def put(self, ticket: str, stored: bytes) -> None: ...


# url and the SHA-256 hashes of the keys of the agent's own TLS certificates
Connect = Callable[[str, "list[str]"], Awaitable[WebSocket]]


def _now() -> int:
    """Milliseconds of a clock that counts sleep where there is one."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime_ns(clock) // 1_000_000


class Phone:
    """One pairing's connection, with its WebSocket and its keychain.

    ``show`` is called with every event that is for the person: states, output, screens, fates, answers.
    """

    def __init__(
        self,
        connection: Connection,
        connect: Connect,
        keychain: Keychain,
        show: Callable[[Event], None],
    ) -> None:
        self._connection = connection
        self._connect = connect
        self._keychain = keychain
        self._show = show
        self._attempts: dict[int, asyncio.Task[None]] = {}
        self._outgoing: dict[int, asyncio.Queue[bytes | int]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._ids = 0

    @property
    def state(self) -> ConnectionState:
        """The state of the connection."""
        return self._connection.state()

    @property
    def ticket(self) -> str:
        """The name of the keychain's entry."""
        return self._connection.ticket()

    @property
    def resume_point(self) -> bytes | None:
        """Up to where the output was shown, for ``resume_after`` when the program starts again."""
        return self._connection.resume_point()

    def resume_after(self, point: bytes) -> None:
        """Goes on after what an earlier run has shown. Before ``start``."""
        self._connection.resume_after(point)

    def add_address(self, url: str) -> bool:
        """Adds an address at which the agent may be as well, and stores it. Returns whether there was room."""
        added = self._connection.add_address(url)
        self._work()
        return added

    def start(self) -> None:
        """Begins, or tries again now."""
        self._connection.start(_now())
        self._work()

    def type_line(self, text: str) -> int:
        """Types a line and Enter. The number comes back with its fate."""
        self._ids += 1
        self._connection.type_line(self._ids, text, _now())
        self._work()
        return self._ids

    def type_bytes(self, keys: bytes) -> int:
        """Types keys as a terminal encodes them."""
        self._ids += 1
        self._connection.type_bytes(self._ids, keys, _now())
        self._work()
        return self._ids

    def type_key(self, key: str, application: bool = False) -> int:
        """Types a key with its modifiers, as in ``ctrl+c`` or ``shift+tab``: one message."""
        self._connection.type_key(self._ids + 1, key, application, _now())
        self._ids += 1
        self._work()
        return self._ids

    def paste(self, text: str, bracketed: bool = False) -> int:
        """Types a pasted text."""
        self._ids += 1
        self._connection.paste(self._ids, text, bracketed, _now())
        self._work()
        return self._ids

    def request(self, json: str) -> int:
        """Sends a request, a JSON object."""
        self._ids += 1
        self._connection.request(self._ids, json, _now())
        self._work()
        return self._ids

    def interrupt(self) -> None:
        """Interrupts what runs."""
        self._connection.interrupt(_now())
        self._work()

    def resize(self, columns: int, rows: int) -> None:
        """Says how large the screen is."""
        self._connection.resize(columns, rows, _now())
        self._work()

    def network_changed(self) -> None:
        """Says that there is another network."""
        self._connection.network_changed(_now())
        self._work()

    async def leave(self) -> None:
        """Leaves, and waits until the socket is closed. The session goes on."""
        self._connection.leave(_now())
        self._work()
        if self._timer is not None:
            self._timer.cancel()
        await asyncio.gather(*self._attempts.values(), return_exceptions=True)

    def wipe(self) -> None:
        """Wipes the connection."""
        self._connection.wipe()

    def _work(self) -> None:
        while events := self._connection.events():
            for event in events:
                self._act(event)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        until = self._connection.wait_until()
        if until is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0, until - _now()) / 1_000, self._time_passed)

    def _time_passed(self) -> None:
        self._timer = None
        self._connection.time_passed(_now())
        self._work()

    def _act(self, event: Event) -> None:
        if isinstance(event, Event.OPEN):
            queue: asyncio.Queue[bytes | int] = asyncio.Queue()
            self._outgoing[event.attempt] = queue
            task = asyncio.ensure_future(self._attempt(event.attempt, event.url, event.tls_pins, queue))
            self._attempts[event.attempt] = task
            task.add_done_callback(lambda _, attempt=event.attempt: self._attempts.pop(attempt, None))
        elif isinstance(event, Event.SEND):
            if queue := self._outgoing.get(event.attempt):
                queue.put_nowait(event.bytes)
        elif isinstance(event, Event.CLOSE):
            if queue := self._outgoing.pop(event.attempt, None):
                queue.put_nowait(event.code)
        elif isinstance(event, Event.STORE):
            try:
                self._keychain.put(event.ticket, event.bytes)
            except OSError:
                self._connection.not_stored(event.number, _now())
            else:
                self._connection.stored(event.number, _now())
        else:
            self._show(event)

    async def _attempt(self, attempt: int, url: str, pins: list[str], queue: asyncio.Queue[bytes | int]) -> None:
        """One socket's life. Its end is of no interest after the connection has closed it."""
        try:
            socket = await self._connect(url, pins)
        except PermissionDenied:
            self._connection.permission_denied(attempt, _now())
            return self._work()
        except (Closed, OSError) as error:
            self._connection.closed(attempt, getattr(error, "code", None), _now())
            return self._work()
        self._connection.opened(attempt, _now())
        self._work()
        reading = asyncio.ensure_future(self._read(attempt, socket))
        try:
            while True:
                next_one = asyncio.ensure_future(queue.get())
                done, _ = await asyncio.wait({next_one, reading}, return_when=asyncio.FIRST_COMPLETED)
                if next_one not in done:
                    next_one.cancel()
                    break
                message = next_one.result()
                if isinstance(message, int):
                    await socket.close(message)
                    break
                await socket.send(message)
        except (Closed, OSError) as error:
            self._connection.closed(attempt, getattr(error, "code", None), _now())
            self._work()
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            await asyncio.gather(socket.close(1000), return_exceptions=True)

    async def _read(self, attempt: int, socket: WebSocket) -> None:
        try:
            while True:
                self._connection.message(attempt, await socket.receive(), _now())
                self._work()
        except (Closed, OSError) as error:
            self._connection.closed(attempt, getattr(error, "code", None), _now())
            self._work()
