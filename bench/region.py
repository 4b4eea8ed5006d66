"""A region for measurements, with the AU stack in it, an organisation without a limit, and its processes in sight."""

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import psutil

from scripts.up import ROOT, Pulumi, Region, demo_key, front_door

STACK = "au"
REQUESTS_PER_HOUR = 1_000_000_000
DEADLINE_SECONDS = 120.0


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """A running region with the stack."""

    region: Region

    @cached_property
    def outputs(self) -> dict[str, Any]:
        return Pulumi(stack=STACK, environ=self.region.environ).outputs()

    @cached_property
    def front_door(self) -> str:
        return front_door(self.region, self.outputs)

    @property
    def public_host(self) -> str:
        return str(self.outputs["front_door"]["host"])

    @cached_property
    def google(self) -> httpx.Client:
        """Calls Google's APIs as the operator."""
        bearer = {"Authorization": f"Bearer {self.region.environ['GOOGLE_OAUTH_ACCESS_TOKEN']}"}
        return httpx.Client(headers=bearer, timeout=DEADLINE_SECONDS, trust_env=False)

    @property
    def run_api(self) -> str:
        return self.region.environ["GOOGLE_CLOUD_RUN_V2_CUSTOM_ENDPOINT"]

    @property
    def location(self) -> str:
        return f"projects/{self.outputs['project']}/locations/{self.outputs['location']}"

    def finish(self, operation: dict[str, Any]) -> dict[str, Any]:
        """Wait for a long-running operation of Cloud Run's."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not operation.get("done"):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{operation['name']} is still running after {DEADLINE_SECONDS:.0f} s")
            time.sleep(0.2)
            operation = self.google.get(self.run_api + operation["name"]).raise_for_status().json()
        if "error" in operation:
            raise RuntimeError(f"{operation['name']}: {operation['error'].get('message')}")
        response: dict[str, Any] = operation.get("response", {})
        return response

    @cached_property
    def key(self) -> str:
        """The API key of an organisation whose limit of requests no measurement reaches."""
        key = demo_key(self.region.data_dir / "bench-api-key", self.outputs["data_region"])
        arguments = [
            *("create_organization", "--slug", "bench", "--name", "Bench"),
            *("--data-region", self.outputs["data_region"], "--requests-per-hour", str(REQUESTS_PER_HOUR)),
            *("--api-key-prefix", key.split("_")[2], "--api-key-hash", hashlib.sha256(key.encode()).hexdigest()),
        ]
        job = f"{self.run_api}{self.location}/jobs/{self.outputs['jobs']['maintenance']}:run"
        body = {"overrides": {"containerOverrides": [{"args": arguments}]}}
        self.finish(self.google.post(job, json=body).raise_for_status().json())
        return key

    def instances(self, service: str) -> list[psutil.Process]:
        """The first process of each running instance of a Cloud Run service."""
        found = []
        for process in psutil.Process(self.region.status()["pid"]).children():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("K_SERVICE") == service:
                    found.append(process)
        return found


@contextlib.contextmanager
def data_directory(given: Path | None) -> Iterator[Path]:
    """The one that was given, or a new one: its region is stopped and it is removed afterwards."""
    if given is not None:
        yield given.absolute()
        return
    directory = Path(tempfile.mkdtemp(prefix="localgcp-bench-"))
    try:
        yield directory
    finally:
        stop(directory)
        shutil.rmtree(directory, ignore_errors=True)


def stop(directory: Path) -> None:
    subprocess.run([sys.executable, "-m", "localgcp", "down", "--data-dir", str(directory)], cwd=ROOT, check=False)


@contextlib.contextmanager
def started(given: Path | None = None) -> Iterator[Region]:
    """A running region."""
    with data_directory(given) as directory:
        os.environ["LOCALGCP_DATA_DIR"] = str(directory)
        yield Region.start()


@contextlib.contextmanager
def deployed(given: Path | None = None) -> Iterator[Deployed]:
    """A running region with the stack in it."""
    with started(given) as region:
        subprocess.run([sys.executable, "scripts/up.py", "--stack", STACK], cwd=ROOT, check=True, stdout=sys.stderr)
        yield Deployed(region=region)
