"""A region served on a free port of this machine, and the clients that tests call it with.

One region serves a whole test session: a test takes a `project` of its own instead of a server of its own.
"""

import base64
import json
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from google.oauth2 import service_account
from google.oauth2.credentials import Credentials
from googleapiclient import discovery

from localgcp.iam.principal import OPERATOR_EMAIL
from localgcp.region import Region as Core
from localgcp.region import Settings
from localgcp.server import Server

SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]


@dataclass(frozen=True, kw_only=True)
class Account:
    email: str
    credentials: service_account.Credentials
    #: What Google hands out as the account's JSON key file.
    key_file: dict[str, str]

    @property
    def member(self) -> str:
        return f"serviceAccount:{self.email}"


@dataclass(frozen=True, kw_only=True)
class Region:
    """A running region. Clients are the operator's unless they are given other credentials."""

    core: Core
    url: str

    def client(self, client_class: Any, credentials: Any = None) -> Any:
        """One of Google's generated clients, over REST: `region.client(SecretManagerServiceClient)`.

        Not typed as the class: it takes a dictionary for every message, which its annotations do not say.
        """
        prefix = client_class.DEFAULT_ENDPOINT.partition(".")[0]
        options = {"api_endpoint": f"{self.url}/{prefix}"}
        return client_class(credentials=credentials or self.credentials(), transport="rest", client_options=options)

    def api(self, name: str, version: str, credentials: Any = None) -> Any:
        """The client that `google-api-python-client` builds: `region.api("iam", "v1").projects()`."""
        return discovery.build(
            name,
            version,
            credentials=credentials or self.credentials(),
            client_options={"api_endpoint": f"{self.url}/{name}/"},
            static_discovery=True,
        )

    def http(self, credentials: Any = None) -> httpx.Client:
        """Plain HTTP with an access token, for what Google's clients cannot say. Close it."""
        token = (credentials or self.credentials()).token
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {token}"})

    def credentials(self, email: str = OPERATOR_EMAIL) -> Credentials:
        return Credentials(token=self.core.tokens.access_token(email))

    def account(self, project: str, name: str, *roles: str) -> Account:
        """A new service account that has `roles` on the whole project, and a key for it."""
        accounts = self.api("iam", "v1").projects().serviceAccounts()
        email: str = accounts.create(name=f"projects/{project}", body={"accountId": name}).execute()["email"]
        key = accounts.keys().create(name=f"projects/-/serviceAccounts/{email}", body={}).execute()
        for role in roles:
            self.core.iam.add_binding(f"cloudresourcemanager/projects/{project}", role, f"serviceAccount:{email}")
        key_file = json.loads(base64.b64decode(key["privateKeyData"]))
        credentials = service_account.Credentials.from_service_account_info(key_file, scopes=SCOPES)
        return Account(email=email, credentials=credentials, key_file=key_file)


@contextmanager
def served(data_dir: Path) -> Iterator[Region]:
    """Start a region in a thread, as `serve` does, lifespan included; stop it in order at the end."""
    config = uvicorn.Config(
        app=_no_app,
        host="127.0.0.1",
        port=0,
        log_level="warning",
        lifespan="on",
        # As `serve` has it: longer than clients keep idle connections.
        timeout_keep_alive=120,
    )
    socket = config.bind_socket()
    port = int(socket.getsockname()[1])
    core = Core(Settings(data_dir=data_dir, port=port))
    config.app = Server(core)
    server = uvicorn.Server(config)
    started = threading.Event()
    startup = server.startup

    async def announce(sockets: Any = None) -> None:
        await startup(sockets)
        started.set()

    server.startup = announce  # type: ignore[method-assign]
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]}, name="region")
    thread.start()
    try:
        assert started.wait(180), "the region did not start"
        yield Region(core=core, url=f"http://127.0.0.1:{port}")
    finally:
        server.should_exit = True
        thread.join(60)
        socket.close()


@contextmanager
def temporary_data_dir() -> Iterator[Path]:
    """Short, because socket paths are limited to 107 bytes, and open to Postgres, which runs as another user."""
    path = Path(tempfile.mkdtemp(prefix="lgcp-"))
    path.chmod(0o711)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


async def _no_app(*_: Any) -> None:
    raise AssertionError("the region is served in its place")
