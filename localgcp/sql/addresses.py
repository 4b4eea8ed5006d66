"""A loopback address for each instance, so that each can have Postgres' own port."""

import hashlib
import socket
from collections.abc import Collection

from localgcp.sql import terminator

POSTGRES_PORT = 5432
ATTEMPTS = 64
FALLBACK = "127.0.0.1"


def choose_address(seed: str, taken: Collection[str]) -> str:
    """An address of 127.64.0.0/10 whose ports are free. Only 127.0.0.1 where others do not exist, as on macOS."""
    for attempt in range(ATTEMPTS):
        digest = hashlib.sha256(f"{seed}/{attempt}".encode()).digest()
        address = f"127.{64 + digest[0] % 64}.{digest[1]}.{1 + digest[2] % 254}"
        if address not in taken and can_listen(address, POSTGRES_PORT) and can_listen(address, terminator.PORT):
            return address
    return FALLBACK


def can_listen(address: str, port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Ended connections in TIME_WAIT do not keep Postgres from listening, so they must not count here either.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True
