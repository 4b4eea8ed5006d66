"""The region: what every service shares, and the order in which things start and stop."""

import asyncio
import hashlib
import importlib
import logging
import pkgutil
import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import anyio.to_thread

import localgcp.services
from localgcp.apis import APIS
from localgcp.clock import Clock
from localgcp.faults import Faults
from localgcp.iam.metadata import Metadata
from localgcp.iam.policies import Iam
from localgcp.iam.tokens import Tokens
from localgcp.logs import Logs
from localgcp.operations import Operations
from localgcp.service import Service
from localgcp.store import Store

if TYPE_CHECKING:
    from localgcp.frontdoor import FrontDoor
    from localgcp.run.router import Router
    from localgcp.services.cloudscheduler import Timetable
    from localgcp.tasks.dispatcher import Dispatcher

T = TypeVar("T")
log = logging.getLogger(__name__)

WORKER_THREADS = 100


@dataclass(frozen=True, kw_only=True)
class Settings:
    data_dir: Path
    port: int

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class Region:
    """Several projects and locations in one process. Services set the attributes without a value when they start."""

    run: "Router"
    edge: "FrontDoor"
    dispatcher: "Dispatcher"
    timetable: "Timetable"

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        self.store = Store(settings.data_dir / "region.sqlite3")
        self.clock = Clock()
        self.tokens = Tokens(self.store, settings.api_url)
        self.iam = Iam(self.store, self.clock)
        self.metadata = Metadata(self)
        self.logs = Logs(settings.data_dir / "logs.sqlite3", self.clock)
        self.operations = Operations(self)
        self.faults = Faults()
        self.services = load_services()
        self._background: set[asyncio.Task[None]] = set()

    @property
    def apis(self) -> list[str]:
        return list(self.services)

    def project_number(self, project: str) -> str:
        """Twelve digits that follow from the project's id, so that a region made anew gives the same ones."""
        row = self.store.row("SELECT number FROM projects WHERE id = ?", (project,))
        if row is not None:
            return str(row["number"])
        digest = hashlib.sha256(project.encode()).digest()
        number = str(100_000_000_000 + int.from_bytes(digest[:8]) % 900_000_000_000)
        with self.store.transaction() as tx:
            tx.execute("INSERT OR IGNORE INTO projects (id, number) VALUES (?, ?)", (project, number))
        return number

    def project_id(self, project: str) -> str:
        """The id of a project given by id or number. A number that belongs to no known project is answered as it is."""
        if not project.isdigit():
            if project and project not in ("_", "-"):
                self.project_number(project)
            return project
        row = self.store.row("SELECT id FROM projects WHERE number = ?", (project,))
        return project if row is None else str(row["id"])

    def with_project_ids(self, name: str) -> str:
        """A relative name with every `projects/<number>` turned into `projects/<id>`."""
        return re.sub(r"(?<![^/])projects/([^/:]+)", lambda m: f"projects/{self.project_id(m[1])}", name)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run in the background until the region stops. A failure is logged, never lost."""
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._ended)
        return task

    async def run_in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        return await anyio.to_thread.run_sync(function, *arguments)

    async def start(self) -> None:
        anyio.to_thread.current_default_thread_limiter().total_tokens = WORKER_THREADS
        for service in self.services.values():
            for hook in service.starting:
                await hook(self)
        # Only now: a service that recovers an interrupted creation does so before its client is told to ask again.
        await self.run_in_thread(self.operations.recover)
        for service in self.services.values():
            for hook in service.opening:
                await hook(self)

    async def stop(self) -> None:
        services = list(reversed(self.services.values()))
        hooks = [(service, hook) for service in services for hook in service.closing]
        hooks += [(service, hook) for service in services for hook in service.stopping]
        for service, hook in hooks:
            try:
                await hook(self)
            except Exception:
                log.exception("%s did not stop cleanly", service.api.name)
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        self.operations.close()
        self.store.close()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("background work ended", exc_info=task.exception())


def load_services() -> dict[str, Service]:
    """Every API of the table, with the behaviour of `localgcp/services/<api>.py` where there is one."""
    modules = {module.name for module in pkgutil.iter_modules(localgcp.services.__path__)}
    services = {}
    for api in APIS:
        if api.name in modules:
            services[api.name] = importlib.import_module(f"localgcp.services.{api.name}").service
        else:
            services[api.name] = Service(api.name)
    return services
