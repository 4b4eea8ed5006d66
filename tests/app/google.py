"""A stand-in for the two things the application asks of Google: tokens from the metadata server, objects in buckets.

It records what it was asked, and refuses what it is told to refuse, in Google's words.
"""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

REFUSAL = (
    "validibot-web@validibot-test.iam.gserviceaccount.com does not have {0} access to the Google Cloud Storage object. "
    "Permission '{0}' denied on resource (or it may not exist)."
)


@dataclass
class Google:
    port: int = 0
    tokens: list[str] = field(default_factory=lambda: ["token-1"])
    token_lifetime_seconds: int = 3599
    tokens_asked: int = 0
    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    uploads: list[dict[str, Any]] = field(default_factory=list)
    refused_permission: str = ""

    @property
    def environment(self) -> dict[str, str]:
        address = f"127.0.0.1:{self.port}"
        return {
            "GCE_METADATA_HOST": address,
            "GCE_METADATA_IP": address,
            "STORAGE_EMULATOR_HOST": f"http://{address}",
            "GOOGLE_API_PREVENT_AGENT_TOKEN_SHARING_FOR_GCP_SERVICES": "false",
        }

    def token(self) -> dict[str, Any]:
        token = self.tokens[min(self.tokens_asked, len(self.tokens) - 1)]
        self.tokens_asked += 1
        return {"access_token": token, "expires_in": self.token_lifetime_seconds, "token_type": "Bearer"}

    def upload(self, bucket: str, query: dict[str, list[str]], content_type: str, body: bytes, bearer: str) -> Any:
        message = BytesParser().parsebytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body)
        head, content = list(message.walk())[1:]
        resource = json.loads(str(head.get_payload()))
        stored = {
            "bucket": bucket,
            "name": resource["name"],
            "cacheControl": resource.get("cacheControl"),
            "contentType": content.get_content_type(),
            "ifGenerationMatch": query.get("ifGenerationMatch", [None])[0],
            "bearer": bearer,
        }
        self.uploads.append(stored)
        self.objects[f"{bucket}/{resource['name']}"] = stored
        return {"kind": "storage#object", "bucket": bucket, "name": resource["name"], "generation": "1"}


@contextmanager
def running() -> Iterator[Google]:
    google = Google()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def answer(self, status: int, body: Any) -> None:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Metadata-Flavor", "Google")
            self.send_header("Content-Type", "application/json" if not isinstance(body, bytes) else "text/plain")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            if url.path.endswith("/token"):
                self.answer(200, google.token())
            elif url.path.startswith("/computeMetadata/v1/instance/service-accounts/"):
                self.answer(200, {"email": "web@test", "scopes": [], "aliases": ["default"]})
            elif match := re.fullmatch(r"/storage/v1/b/([^/]+)/o", url.path):
                self.answer(200, {"kind": "storage#objects", "items": [
                    {"name": o["name"], "bucket": match[1]} for o in google.objects.values()
                ]})  # fmt: skip
            else:
                self.answer(200 if url.path == "/" else 404, b"")

        def do_POST(self) -> None:
            url = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            match = re.fullmatch(r"/upload/storage/v1/b/([^/]+)/o", url.path)
            if match is None:
                self.answer(404, {"error": {"code": 404, "message": "Not Found"}})
            elif google.refused_permission:
                message = REFUSAL.format(google.refused_permission)
                self.answer(403, {"error": {"code": 403, "message": message, "errors": [{"message": message}]}})
            else:
                bearer = self.headers.get("Authorization", "").removeprefix("Bearer ")
                content_type = self.headers["Content-Type"]
                query = parse_qs(url.query)
                self.answer(200, google.upload(unquote(match[1]), query, content_type, body, bearer))

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    google.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield google
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)
