"""The region's own API, asked over its socket as an account, like any client: so the account's bindings decide."""

import http.client
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from localgcp.region import Region

#: While the region starts, instances start before its API listens.
PATIENCE_SECONDS = 30.0


def get(region: "Region", path: str, email: str) -> tuple[int, bytes]:
    """Status and body."""
    return _request(region, "GET", path, email, None)


def post(region: "Region", path: str, email: str, text: str) -> tuple[int, bytes]:
    """Status and body."""
    return _request(region, "POST", path, email, text.encode())


def _request(region: "Region", method: str, path: str, email: str, body: bytes | None) -> tuple[int, bytes]:
    token, _ = region.tokens.shared_access_token(email)
    headers = {"Authorization": f"Bearer {token}"} | ({"Content-Type": "text/plain"} if body is not None else {})
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", region.settings.port, timeout=60)
        try:
            connection.request(method, path, body=body, headers=headers)
            response = connection.getresponse()
            return response.status, response.read()
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        finally:
            connection.close()
