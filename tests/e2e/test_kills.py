"""`kill -9` of the region, again and again, in the middle of `pulumi up`: nothing that was acknowledged is lost."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml
from google.api_core.exceptions import GoogleAPICallError
from google.cloud import secretmanager, storage
from google.oauth2.credentials import Credentials

from scripts.up import ROOT, Region, create_organization, validation_request
from tests.e2e.region import FOREIGN, start_on_a_port_of_its_own

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.xdist_group("kills"), pytest.mark.timeout(1500)]

KILLS = 20
# Of these, the region stays down until the engine has given up: it retries for half a minute.
KILLS_WITHOUT_RETURN = 2
# Each is written and read once, and a key has 1000 requests an hour.
MOST_VALIDATIONS = 300
WITNESS = "kill-witness"
KEY = "vb_au_0123abcd_" + "k" * 43


class Deployment:
    """A region in a directory of its own, and the engine that deploys to it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environ = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)} | {
            "LOCALGCP_DATA_DIR": str(directory / "region")
        }
        self.region: Region

    def start(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            for name in set(os.environ) - self.environ.keys():
                patch.delenv(name)
            patch.setenv("LOCALGCP_DATA_DIR", self.environ["LOCALGCP_DATA_DIR"])
            start_on_a_port_of_its_own(self.directory / "region")
            self.region = Region.start()

    def kill(self) -> None:
        held = json.loads((self.directory / "region" / "process.json").read_text())
        process = psutil.Process(held["pid"])
        process.send_signal(signal.SIGKILL)
        process.wait(10)

    def engine(self, *arguments: str) -> "subprocess.Popen[str]":
        pulumi = shutil.which("pulumi", path=self.region.environ["PATH"])
        assert pulumi is not None
        return subprocess.Popen(
            [pulumi, *arguments, "--non-interactive"],
            cwd=ROOT,
            env=self.region.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def pulumi(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        process = self.engine(*arguments)
        printed, _ = process.communicate(timeout=600)
        return subprocess.CompletedProcess(process.args, process.returncode, printed, "")

    def settings(self, log_level: str) -> Path:
        """The stack file with another log level, so that an update of what is complete has something to do."""
        settings = yaml.safe_load((ROOT / "Pulumi.au.yaml").read_text())
        settings["config"]["validibot:logLevel"] = log_level
        file = self.directory / "Pulumi.au.yaml"
        file.write_text(yaml.safe_dump(settings))
        return file


@dataclass
class Witness:
    """Writes without pause, and remembers what was acknowledged."""

    deployment: Deployment
    objects: dict[str, bytes] = field(default_factory=dict)
    secrets: dict[str, bytes] = field(default_factory=dict)
    validations: list[str] = field(default_factory=list)
    front_door: str | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def clients(self) -> tuple[storage.Client, secretmanager.SecretManagerServiceClient]:
        environ = self.deployment.region.environ
        credentials = Credentials(token=environ["GOOGLE_OAUTH_ACCESS_TOKEN"])
        endpoint = environ["GOOGLE_SECRET_MANAGER_CUSTOM_ENDPOINT"].removesuffix("v1/").rstrip("/")
        return (
            storage.Client(
                project=WITNESS,
                credentials=credentials,
                client_options={"api_endpoint": environ["STORAGE_EMULATOR_HOST"]},
            ),
            secretmanager.SecretManagerServiceClient(
                credentials=credentials, transport="rest", client_options={"api_endpoint": endpoint}
            ),
        )

    def begin(self) -> None:
        self._stop.clear()
        self._thread = threading.Thread(target=self._write)
        self._thread.start()

    def end(self) -> None:
        self._stop.set()
        assert self._thread is not None
        self._thread.join(60)
        assert not self._thread.is_alive()

    def validate(self) -> None:
        answer = httpx.post(
            f"{self.front_door}/api/validations",
            json=validation_request({"building": "Town Hall", "floor_area": 1}),
            headers={"Authorization": f"Bearer {KEY}"},
            timeout=20,
            trust_env=False,
        )
        if answer.status_code == httpx.codes.CREATED:
            self.validations.append(answer.json()["url"])

    def _write(self) -> None:
        files, secrets = self.clients()
        bucket = files.bucket(WITNESS)
        number = len(self.objects)
        while not self._stop.is_set():
            number += 1
            content = random.randbytes(random.randint(1, 100_000))
            try:
                bucket.blob(f"o/{number}").upload_from_string(content, timeout=5, retry=None)
                self.objects[f"o/{number}"] = content
                name = f"projects/{WITNESS}/secrets/s"
                version = secrets.add_secret_version(parent=name, payload={"data": content[:1000]}, retry=None)
                self.secrets[version.name] = content[:1000]
                if self.front_door is not None and len(self.validations) < MOST_VALIDATIONS:
                    self.validate()
            except (GoogleAPICallError, OSError, httpx.HTTPError):
                # The region is gone, or its web service is not there at this moment: not acknowledged.
                self._stop.wait(0.05)


@pytest.fixture
def deployment() -> Iterator[Deployment]:
    # Not tmp_path: PostgreSQL runs as another user than root, who must be able to reach its directory.
    directory = Path(tempfile.mkdtemp(prefix="vb-kill-", dir="/tmp"))
    directory.chmod(0o755)
    deployment = Deployment(directory)
    try:
        yield deployment
    finally:
        subprocess.run([sys.executable, "-m", "localgcp", "down"], cwd=ROOT, env=deployment.environ, check=False)
        shutil.rmtree(directory, ignore_errors=True)


def test_what_was_acknowledged_survives_twenty_kills_in_the_middle_of_up(deployment: Deployment) -> None:
    deployment.start()
    witness = Witness(deployment)
    files, secrets = witness.clients()
    files.create_bucket(WITNESS, location="australia-southeast1")
    secrets.create_secret(parent=f"projects/{WITNESS}", secret_id="s", secret={"replication": {"automatic": {}}})
    initialised = deployment.pulumi("stack", "init", "au")
    assert initialised.returncode == 0, initialised.stdout
    witness.begin()
    kills = updates = 0

    while kills < KILLS:
        updates += 1
        level = "INFO" if updates % 2 else "DEBUG"
        update = deployment.engine("up", "--yes", "--skip-preview", "--config-file", str(deployment.settings(level)))
        printed = Printed(update)
        while update.poll() is None and kills < KILLS:
            # Where the engine is at that moment is the point of the test; there is no event to wait for.
            # Mostly soon, so that the early resources are hit; sometimes late enough for the migration to pass.
            time.sleep(random.uniform(0.1, 3) * random.choice((1, 1, 6)))
            deployment.kill()
            kills += 1
            if kills <= KILLS_WITHOUT_RETURN:
                update.wait(600)
            deployment.start()
        update.wait(600)
        # Shown by pytest when the test fails.
        print(f"update {updates}, {kills} kills: the engine ended with {update.returncode}\n{printed.text()[-3000:]}")
        if update.returncode == 0 and witness.front_door is None:
            witness.front_door = prepared_front_door(deployment)
    witness.end()

    final = deployment.pulumi("up", "--yes", "--skip-preview", "--config-file", str(deployment.settings("INFO")))
    assert final.returncode == 0, final.stdout[-4000:]
    if witness.front_door is None:
        witness.front_door = prepared_front_door(deployment)
    witness.validate()
    for command in (("preview", "--expect-no-changes"), ("refresh", "--yes", "--expect-no-changes", "--diff")):
        found = deployment.pulumi(*command, "--config-file", str(deployment.settings("INFO")))
        assert found.returncode == 0, found.stdout[-4000:]

    files, secrets = witness.clients()
    bucket = files.bucket(WITNESS)
    assert len(witness.objects) > KILLS
    assert {name: bucket.blob(name).download_as_bytes() for name in witness.objects} == witness.objects
    kept = {name: secrets.access_secret_version(name=name).payload.data for name in witness.secrets}
    assert kept == witness.secrets
    assert witness.validations
    lost = [url for url in witness.validations if read(witness.front_door, url) != httpx.codes.OK]
    assert lost == []


class Printed:
    """What a process prints, read while it runs so that it never waits for a reader."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        self._lines: list[str] = []
        self._thread = threading.Thread(target=self._lines.extend, args=(process.stdout,))
        self._thread.start()

    def text(self) -> str:
        self._thread.join(60)
        return "".join(self._lines)


def prepared_front_door(deployment: Deployment) -> str:
    """The address of the region's front door, behind which the witness's key is known."""
    outputs: dict[str, Any] = json.loads(deployment.pulumi("stack", "output", "--json").stdout)
    create_organization(deployment.region, outputs, KEY)
    (url,) = (d["url"] for d in deployment.region.status()["frontDoors"] if d["address"].endswith(":443"))
    return str(url).rstrip("/")


def read(front_door: str, url: str) -> int:
    headers = {"Authorization": f"Bearer {KEY}"}
    return httpx.get(f"{front_door}{url}", headers=headers, timeout=60, trust_env=False).status_code
