"""As much of RFC 6455 as a phone needs, from the standard library."""

import asyncio
import base64
import hashlib
import os
import struct
from urllib.parse import urlsplit

from sessioncap import Closed

ACCEPT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Socket:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def _frame(self) -> tuple[int, bytes]:
        first, second = await self._reader.readexactly(2)
        assert first & 0x80, "the agent sends each message in one frame"
        assert not second & 0x80, "a server masks nothing"
        length = second & 0x7F
        if length == 126:
            (length,) = struct.unpack("!H", await self._reader.readexactly(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", await self._reader.readexactly(8))
        return first & 0x0F, await self._reader.readexactly(length)

    async def _send(self, opcode: int, payload: bytes) -> None:
        length = len(payload)
        head = bytes([0x80 | opcode])
        if length < 126:
            head += bytes([0x80 | length])
        elif length < 65536:
            head += struct.pack("!BH", 0x80 | 126, length)
        else:
            head += struct.pack("!BQ", 0x80 | 127, length)
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
        self._writer.write(head + mask + masked)
        await self._writer.drain()

    async def receive(self) -> bytes:
        while True:
            try:
                opcode, payload = await self._frame()
            except (asyncio.IncompleteReadError, ConnectionError):
                raise Closed(None) from None
            if opcode == 2:
                return payload
            if opcode == 8:
                raise Closed(struct.unpack("!H", payload[:2])[0] if len(payload) >= 2 else None)
            if opcode == 9:
                await self._send(10, payload)

    async def send(self, message: bytes) -> None:
        try:
            await self._send(2, message)
        except ConnectionError:
            raise Closed(None) from None

    async def close(self, code: int) -> None:
        if not self._writer.is_closing():
            try:
                await self._send(8, struct.pack("!H", code))
            except ConnectionError:
                pass
            self._writer.close()

    def break_off(self) -> None:
        """As a network that is gone."""
        self._writer.transport.abort()


async def connect(url: str, pins: list[str]) -> Socket:
    assert not pins
    parts = urlsplit(url)
    assert parts.scheme == "ws"
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 80)
    key = base64.b64encode(os.urandom(16))
    request = (
        f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key.decode()}\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Protocol: sessioncap.1\r\n\r\n"
    )
    writer.write(request.encode())
    try:
        await writer.drain()
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()
        raise Closed(None) from None
    lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    expected = base64.b64encode(hashlib.sha1(key + ACCEPT).digest()).decode()
    if " 101 " not in lines[0] + " " or headers.get("sec-websocket-accept") != expected:
        writer.close()
        raise Closed(None)
    return Socket(reader, writer)
