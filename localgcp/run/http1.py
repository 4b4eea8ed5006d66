"""HTTP/1.1 from a client to an instance and back, as thin as it can be.

Every request to a service passes through here, so it costs one parse on each side and no framework between. Bodies
stream both ways under flow control. WebSocket and other upgrades are deliberately absent: nothing here needs them.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Protocol

import httptools

log = logging.getLogger(__name__)

Headers = list[tuple[bytes, bytes]]

#: A body that nobody reads is held back from this size on.
HIGH_WATER_BYTES = 256 * 1024

#: An answer of this length at most is written at once.
ONE_WRITE_BYTES = 64 * 1024

#: RFC 9110, section 7.6.1: these are about one connection, so they end here.
HOP_BY_HOP = frozenset(
    (
        *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection"),
        *(b"te", b"trailer", b"transfer-encoding", b"upgrade"),
    )
)
BODILESS = frozenset((204, 304))
REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}


class ConnectionFailed(Exception):
    """The peer went away, or what it sent is not HTTP."""


class TimedOut(Exception):
    """The peer did not finish its answer in time."""


class Body(Protocol):
    @property
    def complete(self) -> bool:
        """Whether `take` has everything."""
        ...

    def take(self) -> bytes: ...

    async def read(self) -> bytes:
        """The next piece, `b""` at the end. Raises ConnectionFailed or TimedOut."""
        ...


class Stream:
    """A body on its way from a parser to a reader."""

    __slots__ = ("_chunks", "_ended", "_error", "_on_end", "_paused", "_size", "_transport", "_waiter")

    def __init__(self, transport: asyncio.Transport | None = None) -> None:
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._transport = transport
        self._paused = False
        self._on_end: Callable[[], None] | None = None

    @property
    def complete(self) -> bool:
        return self._ended and self._error is None

    def feed(self, data: bytes) -> None:
        if self._ended:
            return
        self._chunks.append(data)
        self._size += len(data)
        if self._size > HIGH_WATER_BYTES and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def end(self, error: Exception | None = None) -> None:
        if self._ended:
            return
        self._ended = True
        self._error = error
        self._wake()
        if self._on_end is not None:
            self._on_end()

    def when_ended(self, callback: Callable[[], None]) -> None:
        """Call back once the last byte has arrived, or nothing more will."""
        if self._ended:
            callback()
        else:
            self._on_end = callback

    def take(self) -> bytes:
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._size = 0
        if self._paused and self._transport is not None:
            self._paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()
        return data

    async def read(self) -> bytes:
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self._ended:
                return b""
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self.take()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Whole:
    """A body that is there already."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes = b"") -> None:
        self._data = data

    @property
    def complete(self) -> bool:
        return True

    def take(self) -> bytes:
        data, self._data = self._data, b""
        return data

    async def read(self) -> bytes:
        return self.take()


class Request:
    """`target` is path and query as they were sent; header names are in lower case."""

    __slots__ = ("body", "client", "headers", "is_http10", "keep_alive", "method", "scheme", "target")

    def __init__(
        self,
        method: bytes,
        target: bytes,
        headers: Headers,
        body: Body,
        *,
        scheme: str = "https",
        client: str = "127.0.0.1",
        keep_alive: bool = True,
        is_http10: bool = False,
    ) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body
        self.scheme = scheme
        self.client = client
        self.keep_alive = keep_alive
        #: Knows no chunks: a body without a length ends with the connection.
        self.is_http10 = is_http10

    def header(self, name: bytes) -> bytes | None:
        for key, value in self.headers:
            if key == name:
                return value
        return None

    @property
    def path(self) -> str:
        return self.target.partition(b"?")[0].decode("latin-1")


class Response:
    __slots__ = ("abort", "body", "headers", "status")

    def __init__(self, status: int, headers: Headers, body: Body, abort: Callable[[], None] = lambda: None) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        #: Give the answer up in the middle: whoever waits for it went away.
        self.abort = abort

    def header(self, name: bytes) -> bytes | None:
        for key, value in self.headers:
            if key == name:
                return value
        return None

    def when_ended(self, callback: Callable[[], None]) -> None:
        """Call back once the last byte of the body has arrived from the instance, or nothing more will."""
        if isinstance(self.body, Stream):
            self.body.when_ended(callback)
        else:
            callback()

    @classmethod
    def page(
        cls, status: int, text: str, *headers: tuple[bytes, bytes], content_type: bytes = b"text/html; charset=UTF-8"
    ) -> "Response":
        data = text.encode()
        head = [(b"content-type", content_type), (b"content-length", b"%d" % len(data)), *headers]
        return cls(status, head, Whole(data))


Handler = Callable[[Request], Awaitable[Response]]


class _Writer(asyncio.Protocol):
    """The half that both sides share: writing under flow control."""

    transport: asyncio.Transport
    _drained: asyncio.Future[None] | None = None
    _write_paused = False

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    async def drain(self) -> None:
        if self._write_paused and not self.transport.is_closing():
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained

    def _unblock(self) -> None:
        self._write_paused = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    async def write_body(self, body: Body, *, chunked: bool) -> None:
        while data := await body.read():
            self.transport.write(b"%x\r\n%b\r\n" % (len(data), data) if chunked else data)
            await self.drain()
            if self.transport.is_closing():
                raise ConnectionFailed("the peer closed the connection")
        if chunked:
            self.transport.write(b"0\r\n\r\n")


class Server(_Writer):
    """One client's connection. Requests are answered one after the other, as HTTP/1.1 asks."""

    def __init__(self, handler: Handler, scheme: str, connections: set["Server"]) -> None:
        self._handler = handler
        self._scheme = scheme
        self._connections = connections
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[Request] = deque()
        self._task: asyncio.Task[None] | None = None
        self._url = b""
        self._headers: Headers = []
        self._stream: Stream | None = None
        self._client = "127.0.0.1"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        peer = transport.get_extra_info("peername")
        self._client = peer[0] if isinstance(peer, tuple) else "127.0.0.1"
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        self._unblock()
        if self._stream is not None:
            self._stream.end(ConnectionFailed("the client closed the connection"))
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # the request is answered like any other, without the upgrade, which RFC 9110 allows
        except httptools.HttpParserError:
            self.transport.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            self.transport.close()

    # Called by the parser

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers = []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._stream = Stream(self.transport)
        request = Request(
            self._parser.get_method(),
            self._url,
            self._headers,
            self._stream,
            scheme=self._scheme,
            client=self._client,
            keep_alive=self._parser.should_keep_alive(),
            is_http10=self._parser.get_http_version() == "1.0",
        )
        if request.header(b"expect") == b"100-continue":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._answer(request))
        else:
            self._waiting.append(request)

    def on_body(self, data: bytes) -> None:
        if self._stream is not None:
            self._stream.feed(data)

    def on_message_complete(self) -> None:
        if self._stream is not None:
            self._stream.end()
            self._stream = None

    async def _answer(self, request: Request) -> None:
        try:
            response = await self._handler(request)
        except ConnectionFailed:
            self.transport.abort()
            return
        except Exception:
            log.exception("no answer to %s %s", request.method.decode(), request.path)
            response = Response.page(500, "Internal Server Error")
        try:
            await self._write_response(request, response)
        except (ConnectionFailed, TimedOut):
            # The status line is out, so the only honest sign that the rest is missing is a cut connection.
            self.transport.abort()
        except asyncio.CancelledError:
            response.abort()
            raise
        if self.transport.is_closing():
            return
        if not request.keep_alive or not request.body.complete:
            self.transport.close()
        elif self._waiting:
            self._task = asyncio.get_running_loop().create_task(self._answer(self._waiting.popleft()))
        else:
            self._task = None

    async def _write_response(self, request: Request, response: Response) -> None:
        parts = [b"HTTP/1.1 %d %b\r\n" % (response.status, REASONS.get(response.status, b"Unknown"))]
        length: int | None = None
        for name, value in response.headers:
            if name not in HOP_BY_HOP:
                if name == b"content-length":
                    length = int(value)
                parts.append(b"%b: %b\r\n" % (name, value))
        has_length = length is not None
        bodiless = request.method == b"HEAD" or response.status in BODILESS
        complete = response.body.complete
        data = response.body.take() if complete else b""
        if not complete and not bodiless and length is not None and length <= ONE_WRITE_BYTES:
            # Servers send head and body in two pieces. The client of a small answer gets them in one, and costs one
            # system call; what streams has no length, or a large one, and is never held back.
            while piece := await response.body.read():
                data += piece
            complete = True
        chunked = False
        if not has_length and not bodiless:
            if complete:
                parts.append(b"content-length: %d\r\n" % len(data))
            elif request.is_http10:
                request.keep_alive = False
            else:
                chunked = True
                parts.append(b"transfer-encoding: chunked\r\n")
        if not request.keep_alive or not request.body.complete:
            parts.append(b"connection: close\r\n")
        parts.append(b"\r\n")
        if bodiless:
            self.transport.write(b"".join(parts))
        elif complete:
            parts.append(data)
            self.transport.write(b"".join(parts))
        else:
            self.transport.write(b"".join(parts))
            await self.write_body(response.body, chunked=chunked)


class Connection(_Writer):
    """A connection to an instance, for one request after the other."""

    def __init__(self, pool: "Pool") -> None:
        self._pool = pool
        self._parser = httptools.HttpResponseParser(self)
        self._head: asyncio.Future[Response] | None = None
        self._headers: Headers = []
        self._stream: Stream | None = None
        self._sender: asyncio.Task[None] | None = None
        self._is_head_request = False
        self._until_eof = False
        self.used = False
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._pool.idle_discard(self)
        self._unblock()
        if self._stream is not None and self._until_eof:
            self._stream.end()
        self._fail(ConnectionFailed("the instance closed the connection"))

    async def send(self, request: Request, headers: Headers) -> Response:
        """Send the request with these headers instead of its own. Raises ConnectionFailed, TimedOut."""
        self._head = asyncio.get_running_loop().create_future()
        self._is_head_request = request.method == b"HEAD"
        self._until_eof = False
        parts = [b"%b %b HTTP/1.1\r\n" % (request.method, request.target)]
        has_length = False
        for name, value in headers:
            has_length = has_length or name == b"content-length"
            parts.append(b"%b: %b\r\n" % (name, value))
        body = request.body
        if body.complete:
            data = body.take()
            # A body that arrived in chunks is sent on whole.
            if not has_length and (data or request.method in (b"POST", b"PUT", b"PATCH")):
                parts.append(b"content-length: %d\r\n" % len(data))
            parts += (b"\r\n", data)
            self.transport.write(b"".join(parts))
        else:
            if not has_length:
                parts.append(b"transfer-encoding: chunked\r\n")
            parts.append(b"\r\n")
            self.transport.write(b"".join(parts))
            self._sender = asyncio.get_running_loop().create_task(self._send_body(body, chunked=not has_length))
        try:
            return await self._head
        except BaseException:
            self.abort()
            raise

    async def _send_body(self, body: Body, *, chunked: bool) -> None:
        try:
            await self.write_body(body, chunked=chunked)
        except (ConnectionFailed, TimedOut) as error:
            self._fail(error)
            self.transport.abort()

    def expire(self) -> None:
        """The time is up: whoever waits for head or body gets TimedOut."""
        self._fail(TimedOut("the request timed out"))
        self.transport.abort()

    def abort(self) -> None:
        if self._sender is not None:
            self._sender.cancel()
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(ConnectionFailed(f"malformed response: {error}"))
            self.transport.abort()

    # Called by the parser

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        headers, self._headers = self._headers, []
        if 100 <= status < 200 or self._head is None or self._head.done():
            return
        names = {name for name, _ in headers}
        self._until_eof = not names & {b"content-length", b"transfer-encoding"} and status not in BODILESS
        self._stream = Stream(self.transport)
        self._head.set_result(Response(status, headers, self._stream, self.abort))
        if self._is_head_request:
            # The parser would wait for the body that content-length announces and HEAD never has.
            self._stream.end()
            self.transport.close()

    def on_body(self, data: bytes) -> None:
        if self._stream is not None:
            self._stream.feed(data)

    def on_message_complete(self) -> None:
        if self._stream is None:
            return  # a 1xx head
        stream, self._stream = self._stream, None
        reusable = (
            self._parser.should_keep_alive()
            and not self._until_eof
            and not self._is_head_request
            and (self._sender is None or self._sender.done())
        )
        self._head = None
        self._sender = None
        self.used = True
        if reusable:
            self._pool.put_back(self)
        else:
            self.transport.close()
        stream.end()

    def _fail(self, error: Exception) -> None:
        if self._head is not None and not self._head.done():
            self._head.set_exception(error)
        if self._stream is not None:
            self._stream.end(error)
            self._stream = None


class Pool:
    """Connections to one instance."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._idle: list[Connection] = []
        self._is_closed = False

    async def request(self, request: Request, headers: Headers, timer: "Timer | None" = None) -> Response:
        """Send on a kept connection, or a new one. Raises ConnectionFailed, TimedOut."""
        while True:
            connection = self._idle.pop() if self._idle else await self._connect()
            if connection.closed or connection.transport.is_closing():
                continue
            if timer is not None:
                timer.on_expiry(connection.expire)
            was_used = connection.used
            replay = request.body if request.body.complete else None
            data = replay.take() if replay is not None else b""
            if replay is not None:
                request.body = Whole(data)
            try:
                return await connection.send(request, headers)
            except ConnectionFailed:
                # A server may close a kept connection at the very moment of the next request (RFC 9112, 9.3.1).
                # No byte of an answer arrived on it, so the request is sent once more, on another connection.
                if not was_used or replay is None:
                    raise
                request.body = Whole(data)

    async def _connect(self) -> Connection:
        try:
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: Connection(self), self._host, self._port
            )
        except OSError as error:
            raise ConnectionFailed(str(error)) from error
        return connection

    def put_back(self, connection: Connection) -> None:
        if self._is_closed:
            connection.transport.close()
        else:
            self._idle.append(connection)

    def idle_discard(self, connection: Connection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)

    def close(self) -> None:
        self._is_closed = True
        for connection in self._idle:
            connection.transport.close()
        self._idle.clear()


class Timer:
    """A deadline whose victim changes: first nobody, then the connection that carries the request."""

    __slots__ = ("_expire", "_handle", "expired")

    def __init__(self, seconds: float) -> None:
        self.expired = False
        self._expire: Callable[[], None] | None = None
        self._handle = asyncio.get_running_loop().call_later(seconds, self._fire)

    def on_expiry(self, expire: Callable[[], None]) -> None:
        self._expire = expire
        if self.expired:
            expire()

    def cancel(self) -> None:
        self._handle.cancel()

    def _fire(self) -> None:
        self.expired = True
        if self._expire is not None:
            self._expire()


class Listener:
    """A loopback port that answers with a handler."""

    def __init__(self, handler: Handler, *, scheme: str = "https") -> None:
        self._handler = handler
        self._scheme = scheme
        self._connections: set[Server] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self, port: int) -> None:
        """Raises OSError when the port is taken."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Server(self._handler, self._scheme, self._connections), "127.0.0.1", port, backlog=2048
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.transport.close()
        self._server = None


class ReceivedBody:
    """The body of an ASGI request."""

    __slots__ = ("_ended", "_receive")

    def __init__(self, receive: Callable[[], Awaitable[Any]]) -> None:
        self._receive = receive
        self._ended = False

    @property
    def complete(self) -> bool:
        return self._ended

    def take(self) -> bytes:
        return b""

    async def read(self) -> bytes:
        while not self._ended:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._ended = True
                raise ConnectionFailed("the client closed the connection")
            self._ended = not message.get("more_body", False)
            if message.get("body"):
                return bytes(message["body"])
        return b""


async def serve_asgi(handler: Handler, scope: Any, receive: Any, send: Any, *, scheme: str = "https") -> None:
    """Answer an ASGI request with a handler of ours."""
    headers: Headers = [(bytes(name), bytes(value)) for name, value in scope["headers"]]
    names = {name for name, _ in headers}
    body: Body = ReceivedBody(receive) if names & {b"content-length", b"transfer-encoding"} else Whole()
    target = scope.get("raw_path") or scope["path"].encode()
    if scope.get("query_string"):
        target += b"?" + scope["query_string"]
    client = scope["client"][0] if scope.get("client") else "127.0.0.1"
    request = Request(scope["method"].encode(), target, headers, body, scheme=scheme, client=client)
    response = await handler(request)
    # The server that serves this application writes a date of its own.
    kept = [(name, value) for name, value in response.headers if name not in HOP_BY_HOP and name != b"date"]
    await send({"type": "http.response.start", "status": response.status, "headers": kept})
    try:
        while data := await response.body.read():
            await send({"type": "http.response.body", "body": data, "more_body": True})
    except BaseException:
        response.abort()
        raise
    await send({"type": "http.response.body", "body": b""})
