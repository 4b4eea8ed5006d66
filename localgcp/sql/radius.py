"""The small RADIUS responder that Postgres asks whether an access token may log in (RFC 2865, Access-Request only).

Postgres has no way to check a Google access token, but it hands passwords to RADIUS servers. Each instance has a shared
secret of its own and says in NAS-Identifier which instance it is; a request under another's secret decrypts to noise.
"""

import asyncio
import hashlib
import hmac
import logging
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

ACCESS_REQUEST, ACCESS_ACCEPT, ACCESS_REJECT = 1, 2, 3
USER_NAME, USER_PASSWORD, NAS_IDENTIFIER = 1, 2, 32
HEADER = struct.Struct("!BBH16s")

#: Whether the token lets that database user log in to that instance. Called in a thread; must not raise.
Authenticate = Callable[[str, str, str], bool]

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class AccessRequest:
    identifier: int
    authenticator: bytes
    user: str
    encrypted_password: bytes
    instance: str


def parse(packet: bytes) -> AccessRequest:
    """Raises ValueError for anything but a well-formed Access-Request."""
    if len(packet) < HEADER.size:
        raise ValueError("shorter than a header")
    code, identifier, length, authenticator = HEADER.unpack_from(packet)
    if code != ACCESS_REQUEST or length != len(packet):
        raise ValueError("not an Access-Request")
    attributes: dict[int, bytes] = {}
    offset = HEADER.size
    while offset < length:
        size = packet[offset + 1] if offset + 1 < length else 0
        if size < 2 or offset + size > length:
            raise ValueError("attribute reaches beyond the packet")
        attributes[packet[offset]] = packet[offset + 2 : offset + size]
        offset += size
    password = attributes.get(USER_PASSWORD, b"")
    if not password or len(password) % 16:
        raise ValueError("User-Password is not a multiple of 16 bytes")
    return AccessRequest(
        identifier=identifier,
        authenticator=authenticator,
        user=attributes.get(USER_NAME, b"").decode(),
        encrypted_password=password,
        instance=attributes.get(NAS_IDENTIFIER, b"").decode(),
    )


def decrypt(request: AccessRequest, secret: bytes) -> str:
    clear, previous = b"", request.authenticator
    for start in range(0, len(request.encrypted_password), 16):
        block = request.encrypted_password[start : start + 16]
        pad = hashlib.md5(secret + previous, usedforsecurity=False).digest()
        clear += bytes(a ^ b for a, b in zip(block, pad, strict=True))
        previous = block
    return clear.rstrip(b"\0").decode(errors="replace")


def answer(request: AccessRequest, secret: bytes, *, accepted: bool) -> bytes:
    code = ACCESS_ACCEPT if accepted else ACCESS_REJECT
    # Message-Authenticator (RFC 3579): newer clients insist on it, others pass over it.
    blank = struct.pack("!BB16s", 80, 18, b"")
    length = HEADER.size + len(blank)
    signed = HEADER.pack(code, request.identifier, length, request.authenticator) + blank
    attributes = struct.pack("!BB", 80, 18) + hmac.digest(secret, signed, "md5")
    unsigned = HEADER.pack(code, request.identifier, length, request.authenticator) + attributes + secret
    digest = hashlib.md5(unsigned, usedforsecurity=False).digest()
    return HEADER.pack(code, request.identifier, length, digest) + attributes


class Responder(asyncio.DatagramProtocol):
    """`secret_of` knows the instances; what it does not know is not answered, as RFC 2865 asks."""

    def __init__(self, secret_of: Callable[[str], bytes | None], authenticate: Authenticate) -> None:
        self._secret_of = secret_of
        self._authenticate = authenticate
        self._transport: asyncio.DatagramTransport | None = None
        self._running: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        task = asyncio.get_running_loop().create_task(self._respond(data, addr))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _respond(self, packet: bytes, client: tuple[str, int]) -> None:
        try:
            request = parse(packet)
        except ValueError as error:
            log.warning("RADIUS packet dropped: %s", error)
            return
        secret = self._secret_of(request.instance)
        if secret is None:
            log.warning("RADIUS packet of an unknown instance dropped")
            return
        token = decrypt(request, secret)
        # The token goes nowhere but into this call: not into a log, not into an error.
        accepted = await asyncio.to_thread(self._authenticate, request.instance, request.user, token)
        if self._transport is not None:
            self._transport.sendto(answer(request, secret, accepted=accepted), client)
