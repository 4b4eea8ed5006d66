"""What the README promises: `make up`, and what one does with a region that is up.

One region for all of it, made by the real command. A test leaves it as it found it.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from google.cloud import storage
from google.oauth2.credentials import Credentials

from scripts.up import exports

ROOT = Path(__file__).resolve().parents[2]
PYTHON = str(ROOT / ".venv" / "bin" / "python")
RESOURCES = 104
pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("e2e"), pytest.mark.timeout(900)]

XSD = (
    '<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema"><xs:element name="quantity" type="xs:positiveInteger"/>'
    "</xs:schema>"
)


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


@pytest.fixture(scope="module")
def up() -> Iterator[Up]:
    # Not tmp_path: PostgreSQL runs as another user than root, who must be able to reach its directory.
    directory = Path(tempfile.mkdtemp(prefix="vb-up-", dir="/tmp"))
    directory.chmod(0o755)
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("VALIDIBOT_", "DJANGO_"))}
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


def test_make_up_says_where_the_region_is_and_what_it_validated(up: Up) -> None:
    assert up.first_url.startswith("http://127.0.0.1:")
    assert re.search(r"validation +PASS, 0 findings", up.printed)
    assert "make down" in up.printed


def test_the_printed_curl_finds_what_is_wrong_with_a_document(up: Up) -> None:
    (command,) = re.findall(r"\n\n  (curl .*?)\n\n", up.printed, re.DOTALL)
    words = [word.replace(up.first_url, up.url) for word in shlex.split(command)]
    answer = run(*words, "--silent", environ=up.environ)

    body = json.loads(answer.stdout)
    assert body["verdict"] == "FAIL"
    assert [finding["path"] for finding in body["findings"]] == ["/floor_area"]


@pytest.mark.parametrize(
    ("submission", "verdict"),
    [
        ({"validator": "xml-schema", "document": "<quantity>2</quantity>", "schema": XSD}, "PASS"),
        ({"validator": "xml-schema", "document": "<quantity>0</quantity>", "schema": XSD}, "FAIL"),
        ({"validator": "cel", "document": {"n": 1}, "rules": [{"expression": "document.n > 0"}]}, "PASS"),
        ({"validator": "cel", "document": {"n": 0}, "rules": [{"expression": "document.n > 0"}]}, "FAIL"),
    ],
)
def test_each_validator_works_through_the_front_door(up: Up, submission: dict[str, Any], verdict: str) -> None:
    answer = up.validate(submission)

    assert (answer.status_code, answer.json()["verdict"]) == (201, verdict)
    headers = {"Authorization": f"Bearer {up.key}"}
    stored = httpx.get(f"{up.url}{answer.json()['url']}", headers=headers, timeout=60, trust_env=False)
    assert stored.json() == answer.json()


def test_a_wrong_key_is_refused(up: Up) -> None:
    assert up.validate({}, key="vb_au_00000000_" + "x" * 43).status_code == 401


def test_a_second_make_up_changes_nothing(up: Up) -> None:
    again = run("make", "up", environ=up.environ)

    assert again.returncode == 0, again.stdout[-4000:]
    assert re.search(rf"Resources:\s+{RESOURCES} unchanged\n", again.stdout)
    assert re.findall(r"(?:creat|updat|delet|replac)ed \(", again.stdout) == []


def test_preview_and_refresh_find_no_difference(up: Up) -> None:
    for command in (("preview", "--expect-no-changes"), ("refresh", "--yes", "--expect-no-changes")):
        found = up.pulumi(*command)

        assert found.returncode == 0, found.stdout[-4000:]
        assert re.search(rf"{RESOURCES} unchanged", found.stdout)


def test_a_bucket_that_is_deleted_behind_its_back_is_drift_and_is_made_again(up: Up) -> None:
    bucket = up.buckets().bucket("validibot-au-backups")
    bucket.delete()

    drift = up.pulumi("preview", "--refresh", "--expect-no-changes")
    healed = up.pulumi("up", "--yes", "--refresh", "--skip-preview")

    assert drift.returncode != 0
    assert "storage-backups" in drift.stdout
    assert healed.returncode == 0, healed.stdout[-4000:]
    assert bucket.exists()
    assert up.pulumi("preview", "--expect-no-changes").returncode == 0


def test_a_grant_that_is_missing_makes_the_call_fail_until_it_is_back(up: Up, tmp_path: Path) -> None:
    submission = {"validator": "cel", "document": {"n": 1}, "rules": [{"expression": "document.n > 0"}]}
    program = copy_of_the_program(tmp_path / "program")
    storage_component = program / "infra" / "components" / "storage.py"
    text = storage_component.read_text()
    grant = '"web": "roles/storage.objectUser", '
    storage_component.write_text(text.replace(grant, ""))
    assert text.count(grant) == 1

    removed = up.pulumi("up", "--yes", "--skip-preview", "--cwd", str(program))
    refused = up.validate(submission)
    logs = up.localgcp("logs")
    restored = up.pulumi("up", "--yes", "--skip-preview")
    allowed = up.validate(submission)

    assert removed.returncode == 0, removed.stdout[-2000:]
    assert re.search(r"- 1 deleted\n", removed.stdout)
    assert refused.status_code >= 500
    assert "storage.objects.create" in logs
    assert restored.returncode == 0, restored.stdout[-2000:]
    assert allowed.status_code == 201


def copy_of_the_program(target: Path) -> Path:
    for name in ("infra", "app", "requirements"):
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in (ROOT / "__main__.py", *ROOT.glob("Pulumi*.yaml")):
        shutil.copy(file, target)
    (target / ".venv").symlink_to(ROOT / ".venv")
    return target


@pytest.mark.parametrize(
    ("key", "value", "finding"),
    [
        ("dataRegion", "NZ", "validibot:dataRegion is 'NZ'; allowed: 'AU', 'US' or 'EU'"),
        ("projectId", "validibot-us", "validibot:projectId is validibot-us, which Pulumi.us.yaml names as well"),
        (
            "database",
            {"transactionLogRetentionDays": 30},
            "validibot:database.transactionLogRetentionDays is 30, but ENTERPRISE keeps the transaction log for 1 to 7",
        ),
    ],
)
def test_a_wrong_setting_fails_the_preview_and_touches_nothing(
    up: Up, tmp_path: Path, key: str, value: Any, finding: str
) -> None:
    settings = yaml.safe_load((ROOT / "Pulumi.au.yaml").read_text())
    settings["config"][f"validibot:{key}"] = value
    file = tmp_path / "Pulumi.au.yaml"
    file.write_text(yaml.safe_dump(settings))

    failed = up.pulumi("preview", "--config-file", str(file))

    assert failed.returncode != 0
    assert finding in failed.stdout
    assert "Traceback" not in failed.stdout
    assert up.pulumi("preview", "--expect-no-changes").returncode == 0


def test_destroy_leaves_nothing_and_up_works_again(up: Up, tmp_path: Path) -> None:
    settings = yaml.safe_load((ROOT / "Pulumi.au.yaml").read_text())
    settings["config"]["validibot:deletionProtection"] = False
    file = tmp_path / "Pulumi.au.yaml"
    file.write_text(yaml.safe_dump(settings))

    protected = up.pulumi("destroy", "--yes")
    unprotected = up.pulumi("up", "--yes", "--skip-preview", "--config-file", str(file))
    destroyed = up.pulumi("destroy", "--yes", "--skip-preview", "--config-file", str(file))
    left = json.loads(up.localgcp("status", "--json"))
    again = run("make", "up", environ=up.environ)

    assert protected.returncode != 0
    assert "protected" in protected.stdout
    assert "Destroying (au)" not in protected.stdout, "it went beyond the preview"
    assert unprotected.returncode == 0, unprotected.stdout[-4000:]
    assert destroyed.returncode == 0, destroyed.stdout[-4000:]
    assert [left[kind] for kind in ("services", "jobs", "instances", "buckets", "frontDoors")] == [[], [], [], [], []]
    assert again.returncode == 0, again.stdout[-4000:]
    assert re.search(r"validation +PASS, 0 findings", again.stdout)


def test_the_repository_is_as_it_was(up: Up) -> None:
    """No salt, no key and no password finds its way into a stack file."""
    for file in ROOT.glob("Pulumi.*.yaml"):
        assert list(yaml.safe_load(file.read_text())) == ["config"], file
