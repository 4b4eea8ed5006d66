"""The server side of Google's Cloud SQL connectors: mutual TLS on port 3307, forwarded to the instance's socket.

A client without a certificate of this instance's authority gets nowhere. One whose certificate carries an access token
is logged in with it: it sends no password, and Postgres' request for one is answered here.
"""

import asyncio
import logging
import ssl
import struct
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509

from localgcp.sql.certificates import Authority

PORT = 3307
CHUNK_BYTES = 256 * 1024
#: Protocol 3.0 packets that come before, or instead of, a startup message ("Message Formats").
SSL_REQUEST, GSS_ENCRYPTION_REQUEST, CANCEL_REQUEST = 80877103, 80877104, 80877102
MAX_STARTUP_BYTES = 10_000
AUTHENTICATION_CLEARTEXT_PASSWORD = 3

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Terminator:
    address: str
    socket: Path
    authority: Authority
    port: int = PORT
    _server: asyncio.Server | None = field(default=None, init=False)
    _connections: set[asyncio.Task[None]] = field(default_factory=set, init=False)

    async def start(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(self.authority.server_certificate)
        context.load_verify_locations(cadata=self.authority.pem)
        context.set_alpn_protocols(["postgresql"])
        self._server = await asyncio.start_server(self._accept, self.address, self.port, ssl=context)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._connections.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError, ValueError) as error:
            log.info("connection to %s:%s ended: %s", self.address, self.port, type(error).__name__)
        finally:
            if task is not None:
                self._connections.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        token = self.authority.token_in(x509.load_der_x509_certificate(certificate))
        upstream_reader, upstream_writer = await asyncio.open_unix_connection(str(self.socket))
        try:
            if token is not None:
                await log_in(token, reader, writer, upstream_reader, upstream_writer)
            forth = asyncio.create_task(forward(reader, upstream_writer))
            back = asyncio.create_task(forward(upstream_reader, writer))
            try:
                await asyncio.wait([forth, back], return_when=asyncio.FIRST_COMPLETED)
            finally:
                forth.cancel()
                back.cancel()
                await asyncio.gather(forth, back, return_exceptions=True)
        finally:
            upstream_writer.close()


async def log_in(
    token: str,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    upstream_reader: asyncio.StreamReader,
    upstream_writer: asyncio.StreamWriter,
) -> None:
    """Forward the start of a session, and answer the server's request for a password with the token."""
    while True:
        packet = await startup_packet(reader)
        upstream_writer.write(packet)
        code = struct.unpack_from("!I", packet, 4)[0]
        if code == CANCEL_REQUEST:
            return
        if code not in (SSL_REQUEST, GSS_ENCRYPTION_REQUEST):
            break
        writer.write(await upstream_reader.readexactly(1))
    header = await upstream_reader.readexactly(5)
    kind, length = struct.unpack("!cI", header)
    if not 4 <= length <= MAX_STARTUP_BYTES:
        raise ValueError("the server's first message is not one of the protocol")
    body = await upstream_reader.readexactly(length - 4)
    if kind == b"R" and body == struct.pack("!I", AUTHENTICATION_CLEARTEXT_PASSWORD):
        password = token.encode() + b"\0"
        upstream_writer.write(b"p" + struct.pack("!I", len(password) + 4) + password)
    else:
        writer.write(header + body)


async def startup_packet(reader: asyncio.StreamReader) -> bytes:
    header = await reader.readexactly(4)
    (length,) = struct.unpack("!I", header)
    if not 8 <= length <= MAX_STARTUP_BYTES:
        raise ValueError("the client does not speak the protocol of Postgres")
    return header + await reader.readexactly(length - 4)


async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(CHUNK_BYTES):
        writer.write(chunk)
        await writer.drain()
