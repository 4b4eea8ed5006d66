"""Ports for servers that a test starts, kills and starts again."""

import secrets
import socket


def quiet_port() -> int:
    """A free port that stays free while its server is down.

    It is below the ephemeral ones, which connections take, and not among those that a region tries by itself; the
    region's other ports follow it.
    """
    # Not as the tests' seed says: another process has the same.
    candidates = (secrets.randbelow(100) * 100 + 20_000 for _ in range(100))
    return next(port for port in candidates if _is_free(port))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
