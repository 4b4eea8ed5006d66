"""ID tokens from a test key: an issuer that publishes its keys over HTTP, as Google does."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

TASKS = "validibot-tasks@validibot-test.iam.gserviceaccount.com"
SCHEDULER = "validibot-scheduler@validibot-test.iam.gserviceaccount.com"
WORKER_URL = "https://validibot-worker-123456789012.australia-southeast1.run.app"


@dataclass
class Issuer:
    url: str = ""
    key_id: str = "test-1"
    fetches: list[str] = field(default_factory=list)

    @cached_property
    def key(self) -> rsa.RSAPrivateKey:
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def token(self, email: str = TASKS, key: rsa.RSAPrivateKey | None = None, **claims: Any) -> str:
        """A good token of `email`; a claim of None is left out."""
        now = int(time.time())
        good = {
            "iss": "https://accounts.google.com",
            "aud": WORKER_URL,
            "azp": "1",
            "sub": "1",
            "email": email,
            "email_verified": True,
            "iat": now,
            "exp": now + 3600,
        }
        payload = {name: value for name, value in (good | claims).items() if value is not None}
        return jwt.encode(payload, key or self.key, algorithm="RS256", headers={"kid": self.key_id})

    def unsigned(self) -> str:
        """`alg: none`, as RFC 7519 calls an unsecured token."""
        _, payload, _ = self.token().split(".")
        head = base64.urlsafe_b64encode(json.dumps({"alg": "none", "kid": self.key_id}).encode()).rstrip(b"=").decode()
        return f"{head}.{payload}."

    def keys(self) -> bytes:
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
        return json.dumps({"keys": [public | {"kid": self.key_id, "alg": "RS256", "use": "sig"}]}).encode()


@contextmanager
def issuing() -> Iterator[Issuer]:
    issuer = Issuer()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            issuer.fetches.append(self.path)
            body = issuer.keys()
            self.send_response(200 if self.path == "/oauth2/v3/certs" else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    issuer.url = f"http://127.0.0.1:{server.server_address[1]}/oauth2/"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield issuer
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)
