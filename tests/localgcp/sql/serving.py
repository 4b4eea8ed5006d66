"""A region served from this process, and the accounts that tests call it with."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import uvicorn
from google.oauth2 import service_account
from google.oauth2.credentials import Credentials
from googleapiclient import discovery

from localgcp.iam.principal import OPERATOR_EMAIL
from localgcp.region import Region, Settings
from localgcp.server import Server

SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]


@dataclass(frozen=True, kw_only=True)
class ServedRegion:
    region: Region
    url: str

    def client(self, api: str, version: str, token: str | None = None) -> Any:
        """Google's own client of an API, for the operator unless another's token is given."""
        credentials = Credentials(token=token or self.region.tokens.access_token(OPERATOR_EMAIL))
        options = {"api_endpoint": f"{self.url}/{api}/"}
        return discovery.build(api, version, credentials=credentials, client_options=options, static_discovery=True)

    def account(self, project: str, name: str, *roles: str) -> service_account.Credentials:
        """A new service account with those roles on the project, and a key for it."""
        accounts = self.client("iam", "v1").projects().serviceAccounts()
        accounts.create(name=f"projects/{project}", body={"accountId": name}).execute()
        email = f"{name}@{project}.iam.gserviceaccount.com"
        key = accounts.keys().create(name=f"projects/{project}/serviceAccounts/{email}", body={}).execute()
        for role in roles:
            self.region.iam.add_binding(f"cloudresourcemanager/projects/{project}", role, f"serviceAccount:{email}")
        info = json.loads(base64.b64decode(key["privateKeyData"]))
        return cast(
            service_account.Credentials,
            service_account.Credentials.from_service_account_info(info, scopes=SCOPES),
        )


@contextmanager
def served(data_dir: Path) -> Iterator[ServedRegion]:
    """Start a region as the program does, lifespan included, on a free port."""
    # Clients keep connections, and httplib2 does not try again on one that was closed meanwhile.
    config = uvicorn.Config(
        app=lambda: None, host="127.0.0.1", port=0, log_level="warning", lifespan="on", timeout_keep_alive=300
    )
    socket = config.bind_socket()
    port = int(socket.getsockname()[1])
    region = Region(Settings(data_dir=data_dir, port=port))
    config.app = Server(region)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
    started = threading.Event()
    startup = server.startup

    async def announce(sockets: Any = None) -> None:
        await startup(sockets)
        started.set()

    server.startup = announce  # type: ignore[method-assign]
    thread.start()
    try:
        assert started.wait(60), "the region did not start"
        yield ServedRegion(region=region, url=f"http://127.0.0.1:{port}")
    finally:
        server.should_exit = True
        thread.join(60)
        socket.close()
