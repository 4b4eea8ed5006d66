"""The application's two services in a region: real queues, real tokens, real processes, a database that goes away."""

import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, LiteralString

import httpx
import pytest
from google.cloud import tasks_v2
from google.protobuf import duration_pb2

from app.organizations.models import ApiKeyText
from app.queues import QUEUES, VALIDATIONS
from app.regions import DataRegion
from localgcp.faults import Fault
from tests.app import server
from tests.app.environment import environment
from tests.app.postgres import Postgres
from tests.app.queueing.conftest import GOOD
from tests.localgcp.fixtures import Region, served, temporary_data_dir
from tests.ports import quiet_port

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("app-in-a-region")]
PROJECT = "validibot-test"
STATES = "SELECT state, count(*) FROM validations_validationjob WHERE id = ANY(%s) GROUP BY state"
LOCATION = f"projects/{PROJECT}/locations/australia-southeast1"
MINIMUM_BACKOFF_SECONDS = 0.2


@dataclass
class App:
    region: Region
    postgres: Postgres
    web: server.Server
    worker: server.Server
    media: Path
    job_environment: dict[str, str]
    key: ApiKeyText

    def submit(self, count: int = 1) -> list[str]:
        headers = {"authorization": f"Bearer {self.key.text}", "prefer": "respond-async"}
        with self.web.client(**headers) as client:
            answers = [client.post("/api/validations", json=GOOD) for _ in range(count)]
        assert {answer.status_code for answer in answers} == {202}, answers[0].text
        return [answer.json()["id"] for answer in answers]

    def rows(self, statement: LiteralString, *values: object) -> list[tuple[Any, ...]]:
        with self.postgres.connect("validibot") as connection:
            return connection.execute(statement, values).fetchall()

    def wait_for_state(self, ids: list[str], state: str, seconds: float = 40) -> None:
        deadline = time.monotonic() + seconds
        while (found := self.rows(STATES, ids)) != [(state, len(ids))]:
            assert time.monotonic() < deadline, f"{found}, not {state}, after {seconds} s"
            time.sleep(0.1)  # between two questions; the deadline is above

    def schedule(self, name: str) -> dict[str, Any]:
        scheduler = f"validibot-scheduler@{PROJECT}.iam.gserviceaccount.com"
        token = self.region.core.tokens.id_token(scheduler, self.worker.url)
        answer = httpx.post(
            f"{self.worker.url}/internal/scheduled/{name}",
            headers={"authorization": f"Bearer {token}"},
            timeout=60,
        )
        assert answer.status_code == 200, answer.text
        counts: dict[str, Any] = answer.json()["counts"]
        return counts

    def parked(self) -> list[str]:
        tasks = self.region.client(tasks_v2.CloudTasksClient)
        return [task.name for task in tasks.list_tasks(parent=f"{LOCATION}/queues/validations-dead-letters")]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    postgres = Postgres.reserve()
    with temporary_data_dir() as data_dir, served(data_dir) as region:
        try:
            postgres.create()
            with postgres.connect() as admin:
                admin.execute("CREATE DATABASE validibot")
            yield from _deployed(region, postgres, tmp_path_factory.mktemp("app"))
        finally:
            postgres.destroy()


def _deployed(region: Region, postgres: Postgres, directory: Path) -> Iterator[App]:
    make_queues(region)
    media = directory / "media"
    worker_port = quiet_port()
    accounts = {name: region.account(PROJECT, f"validibot-{name}") for name in ("web", "worker", "tasks", "scheduler")}
    grants = region.core.iam
    for name in ("web", "worker"):
        project = f"cloudresourcemanager/projects/{PROJECT}"
        for role in ("enqueuer", "viewer", "taskDeleter"):
            grants.add_binding(project, f"roles/cloudtasks.{role}", accounts[name].member)
        grants.add_binding(project, "roles/iam.serviceAccountUser", accounts[name].member)
    base = environment(postgres.directory, media) | {
        "VALIDIBOT_WORKER_URL": f"http://127.0.0.1:{worker_port}",
        "VALIDIBOT_TASKS_SERVICE_ACCOUNT": accounts["tasks"].email,
        "VALIDIBOT_SCHEDULER_SERVICE_ACCOUNT": accounts["scheduler"].email,
        "GOOGLE_CLOUD_TASKS_CUSTOM_ENDPOINT": f"{region.url}/cloudtasks/v2/",
        "GOOGLE_OAUTH2_CUSTOM_ENDPOINT": f"{region.url}/oauth2/",
        "WEB_THREADS": "4",
    }
    environments: dict[str, dict[str, str]] = {}
    for name in ("web", "worker"):
        key_file = directory / f"{name}.json"
        key_file.write_text(json.dumps(accounts[name].key_file))
        environments[name] = base | {"VALIDIBOT_ROLE": name, "GOOGLE_APPLICATION_CREDENTIALS": str(key_file)}
    job = environments["worker"] | {"VALIDIBOT_ROLE": "job"}
    key = ApiKeyText.generate(DataRegion.AU)
    created = ("create_organization", "--slug=demo", "--name=Demo", "--data-region=AU", f"--api-key-hash={key.sha256}")
    for command in (("migrate",), created):
        finished = server.manage(job, *command)
        assert finished.returncode == 0, finished.stdout + finished.stderr
    with (
        server.running(environments["worker"], directory / "worker.log", worker_port) as worker,
        server.running(environments["web"], directory / "web.log") as web,
    ):
        yield App(region, postgres, web, worker, media, job, key)


def make_queues(region: Region) -> None:
    """As the program makes them, with the shortest backoff that is worth measuring."""
    tasks = region.client(tasks_v2.CloudTasksClient)
    for spec in QUEUES:
        backoff = duration_pb2.Duration(nanos=int(MINIMUM_BACKOFF_SECONDS * 1e9))
        retry = {"max_attempts": spec.max_attempts, "min_backoff": backoff, "max_backoff": {"seconds": 60}}
        tasks.create_queue(parent=LOCATION, queue={"name": f"{LOCATION}/queues/{spec.name}", "retry_config": retry})
        parked = tasks.create_queue(parent=LOCATION, queue={"name": f"{LOCATION}/queues/{spec.dead_letter_name}"})
        tasks.pause_queue(name=parked.name)


@pytest.fixture
def faults(app: App) -> Iterator[Callable[..., None]]:
    def add(**fault: Any) -> None:
        app.region.core.faults.add(Fault(**fault))

    yield add
    app.region.core.faults.clear()


def test_every_task_delivered_twice_is_run_once(app: App, faults: Callable[..., None]) -> None:
    faults(kind="deliver-twice", target="validations")
    ids = app.submit(10)

    app.wait_for_state(ids, "SUCCESS")

    assert app.rows("SELECT DISTINCT attempts FROM validations_validationjob WHERE id = ANY(%s)", ids) == [(1,)]


def test_a_queue_that_answers_503_costs_a_sweep_and_no_job(app: App, faults: Callable[..., None]) -> None:
    faults(kind="unavailable", target="cloudtasks")
    [job_id] = app.submit()
    app.region.core.faults.clear()
    app.rows("UPDATE validations_validationjob SET sweep_at = now() WHERE id = %s RETURNING 1", job_id)

    assert app.schedule("re-enqueue-pending")["enqueued"] == 1
    app.wait_for_state([job_id], "SUCCESS")


def test_a_handler_that_always_fails_is_tried_as_the_queue_says_and_done_after_the_mend(app: App) -> None:
    [job_id] = _submit_broken(app)
    healthy = app.submit(3)

    app.wait_for_state([job_id], "FAILED")

    lines = _attempts(app, job_id)
    assert [(line["attempt"], line["httpRequest"]["status"]) for line in lines] == [
        (1, 500),
        (2, 500),
        (3, 500),
        (4, 500),
        (5, 204),
    ]
    times = [_seconds(line["time"]) for line in lines]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    for gap, expected in zip(gaps, [0.2, 0.4, 0.8, 1.6], strict=True):
        assert expected <= gap <= expected + 1.0
    # Nothing else was delayed.
    done = "SELECT max(finished_at) FROM validations_validationjob WHERE id = ANY(%s)"
    assert app.rows(done, healthy) < app.rows(done, [job_id])
    [(letter_id,)] = app.rows("SELECT id FROM dead_letters_deadletter WHERE task_id = %s", job_id)
    assert [name for name in app.parked() if job_id in name]

    _mend(app, job_id)
    requeued = server.manage(app.job_environment, "dead-letters", "requeue", str(letter_id))

    assert requeued.returncode == 0, requeued.stdout + requeued.stderr
    app.wait_for_state([job_id], "SUCCESS")
    assert [name for name in app.parked() if job_id in name] == []
    assert server.manage(app.job_environment, "dead-letters", "list").stdout.endswith("0 dead letters\n")


def test_a_database_that_is_lost_to_the_last_attempt_leaves_the_parked_copy(app: App) -> None:
    tasks = app.region.client(tasks_v2.CloudTasksClient)
    queue = f"{LOCATION}/queues/validations"
    tasks.pause_queue(name=queue)
    [job_id] = app.submit()
    app.postgres.stop()
    try:
        tasks.resume_queue(name=queue)
        _wait_for_attempt(app, job_id, VALIDATIONS.max_attempts)
    finally:
        app.postgres.start()
    assert [name for name in app.parked() if job_id in name]
    assert app.rows("SELECT count(*) FROM dead_letters_deadletter WHERE task_id = %s", job_id) == [(0,)]
    assert app.rows(STATES, [job_id]) == [("PENDING", 1)]

    assert app.schedule("sweep-dead-letters")["read back"] == 1
    [(letter_id, error)] = app.rows("SELECT id, error_type FROM dead_letters_deadletter WHERE task_id = %s", job_id)
    assert error == "django.db.utils.OperationalError"
    assert server.manage(app.job_environment, "dead-letters", "requeue", str(letter_id)).returncode == 0
    app.wait_for_state([job_id], "SUCCESS")


def _submit_broken(app: App) -> list[str]:
    """A job whose submission is away. The queue is paused meanwhile, so that the worker does not run it before."""
    tasks = app.region.client(tasks_v2.CloudTasksClient)
    queue = f"{LOCATION}/queues/{VALIDATIONS.name}"
    tasks.pause_queue(name=queue)
    ids = app.submit()
    _object(app, ids[0]).rename(app.media / ids[0])
    tasks.resume_queue(name=queue)
    return ids


def _attempts(app: App, job_id: str) -> list[dict[str, Any]]:
    """What the worker logged of its answers, in their order."""
    message = f"POST /internal/run-validation/{job_id} "
    return [entry for entry in app.worker.entries() if entry["message"].startswith(message)]


def _wait_for_attempt(app: App, job_id: str, number: int) -> None:
    deadline = time.monotonic() + 90
    while not any(entry["attempt"] == number for entry in _attempts(app, job_id)):
        assert time.monotonic() < deadline, f"attempt {number} did not end"
        time.sleep(0.2)  # between two questions; the deadline is above


def _mend(app: App, job_id: str) -> None:
    (app.media / job_id).rename(_object(app, job_id))


def _object(app: App, job_id: str) -> Path:
    [(name,)] = app.rows("SELECT media_name FROM validations_validationjob WHERE id = %s", job_id)
    return app.media / str(name)


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
