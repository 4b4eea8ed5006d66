"""Tiny images, made with the same interpreter that Cloud Build uses."""

import tempfile
from pathlib import Path

from localgcp.build.dockerfile import Context, Interpreter
from localgcp.build.images import image_store, parse_reference
from tests.localgcp.fixtures import Region

DOCKERFILE = """
FROM python:3.11-slim
WORKDIR /srv
COPY . .
RUN pip install nothing
CMD ["python", "server.py"]
"""

#: Answers with what it sees, and misbehaves on request.
SERVER = """
import json, os, signal, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length)
        path, _, query = self.path.partition("?")
        if path == "/slow":
            time.sleep(float(query))
        if path == "/exit":
            os._exit(int(query))
        if path == "/log":
            print(json.dumps({"severity": "WARNING", "message": "structured", "code": 7}), flush=True)
            print("plain", file=sys.stderr, flush=True)
        answer = json.dumps({
            "path": self.path, "method": self.command, "body_bytes": len(body), "pid": os.getpid(),
            "headers": {k.lower(): v for k, v in self.headers.items()}, "environment": dict(os.environ),
        }).encode()
        self.send_response(503 if path == "/broken" else 200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer)

    do_POST = do_PUT = do_DELETE = do_HEAD = do_GET

    def log_message(self, *arguments):
        pass

def leave(*arguments):
    print("draining", flush=True)
    os._exit(0)

signal.signal(signal.SIGTERM, leave)
server = ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler)
print("listening", flush=True)
server.serve_forever()
"""


def push_image(
    region: Region, project: str, location: str, *, server: str = SERVER, dockerfile: str = DOCKERFILE
) -> str:
    """Build and push; answers the reference by digest."""
    store = image_store(region.core)
    reference = parse_reference(f"{location}-docker.pkg.dev/{project}/images/server:latest")
    assert reference is not None
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "server.py").write_text(server)
        interpreter = Interpreter(
            Context(Path(folder)), arguments={}, scratch=Path(folder), find_base=store.stage, log=lambda _: None
        )
        image = store.write(interpreter.build(dockerfile))
    store.push(reference, image, region.core.clock.now())
    return f"{reference.name}@{image.digest}"
