"""Stack settings: what is right is read, and what is wrong is named with what would be right."""

import json
from pathlib import Path
from typing import Any

import pytest

from app.regions import DataRegion
from infra.settings import SettingsError, StackSettings, refuse_shared_projects
from tests.infra.inventory import ROOT, STACKS, settings_of

GOOD: dict[str, Any] = {
    "validibot:dataRegion": "AU",
    "validibot:projectId": "validibot-au",
    "validibot:production": "true",
    "validibot:web": {"minInstances": 1},
}


def parse(**changes: Any) -> StackSettings:
    config = GOOD | {f"validibot:{key}": value for key, value in changes.items()}
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in config.items()}
    return StackSettings.parse("au", {key: text for key, text in texts.items() if text != "null"})


def refusal(**changes: Any) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        parse(**changes)
    first, *findings = str(caught.value).splitlines()
    assert first == "stack au has wrong settings:"
    return [finding.strip() for finding in findings]


def test_what_a_stack_file_leaves_out_has_the_values_of_production() -> None:
    settings = parse()

    assert settings.data_region is DataRegion.AU
    assert settings.host == "au.validibot.com"
    assert settings.deletion_protection is True
    assert (settings.database.availability, settings.database.retained_backups) == ("REGIONAL", 14)
    assert (settings.web.concurrency, settings.worker.concurrency) == (16, 8)
    assert settings.worker.timeout_seconds == 900


@pytest.mark.parametrize("stack", STACKS)
def test_every_stack_file_of_the_repository_is_right(stack: str) -> None:
    settings = settings_of(stack)

    assert settings.project_id == f"validibot-{stack}"
    refuse_shared_projects(settings, ROOT)


@pytest.mark.parametrize("stack", STACKS)
def test_stack_files_hold_no_secret(stack: str) -> None:
    assert "secure:" not in (ROOT / f"Pulumi.{stack}.yaml").read_text()


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"dataRegion": "NZ"}, "validibot:dataRegion is 'NZ'; allowed: 'AU', 'US' or 'EU'"),
        ({"dataRegion": None}, "validibot:dataRegion is missing; allowed are AU, US, EU"),
        (
            {"projectId": None},
            "validibot:projectId is missing; allowed is the id of a Google Cloud project that no other stack uses",
        ),
        ({"production": None}, "validibot:production is missing; allowed are true, false"),
        ({"web": {"minInstances": True}}, "validibot:web.minInstances is True; allowed: whole numbers from 0 to 100"),
        (
            {"web": {"minInstances": 1, "memory": "1GB"}},
            "validibot:web.memory is 1GB; with 1 cpu allowed are 512Mi, 1Gi to 4Gi",
        ),
        (
            {"worker": {"cpu": 8, "memory": "2Gi"}},
            "validibot:worker.memory is 2Gi; with 8 cpu allowed are 4Gi to 32Gi",
        ),
        (
            {"projectId": "Validibot_AU"},
            "validibot:projectId is Validibot_AU; allowed are 6 to 30 lower-case letters, digits and hyphens, "
            "a letter first and no hyphen last",
        ),
        (
            {"database": {"transactionLogRetentionDays": 30}},
            "validibot:database.transactionLogRetentionDays is 30, but ENTERPRISE keeps the transaction log for "
            "1 to 7 days: lower it or choose edition ENTERPRISE_PLUS (1 to 14)",
        ),
        (
            {"database": {"diskSizeGb": -20}},
            "validibot:database.diskSizeGb is -20; allowed: whole numbers from 10 to 65536",
        ),
        (
            {"database": {"diskSizeGb": 50, "diskMaxGb": 20}},
            "validibot:database.diskMaxGb is 20, less than diskSizeGb, 50: raise diskMaxGb",
        ),
        (
            {"database": {"retainedBackups": 7}},
            "validibot:database.retainedBackups is 7; in production 14 to 365 are allowed",
        ),
        (
            {"database": {"availability": "ZONAL"}},
            "validibot:database.availability is ZONAL; in production only REGIONAL is allowed",
        ),
        (
            {"database": {"tier": "db-f1-micro"}},
            "validibot:database.tier is db-f1-micro, a shared core; in production only db-custom-* and db-perf-* are "
            "allowed",
        ),
        (
            {"web": {"minInstances": 0}},
            "validibot:web.minInstances is 0; in production 1 to 100 are allowed, or the first visitor waits for a "
            "start",
        ),
        (
            {"web": {"minInstances": 9, "maxInstances": 4}},
            "validibot:web.minInstances is 9, more than maxInstances, 4: raise maxInstances or lower minInstances",
        ),
        (
            {"web": {"minInstances": 1, "maxInstances": 40}},
            "validibot:web.maxInstances is 40 (each 16 connections) and worker.maxInstances 4 (each 8): with two "
            "revisions during a rollout and a reserve they may open 1364 connections, but database.tier "
            "db-custom-2-8192 allows 400: lower maxInstances, workers or threads, or choose a larger tier",
        ),
        (
            {"web": {"minInstances": 1, "maxInstnaces": 4}},
            "validibot:web.maxInstnaces is not a setting; did you mean maxInstances?",
        ),
        ({"projctId": "validibot-au"}, "validibot:projctId is not a setting; did you mean projectId?"),
        ({"web": "many"}, "validibot:web is 'many'; allowed is an object, key by key"),
        ({"production": "perhaps"}, "validibot:production is 'perhaps'; allowed: true, false"),
        ({"publicHost": "https://x"}, "validibot:publicHost is https://x; allowed is a host name such as "),
        ({"stack": "us"}, "validibot:stack is not a setting: the stack's name is given on the command line"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(changes: dict[str, Any], finding: str) -> None:
    (found,) = refusal(**changes)

    assert found.startswith(finding)


def test_all_findings_are_told_at_once() -> None:
    findings = refusal(dataRegion="NZ", database={"diskSizeGb": 5}, worker={"threads": 0})

    assert sorted(findings) == [
        "validibot:dataRegion is 'NZ'; allowed: 'AU', 'US' or 'EU'",
        "validibot:database.diskSizeGb is 5; allowed: whole numbers from 10 to 65536",
        "validibot:worker.threads is 0; allowed: whole numbers from 1 to 64",
    ]


def test_two_stacks_with_one_project_are_refused(tmp_path: Path) -> None:
    (tmp_path / "Pulumi.au.yaml").write_text("config:\n  validibot:projectId: validibot-au\n")
    (tmp_path / "Pulumi.us.yaml").write_text("config:\n  validibot:projectId: validibot-au\n")

    with pytest.raises(SettingsError) as caught:
        refuse_shared_projects(parse(), tmp_path)

    assert str(caught.value) == (
        "validibot:projectId is validibot-au, which Pulumi.us.yaml names as well; "
        "allowed is a project that no other stack uses"
    )


def test_a_stack_file_beside_it_that_nobody_can_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "Pulumi.us.yaml").write_text("config: {")

    with pytest.raises(SettingsError, match=r"^Pulumi\.us\.yaml is no YAML"):
        refuse_shared_projects(parse(), tmp_path)
