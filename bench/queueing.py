"""Asynchronous validations by Cloud Tasks and a Cloud Run service, against Celery with Redis.

The same rows, the same submission in the same bucket, the same validators, the same database; two worker processes on
each side. Cloud Tasks delivers over HTTP with a token to gunicorn's two workers; Celery's two processes take tasks from
Redis, which appends each to a file and syncs it every second. A queue's own rate is a protection and would be what one
measures, so it is lifted for the run.

Ours keeps every promise while it is measured: the task is durable before `enqueue` returns, the job runs under a lease.
Celery's first body has neither; the second is our task's function with its lease.
"""

import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from bench.front_door import SMALL, Command, free_port
from bench.measure import Comparison, show
from bench.region import Deployed, deployed

MODEL = "validibot-worker"
SERVICE = "bench-worker"
PROCESSES = 2
THREADS = 4
JOBS = 400
PACED_JOBS = 150
PER_SECOND = 8.0
RUN_SECONDS = 400
HERE = Path(__file__).resolve().parent


def deploy(region: Deployed) -> Command:
    """A worker service like the program's, of one instance with PROCESSES; how its instance was started."""
    url = f"{region.run_api}{region.location}/services"
    model = region.google.get(f"{url}/{MODEL}").raise_for_status().json()
    host = urlsplit(str(model["uri"])).netloc.replace(MODEL, SERVICE)
    template = model["template"]
    template.pop("revision", None)
    template["scaling"] = {"minInstanceCount": 1, "maxInstanceCount": 1}
    template["maxInstanceRequestConcurrency"] = PROCESSES * THREADS
    ours = {
        "VALIDIBOT_WORKER_URL": f"https://{host}",
        "VALIDIBOT_DATABASE_POOL_MAX": str(THREADS),
        "WEB_WORKERS": str(PROCESSES),
        "WEB_THREADS": str(THREADS),
    }
    for variable in template["containers"][0]["env"]:
        if variable["name"] in ours:
            variable["value"] = ours[variable["name"]]
    body = {"template": template, "ingress": "INGRESS_TRAFFIC_ALL", "invokerIamDisabled": True}
    made = region.google.post(url, params={"serviceId": SERVICE}, json=body)
    if made.status_code != httpx.codes.CONFLICT:
        region.finish(made.raise_for_status().json())
    deadline = time.monotonic() + 60
    while not (instances := region.instances(SERVICE)):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{SERVICE} has no instance")
        time.sleep(0.1)
    return Command.of(instances[0])


@contextlib.contextmanager
def without_a_rate(region: Deployed) -> Iterator[None]:
    """The queue as fast as Cloud Tasks allows, with as many deliveries at a time as the service takes."""
    tasks = region.region.environ["GOOGLE_CLOUD_TASKS_CUSTOM_ENDPOINT"]
    url = f"{tasks}{region.location}/queues/validations"
    before = region.google.get(url).raise_for_status().json()["rateLimits"]

    def change(limits: dict[str, Any]) -> None:
        body = {"rateLimits": {name: limits[name] for name in ("maxDispatchesPerSecond", "maxConcurrentDispatches")}}
        region.google.patch(url, params={"updateMask": "rateLimits"}, json=body).raise_for_status()

    change({"maxDispatchesPerSecond": 500, "maxConcurrentDispatches": PROCESSES * THREADS})
    try:
        yield
    finally:
        change(before)


@contextlib.contextmanager
def celery(command: Command, celery_packages: Path, folder: Path) -> Iterator[dict[str, str]]:
    """Redis and a Celery worker; the environment in which one enqueues."""
    redis = shutil.which("redis-server")
    if redis is None:
        raise FileNotFoundError("redis-server is not installed: apt-get install redis-server")
    port = free_port()
    durable = ("--appendonly", "yes", "--appendfsync", "everysec")
    environ = {
        **command.environ,
        "BENCH_BROKER": f"redis://127.0.0.1:{port}/0",
        "BENCH_CELERY": str(celery_packages),
        "BENCH_PROCESSES": str(PROCESSES),
        "PYTHONPATH": command.directory,
    }
    with (folder / "celery.log").open("wb") as log:
        broker = subprocess.Popen(
            [redis, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), *durable], stdout=log, stderr=log
        )
        worker = subprocess.Popen(
            [sys.executable, str(HERE / "celery_app.py")],
            cwd=command.directory,
            env=environ,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield environ
    finally:
        os.killpg(worker.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)
        broker.terminate()
        broker.wait(20)


@dataclass(frozen=True, kw_only=True)
class Seen:
    per_second: float
    p50: float
    p95: float


def drive(environ: dict[str, str], directory: str, *arguments: str) -> Seen:
    finished = subprocess.run(
        [sys.executable, str(HERE / "enqueue.py"), *arguments],
        cwd=directory,
        env={**environ, "PYTHONPATH": directory},
        input=SMALL,
        stdout=subprocess.PIPE,
        timeout=RUN_SECONDS,
        check=True,
    )
    seen = json.loads(finished.stdout.splitlines()[-1])
    twentieths = statistics.quantiles(seen["latencies"], n=20)
    return Seen(per_second=len(seen["latencies"]) / seen["seconds"], p50=twentieths[9], p95=twentieths[18])


def run(rounds: int, data_dir: Path | None, celery_packages: Path) -> None:
    """Measure and print."""
    faster, slower = "Cloud Tasks is faster than Celery", "Cloud Tasks takes longer than Celery"
    comparisons = []
    with deployed(data_dir) as region, tempfile.TemporaryDirectory() as folder:
        region.key  # noqa: B018  # creates the organisation
        command = deploy(region)
        with without_a_rate(region), celery(command, celery_packages, Path(folder)) as environ:
            ours = partial(drive, command.environ, command.directory)
            for task, body in (("validate", "a plain body"), ("run_validation", "our leases")):
                theirs = partial(drive, environ, command.directory, "--celery", task)
                for side in (ours, theirs):
                    side("--jobs", "24")
                burst = Comparison(name=f"{JOBS} at once, Celery with {body}", unit="jobs/s", above_one=faster)
                many = ("--jobs", str(JOBS))
                burst.measure(rounds, lambda: ours(*many).per_second, lambda: theirs(*many).per_second)  # noqa: B023
                pace = ("--jobs", str(PACED_JOBS), "--per-second", str(PER_SECOND))
                late: list[float] = []

                def paced(side: Any) -> float:
                    seen = side(*pace)  # noqa: B023
                    late.append(seen.p95 * 1000)  # noqa: B023
                    return float(seen.p50 * 1000)

                even = Comparison(
                    name=f"{PER_SECOND:.0f} a second, Celery with {body}: p50", unit="ms", above_one=slower
                )
                tail = Comparison(
                    name=f"{PER_SECOND:.0f} a second, Celery with {body}: p95", unit="ms", above_one=slower
                )
                for at in range(rounds):
                    late.clear()
                    even.measure(1, lambda: paced(ours), lambda: paced(theirs))  # noqa: B023
                    mine, other = reversed(late) if at % 2 else late
                    tail.ours.append(mine)
                    tail.baseline.append(other)
                    tail.load.append(even.load[at])
                comparisons += [burst, even, tail]
    show(*comparisons)
    print(f"{PROCESSES} worker processes on each side; gunicorn's have {THREADS} threads each.")
