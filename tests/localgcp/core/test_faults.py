"""Faults happen as asked for: to whom, how often, and no longer than they should."""

import pytest
from google.api_core.exceptions import ServiceUnavailable
from google.cloud import secretmanager

from localgcp.faults import Fault, Faults
from tests.localgcp.fixtures import Region


def test_a_fault_strikes_its_target_and_no_other() -> None:
    faults = Faults()
    faults.add(Fault(kind="unavailable", target="run/validibot-*"))

    assert faults.hit("unavailable", "run/validibot-worker") is not None
    assert faults.hit("unavailable", "cloudtasks") is None
    assert faults.hit("refuse", "run/validibot-worker") is None


def test_a_counted_fault_ends_by_itself() -> None:
    faults = Faults()
    faults.add(Fault(kind="unavailable", target="*", count=2))

    assert [faults.hit("unavailable", "x") is not None for _ in range(4)] == [True, True, False, False]


def test_a_rate_hits_a_share_of_the_requests() -> None:
    faults = Faults()
    faults.add(Fault(kind="unavailable", target="*", rate=0.1))

    hits = sum(faults.hit("unavailable", "x") is not None for _ in range(5000))

    assert 350 < hits < 650  # 7 standard deviations around 500


def test_an_api_answers_503_until_the_fault_is_cleared(region: Region, project: str) -> None:
    client = region.client(secretmanager.SecretManagerServiceClient)
    request = {"parent": f"projects/{project}"}
    with region.http() as http:
        http.post("/_localgcp/faults", json={"kind": "unavailable", "target": "secretmanager"}).raise_for_status()
        try:
            with pytest.raises(ServiceUnavailable):
                client.list_secrets(request=request, retry=None)
        finally:
            http.delete("/_localgcp/faults").raise_for_status()

    assert list(client.list_secrets(request=request, retry=None)) == []


def test_a_dropped_answer_leaves_the_work_done(region: Region, project: str) -> None:
    client = region.client(secretmanager.SecretManagerServiceClient)
    create = {"parent": f"projects/{project}", "secret_id": "s", "secret": {"replication": {"automatic": {}}}}
    with region.http() as http:
        fault = {"kind": "drop-response", "target": "secretmanager", "count": 1}
        http.post("/_localgcp/faults", json=fault).raise_for_status()
        with pytest.raises(Exception, match=r"Connection|IncompleteRead"):
            client.create_secret(request=create, retry=None)
        http.delete("/_localgcp/faults").raise_for_status()

    assert client.get_secret(name=f"projects/{project}/secrets/s").name.endswith("/secrets/s")


def test_an_unknown_kind_of_fault_is_refused(region: Region) -> None:
    with region.http() as http:
        answer = http.post("/_localgcp/faults", json={"kind": "earthquake", "target": "*"})

    assert answer.status_code == 400
    assert "kind" in answer.json()["error"]["message"]
