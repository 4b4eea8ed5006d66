"""From no instance at all to the first answer, against gunicorn started by hand until it answers.

A Cloud Run service with the image and the settings of the web service, and no minimum of instances, is made for this.
Before each round its instance is killed; the first request then waits for the next one. By hand is the command of an
instance with its environment in its directory, asked every millisecond until it accepts a connection.
"""

import contextlib
import signal
import socket
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil

from bench.front_door import PROBE, SMALL, START_SECONDS, Command, alone, behind_the_door
from bench.measure import Comparison, show
from bench.region import Deployed, deployed

MODEL = "validibot-web"
SERVICE = "bench-cold"


def deploy(region: Deployed) -> str:
    """Create the service, unless a former run has; its host."""
    url = f"{region.run_api}{region.location}/services"
    model = region.google.get(f"{url}/{MODEL}").raise_for_status().json()
    host = urlsplit(str(model["uri"])).netloc.replace(MODEL, SERVICE)
    template = model["template"]
    template.pop("revision", None)
    template["scaling"] = {"minInstanceCount": 0, "maxInstanceCount": 1}
    for variable in template["containers"][0]["env"]:
        if variable["name"] == "VALIDIBOT_PUBLIC_HOST":
            variable["value"] = host
    body = {"template": template, "ingress": "INGRESS_TRAFFIC_ALL", "invokerIamDisabled": True}
    made = region.google.post(url, params={"serviceId": SERVICE}, json=body)
    if made.status_code != httpx.codes.CONFLICT:
        region.finish(made.raise_for_status().json())
    return host


def kill_instances(region: Deployed) -> None:
    for process in region.instances(SERVICE):
        family = [process, *process.children(recursive=True)]
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.send_signal(signal.SIGKILL)
        psutil.wait_procs(family, timeout=30)
    time.sleep(1.0)  # a pause between rounds, for the region to let go of what the instance had


def first_answer(url: str, headers: dict[str, str], path: str, body: bytes | None) -> float:
    """Seconds until this is answered; a refused connection is tried again after a millisecond."""
    began = time.monotonic()
    address = urlsplit(url)
    while True:
        try:
            socket.create_connection((address.hostname or "", address.port or 80), timeout=START_SECONDS).close()
            break
        except ConnectionRefusedError:
            if time.monotonic() - began > START_SECONDS:
                raise
            time.sleep(0.001)
    method = "GET" if body is None else "POST"
    headers = {**headers, "Content-Type": "application/json"}
    answer = httpx.request(method, url + path, headers=headers, content=body, timeout=START_SECONDS, trust_env=False)
    answer.raise_for_status()
    return time.monotonic() - began


def run(rounds: int, data_dir: Path | None) -> None:
    """Measure and print."""
    slower = "the region takes longer than a start by hand"
    probe = Comparison(name="zero to first answer of /healthz", unit="s", above_one=slower)
    validation = Comparison(name="zero to first validation", unit="s", above_one=slower)
    with deployed(data_dir) as region, tempfile.TemporaryDirectory() as folder:
        host = deploy(region)
        api = f"http://127.0.0.1:{urlsplit(region.run_api).port}"
        bearer = {"Authorization": f"Bearer {region.key}"}
        first_answer(api, {"Host": host}, PROBE, None)
        # An identity ends with its instance: what is started by hand borrows that of a running one, the same account.
        command = Command.of(region.instances(MODEL)[0])

        def from_zero(path: str, body: bytes | None) -> float:
            kill_instances(region)
            return first_answer(api, {**bearer, "Host": host}, path, body)

        def by_hand(path: str, body: bytes | None) -> float:
            kill_instances(region)
            began = time.monotonic()
            with alone(command, Path(folder) / "log") as url:
                first_answer(url, bearer | behind_the_door(region), path, body)
                return time.monotonic() - began

        validations = "/api/validations"
        probe.measure(rounds, lambda: from_zero(PROBE, None), lambda: by_hand(PROBE, None))
        validation.measure(rounds, lambda: from_zero(validations, SMALL), lambda: by_hand(validations, SMALL))
        kill_instances(region)
    show(probe, validation)
