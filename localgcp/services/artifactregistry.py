"""Artifact Registry: repositories are plain resources; what is in them follows from the image store.

Cleanup policies are kept and not carried out: nothing here is old enough to miss.
"""

import re
from typing import Any
from urllib.parse import unquote

from localgcp.build.images import MANIFEST_TYPE, Pushed, image_store
from localgcp.clock import timestamp
from localgcp.errors import AlreadyExists, InvalidArgument, NotFound
from localgcp.generic import existing, message_type, page
from localgcp.service import Call, Service
from localgcp.store import Resource

REPOSITORIES = "projects.locations.repositories"
EMPTY = {"@type": "type.googleapis.com/google.protobuf.Empty"}

service = Service("artifactregistry:v1")
REPOSITORY_ID = re.compile(r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")
service.allow("artifactregistry.repositories", REPOSITORIES)
service.allow("artifactregistry.packages", f"{REPOSITORIES}.packages")
service.allow("artifactregistry.versions", f"{REPOSITORIES}.packages.versions")
service.allow("artifactregistry.tags", f"{REPOSITORIES}.packages.tags")
service.permissions |= {
    f"{REPOSITORIES}.dockerImages.get": "artifactregistry.dockerimages.get",
    f"{REPOSITORIES}.dockerImages.list": "artifactregistry.dockerimages.list",
    "projects.locations.operations.get": None,
    "projects.locations.get": "artifactregistry.locations.get",
    "projects.locations.list": "artifactregistry.locations.list",
}


@service.method(f"{REPOSITORIES}.create")
def create_repository(call: Call) -> dict[str, Any]:
    identifier = call.query.get("repositoryId") or call.query.get("repository_id")
    if not identifier:
        raise InvalidArgument("repository_id is required", location="repositoryId")
    if not REPOSITORY_ID.fullmatch(identifier):
        raise InvalidArgument(
            f"repository_id {identifier!r} is invalid: it must begin with a letter, hold lower-case letters, digits and"
            " dashes, end with a letter or a digit, and have at most 63 characters",
            location="repositoryId",
        )
    if not call.body.get("format"):
        raise InvalidArgument("repository.format must be specified", location="format")
    now = timestamp(call.region.clock.now())
    key = f"{call.key}/repositories/{identifier}"
    body = {name: value for name, value in call.body.items() if value is not None}
    body.setdefault("mode", "STANDARD_REPOSITORY")
    body |= {
        "name": key.partition("/")[2],
        "createTime": now,
        "updateTime": now,
        "registryUri": f"{call.location}-docker.pkg.dev/{call.project}/{identifier}",
        "satisfiesPzi": True,
    }
    scanning = body.get("vulnerabilityScanningConfig", {})
    body["vulnerabilityScanningConfig"] = {
        "enablementConfig": scanning.get("enablementConfig") or "INHERITED",
        "enablementState": "SCANNING_DISABLED",
        "enablementStateReason": "localgcp scans no images.",
    }
    try:
        repository = call.store.create(key, body)
    except AlreadyExists:
        raise AlreadyExists(f"the repository already exists: {key.partition('/')[2]}") from None
    return call.operation(target=key, response={"@type": message_type(call), **repository})


@service.method(f"{REPOSITORIES}.delete")
def delete_repository(call: Call) -> dict[str, Any]:
    repository = existing(call)
    images = image_store(call.region)
    for image in _images(call):
        images.delete(image.name, image.digest)
    call.store.delete(repository.key)
    return call.operation(target=repository.key, response=EMPTY)


@service.method(f"{REPOSITORIES}.dockerImages.list")
def list_docker_images(call: Call) -> dict[str, Any]:
    return page(call, [_docker_image(call, image) for image in _images(call)])


@service.method(f"{REPOSITORIES}.dockerImages.get")
def get_docker_image(call: Call) -> Resource:
    name, _, digest = call.named.rpartition("/")[2].partition("@")
    return _docker_image(call, _image(call, unquote(name), digest))


@service.method(f"{REPOSITORIES}.packages.list")
def list_packages(call: Call) -> dict[str, Any]:
    newest: dict[str, Pushed] = {}
    oldest: dict[str, Pushed] = {}
    for image in _images(call):
        newest[image.name] = image
        oldest.setdefault(image.name, image)
    return page(call, [_package(call, oldest[name], newest[name]) for name in sorted(newest)])


@service.method(f"{REPOSITORIES}.packages.get")
def get_package(call: Call) -> Resource:
    images = _of_package(call)
    return _package(call, images[0], images[-1])


@service.method(f"{REPOSITORIES}.packages.delete")
def delete_package(call: Call) -> dict[str, Any]:
    for image in _of_package(call):
        image_store(call.region).delete(image.name, image.digest)
    return call.operation(target=call.key, response=EMPTY)


@service.method(f"{REPOSITORIES}.packages.versions.list")
def list_versions(call: Call) -> dict[str, Any]:
    return page(call, [_version(call, image) for image in _of_package(call)])


@service.method(f"{REPOSITORIES}.packages.versions.get")
def get_version(call: Call) -> Resource:
    return _version(call, _image(call, _package_name(call), call.named.rpartition("/")[2]))


@service.method(f"{REPOSITORIES}.packages.versions.delete")
def delete_version(call: Call) -> dict[str, Any]:
    image = _image(call, _package_name(call), call.named.rpartition("/")[2])
    if image.tags and not call.query.get("force"):
        raise InvalidArgument(
            f"cannot delete version {image.digest} because it is tagged: {', '.join(image.tags)}. Use force"
        )
    image_store(call.region).delete(image.name, image.digest)
    return call.operation(target=call.key, response=EMPTY)


@service.method(f"{REPOSITORIES}.packages.tags.list")
def list_tags(call: Call) -> dict[str, Any]:
    return page(call, [_tag(call, image, tag) for image in _of_package(call) for tag in image.tags])


@service.method(f"{REPOSITORIES}.packages.tags.get")
def get_tag(call: Call) -> Resource:
    wanted = call.named.rpartition("/")[2]
    for image in _of_package(call):
        if wanted in image.tags:
            return _tag(call, image, wanted)
    raise NotFound("Requested entity was not found.")


@service.method(f"{REPOSITORIES}.packages.tags.create", f"{REPOSITORIES}.packages.tags.patch")
def put_tag(call: Call) -> Resource:
    tag = call.query.get("tagId") or (call.body.get("name") or call.named).rpartition("/")[2]
    digest = (call.body.get("version") or "").rpartition("/")[2]
    image = _image(call, _package_name(call), digest)
    image_store(call.region).tag(image.name, tag, digest)
    return _tag(call, image, tag)


@service.method(f"{REPOSITORIES}.packages.tags.delete")
def delete_tag(call: Call) -> dict[str, Any]:
    tag = call.named.rpartition("/")[2]
    for image in _of_package(call):
        if tag in image.tags:
            image_store(call.region).untag(image.name, tag)
            return {}
    raise NotFound("Requested entity was not found.")


def _prefix(call: Call) -> str:
    """`australia-southeast1-docker.pkg.dev/project/repository/` of the repository that the path is in."""
    words = call.named.split("/")
    return f"{words[3]}-docker.pkg.dev/{words[1]}/{words[5]}/"


def _repository_name(call: Call) -> str:
    return "/".join(call.named.split("/")[:6])


def _images(call: Call) -> list[Pushed]:
    call.store.get(f"artifactregistry/{_repository_name(call)}")
    return image_store(call.region).list(_prefix(call))


def _package_name(call: Call) -> str:
    words = call.named.split("/")
    return unquote(words[7]) if len(words) > 7 else ""


def _of_package(call: Call) -> list[Pushed]:
    name = _prefix(call) + _package_name(call)
    found = [image for image in _images(call) if image.name == name]
    if not found:
        raise NotFound("Requested entity was not found.")
    return found


def _image(call: Call, package: str, digest: str) -> Pushed:
    for image in _images(call):
        if image.name == _prefix(call) + package and image.digest == digest:
            return image
    raise NotFound("Requested entity was not found.")


def _named(call: Call, image: Pushed) -> str:
    package = image.name.removeprefix(_prefix(call)).replace("/", "%2F")
    return f"{_repository_name(call)}/packages/{package}"


def _docker_image(call: Call, image: Pushed) -> Resource:
    short = f"{image.name.removeprefix(_prefix(call)).replace('/', '%2F')}@{image.digest}"
    name = f"{_repository_name(call)}/dockerImages/{short}"
    body = {
        "name": name,
        "uri": f"{image.name}@{image.digest}",
        "tags": list(image.tags),
        "imageSizeBytes": str(image.size),
        "uploadTime": image.upload_time,
        "buildTime": image.build_time,
        "updateTime": image.upload_time,
        "mediaType": MANIFEST_TYPE,
    }
    if not image.tags:
        del body["tags"]
    return Resource(f"artifactregistry/{name}", body)


def _package(call: Call, oldest: Pushed, newest: Pushed) -> Resource:
    name = _named(call, newest)
    body = {"name": name, "createTime": oldest.upload_time, "updateTime": newest.upload_time}
    return Resource(f"artifactregistry/{name}", body)


def _version(call: Call, image: Pushed) -> Resource:
    name = f"{_named(call, image)}/versions/{image.digest}"
    body: dict[str, Any] = {
        "name": name,
        "createTime": image.upload_time,
        "updateTime": image.upload_time,
        "metadata": {"name": f"{_repository_name(call)}/dockerImages/{image.name.rpartition('/')[2]}@{image.digest}"},
    }
    if image.tags and call.query.get("view") == "FULL":
        body["relatedTags"] = [dict(_tag(call, image, tag)) for tag in image.tags]
    return Resource(f"artifactregistry/{name}", body)


def _tag(call: Call, image: Pushed, tag: str) -> Resource:
    base = _named(call, image)
    body = {"name": f"{base}/tags/{tag}", "version": f"{base}/versions/{image.digest}"}
    return Resource(f"artifactregistry/{base}/tags/{tag}", body)
