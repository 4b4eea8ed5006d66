"""A POST to an address that a customer chose: never into our own network, never further than where it points."""

import ipaddress
import re
import socket
import threading
from contextlib import suppress
from http.client import HTTPException
from typing import Final
from urllib.parse import SplitResult, urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

_CONNECT_SECONDS: Final = 5.0
_READ_SECONDS: Final = 15.0
_MAX_URL_LENGTH: Final = 2000
_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME: Final = re.compile(rf"(?:{_LABEL}\.)+(?!\d+\.?\Z|0x){_LABEL}\.?")
# Top-level names that the internet has not, and networks have for themselves (RFC 6761, 6762, 8375; ICANN's .internal).
_PRIVATE_NAME: Final = re.compile(r"(?:^|\.)(?:localhost|local|localdomain|internal|home\.arpa|test|invalid)\.?\Z")


class NotAllowed(Exception):
    """The address is not one that a customer may have us call. The message says why."""


class Unreachable(Exception):
    """Nobody answered. The message says why, without addresses of ours."""


def checked(url: str, *, is_internal: bool = False) -> SplitResult:
    """The parts of an acceptable address. `is_internal`: an operator chose it, so HTTP will do.

    Raises: NotAllowed.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise NotAllowed("the address is not one") from None
    if len(url) > _MAX_URL_LENGTH or not url.isascii() or not url.isprintable() or " " in url:
        raise NotAllowed(f"the address must have at most {_MAX_URL_LENGTH} ASCII characters, and no spaces")
    if parts.scheme != "https" and not (is_internal and parts.scheme == "http"):
        raise NotAllowed("the address must begin with https://")
    if not parts.hostname or parts.username is not None or parts.password is not None or parts.fragment:
        raise NotAllowed("the address must have a host, and neither user, password nor fragment")
    if not is_internal and port not in (None, 443, 8443):
        raise NotAllowed("the port must be 443 or 8443")
    if not is_internal and not _may_be_public(parts.hostname):
        raise NotAllowed("the address is not on the internet")
    return parts


def post(
    url: str,
    body: bytes,
    headers: dict[str, str],
    *,
    is_internal: bool = False,
    read_seconds: float = _READ_SECONDS,
) -> int:
    """The status of the answer, whatever it is. Redirects are not followed, and the body of the answer is not read.

    It takes no longer than connecting and `read_seconds` together, whatever the other side does.

    Raises: NotAllowed, also when the name of a good address leads into a private network; Unreachable.
    """
    parts = checked(url, is_internal=is_internal)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    # Resolved once, and that address is called: a name that is resolved twice may answer differently the second time.
    address = _resolved(host, port, is_internal=is_internal)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection = HTTPConnection(address, port, timeout=_CONNECT_SECONDS)
    if parts.scheme == "https":
        connection = HTTPSConnection(
            address, port, timeout=_CONNECT_SECONDS, server_hostname=host, assert_hostname=host
        )
    # A timeout is for one byte; whoever sends one from time to time would keep us for ever.
    is_over = threading.Event()
    end = threading.Timer(_CONNECT_SECONDS + read_seconds, _hang_up, (connection, is_over))
    end.daemon = True
    end.start()
    try:
        connection.connect()
        connection.timeout = read_seconds
        connection.request(
            "POST",
            target,
            body=body,
            headers={
                "Host": parts.netloc,
                "User-Agent": "Validibot-Webhooks/1",
                "Content-Type": "application/json",
                **headers,
            },
            preload_content=False,
        )
        status = int(connection.getresponse().status)
    except (urllib3.exceptions.HTTPError, HTTPException, OSError) as error:
        raise Unreachable(f"no answer from {host}: {type(error).__name__}") from None
    finally:
        end.cancel()
        connection.close()
    if is_over.is_set():  # half an answer looks whole when the connection ends
        raise Unreachable(f"no answer from {host}: TimeoutError")
    return status


def _hang_up(connection: HTTPConnection, is_over: threading.Event) -> None:
    is_over.set()
    if connection.sock is not None:
        with suppress(OSError):
            connection.sock.shutdown(socket.SHUT_RDWR)


def _resolved(host: str, port: int, *, is_internal: bool) -> str:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise Unreachable(f"{host} has no address") from None
    addresses = [str(entry[4][0]) for entry in found]
    if not is_internal and not all(_is_public(ipaddress.ip_address(address)) for address in addresses):
        raise NotAllowed(f"{host} leads to an address that is not on the internet")
    return addresses[0]


def _may_be_public(host: str) -> bool:
    """Whether a host can be on the internet, by what it says. Where a name leads is seen when it is called."""
    try:
        return _is_public(ipaddress.ip_address(host))
    except ValueError:
        # A last label of digits is an address in disguise: 127.1, 2130706433, 0x7f.1 (what inet_aton accepts).
        return bool(_NAME.fullmatch(host)) and len(host) <= 253 and not _PRIVATE_NAME.search(host)


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    mapped = getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None)
    if mapped is not None and not _is_public(mapped):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved
