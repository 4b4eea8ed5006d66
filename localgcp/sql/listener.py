"""A port of an instance, and what Postgres' protocol says at the beginning of a session ("Message Formats")."""

import asyncio
import logging
import ssl
import struct
from dataclasses import dataclass, field
from pathlib import Path

from localgcp.sql.certificates import Authority

CHUNK_BYTES = 256 * 1024
#: What comes before, or instead of, a startup message.
SSL_REQUEST, GSS_ENCRYPTION_REQUEST, CANCEL_REQUEST = 80877103, 80877104, 80877102
MAX_STARTUP_BYTES = 10_000

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Listener:
    """Accepts connections at an address and leads those that it lets in to the server's own socket."""

    address: str
    port: int
    socket: Path
    authority: Authority
    _server: asyncio.Server | None = field(default=None, init=False)
    _connections: set[asyncio.Task[None]] = field(default_factory=set, init=False)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, self.address, self.port)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError

    def tls(self, verify_mode: ssl.VerifyMode) -> ssl.SSLContext:
        """The instance's certificate; of clients, only those of the instance's own authority count."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = verify_mode
        context.load_cert_chain(self.authority.server_certificate)
        context.load_verify_locations(cadata=self.authority.pem)
        context.set_alpn_protocols(["postgresql"])
        return context

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._connections.add(task)
        try:
            await self.serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError, ValueError) as error:
            log.info("connection to %s:%s ended: %s", self.address, self.port, type(error).__name__)
        finally:
            if task is not None:
                self._connections.discard(task)
            writer.close()


async def startup_packet(reader: asyncio.StreamReader) -> bytes:
    header = await reader.readexactly(4)
    (length,) = struct.unpack("!I", header)
    if not 8 <= length <= MAX_STARTUP_BYTES:
        raise ValueError("the client does not speak the protocol of Postgres")
    return header + await reader.readexactly(length - 4)


def code_of(packet: bytes) -> int:
    code: int = struct.unpack_from("!I", packet, 4)[0]
    return code


async def join(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    upstream_reader: asyncio.StreamReader,
    upstream_writer: asyncio.StreamWriter,
) -> None:
    """Forward in both directions until one side ends."""
    forth = asyncio.create_task(forward(reader, upstream_writer))
    back = asyncio.create_task(forward(upstream_reader, writer))
    try:
        await asyncio.wait([forth, back], return_when=asyncio.FIRST_COMPLETED)
    finally:
        forth.cancel()
        back.cancel()
        await asyncio.gather(forth, back, return_exceptions=True)


async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(CHUNK_BYTES):
        writer.write(chunk)
        await writer.drain()
