"""Cloud Build and Artifact Registry through Google's own clients."""

import io
import tarfile
from collections.abc import Mapping
from typing import Any

import pytest
from google.api_core.exceptions import BadRequest, FailedPrecondition, Forbidden, GatewayTimeout, GoogleAPICallError
from google.cloud import artifactregistry_v1, storage
from google.cloud.devtools import cloudbuild_v1

from localgcp.build.images import image_store
from tests.localgcp.fixtures import Account, Region

LOCATION = "australia-southeast1"
FILES = {"Dockerfile": 'FROM python:3.11\nWORKDIR /srv\nCOPY . .\nRUN true\nCMD ["python", "a.py"]\n', "a.py": "1\n"}


@pytest.fixture
def builder(region: Region, project: str) -> Account:
    return region.account(project, "builder", "roles/logging.logWriter")


@pytest.fixture
def bucket(region: Region, project: str, builder: Account) -> storage.Bucket:
    client = storage.Client(
        project=project, credentials=region.credentials(), client_options={"api_endpoint": region.url}
    )
    return client.create_bucket(f"{project}-source")


@pytest.fixture
def repository(region: Region, project: str) -> str:
    client = region.client(artifactregistry_v1.ArtifactRegistryClient)
    wanted = artifactregistry_v1.Repository(format_=artifactregistry_v1.Repository.Format.DOCKER)
    parent = f"projects/{project}/locations/{LOCATION}"
    created = client.create_repository(parent=parent, repository=wanted, repository_id="images").result(timeout=30)
    return str(created.name)


def upload(bucket: storage.Bucket, files: Mapping[str, str]) -> dict[str, str]:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    archive.seek(0)
    bucket.blob("source.tgz").upload_from_file(archive)
    return {"bucket": bucket.name, "object_": "source.tgz"}


def build(region: Region, project: str, account: Account, source: Mapping[str, str], **changes: Any) -> Any:
    image = f"{LOCATION}-docker.pkg.dev/{project}/images/web:one"
    wanted = {
        "source": {"storage_source": source},
        "steps": [{"name": "gcr.io/cloud-builders/docker", "args": ["build", "-t", image, "."]}],
        "images": [image],
        "service_account": f"projects/{project}/serviceAccounts/{account.email}",
        "options": {"default_logs_bucket_behavior": "REGIONAL_USER_OWNED_BUCKET"},
    } | changes
    client = region.client(cloudbuild_v1.CloudBuildClient)
    request = cloudbuild_v1.CreateBuildRequest(
        parent=f"projects/{project}/locations/{LOCATION}", project_id=project, build=wanted
    )
    return client.create_build(request=request)


def allow(region: Region, account: Account, bucket: storage.Bucket, repository: str) -> None:
    region.core.iam.add_binding(f"storage/b/{bucket.name}", "roles/storage.objectViewer", account.member)
    region.core.iam.add_binding(f"artifactregistry/{repository}", "roles/artifactregistry.writer", account.member)


def test_a_build_makes_an_image_whose_digest_says_what_is_in_it(
    region: Region, project: str, builder: Account, bucket: storage.Bucket, repository: str
) -> None:
    allow(region, builder, bucket, repository)
    source = upload(bucket, FILES)

    first = build(region, project, builder, source).result(timeout=60)
    second = build(region, project, builder, source).result(timeout=60)
    other = build(region, project, builder, upload(bucket, {**FILES, "a.py": "2\n"})).result(timeout=60)

    image = first.results.images[0]
    assert first.status == cloudbuild_v1.Build.Status.SUCCESS
    assert image.name == f"{LOCATION}-docker.pkg.dev/{project}/images/web:one"
    assert image.digest == second.results.images[0].digest
    assert image.digest != other.results.images[0].digest
    images = image_store(region.core)
    assert (images.rootfs(image.digest) / "srv" / "a.py").read_text() == "1\n"
    assert images.config(image.digest) == {"WorkingDir": "/srv", "Cmd": ["python", "a.py"]}
    log = region.api("logging", "v2").entries()
    lines = log.list(
        body={"resourceNames": [f"projects/{project}"], "filter": f"resource.labels.build_id={first.id}"}
    ).execute()["entries"]
    assert " ---> not executed: the process runtime carries out no RUN" in [line["textPayload"] for line in lines]
    client = region.client(artifactregistry_v1.ArtifactRegistryClient)
    listed = {one.uri.partition("@")[2]: list(one.tags) for one in client.list_docker_images(parent=repository)}
    assert listed == {image.digest: [], other.results.images[0].digest: ["one"]}


def test_a_build_says_what_became_of_its_source_and_its_steps(
    region: Region, project: str, builder: Account, bucket: storage.Bucket, repository: str
) -> None:
    allow(region, builder, bucket, repository)
    source = upload(bucket, FILES)

    done = build(region, project, builder, source).result(timeout=60)

    resolved = done.source_provenance.resolved_storage_source
    assert (resolved.bucket, resolved.object_) == (bucket.name, "source.tgz")
    assert resolved.generation == bucket.get_blob("source.tgz").generation
    assert [step.status for step in done.steps] == [cloudbuild_v1.Build.Status.SUCCESS]
    assert set(done.timing) == {"FETCHSOURCE", "BUILD", "PUSH"}
    assert done.create_time <= done.start_time <= done.steps[0].timing.start_time <= done.finish_time
    assert list(done.results.build_step_images) == [""]


def test_a_failed_build_says_which_step_failed_and_why(
    region: Region, project: str, builder: Account, bucket: storage.Bucket, repository: str
) -> None:
    allow(region, builder, bucket, repository)
    step = {"name": "gcr.io/cloud-builders/docker", "args": ["build", "-f", "Missing", "-t", "web", "."]}
    operation = build(region, project, builder, upload(bucket, FILES), steps=[step, step])

    with pytest.raises(FailedPrecondition, match="Missing: no such file"):
        operation.result(timeout=60)
    failed = region.client(cloudbuild_v1.CloudBuildClient).get_build(project_id=project, id=operation.metadata.build.id)

    assert failed.status == cloudbuild_v1.Build.Status.FAILURE
    assert [one.status.name for one in failed.steps] == ["FAILURE", "QUEUED"]
    assert failed.failure_info.type_.name == "USER_BUILD_STEP"


def test_a_build_that_takes_longer_than_its_timeout_is_ended(
    region: Region, project: str, builder: Account, bucket: storage.Bucket, repository: str
) -> None:
    allow(region, builder, bucket, repository)
    operation = build(region, project, builder, upload(bucket, FILES), timeout={"nanos": 1000})

    with pytest.raises(GatewayTimeout, match="Build exceeded its timeout"):
        operation.result(timeout=60)
    ended = region.client(cloudbuild_v1.CloudBuildClient).get_build(project_id=project, id=operation.metadata.build.id)

    assert ended.status == cloudbuild_v1.Build.Status.TIMEOUT


def test_a_repository_must_have_a_name_that_a_registry_takes(region: Region, project: str) -> None:
    client = region.client(artifactregistry_v1.ArtifactRegistryClient)
    parent = f"projects/{project}/locations/{LOCATION}"

    with pytest.raises(BadRequest, match="repository_id 'Web_Images' is invalid"):
        client.create_repository(parent=parent, repository={"format_": "DOCKER"}, repository_id="Web_Images")


def test_the_log_goes_to_the_bucket_that_the_build_names(
    region: Region, project: str, builder: Account, bucket: storage.Bucket, repository: str
) -> None:
    allow(region, builder, bucket, repository)
    region.core.iam.add_binding(f"storage/b/{bucket.name}", "roles/storage.objectAdmin", builder.member)

    done = build(region, project, builder, upload(bucket, FILES), logs_bucket=f"gs://{bucket.name}").result(timeout=60)

    text = bucket.blob(f"log-{done.id}.txt").download_as_text()
    assert text.startswith(f'starting build "{done.id}"\n')
    assert text.endswith("DONE\n")


def test_a_source_that_the_builds_account_may_not_read_fails_the_build(
    region: Region, project: str, builder: Account, bucket: storage.Bucket, repository: str
) -> None:
    source = upload(bucket, FILES)

    with pytest.raises(GoogleAPICallError, match=r"storage.objects.get"):
        build(region, project, builder, source).result(timeout=60)


def test_a_repository_that_the_builds_account_may_not_write_fails_the_build(
    region: Region, project: str, builder: Account, bucket: storage.Bucket, repository: str
) -> None:
    region.core.iam.add_binding(f"storage/b/{bucket.name}", "roles/storage.objectViewer", builder.member)

    with pytest.raises(GoogleAPICallError, match=r'Permission "artifactregistry.repositories.uploadArtifacts" denied'):
        build(region, project, builder, upload(bucket, FILES)).result(timeout=60)


def test_steps_that_need_another_container_are_refused_at_once(
    region: Region, project: str, builder: Account, bucket: storage.Bucket
) -> None:
    with pytest.raises(BadRequest, match=r"build.steps\[0\] \(ubuntu\): localgcp carries out"):
        build(region, project, builder, {}, steps=[{"name": "ubuntu", "args": ["ls"]}])


def test_an_own_account_must_say_where_its_logs_go(
    region: Region, project: str, builder: Account, bucket: storage.Bucket
) -> None:
    with pytest.raises(BadRequest, match=r"the build must either"):
        build(region, project, builder, {}, options={})


def test_nobody_builds_as_an_account_that_is_not_there(region: Region, project: str, builder: Account) -> None:
    missing = f"projects/{project}/serviceAccounts/none@{project}.iam.gserviceaccount.com"

    with pytest.raises(Forbidden, match=r"act as service account"):
        build(region, project, builder, {}, service_account=missing)


def test_a_deleted_version_cannot_be_deployed(
    region: Region, project: str, builder: Account, bucket: storage.Bucket, repository: str
) -> None:
    allow(region, builder, bucket, repository)
    done = build(region, project, builder, upload(bucket, FILES)).result(timeout=60)
    client = region.client(artifactregistry_v1.ArtifactRegistryClient)
    version = f"{repository}/packages/web/versions/{done.results.images[0].digest}"

    with pytest.raises(BadRequest, match=r"because it is tagged: one"):
        client.delete_version(name=version).result(timeout=30)
    client.delete_version(request={"name": version, "force": True}).result(timeout=30)

    assert list(client.list_docker_images(parent=repository)) == []
    assert list(client.list_packages(parent=repository)) == []
