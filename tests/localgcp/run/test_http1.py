"""The proxy's own HTTP, between real sockets."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from localgcp.run.http1 import ConnectionFailed, Listener, Pool, Request, Response, TimedOut, Timer, Whole

Backend = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
GET = b"GET /x HTTP/1.1\r\nhost: a\r\n\r\n"
SHORT = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@asynccontextmanager
async def listening(backend: Backend) -> AsyncIterator[Pool]:
    server = await asyncio.start_server(backend, "127.0.0.1", 0)
    pool = Pool("127.0.0.1", server.sockets[0].getsockname()[1])
    try:
        yield pool
    finally:
        pool.close()
        server.close()


def get(path: bytes = b"/x", body: bytes = b"") -> Request:
    return Request(b"GET", path, [], Whole(body))


async def whole(response: Response) -> bytes:
    parts = []
    while part := await response.body.read():
        parts.append(part)
    return b"".join(parts)


def test_a_kept_connection_that_was_closed_is_replaced() -> None:
    connections = 0

    async def backend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(SHORT)
        # Announces nothing, and closes when the next request is already on its way.
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async def scenario() -> list[bytes]:
        async with listening(backend) as pool:
            return [await whole(await pool.request(get(), [(b"host", b"a")])) for _ in range(2)]

    assert asyncio.run(scenario()) == [b"ok", b"ok"]
    assert connections == 2


def test_a_new_connection_that_gives_no_answer_is_a_failure() -> None:
    async def backend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async def scenario() -> None:
        async with listening(backend) as pool:
            await pool.request(get(), [(b"host", b"a")])

    with pytest.raises(ConnectionFailed):
        asyncio.run(scenario())


def test_an_answer_that_does_not_come_in_time_is_given_up() -> None:
    async def backend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def scenario() -> None:
        async with listening(backend) as pool:
            await pool.request(get(), [(b"host", b"a")], Timer(0.05))

    with pytest.raises(TimedOut):
        asyncio.run(scenario())


def test_a_body_is_passed_on_before_it_is_complete() -> None:
    go_on = asyncio.Event()

    async def backend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        await go_on.wait()
        writer.write(b"6\r\nsecond\r\n0\r\n\r\n")

    async def scenario() -> tuple[bytes, bytes]:
        async with listening(backend) as pool:
            listener = Listener(lambda request: pool.request(request, [(b"host", b"a")]))
            await listener.start(0)
            reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
            writer.write(GET)
            first = await asyncio.wait_for(reader.readuntil(b"first\r\n"), 5)
            go_on.set()
            second = await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), 5)
            writer.close()
            await listener.stop()
            return first, second

    first, second = asyncio.run(scenario())
    assert first.endswith(b"transfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n")
    assert second == b"6\r\nsecond\r\n0\r\n\r\n"


def test_a_reader_that_lags_holds_the_writer_back() -> None:
    sent = 0

    async def backend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        total = 64 * 1024 * 1024
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % total)
        while sent < total:
            writer.write(b"x" * 65536)
            sent += 65536
            await writer.drain()

    async def scenario() -> tuple[int, int]:
        async with listening(backend) as pool:
            response = await pool.request(get(), [(b"host", b"a")])
            before = -1
            # It stops by itself: the buffers of both sides are full, and nobody reads.
            while before != sent:
                before = sent
                await asyncio.sleep(0.2)
            return before, len(await whole(response))

    held, received = asyncio.run(scenario())
    assert held < 32 * 1024 * 1024
    assert received == 64 * 1024 * 1024


def test_requests_on_one_connection_are_answered_in_order() -> None:
    async def handler(request: Request) -> Response:
        await asyncio.sleep(0.05 if request.target == b"/slow" else 0)
        return Response.page(200, request.target.decode())

    async def scenario() -> bytes:
        listener = Listener(handler)
        await listener.start(0)
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\nGET /fast HTTP/1.1\r\nconnection: close\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 5)
        await listener.stop()
        return answer

    answer = asyncio.run(scenario())
    assert answer.index(b"/slow") < answer.index(b"/fast")


@pytest.mark.parametrize(
    "garbage", [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n"]
)
def test_what_is_not_http_is_answered_400(garbage: bytes) -> None:
    async def handler(request: Request) -> Response:
        return Response.page(200, "")

    async def scenario() -> bytes:
        listener = Listener(handler)
        await listener.start(0)
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(garbage)
        answer = await asyncio.wait_for(reader.read(), 5)
        await listener.stop()
        return answer

    assert asyncio.run(scenario()).startswith(b"HTTP/1.1 400 ")


def test_a_client_that_leaves_ends_the_request_to_the_instance() -> None:
    left = asyncio.Event()

    async def backend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.read()
        left.set()

    async def scenario() -> None:
        async with listening(backend) as pool:
            listener = Listener(lambda request: pool.request(request, [(b"host", b"a")]))
            await listener.start(0)
            _, writer = await asyncio.open_connection("127.0.0.1", listener.port)
            writer.write(GET)
            await writer.drain()
            await asyncio.sleep(0.05)
            writer.close()
            await asyncio.wait_for(left.wait(), 5)
            await listener.stop()

    asyncio.run(scenario())
    assert left.is_set()
