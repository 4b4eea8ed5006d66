"""What the README promises: `make up`, and what one does with a region that is up.

One region for all of it, made by the real command. A test leaves it as it found it.
"""

import json
import re
import secrets
import shlex
import shutil
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
import yaml

from tests.docs.blocks import Shell, blocks_of
from tests.e2e.region import ROOT, Up, run

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("e2e"), pytest.mark.timeout(900)]

XSD = (
    '<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema"><xs:element name="quantity" type="xs:positiveInteger"/>'
    "</xs:schema>"
)


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


def test_a_workflow_issues_a_credential_that_anybody_can_verify(up: Up) -> None:
    """Signed by the worker with the region's key; the web service, which has not that key, lists its public half."""
    step = {"key": "sign", "type": "ACTION", "inputs": {"n": {"ref": "/inputs/n"}}, "config": {"action": "CREDENTIAL"}}
    with httpx.Client(
        base_url=up.url, headers={"Authorization": f"Bearer {up.key}"}, timeout=60, trust_env=False
    ) as web:
        workflow = web.post("/api/workflows", json={"name": f"w{secrets.token_hex(8)}", "steps": [step]}).json()
        run_url = web.post(f"/api/workflows/{workflow['workflow']}/runs", json={"inputs": {"n": 7}}).json()["url"]
        deadline = time.monotonic() + 120
        while (seen := web.get(run_url).json())["state"] in ("PENDING", "RUNNING"):
            assert time.monotonic() < deadline, seen
            time.sleep(0.2)
        document = web.get("/.well-known/did.json").json()

    assert seen["state"] == "SUCCESS", seen
    token = seen["steps"][0]["outputs"]["credential"]
    header = jwt.get_unverified_header(token)
    (method,) = (method for method in document["verificationMethod"] if method["id"] == header["kid"])
    claims = jwt.decode(token, jwt.PyJWK(method["publicKeyJwk"], algorithm=header["alg"]).key, [header["alg"]])
    assert (header["alg"], claims["iss"], claims["vc"]["credentialSubject"]) == ("EdDSA", document["id"], {"n": 7})


def test_a_wrong_key_is_refused(up: Up) -> None:
    assert up.validate({}, key="vb_au_00000000_" + "x" * 43).status_code == 401


def test_a_second_make_up_changes_nothing(up: Up) -> None:
    again = run("make", "up", environ=up.environ)

    assert again.returncode == 0, again.stdout[-4000:]
    (created,) = re.findall(r"Resources:\s+\+ (\d+) created\n", up.printed)
    assert re.search(rf"Resources:\s+{created} unchanged\n", again.stdout)
    assert re.findall(r"(?:creat|updat|delet|replac)ed \(", again.stdout) == []


def test_preview_and_refresh_find_no_difference(up: Up) -> None:
    for command in (("preview", "--expect-no-changes"), ("refresh", "--yes", "--expect-no-changes")):
        found = up.pulumi(*command)

        assert found.returncode == 0, found.stdout[-4000:]
        assert re.search(r"\d+ unchanged", found.stdout)


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


def test_settings_of_a_running_stack_are_changed_and_changed_back(up: Up, tmp_path: Path) -> None:
    settings = yaml.safe_load((ROOT / "Pulumi.au.yaml").read_text())
    settings["config"] |= {
        "validibot:publicHost": "checks.example.com",
        "validibot:logLevel": "DEBUG",
        "validibot:logRetentionDays": 60,
        "validibot:web": {"minInstances": 1, "maxInstances": 5, "cpu": "2", "memory": "2Gi", "timeoutSeconds": 120},
        "validibot:worker": {"timeoutSeconds": 600},
        "validibot:database": {"tier": "db-custom-4-16384", "availability": "REGIONAL", "retainedBackups": 21},
    }
    file = tmp_path / "Pulumi.au.yaml"
    file.write_text(yaml.safe_dump(settings))
    hosts = ("checks.example.com", "au.validibot.com")

    def answers() -> list[int]:
        """401 asks for a key; a host that is not the stack's own is not served at all."""
        return [
            httpx.get(f"{up.url}/api/validations", headers={"host": host}, timeout=60).status_code for host in hosts
        ]

    changed = up.pulumi("up", "--yes", "--skip-preview", "--config-file", str(file))
    changed_answers = answers()
    same = up.pulumi("preview", "--expect-no-changes", "--config-file", str(file))
    restored = up.pulumi("up", "--yes", "--skip-preview")
    restored_answers = answers()

    assert changed.returncode == 0, changed.stdout[-4000:]
    assert (changed_answers, restored_answers) == ([401, 400], [400, 401])
    assert same.returncode == 0, same.stdout[-4000:]
    assert restored.returncode == 0, restored.stdout[-4000:]
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


def test_the_tutorial_does_what_it_says(up: Up, tmp_path: Path) -> None:
    # A copy, because the tutorial changes a stack file, which other tests read at the same time.
    clone = tmp_path / "validibot"
    shutil.copytree(ROOT, clone, ignore=shutil.ignore_patterns(".git", ".venv", ".localgcp", "__pycache__", ".*_cache"))
    (clone / ".venv").symlink_to(ROOT / ".venv")

    with closing(Shell(up.environ, clone)) as shell:
        blocks = [block for block in blocks_of(ROOT / "docs" / "tutorial.md") if block.mark == "region"]
        for block in blocks:
            shell.run(block)

    assert len(blocks) > 3
