"""A closed loop of requests: each connection sends the next one when the last one is answered."""

import asyncio
import statistics
import time
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

ANSWER_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Load:
    """What a loop saw."""

    requests: int
    requests_per_second: float
    p50_seconds: float
    p95_seconds: float

    @classmethod
    def of(cls, seconds: list[float], elapsed: float) -> Self:
        twentieths = statistics.quantiles(seconds, n=20)
        return cls(
            requests=len(seconds),
            requests_per_second=len(seconds) / elapsed,
            p50_seconds=twentieths[9],
            p95_seconds=twentieths[18],
        )


def post(url: str, path: str, headers: dict[str, str], body: bytes) -> bytes:
    """The bytes of a request. A `Host` among the headers replaces the one of the URL."""
    lines = {
        "Host": urlsplit(url).netloc,
        "Content-Type": "application/json",
        **headers,
        "Content-Length": str(len(body)),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body


def run(url: str, request: bytes, *, connections: int, seconds: float, wanted: int) -> Load:
    """Send `request` over and over for `seconds`. RuntimeError when an answer has another status than `wanted`."""
    return asyncio.run(_run(url, request, connections, seconds, wanted))


async def _run(url: str, request: bytes, connections: int, seconds: float, wanted: int) -> Load:
    address = urlsplit(url)
    began = time.perf_counter()
    taken: list[float] = []

    async def loop() -> None:
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        try:
            while time.perf_counter() - began < seconds:
                sent = time.perf_counter()
                writer.write(request)
                async with asyncio.timeout(ANSWER_SECONDS):
                    await _answer(reader, wanted)
                taken.append(time.perf_counter() - sent)
        finally:
            writer.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(loop())
    return Load.of(taken, time.perf_counter() - began)


async def _answer(reader: asyncio.StreamReader, wanted: int) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    length = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
        elif line.startswith(b"transfer-encoding:"):
            raise RuntimeError("an answer in chunks: this loop counts on a length")
    body = await reader.readexactly(length)
    status = int(head[9:12])
    if status != wanted:
        raise RuntimeError(f"answered {status}, not {wanted}: {body[:500]!r}")
