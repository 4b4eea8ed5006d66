"""How exactly Cloud Tasks keeps a queue's rate and its backoff: what a target sees, against what the queue says."""

import itertools
import os
from typing import Any

from google.cloud import tasks_v2
from google.oauth2.credentials import Credentials
from google.protobuf import duration_pb2

from bench.measure import say
from bench.region import started
from tests.localgcp.targets import serving

LOCATION = "projects/bench-tasks/locations/australia-southeast1"
RATES = (10, 50, 200)
RATE_SECONDS = 10
BACKOFF_SECONDS = 0.5
ATTEMPTS = 6


def run() -> None:
    with started() as region:
        environ = region.environ
        endpoint = environ["GOOGLE_CLOUD_TASKS_CUSTOM_ENDPOINT"].removesuffix("/v2/")
        tasks = tasks_v2.CloudTasksClient(
            credentials=Credentials(token=environ["GOOGLE_OAUTH_ACCESS_TOKEN"]),
            transport="rest",
            client_options={"api_endpoint": endpoint},
        )
        print("| what | configured | seen | ratio | load average |\n|---|---|---|---|---|")
        for rate in RATES:
            show(f"dispatches per second over {RATE_SECONDS} s", rate, seen_rate(tasks, rate))
        expected = [min(BACKOFF_SECONDS * 2**number, 4.0) for number in range(ATTEMPTS - 1)]
        for number, (wanted, seen) in enumerate(zip(expected, seen_gaps(tasks), strict=True), start=1):
            show(f"seconds from attempt {number} to the next", wanted, seen)


def show(what: str, configured: float, seen: float) -> None:
    load, _, _ = os.getloadavg()
    print(f"| {what} | {configured:g} | {seen:.3g} | {seen / configured:.3f} | {load:.1f} |", flush=True)


def queue(tasks: tasks_v2.CloudTasksClient, name: str, **settings: Any) -> str:
    made = tasks.create_queue(parent=LOCATION, queue={"name": f"{LOCATION}/queues/{name}", **settings})
    return str(made.name)


def seen_rate(tasks: tasks_v2.CloudTasksClient, rate: int) -> float:
    """Deliveries per second in the steady part: filled while paused, and counted after the burst is spent."""
    name = queue(tasks, f"rate-{rate}", rate_limits={"max_dispatches_per_second": rate})
    tasks.pause_queue(name=name)
    total = rate * RATE_SECONDS + rate
    with serving() as target:
        for _ in range(total):
            tasks.create_task(parent=name, task={"http_request": {"url": target.url}})
        say(f"{total} tasks wait in a queue of {rate} a second")
        tasks.resume_queue(name=name)
        deliveries = target.wait_for(total, timeout_seconds=10 * RATE_SECONDS)
    steady = [delivery.at for delivery in deliveries[rate:]]
    return (len(steady) - 1) / (steady[-1] - steady[0])


def seen_gaps(tasks: tasks_v2.CloudTasksClient) -> list[float]:
    whole, part = divmod(BACKOFF_SECONDS, 1)
    retry = tasks_v2.RetryConfig(
        max_attempts=ATTEMPTS,
        min_backoff=duration_pb2.Duration(seconds=int(whole), nanos=int(part * 1e9)),
        max_backoff=duration_pb2.Duration(seconds=4),
        max_doublings=16,
    )
    name = queue(tasks, "gaps", retry_config=retry)
    with serving() as target:
        target.answers(500)
        tasks.create_task(parent=name, task={"http_request": {"url": target.url}})
        deliveries = target.wait_for(ATTEMPTS, timeout_seconds=60)
    return [after.at - before.at for before, after in itertools.pairwise(deliveries)]
