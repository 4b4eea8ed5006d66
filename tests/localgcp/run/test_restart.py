"""What is left when localgcp is killed, and what the next one makes of it."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.localgcp.fixtures import temporary_data_dir
from tests.localgcp.run.images import SERVER
from tests.ports import quiet_port

LOCATION = "projects/demo/locations/australia-southeast1"
DOCKERFILE = 'FROM python:3.11\nWORKDIR /srv\nCOPY . .\nCMD ["python", "server.py"]\n'
#: Stands in for a build: the registry is filled in the process that will be killed, through the same library.
FILL = """
import sys, tempfile
from datetime import UTC, datetime
from pathlib import Path
from localgcp.build.dockerfile import Context, Interpreter
from localgcp.build.images import ImageStore, parse_reference
from localgcp.store import Store
data_dir, source, dockerfile = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
images = ImageStore(data_dir / "images", Store(data_dir / "region.sqlite3"))
with tempfile.TemporaryDirectory() as folder:
    Path(folder, "server.py").write_text(source)
    builder = Interpreter(
        Context(Path(folder)), arguments={}, scratch=Path(folder), find_base=images.stage, log=lambda _: None
    )
    image = images.write(builder.build(dockerfile))
reference = parse_reference("australia-southeast1-docker.pkg.dev/demo/images/server:latest")
images.push(reference, image, datetime.now(UTC))
print(f"{reference.name}@{image.digest}")
"""


class Serving:
    """`localgcp serve` as a process that can be killed."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.port = quiet_port()
        self.start()

    def start(self) -> None:
        place = ["--data-dir", str(self.data_dir), "--port", str(self.port)]
        self.process = subprocess.Popen([sys.executable, "-m", "localgcp", "serve", *place])
        deadline = time.monotonic() + 60
        while True:
            assert self.process.poll() is None, "serve ended"
            assert time.monotonic() < deadline, "serve did not start"
            environment = subprocess.run(
                [sys.executable, "-m", "localgcp", "env", "--data-dir", str(self.data_dir), "--format", "json"],
                capture_output=True,
                check=False,
            )
            if environment.returncode == 0:
                break
            time.sleep(0.1)
        values = json.loads(environment.stdout)
        self.url = str(values["STORAGE_EMULATOR_HOST"])
        headers = {"Authorization": f"Bearer {values['GOOGLE_OAUTH_ACCESS_TOKEN']}"}
        self.http = httpx.Client(base_url=f"{self.url}/run/v2/", headers=headers, timeout=60)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()

    def send(self, method: str, path: str, body: Any = None) -> Any:
        answer = self.http.request(method, path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def wait(self, operation: Any) -> Any:
        while not operation["done"]:
            time.sleep(0.1)
            operation = self.send("GET", operation["name"])
        return operation

    def ask(self, service: Any) -> Any:
        host = service["uri"].removeprefix("https://")
        return httpx.get(self.url, headers={"host": host}, timeout=60).json()


@contextmanager
def serving() -> Iterator[tuple[Serving, str]]:
    with temporary_data_dir() as data_dir:
        server = Serving(data_dir)
        try:
            filled = subprocess.run(
                [sys.executable, "-c", FILL, str(data_dir), SERVER, DOCKERFILE], capture_output=True, check=True
            )
            yield server, filled.stdout.decode().strip()
        finally:
            server.stop()


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.mark.timeout(120)
def test_a_killed_region_comes_back_with_its_services_and_without_its_orphans() -> None:
    with serving() as (server, image):
        template = {"containers": [{"image": image}], "scaling": {"minInstanceCount": 1}}
        body = {"template": template, "invokerIamDisabled": True}
        created = server.wait(server.send("POST", f"{LOCATION}/services?serviceId=web", body))["response"]
        code = "import time; time.sleep(600)"
        container = {"image": image, "command": ["python", "-c", code]}
        job = {"template": {"template": {"containers": [container], "maxRetries": 0}}}
        server.wait(server.send("POST", f"{LOCATION}/jobs?jobId=work", job))
        running = server.send("POST", f"{LOCATION}/jobs/work:run", {})
        orphan = server.ask(created)["pid"]
        mine = psutil.Process(server.process.pid).children(recursive=True)
        task = next(child.pid for child in mine if code in child.cmdline())

        server.kill()
        survived = not is_gone(orphan) and not is_gone(task)
        server.start()

        assert survived
        assert is_gone(orphan)
        assert is_gone(task)
        answered = server.ask(created)
        assert answered["environment"]["K_REVISION"] == created["latestReadyRevision"].rpartition("/")[2]
        assert answered["pid"] != orphan
        operation = server.send("GET", running["name"])
        assert operation["error"]["message"] == (
            "The execution was interrupted by a restart of localgcp. Run the job again."
        )
        execution = server.send("GET", running["metadata"]["name"])
        assert (execution["failedCount"], execution["conditions"][0]["state"]) == (1, "CONDITION_FAILED")


@pytest.mark.timeout(120)
def test_a_task_that_is_due_waits_for_the_services_of_a_region_that_comes_back() -> None:
    with serving() as (server, image):
        body = {"template": {"containers": [{"image": image}]}, "invokerIamDisabled": True}
        created = server.wait(server.send("POST", f"{LOCATION}/services?serviceId=web", body))["response"]
        tasks = f"{server.url}/cloudtasks/v2/{LOCATION}/queues"
        # With a second attempt, a first one that found no service would not be seen.
        queue = {"name": f"{LOCATION}/queues/once", "retryConfig": {"maxAttempts": 1}}
        assert server.http.post(tasks, json=queue).status_code == 200
        due = datetime.now(UTC) + timedelta(seconds=1)
        task = {"scheduleTime": due.isoformat(), "httpRequest": {"url": f"{created['uri']}/log"}}
        assert server.http.post(f"{tasks}/once/tasks", json={"task": task}).status_code == 200

        server.kill()
        time.sleep(max(0.0, (due - datetime.now(UTC)).total_seconds()))
        server.start()

        deadline = time.monotonic() + 30
        while server.http.get(f"{tasks}/once/tasks").json().get("tasks"):
            assert time.monotonic() < deadline, "the task is still there"
            time.sleep(0.1)
        asked = {"resourceNames": ["projects/demo"], "filter": 'textPayload="plain"'}
        entries = server.http.post(f"{server.url}/logging/v2/entries:list", json=asked).json()
        assert len(entries["entries"]) == 1


@pytest.mark.timeout(120)
def test_a_region_that_is_stopped_in_order_leaves_no_process() -> None:
    with serving() as (server, image):
        body = {"template": {"containers": [{"image": image}]}, "invokerIamDisabled": True}
        created = server.wait(server.send("POST", f"{LOCATION}/services?serviceId=web", body))["response"]
        instance = server.ask(created)["pid"]

        server.stop()

        assert is_gone(instance)
        assert list((server.data_dir / "run" / "instances").iterdir()) == []
