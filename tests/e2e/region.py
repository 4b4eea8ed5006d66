"""A region made by the real `make up`, for every end-to-end test of this process."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from google.cloud import storage
from google.oauth2.credentials import Credentials

from scripts.up import exports
from tests.ports import quiet_port

ROOT = Path(__file__).resolve().parents[2]
# What other tests of this process may have set, for the application or for Google's clients.
FOREIGN = ("VALIDIBOT_", "DJANGO_", "GOOGLE_", "GCLOUD_", "CLOUDSDK_", "STORAGE_EMULATOR_HOST", "PULUMI_")
PYTHON = str(ROOT / ".venv" / "bin" / "python")


def run(*command: str, environ: dict[str, str], timeout_seconds: float = 600) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command,
        cwd=ROOT,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_seconds,
        check=False,
    )


def start_on_a_port_of_its_own(data_dir: Path) -> None:
    """Start a region that will be killed: while it is down, no other region on the machine takes its ports.

    A region that has had ports keeps them.
    """
    command = [PYTHON, "-m", "localgcp", "up", "--data-dir", str(data_dir)]
    if not (data_dir / "port").exists():
        command += ["--port", str(quiet_port())]
    subprocess.run(command, cwd=ROOT, check=True, stdout=sys.stderr)


@dataclass(frozen=True, kw_only=True)
class Up:
    """A region after `make up`. `printed` is what the command said."""

    printed: str
    first_url: str
    key: str
    environ: dict[str, str]

    def localgcp(self, *arguments: str) -> str:
        return run(PYTHON, "-m", "localgcp", *arguments, environ=self.environ).stdout

    @property
    def url(self) -> str:
        """Of the front door; another one when the forwarding rule has been made again."""
        doors = json.loads(self.localgcp("status", "--json"))["frontDoors"]
        (url,) = (str(door["url"]) for door in doors if door["address"].endswith(":443"))
        return url.rstrip("/")

    def pulumi(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        engine = shutil.which("pulumi", path=self.environ["PATH"])
        assert engine is not None
        return run(engine, *arguments, "--stack", "au", "--non-interactive", environ=self.environ)

    def validate(self, submission: dict[str, Any], key: str | None = None) -> httpx.Response:
        headers = {"Authorization": f"Bearer {key or self.key}"}
        return httpx.post(f"{self.url}/api/validations", json=submission, headers=headers, timeout=120, trust_env=False)

    def buckets(self) -> storage.Client:
        token = self.environ["GOOGLE_OAUTH_ACCESS_TOKEN"]
        return storage.Client(
            project="validibot-au",
            credentials=Credentials(token=token),
            client_options={"api_endpoint": self.environ["STORAGE_EMULATOR_HOST"]},
        )


@contextmanager
def made_up() -> Iterator[Up]:
    """Start from nothing, and leave nothing."""
    # Not tmp_path: PostgreSQL runs as another user than root, who must be able to reach its directory.
    directory = Path(tempfile.mkdtemp(prefix="vb-up-", dir="/tmp"))
    directory.chmod(0o755)
    environ = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    environ |= {"LOCALGCP_DATA_DIR": str(directory / "region")}
    try:
        made = run("make", "up", environ=environ, timeout_seconds=900)
        assert made.returncode == 0, made.stdout[-4000:]
        url, key = re.search(r"front door +(\S+)", made.stdout), re.search(r"API key +(\S+)", made.stdout)
        assert url is not None
        assert key is not None
        environ["PATH"] = f"{ROOT / '.venv' / 'bin'}{os.pathsep}{environ['PATH']}"
        printed = run(PYTHON, "-m", "localgcp", "env", environ=environ).stdout
        environ |= exports(printed, environ["PATH"])
        yield Up(printed=made.stdout, first_url=url[1], key=key[1], environ=environ)
    finally:
        run(PYTHON, "-m", "localgcp", "down", environ=environ)
        shutil.rmtree(directory, ignore_errors=True)
