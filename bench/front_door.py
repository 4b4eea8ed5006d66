"""A synchronous validation through the front door, against the same view in a gunicorn that nothing stands before.

The gunicorn alone is started like the instance: the same command, environment, image directory, worker processes and
threads, on the same database with the same account; its log goes to a file. Both run all the time and take turns with
the load, a closed loop with fewer connections than an instance takes requests at once, so that no second one starts.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import httpx
import psutil

from bench import load
from bench.measure import Comparison, say, show
from bench.region import Deployed, deployed
from scripts.up import GOOD, validation_request

SERVICE = "validibot-web"
CONNECTIONS = 8
SECONDS = 6.0
START_SECONDS = 60.0
SMALL = json.dumps(validation_request(GOOD)).encode()
PROBE = "/healthz"
FASTER = "the front door answers more requests"
DEARER = "the front door costs CPU time"
SLOWER = "the front door takes longer"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@dataclass(frozen=True, kw_only=True)
class Command:
    """How an instance was started."""

    arguments: list[str]
    environ: dict[str, str]
    directory: str

    @classmethod
    def of(cls, instance: psutil.Process) -> Self:
        return cls(arguments=instance.cmdline(), environ=instance.environ(), directory=instance.cwd())


@contextlib.contextmanager
def alone(command: Command, log: Path) -> Iterator[str]:
    """A gunicorn like the one of an instance, with nothing before it; its URL, which may not answer yet."""
    port = free_port()
    environ = {**command.environ, "PORT": str(port)}
    with log.open("ab") as output:
        process = subprocess.Popen(
            command.arguments,
            cwd=command.directory,
            env=environ,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def wait_until_it_answers(url: str, path: str, headers: dict[str, str]) -> None:
    deadline = time.monotonic() + START_SECONDS
    with httpx.Client(headers=headers, trust_env=False, timeout=START_SECONDS) as client:
        while True:
            with contextlib.suppress(httpx.TransportError):
                if client.get(url + path).is_success:
                    return
            if time.monotonic() > deadline:
                raise TimeoutError(f"{url}{path} did not answer within {START_SECONDS:.0f} s")
            time.sleep(0.01)


def behind_the_door(region: Deployed) -> dict[str, str]:
    """What the front door tells an instance, for requests that come without it."""
    return {"Host": region.public_host, "X-Forwarded-Proto": "https"}


def run(rounds: int, data_dir: Path | None) -> None:
    """Measure and print."""
    with deployed(data_dir) as region, tempfile.TemporaryDirectory() as folder:
        bearer = {"Authorization": f"Bearer {region.key}"}
        door = region.front_door
        through = load.post(door, "/api/validations", bearer, SMALL)
        instance = region.instances(SERVICE)[0]
        with alone(Command.of(instance), Path(folder) / "log") as url:
            wait_until_it_answers(url, PROBE, behind_the_door(region))
            direct = load.post(url, "/api/validations", bearer | behind_the_door(region), SMALL)
            rates = Comparison(name="validations, front door to gunicorn alone", unit="requests/s", above_one=FASTER)
            middle = Comparison(name="median answer", unit="ms", above_one=SLOWER)
            late = Comparison(name="95th percentile", unit="ms", above_one=SLOWER)
            cost = Comparison(name="CPU of the region's process for a request", unit="ms", above_one=DEARER)
            seen: list[tuple[load.Load, float]] = []
            process = psutil.Process(region.region.status()["pid"])

            def measured(url: str, request: bytes) -> float:
                before = sum(process.cpu_times()[:2])
                found = load.run(url, request, connections=CONNECTIONS, seconds=SECONDS, wanted=201)
                seen.append((found, (sum(process.cpu_times()[:2]) - before) / found.requests))
                return found.requests_per_second

            for target, request in ((door, through), (url, direct)):
                load.run(target, request, connections=CONNECTIONS, seconds=2.0, wanted=201)
            for number in range(rounds):
                seen.clear()
                rates.measure(1, lambda: measured(door, through), lambda: measured(url, direct))
                mine, theirs = reversed(seen) if number % 2 else seen
                for one, ours, baseline in (
                    (middle, mine[0].p50_seconds, theirs[0].p50_seconds),
                    (late, mine[0].p95_seconds, theirs[0].p95_seconds),
                    (cost, mine[1], theirs[1]),
                ):
                    one.ours.append(ours * 1000)
                    one.baseline.append(baseline * 1000)
                    one.load.append(rates.load[number])
            if region.instances(SERVICE) != [instance]:
                say("another instance has started meanwhile: the sides had not the same processes")
    show(rates, middle, late, cost)
    print("Both sides store the submission in Cloud Storage, so that the region's process works for both.")
    print(f"{CONNECTIONS} connections, {SECONDS:.0f} s for each side of a round, the load generator on the same CPUs.")
