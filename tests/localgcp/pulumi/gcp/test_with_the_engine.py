"""The real engine, our provider and our region: a bucket from nothing to nothing."""

import json
import textwrap
from pathlib import Path

import pytest

from localgcp.iam.principal import OPERATOR_EMAIL
from tests.localgcp.fixtures import Region
from tests.localgcp.pulumi.conftest import Workspace, make_workspace
from tests.localgcp.pulumi.gcp.replay import environment

pytestmark = pytest.mark.slow


@pytest.fixture
def stack(tmp_path: Path, engine: Path, region: Region, project: str) -> Workspace:
    """A workspace whose provider talks to the region, in a project of its own."""
    variables = {
        **environment(region.url),
        "GOOGLE_PROJECT": project,
        "GOOGLE_OAUTH_ACCESS_TOKEN": region.core.tokens.access_token(OPERATOR_EMAIL),
    }
    return make_workspace(tmp_path, engine, **variables)


def program(body: str) -> str:
    return "import pulumi\nimport pulumi_gcp as gcp\n\n" + textwrap.dedent(body)


def test_a_bucket_is_made_changed_watched_and_deleted(stack: Workspace, region: Region, project: str) -> None:
    media = f"{project}-media"
    source = program(f"""
        bucket = gcp.storage.Bucket(
            "media",
            name="{media}",
            location="australia-southeast1",
            uniform_bucket_level_access=True,
            public_access_prevention="enforced",
            versioning={{"enabled": True}},
            labels={{"component": "media"}},
            force_destroy=True,
        )
        gcp.storage.BucketObject("readme", bucket=bucket.name, name="read/me.txt", content="hello")
        account = gcp.serviceaccount.Account("web", account_id="web-service", display_name="Web")
        gcp.storage.BucketIAMMember("web", bucket=bucket.name, role="roles/storage.objectAdmin", member=account.member)
        pulumi.export("url", bucket.url)
        pulumi.export("email", account.email)
    """)
    stack.program(source)
    previewed = stack.pulumi("preview", "--stack", "au", "--non-interactive")
    assert previewed.code == 0, previewed.output
    created = stack.up()
    assert created.code == 0, created.output
    assert stack.outputs() == {
        "url": f"gs://{media}",
        "email": f"web-service@{project}.iam.gserviceaccount.com",
    }

    unchanged = stack.pulumi("preview", "--stack", "au", "--non-interactive", "--expect-no-changes")
    assert unchanged.code == 0, unchanged.output
    refreshed = stack.pulumi("refresh", "--stack", "au", "--yes", "--skip-preview", "--expect-no-changes")
    assert refreshed.code == 0, refreshed.output

    stack.program(source.replace('"component": "media"', '"component": "uploads"').replace('"hello"', '"bye"'))
    changed = stack.up()
    assert changed.code == 0, changed.output
    assert "2 updated" in changed.output
    with region.http() as http:
        assert http.get(f"/storage/v1/b/{media}").json()["labels"]["component"] == "uploads"
        assert http.get(f"/storage/v1/b/{media}/o/read%2Fme.txt", params={"alt": "media"}).text == "bye"

        # Behind Pulumi's back.
        http.patch(f"/storage/v1/b/{media}", json={"versioning": {"enabled": False}}).raise_for_status()
    drifted = stack.pulumi("preview", "--stack", "au", "--non-interactive", "--refresh", "--expect-no-changes")
    assert drifted.code != 0
    mended = stack.up("--refresh")
    assert mended.code == 0, mended.output
    with region.http() as http:
        assert http.get(f"/storage/v1/b/{media}").json()["versioning"] == {"enabled": True}

    destroyed = stack.pulumi("destroy", "--stack", "au", "--yes", "--skip-preview")
    assert destroyed.code == 0, destroyed.output
    with region.http() as http:
        assert http.get(f"/storage/v1/b/{media}").status_code == 404


def test_a_wrong_property_fails_the_preview_by_name(stack: Workspace) -> None:
    stack.program(
        program("""
        gcp.storage.Bucket("media", name="media", location="US", versioning={"enbled": True})
        """)
    )
    previewed = stack.pulumi("preview", "--stack", "au", "--non-interactive")
    assert previewed.code != 0
    assert "versioning.enbled" in previewed.output
    assert "did you mean enabled?" in previewed.output


def test_what_is_there_is_imported_and_the_program_that_is_written_changes_nothing(
    stack: Workspace, region: Region, project: str
) -> None:
    with region.http() as http:
        bucket = {"name": f"{project}-old", "location": "US", "labels": {"team": "x"}, "versioning": {"enabled": True}}
        http.post("/storage/v1/b", params={"project": project}, json=bucket).raise_for_status()
        secrets = f"/secretmanager/v1/projects/{project}/secrets"
        http.post(secrets, params={"secretId": "key"}, json={"replication": {"automatic": {}}}).raise_for_status()
        network = {"name": "vpc", "autoCreateSubnetworks": False}
        http.post(f"/compute/v1/projects/{project}/global/networks", json=network).raise_for_status()
    wanted = [
        {"type": "gcp:storage/bucket:Bucket", "name": "old-files", "id": f"{project}-old"},
        {"type": "gcp:secretmanager/secret:Secret", "name": "key", "id": "key"},
        {"type": "gcp:compute/network:Network", "name": "vpc", "id": "vpc"},
    ]
    (stack.folder / "import.json").write_text(json.dumps({"resources": wanted}), encoding="utf-8")
    imported = stack.must(
        "import", "--stack", "au", "--file", "import.json", "--out", "generated.py", "--yes", "--skip-preview"
    )
    assert "warning" not in imported.output
    stack.program((stack.folder / "generated.py").read_text(encoding="utf-8"))
    stack.must("preview", "--stack", "au", "--non-interactive", "--expect-no-changes")
