"""Port 5432 of an instance, for clients that come without a connector: TLS as `sslMode` asks for it.

These binaries of Postgres have no TLS, so it is spoken here, and what is let in is led to the server's socket.
"""

import asyncio
import ssl
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from localgcp.sql.addresses import POSTGRES_PORT
from localgcp.sql.listener import (
    CANCEL_REQUEST,
    GSS_ENCRYPTION_REQUEST,
    SSL_REQUEST,
    Listener,
    code_of,
    join,
    startup_packet,
)
from localgcp.sql.template import ADMIN

#: Who is let in: `certificate` asks for one of the instance's authority, `nobody` is `connectorEnforcement`.
Admission = Literal["anybody", "encrypted", "certificate", "nobody"]
INVALID_AUTHORIZATION = "28000"


@dataclass(kw_only=True)
class DirectPort(Listener):
    port: int = POSTGRES_PORT
    #: May be changed at any time, for the connections to come.
    admission: Admission

    @cached_property
    def context(self) -> ssl.SSLContext:
        return self.tls(ssl.CERT_OPTIONAL)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        packet, is_encrypted = await startup_packet(reader), False
        while code_of(packet) in (SSL_REQUEST, GSS_ENCRYPTION_REQUEST):
            if code_of(packet) == SSL_REQUEST and not is_encrypted:
                writer.write(b"S")
                await writer.start_tls(self.context)
                is_encrypted = True
            else:
                writer.write(b"N")
            packet = await startup_packet(reader)
        has_certificate = is_encrypted and bool(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
        is_cancellation = code_of(packet) == CANCEL_REQUEST
        if not is_cancellation:
            client = writer.get_extra_info("peername")[0]
            refusal = self._refusal(packet, client, is_encrypted=is_encrypted, has_certificate=has_certificate)
            if refusal:
                writer.write(fatal(refusal))
                await writer.drain()
                return
        upstream_reader, upstream_writer = await asyncio.open_unix_connection(str(self.socket))
        try:
            upstream_writer.write(packet)
            await join(reader, writer, upstream_reader, upstream_writer)
        finally:
            upstream_writer.close()

    def _refusal(self, packet: bytes, client: str, *, is_encrypted: bool, has_certificate: bool) -> str:
        """In Postgres' words, why the client is not let in; empty when it is."""
        words = packet[8:].decode(errors="replace").split("\0")
        asked = dict(zip(words[::2], words[1::2], strict=False))
        user = asked.get("user", "")
        if self.admission == "certificate" and is_encrypted and not has_certificate:
            return "connection requires a valid client certificate"
        if user == ADMIN or self.admission == "nobody" or (self.admission != "anybody" and not is_encrypted):
            encryption = "SSL encryption" if is_encrypted else "no encryption"
            return (
                f'pg_hba.conf rejects connection for host "{client}", user "{user}", '
                f'database "{asked.get("database", user)}", {encryption}'
            )
        return ""


def fatal(message: str) -> bytes:
    fields = (("S", "FATAL"), ("V", "FATAL"), ("C", INVALID_AUTHORIZATION), ("M", message))
    body = b"".join(kind.encode() + text.encode() + b"\0" for kind, text in fields) + b"\0"
    return b"E" + (len(body) + 4).to_bytes(4) + body
