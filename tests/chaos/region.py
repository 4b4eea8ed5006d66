"""A region that chaos strikes: what kills it, what starts it again, and questions to its database that outlast both."""

import contextlib
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil
import psycopg
from google.cloud import storage
from google.oauth2.credentials import Credentials

from bench.region import Deployed, deployed, stop
from localgcp.sql.layout import layout_of
from scripts.up import Region
from tests.e2e.region import start_on_a_port_of_its_own

PATIENCE_SECONDS = 90.0
WORKER = "validibot-worker"
# What a region that restarts answers, or does not.
NOT_THERE = (psycopg.OperationalError, psycopg.InterfaceError, httpx.TransportError)

T = TypeVar("T")


def until(what: str, found: Callable[[], T | None], seconds: float = PATIENCE_SECONDS, pause: float = 0.25) -> T:
    """What `found` returns when it is neither None nor False. Raises: TimeoutError that says what did not come."""
    deadline = time.monotonic() + seconds
    while True:
        answer = found()
        if answer is not None and answer is not False:
            return answer
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s")
        time.sleep(pause)


class StruckRegion:
    """The AU stack in a region of its own."""

    def __init__(self, deployed: Deployed) -> None:
        self.deployed = deployed
        self.outputs = deployed.outputs
        self.front_door = deployed.front_door

    @property
    def environ(self) -> dict[str, str]:
        return self.deployed.region.environ

    @property
    def location(self) -> str:
        return self.deployed.location

    # What strikes

    def kill_worker(self) -> int | None:
        """SIGKILL for one instance of the worker that this region started; None when none runs. Answers its process."""
        with contextlib.suppress(psutil.Error, KeyError, FileNotFoundError):
            localgcp = psutil.Process(self._localgcp_pid())
            for process in localgcp.children():
                with contextlib.suppress(psutil.Error):
                    if process.environ().get("K_SERVICE") == WORKER:
                        self._kill_all(process)
                        return process.pid
        return None

    def kill_region(self) -> None:
        """`kill -9` of localgcp. What it had started lives on, until `start_again`."""
        process = psutil.Process(self._localgcp_pid())
        process.send_signal(signal.SIGKILL)
        process.wait(10)

    def start_again(self) -> None:
        self.deployed = Deployed(region=Region.start())

    def restart_database(self) -> None:
        """Through Cloud SQL's API; waits for its end."""
        api = self.environ["GOOGLE_SQL_CUSTOM_ENDPOINT"] + f"projects/{self.outputs['project']}"
        name = self.outputs["database"]["instance"]
        operation = self.deployed.google.post(f"{api}/instances/{name}/restart").raise_for_status().json()
        until(
            "the restart of the database",
            lambda: self.api("GET", f"{api}/operations/{operation['name']}")["status"] == "DONE",
        )

    def strike(self, **fault: Any) -> None:
        httpx.post(self._faults, json=fault, timeout=30, trust_env=False).raise_for_status()

    def faults(self) -> list[dict[str, Any]]:
        answer = httpx.get(self._faults, timeout=30, trust_env=False).raise_for_status().json()
        found: list[dict[str, Any]] = answer["faults"]
        return found

    def heal(self) -> None:
        httpx.delete(self._faults, timeout=30, trust_env=False).raise_for_status()

    # What asks

    def api(self, method: str, url: str, body: Any = None) -> Any:
        """A call of one of Google's APIs as the operator, tried again while the region is away."""

        def answered() -> Any:
            try:
                answer = self.deployed.google.request(method, url, json=body)
            except httpx.TransportError:
                return None
            return None if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE else answer

        answer: httpx.Response = until(f"{method} {url}", answered)
        answer.raise_for_status()
        return answer.json() if answer.content else {}

    def rows(self, statement: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> list[tuple[Any, ...]]:
        """The database's answer; asked again while it restarts. An error of the statement itself is raised."""

        def answered() -> list[tuple[Any, ...]] | None:
            try:
                with self.database() as connection:
                    cursor = connection.execute(statement.encode(), parameters or None)
                    return list(cursor.fetchall()) if cursor.description else []
            except NOT_THERE:
                return None

        return until("the database", answered)

    def maintain(self, *arguments: str) -> list[str]:
        """Run a command of the application in the maintenance job; the lines that it printed."""
        api = self.deployed.run_api
        job = f"{self.location}/jobs/{self.outputs['jobs']['maintenance']}"
        body = {"overrides": {"containerOverrides": [{"args": list(arguments)}]}}
        execution = self.deployed.finish(self.api("POST", f"{api}{job}:run", body))
        name = str(execution["name"]).rpartition("/")[2]
        entries = self.api(
            "POST",
            self.environ["GOOGLE_LOGGING_CUSTOM_ENDPOINT"] + "entries:list",
            {
                "resourceNames": [f"projects/{self.outputs['project']}"],
                "filter": f'labels."run.googleapis.com/execution_name"="{name}"',
                "pageSize": 1000,
            },
        )
        return [str(entry["textPayload"]) for entry in entries.get("entries", ()) if "textPayload" in entry]

    def run_schedules(self, *names: str) -> None:
        """Cloud Scheduler's "run now"."""
        for name in names:
            self.api("POST", self._scheduler(name) + ":run", {})

    def tasks_in(self, queue: str) -> list[dict[str, Any]]:
        url = self.environ["GOOGLE_CLOUD_TASKS_CUSTOM_ENDPOINT"] + f"{self.location}/queues/{queue}/tasks"
        found: list[dict[str, Any]] = []
        token = ""
        while True:
            page = self.api("GET", f"{url}?pageSize=1000&pageToken={token}")
            found += page.get("tasks", [])
            token = page.get("nextPageToken", "")
            if not token:
                return found

    def queue(self, name: str) -> dict[str, Any]:
        url = self.environ["GOOGLE_CLOUD_TASKS_CUSTOM_ENDPOINT"] + f"{self.location}/queues/{name}"
        answer: dict[str, Any] = self.api("GET", url)
        return answer

    def switch_queue(self, name: str, verb: str) -> None:
        """`pause` or `resume`."""
        url = self.environ["GOOGLE_CLOUD_TASKS_CUSTOM_ENDPOINT"] + f"{self.location}/queues/{name}:{verb}"
        self.api("POST", url, {})

    def media(self) -> storage.Bucket:
        client = storage.Client(
            project=self.outputs["project"],
            credentials=Credentials(token=self.environ["GOOGLE_OAUTH_ACCESS_TOKEN"]),
            client_options={"api_endpoint": self.environ["STORAGE_EMULATOR_HOST"]},
        )
        return client.bucket(self.outputs["buckets"]["media"])

    @property
    def _faults(self) -> str:
        return self.environ["STORAGE_EMULATOR_HOST"] + "/_localgcp/faults"

    def _scheduler(self, name: str) -> str:
        return self.environ["GOOGLE_CLOUD_SCHEDULER_CUSTOM_ENDPOINT"] + f"{self.location}/jobs/{name}"

    def _localgcp_pid(self) -> int:
        held = json.loads((self.deployed.region.data_dir / "process.json").read_text())
        pid: int = held["pid"]
        return pid

    def _kill_all(self, process: psutil.Process) -> None:
        """An instance is a process with its children. psutil compares creation times before it signals."""
        for one in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()

    @contextlib.contextmanager
    def database(self) -> Iterator[psycopg.Connection]:
        """As the schema's owner, with a token that the operator gets for it."""
        database = self.outputs["database"]
        email = self.outputs["service_accounts"]["migrate"]
        url = self.environ["GOOGLE_IAM_CREDENTIALS_CUSTOM_ENDPOINT"]
        token = self.deployed.google.post(
            f"{url}projects/-/serviceAccounts/{email}:generateAccessToken",
            json={"scope": ["https://www.googleapis.com/auth/cloud-platform"]},
        )
        token.raise_for_status()
        sockets = layout_of(self.deployed.region.data_dir).socket_directory(database["connection_name"])
        with psycopg.connect(
            host=str(sockets),
            dbname=database["name"],
            user=database["user_by_workload"]["migrate"],
            password=token.json()["accessToken"],
            connect_timeout=10,
            autocommit=True,
        ) as connection:
            yield connection


@contextlib.contextmanager
def struck_region(directory: Path | None = None) -> Iterator[StruckRegion]:
    """Bring a region up in `directory`, which stays, or in one that is removed afterwards with the region."""
    # Not below a home directory: PostgreSQL may run as another user, who must be able to reach it.
    given = directory or Path(tempfile.mkdtemp(prefix="vb-chaos-", dir="/tmp"))
    if directory is None:
        given.chmod(0o755)
    before = dict(os.environ)
    for name in before:
        if name.startswith(("VALIDIBOT_", "DJANGO_")):
            del os.environ[name]
    try:
        start_on_a_port_of_its_own(given / "region")
        with deployed(given / "region") as found:
            yield StruckRegion(found)
    finally:
        if directory is None:
            stop(given / "region")
            shutil.rmtree(given, ignore_errors=True)
        os.environ.clear()
        os.environ.update(before)
