"""What a kill of localgcp leaves, and the next start makes of it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from google.cloud import run_v2
from googleapiclient.errors import HttpError

from localgcp.sql import layout_of, remove_all, socket_root
from localgcp.sql.admin import scram_verifier
from localgcp.sql.cluster import postmaster
from localgcp.store import Store
from tests.localgcp.fixtures import Region, served
from tests.localgcp.run.images import push_image

PROJECT = "validibot-au"
NAME = f"{PROJECT}:australia-southeast1:pg"
KEY = f"sqladmin/projects/{PROJECT}/instances/pg"
OPERATION = f"sqladmin/projects/{PROJECT}/operations/o"
PASSWORD = "a-password-for-a-test"
BODY = {
    "name": "pg",
    "region": "australia-southeast1",
    "databaseVersion": "POSTGRES_18",
    "rootPassword": PASSWORD,
    "settings": {"tier": "db-f1-micro", "edition": "ENTERPRISE"},
}
#: When it is told to end, it writes down whether Postgres still lets it in.
SERVER = """
import os, signal, socket
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

def leave(*arguments):
    with socket.socket(socket.AF_UNIX) as database:
        refused = database.connect_ex(os.environ["DATABASE"] + "/.s.PGSQL.5432")
    Path(os.environ["SAID"]).write_text("refused" if refused else "let in")
    os._exit(0)

signal.signal(signal.SIGTERM, leave)
HTTPServer(("127.0.0.1", int(os.environ["PORT"])), BaseHTTPRequestHandler).serve_forever()
"""


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    """The directory of a region that has an instance, and is not running."""
    with served(tmp_path) as region:
        region.api("sqladmin", "v1beta4").instances().insert(project=PROJECT, body=BODY).execute()
        with connection(region) as postgres:
            postgres.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    yield tmp_path
    remove_all(tmp_path)


def connection(region: Region) -> psycopg.Connection:
    return psycopg.connect(host=str(socket_root(region.core) / NAME), user="postgres", password=PASSWORD)


def interrupted(data_dir: Path, kind: str, **changes: Any) -> None:
    """As if the process had been killed while an operation of that kind was running."""
    store = Store(data_dir / "region.sqlite3")
    store.put(KEY, {**store.get(KEY), **changes})
    operation = {"kind": "sql#operation", "name": "o", "status": "RUNNING", "_localgcp": "running"}
    store.put(OPERATION, operation | {"operationType": kind, "targetId": "pg"})
    store.close()


def outcome(region: Region) -> dict[str, Any]:
    found: dict[str, Any] = region.api("sqladmin", "v1beta4").operations().get(project=PROJECT, operation="o").execute()
    return {name: found.get(name) for name in ("status", "error")}


def test_a_region_that_is_stopped_stops_postgres_and_the_next_start_has_its_rows(data_dir: Path) -> None:
    assert postmaster(layout_of(data_dir).home(NAME) / "data") is None

    with served(data_dir) as region, connection(region) as postgres:
        assert postgres.execute("SELECT answer FROM kept").fetchone() == (42,)


def test_services_end_before_the_databases_that_they_use(data_dir: Path) -> None:
    said = data_dir / "said"
    with served(data_dir) as region:
        account = region.account(PROJECT, "validibot-web", "roles/cloudsql.client")
        environment = [{"name": "DATABASE", "value": f"/cloudsql/{NAME}"}, {"name": "SAID", "value": str(said)}]
        container = {
            "image": push_image(region, PROJECT, "australia-southeast1", server=SERVER),
            "env": environment,
            "volume_mounts": [{"name": "cloudsql", "mount_path": "/cloudsql"}],
        }
        template = {
            "containers": [container],
            "service_account": account.email,
            "volumes": [{"name": "cloudsql", "cloud_sql_instance": {"instances": [NAME]}}],
            "scaling": {"min_instance_count": 1},
        }
        region.client(run_v2.ServicesClient).create_service(
            parent=f"projects/{PROJECT}/locations/australia-southeast1",
            service_id="web",
            service={"template": template},
        ).result(timeout=60)

    assert said.read_text() == "let in"


def test_a_creation_that_was_cut_off_is_finished_and_its_operation_done(data_dir: Path) -> None:
    layout = layout_of(data_dir)
    layout.remove()
    verifier = {"rootVerifier": scram_verifier(PASSWORD)}
    interrupted(data_dir, "CREATE", state="PENDING_CREATE", _localgcp=verifier)

    with served(data_dir) as region:
        found = region.api("sqladmin", "v1beta4").instances().get(project=PROJECT, instance="pg").execute()
        with connection(region) as postgres:
            assert postgres.execute("SELECT current_user").fetchone() == ("postgres",)
        assert outcome(region) == {"status": "DONE", "error": None}

    assert found["state"] == "RUNNABLE"
    assert "_localgcp" not in found


def test_a_database_that_was_created_and_not_answered_may_be_asked_for_again(data_dir: Path) -> None:
    body = {"name": "app"}
    store = Store(data_dir / "region.sqlite3")

    with served(data_dir) as region:
        databases = region.api("sqladmin", "v1beta4").databases()
        with connection(region) as postgres:
            postgres.autocommit = True
            postgres.execute("CREATE DATABASE app")
        with pytest.raises(HttpError, match="already exists"):
            databases.insert(project=PROJECT, instance="pg", body=body).execute()
        # As between Postgres' answer and ours.
        store.put(f"{KEY}/databases/app", {"isBegun": True})
        databases.insert(project=PROJECT, instance="pg", body=body).execute()
        # Begun once, not for ever.
        with pytest.raises(HttpError, match="already exists"):
            databases.insert(project=PROJECT, instance="pg", body=body).execute()

    store.close()


def test_a_deletion_that_was_cut_off_is_finished_and_its_operation_done(data_dir: Path) -> None:
    interrupted(data_dir, "DELETE", state="PENDING_DELETE")

    with served(data_dir) as region:
        listed = region.api("sqladmin", "v1beta4").instances().list(project=PROJECT).execute()
        assert outcome(region) == {"status": "DONE", "error": None}

    assert listed.get("items", []) == []
    assert not layout_of(data_dir).home(NAME).exists()


def test_the_directory_of_an_instance_that_nobody_knows_is_removed(data_dir: Path) -> None:
    store = Store(data_dir / "region.sqlite3")
    store.delete(KEY)
    store.close()
    home = layout_of(data_dir).home(NAME)
    assert home.exists()

    with served(data_dir):
        assert not home.exists()


def test_an_instance_that_should_sleep_is_not_woken_by_a_start(data_dir: Path) -> None:
    store = Store(data_dir / "region.sqlite3")
    instance = store.get(KEY)
    instance["settings"]["activationPolicy"] = "NEVER"
    store.put(KEY, instance)
    store.close()

    with served(data_dir):
        assert postmaster(layout_of(data_dir).home(NAME) / "data") is None
