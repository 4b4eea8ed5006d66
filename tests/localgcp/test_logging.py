"""Cloud Logging through Google's own client, and the stream that `localgcp logs` reads."""

import json
import logging
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from google.cloud import logging as cloud_logging
from google.cloud.logging.handlers import CloudLoggingHandler
from google.cloud.logging.handlers.transports import SyncTransport
from googleapiclient.errors import HttpError

from localgcp.clock import Clock
from localgcp.logfilter import parse
from localgcp.logs import Logs, entry_of_line
from tests.localgcp.fixtures import Region

ENTRY: dict[str, Any] = {
    "severity": "ERROR",
    "timestamp": "2026-01-01T00:00:05.5Z",
    "logName": "projects/p/logs/run.googleapis.com%2Fstdout",
    "resource": {"type": "cloud_run_revision", "labels": {"service_name": "web"}},
    "labels": {"run.googleapis.com/x": "1"},
    "jsonPayload": {"ms": 12, "event": "dead_letter"},
    "httpRequest": {"status": 503},
}


@pytest.mark.parametrize(
    ("expression", "matches"),
    [
        ("", True),
        ('resource.type="cloud_run_revision" AND jsonPayload.event="dead_letter"', True),
        ("resource.type=cloud_run_revision resource.labels.service_name=other", False),
        ("severity>=ERROR", True),
        ("severity>ERROR", False),
        ("severity=(INFO OR ERROR)", True),
        ("NOT severity=ERROR", False),
        ("-severity=INFO", True),
        ("jsonPayload.ms>9 AND jsonPayload.ms<100", True),
        ("jsonPayload.ms>-5", True),
        ("jsonPayload.missing:*", False),
        ("jsonPayload.event:dead", True),
        ('jsonPayload.event=~"^dead"', True),
        ('jsonPayload.event!~"^dead"', False),
        ('labels."run.googleapis.com/x"=1', True),
        ('log_id("run.googleapis.com/stdout")', True),
        ('timestamp>="2026-01-01T00:00:05Z" AND timestamp<"2026-01-01T00:00:06Z"', True),
        ('timestamp>="2026-01-01T00:00:06Z" OR httpRequest.status=503', True),
        ("dead_letter", True),
        ("timestamp>=2026-01-01T00:00:05Z", True),
        ("severity>=400", True),
        ('log_name="projects/p/logs/run.googleapis.com%2Fstdout" AND http_request.status=503', True),
        ("severity=ERROR -- a comment", True),
        ("severity=INFO -- a comment\nOR severity=ERROR", True),
        # OR binds tighter than AND.
        ("severity=ERROR OR severity=INFO AND resource.type=other", False),
    ],
)
def test_a_filter_decides_as_logging_does(expression: str, matches: bool) -> None:
    assert parse(expression).matches(ENTRY) is matches


@pytest.mark.parametrize(
    "expression", ["severity>=LOUD", "severity>=²", "a=", "(a=b", "sample(insertId, 0.1)", 'a=~"("', "AND a=b"]
)
def test_a_filter_that_is_not_understood_is_refused(region: Region, project: str, expression: str) -> None:
    with pytest.raises(HttpError) as refused:
        listed(region, project, filter=expression)

    assert refused.value.status_code == 400


def test_entries_are_written_and_listed_in_order_and_in_pages(region: Region, project: str) -> None:
    entries = [
        {"textPayload": f"line {n}", "timestamp": f"2026-01-01T00:00:0{n}Z", "insertId": str(n)} for n in (2, 0, 1)
    ]
    body = {"logName": f"projects/{project}/logs/mine", "resource": {"type": "global"}, "entries": entries}
    write = region.api("logging", "v2").entries().write
    write(body=body).execute()
    write(body=body).execute()

    first = listed(region, project, pageSize=2)
    second = listed(region, project, pageSize=2, pageToken=first["nextPageToken"])
    newest = listed(region, project, orderBy="timestamp desc", pageSize=1)

    assert [entry["textPayload"] for entry in (*first["entries"], *second["entries"])] == ["line 0", "line 1", "line 2"]
    assert [entry["textPayload"] for entry in newest["entries"]] == ["line 2"]


def test_only_who_may_read_a_projects_entries_gets_them(region: Region, project: str) -> None:
    account = region.account(project, "reader")

    with pytest.raises(HttpError, match=r"logging\.logEntries\.list"):
        listed(region, project, credentials=region.credentials(account.email))


def test_pythons_logging_writes_through_googles_handler(region: Region, project: str) -> None:
    client = cloud_logging.Client(
        project=project,
        credentials=region.credentials(),
        client_options={"api_endpoint": f"{region.url}/logging"},
        _use_grpc=False,
    )
    handler = CloudLoggingHandler(client, name="app", transport=SyncTransport)
    record = logging.LogRecord("orders", logging.WARNING, "app.py", 7, "%s left", ("two",), None)
    record.json_fields = {"left": 2}

    handler.handle(record)

    entry = next(iter(client.list_entries(filter_='log_id("app") AND severity=WARNING')))
    assert (entry.severity, entry.payload) == ("WARNING", {"message": "two left", "left": 2})
    assert entry.source_location == {"file": "app.py", "line": 7}


def test_an_entry_that_is_too_large_is_refused(region: Region, project: str) -> None:
    entries = region.api("logging", "v2").entries()
    body = {"logName": f"projects/{project}/logs/app", "entries": [{"textPayload": "x" * 300_000}]}

    with pytest.raises(HttpError, match=r"Log entry with size 293\..K exceeds maximum size of 256\.0K"):
        entries.write(body=body).execute()


def test_a_log_is_deleted_with_its_entries_and_no_other(region: Region, project: str) -> None:
    write = region.api("logging", "v2").entries().write
    for name in ("mine", "run.googleapis.com%2Fstdout"):
        write(body={"entries": [{"logName": f"projects/{project}/logs/{name}", "textPayload": name}]}).execute()
    logs = region.api("logging", "v2").projects().logs()

    logs.delete(logName=f"projects/{project}/logs/mine").execute()

    assert [entry["textPayload"] for entry in listed(region, project)["entries"]] == ["run.googleapis.com%2Fstdout"]
    assert logs.list(parent=f"projects/{project}").execute()["logNames"] == [
        f"projects/{project}/logs/run.googleapis.com%2Fstdout"
    ]


def test_every_project_has_the_two_buckets_of_its_logs(region: Region, project: str) -> None:
    buckets = region.api("logging", "v2").projects().locations().buckets()

    found = buckets.list(parent=f"projects/{project}/locations/-").execute()["buckets"]

    assert {bucket["name"]: bucket["retentionDays"] for bucket in found} == {
        f"projects/{project}/locations/global/buckets/_Default": 30,
        f"projects/{project}/locations/global/buckets/_Required": 400,
    }


def test_a_follower_gets_what_is_written_after_it_came(region: Region, project: str) -> None:
    region.core.logs.write(project, "mine", {"type": "global"}, text="before")
    region.core.logs.flush()
    with (
        region.http() as http,
        http.stream("GET", f"/_localgcp/logs?project={project}&follow=1&limit=5", timeout=30) as stream,
    ):
        lines = stream.iter_lines()
        before = json.loads(next(lines))
        region.core.logs.write(project, "mine", {"type": "global"}, text="after")
        after = json.loads(next(lines))

    assert (before["textPayload"], after["textPayload"]) == ("before", "after")


def test_the_stream_of_every_project_is_the_operators_alone(region: Region, project: str) -> None:
    account = region.account(project, "reader", "roles/owner")
    with region.http(region.credentials(account.email)) as http:
        assert http.get("/_localgcp/logs").status_code == 403
        assert http.get(f"/_localgcp/logs?project={project}").status_code == 200


@pytest.mark.parametrize(
    ("line", "entry"),
    [
        ("plain", {"textPayload": "plain"}),
        ("{broken", {"textPayload": "{broken"}),
        ('{"message": "m", "severity": "info"}', {"severity": "INFO", "textPayload": "m"}),
        (
            '{"message": "m", "level": "warn", "code": 7}',
            {"severity": "WARNING", "jsonPayload": {"message": "m", "level": "warn", "code": 7}},
        ),
        (
            '{"message": "m", "a": 1, "logging.googleapis.com/trace": "projects/p/traces/t",'
            ' "logging.googleapis.com/labels": {"k": 1}, "time": "2026-01-01T00:00:00Z"}',
            {
                "trace": "projects/p/traces/t",
                "labels": {"k": "1"},
                "timestamp": "2026-01-01T00:00:00Z",
                "jsonPayload": {"message": "m", "a": 1},
            },
        ),
    ],
)
def test_a_line_of_output_becomes_an_entry(line: str, entry: dict[str, Any]) -> None:
    assert entry_of_line(line) == entry


def test_the_oldest_entries_make_room(tmp_path: Path) -> None:
    logs = Logs(tmp_path / "logs.sqlite3", Clock(), max_bytes=200_000)
    for number in range(40):
        for _ in range(10):
            logs.write("p", "mine", {"type": "global"}, text=f"{number} " + "x" * 1000)
        logs.flush()

    kept = [entry["textPayload"].partition(" ")[0] for _, entry in logs.query(["p"])]
    logs.close()

    assert kept[-1] == "39"
    assert "0" not in kept
    assert len(kept) > 50


def test_what_was_flushed_is_there_after_a_crash(tmp_path: Path) -> None:
    first = Logs(tmp_path / "logs.sqlite3", Clock())
    first.write("p", "mine", {"type": "global"}, text="kept")
    first.flush()

    second = Logs(tmp_path / "logs.sqlite3", Clock())
    found = [entry["textPayload"] for _, entry in second.query(["p"])]
    first.close()
    second.close()

    assert found == ["kept"]


def test_built_in_buckets_exist_and_a_made_one_is_kept(region: Region, project: str) -> None:
    buckets = region.api("logging", "v2").projects().locations().buckets()
    parent = f"projects/{project}/locations/australia-southeast1"

    default = buckets.get(name=f"projects/{project}/locations/global/buckets/_Default").execute()
    made = buckets.createAsync(parent=parent, bucketId="mine", body={"retentionDays": 7}).execute()

    assert default["retentionDays"] == 30
    assert made["done"]
    assert buckets.get(name=f"{parent}/buckets/mine").execute()["retentionDays"] == 7


def listed(region: Region, project: str, credentials: Any = None, **body: Any) -> dict[str, Any]:
    entries = region.api("logging", "v2", credentials).entries()
    found: dict[str, Any] = entries.list(body={"resourceNames": [f"projects/{project}"], **body}).execute()
    return found


def test_time_is_the_regions_own(tmp_path: Path) -> None:
    clock = Clock()
    clock.advance(timedelta(days=400))
    logs = Logs(tmp_path / "logs.sqlite3", clock)
    logs.write("p", "mine", {"type": "global"}, text="later")

    found = [entry["timestamp"][:10] for _, entry in logs.query(["p"])]
    logs.close()

    assert found == [f"{clock.now():%Y-%m-%d}"]
