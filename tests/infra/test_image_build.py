"""ImageBuild: built once for each content, and loud when it fails."""

import json
from typing import Any

import dill
import httpx
import pytest

from infra.build_context import BuildContext
from infra.image_build import BuildFailed, ImageBuildProvider, build
from infra.rest import RequestRefused
from tests.infra.google import FakeGoogle

PATHS = ["requirements/app.txt"]
CONTENT_HASH = BuildContext(paths=tuple(PATHS)).content_hash
PROPS: dict[str, Any] = {
    "project": "validibot-au",
    "location": "australia-southeast1",
    "image_name": "australia-southeast1-docker.pkg.dev/validibot-au/validibot/app",
    "dockerfile": "app/Dockerfile",
    "paths": PATHS,
    "content_hash": CONTENT_HASH,
    "source_bucket": "validibot-au-build-source",
    "service_account": "validibot-build@validibot-au.iam.gserviceaccount.com",
}
UPLOAD = "POST /upload/storage/v1/b/validibot-au-build-source/o"
BUILDS = "/v1/projects/validibot-au/locations/australia-southeast1/builds"
DIGEST = "sha256:" + "a" * 64


@pytest.fixture
def google() -> FakeGoogle:
    google = FakeGoogle()
    google.on(UPLOAD, {"generation": "7"})
    google.on(f"POST {BUILDS}", {"name": "operations/x", "metadata": {"build": {"id": "b-1"}}})
    success = {"status": "SUCCESS", "results": {"images": [{"name": "app", "digest": DIGEST}]}}
    google.on(f"GET {BUILDS}/b-1", {"status": "QUEUED"}, {"status": "WORKING"}, success)
    return google


def test_a_build_takes_its_source_by_generation_and_answers_with_the_digest(google: FakeGoogle) -> None:
    digest = build(google.client(), PROPS)

    assert digest == DIGEST
    upload, submitted, *polls = google.requests
    assert upload.url.params["ifGenerationMatch"] == "0"
    assert upload.url.params["name"] == f"app/{CONTENT_HASH}.tar.gz"
    assert json.loads(submitted.content) == {
        "source": {
            "storageSource": {
                "bucket": "validibot-au-build-source",
                "object": f"app/{CONTENT_HASH}.tar.gz",
                "generation": "7",
            }
        },
        "steps": [
            {
                "name": "gcr.io/cloud-builders/docker",
                "args": [
                    "build",
                    "--file",
                    "app/Dockerfile",
                    "--tag",
                    f"{PROPS['image_name']}:{CONTENT_HASH[:20]}",
                    ".",
                ],
            }
        ],
        "images": [f"{PROPS['image_name']}:{CONTENT_HASH[:20]}"],
        "serviceAccount": "projects/validibot-au/serviceAccounts/validibot-build@validibot-au.iam.gserviceaccount.com",
        "options": {"logging": "CLOUD_LOGGING_ONLY"},
        "timeout": "1200s",
        "tags": ["validibot"],
    }
    assert len(polls) == 3


def test_source_that_an_interrupted_run_uploaded_is_used_and_not_written_again(google: FakeGoogle) -> None:
    google.on(UPLOAD, {"error": {"message": "conditionNotMet"}}, status=412)
    google.on(f"GET /storage/v1/b/validibot-au-build-source/o/app/{CONTENT_HASH}.tar.gz", {"generation": "5"})

    build(google.client(), PROPS)

    (submitted,) = (r for r in google.requests if r.url.path == BUILDS)
    assert json.loads(submitted.content)["source"]["storageSource"]["generation"] == "5"


def test_a_failed_build_ends_with_the_last_lines_of_its_log(google: FakeGoogle) -> None:
    google.on(f"GET {BUILDS}/b-1", {"status": "FAILURE", "statusDetail": "step 0 exited with 1"})
    google.on("POST /v2/entries:list", {"entries": [{"textPayload": "ERROR: no such file"}, {"textPayload": "step 0"}]})

    with pytest.raises(BuildFailed) as caught:
        build(google.client(), PROPS)

    assert str(caught.value) == "build b-1 ended FAILURE: step 0 exited with 1\nstep 0\nERROR: no such file"


def test_a_refusal_is_told_in_googles_words(google: FakeGoogle) -> None:
    message = "Permission 'cloudbuild.builds.create' denied on resource"
    google.on(f"POST {BUILDS}", {"error": {"message": message}}, status=403)

    with pytest.raises(RequestRefused, match=message):
        build(google.client(), PROPS)


def test_an_answer_that_passes_is_asked_for_again(google: FakeGoogle) -> None:
    busy = lambda _request: httpx.Response(503)  # noqa: E731
    generation = lambda _request: httpx.Response(200, json={"generation": "7"})  # noqa: E731
    google.on(UPLOAD, busy, generation)

    assert build(google.client(), PROPS) == DIGEST
    assert google.asked().count(UPLOAD) == 2


def test_files_that_change_while_the_program_runs_are_not_built_under_the_old_hash(google: FakeGoogle) -> None:
    with pytest.raises(BuildFailed, match="changed while the program ran"):
        build(google.client(), PROPS | {"content_hash": "0" * 64})

    assert google.requests == []


def test_only_what_is_built_makes_another_image() -> None:
    provider = ImageBuildProvider()

    assert provider.diff("id", PROPS, PROPS | {"service_account": "other"}).changes is False
    diff = provider.diff("id", PROPS, PROPS | {"content_hash": "0" * 64})
    assert (diff.changes, diff.replaces, diff.delete_before_replace) == (True, ["content_hash"], False)


def test_the_provider_can_be_pickled_and_holds_nothing_of_this_machine() -> None:
    pickled = dill.dumps(ImageBuildProvider(), recurse=True)

    assert len(pickled) < 500
    assert isinstance(dill.loads(pickled), ImageBuildProvider)  # noqa: S301  pickled a line above
