"""The server side of Google's Cloud SQL connectors: mutual TLS on port 3307, forwarded to the instance's socket.

A client without a certificate of this instance's authority gets nowhere. One whose certificate carries an access token
is logged in with it: it sends no password, and Postgres' request for one is answered here.
"""

import asyncio
import ssl
import struct
from dataclasses import dataclass

from cryptography import x509

from localgcp.sql.listener import (
    CANCEL_REQUEST,
    GSS_ENCRYPTION_REQUEST,
    MAX_STARTUP_BYTES,
    SSL_REQUEST,
    Listener,
    code_of,
    join,
    startup_packet,
)

PORT = 3307
AUTHENTICATION_CLEARTEXT_PASSWORD = 3


@dataclass(kw_only=True)
class Terminator(Listener):
    port: int = PORT

    async def start(self) -> None:
        context = self.tls(ssl.CERT_REQUIRED)
        self._server = await asyncio.start_server(self._accept, self.address, self.port, ssl=context)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        token = self.authority.token_in(x509.load_der_x509_certificate(certificate))
        upstream_reader, upstream_writer = await asyncio.open_unix_connection(str(self.socket))
        try:
            if token is not None:
                await log_in(token, reader, writer, upstream_reader, upstream_writer)
            await join(reader, writer, upstream_reader, upstream_writer)
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
        code = code_of(packet)
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
