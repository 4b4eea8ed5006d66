"""ImageBuild: an image, built by Cloud Build once for each content of its build context.

A resource of our own, because Pulumi's provider can describe triggers but not run a build. The provider class is
pickled into the stack's state and loaded in another process, so it has no state and imports what it uses inside its
methods.
"""

from typing import Any

import pulumi
from pulumi.dynamic import CreateResult, DiffResult, Resource, ResourceProvider

from infra.failures import Failure, told_plainly

# A change of one of these is another image. The rest (a bucket's or an account's name) is how it was built.
WHAT_IS_BUILT = ("content_hash", "image_name", "dockerfile", "paths")
BUILD_TIMEOUT_SECONDS = 1200


class BuildFailed(Failure):
    """The message ends with the last lines of the build's log."""


class ImageBuildProvider(ResourceProvider):
    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        changed = [key for key in WHAT_IS_BUILT if _olds.get(key) != _news.get(key)]
        # A replacement, not an update: its outputs are unknown in a preview, so that the services are seen to change.
        # Created first, and its deletion deletes nothing: the old image is what a rollback needs.
        return DiffResult(changes=bool(changed), replaces=changed, delete_before_replace=False)

    def create(self, props: dict[str, Any]) -> CreateResult:
        from infra.rest import Google

        with told_plainly():
            digest = build(Google.connect(), props)
        return CreateResult(
            id_=f"{props['image_name']}@{digest}",
            outs={**props, "digest": digest, "image": f"{props['image_name']}@{digest}"},
        )


def build(google: Any, props: dict[str, Any]) -> str:
    """Upload the source, build it, and answer with the image's digest.

    Raises:
        BuildFailed: Cloud Build says so, or the files changed since the program looked at them.
    """
    from infra.build_context import BuildContext
    from infra.rest import endpoint, wait_for

    context = BuildContext(paths=tuple(props["paths"]))
    content_hash = context.content_hash
    if content_hash != props["content_hash"]:
        raise BuildFailed("the files of the build context changed while the program ran: run it again")
    archive = f"{props['image_name'].rpartition('/')[2]}/{content_hash}.tar.gz"
    generation = google.upload(props["source_bucket"], archive, context.pack())
    tag = f"{props['image_name']}:{content_hash[:20]}"
    builds = f"{endpoint('cloudbuild')}projects/{props['project']}/locations/{props['location']}/builds"
    operation = google.call(
        "POST",
        builds,
        json={
            "source": {
                "storageSource": {"bucket": props["source_bucket"], "object": archive, "generation": generation}
            },
            "steps": [
                {
                    "name": "gcr.io/cloud-builders/docker",
                    "args": ["build", "--file", props["dockerfile"], "--tag", tag, "."],
                }
            ],
            "images": [tag],
            "serviceAccount": f"projects/{props['project']}/serviceAccounts/{props['service_account']}",
            # An account of one's own asks for this: there is no default bucket it could write its log to.
            "options": {"logging": "CLOUD_LOGGING_ONLY"},
            "timeout": f"{BUILD_TIMEOUT_SECONDS}s",
            "tags": ["validibot"],
        },
    )
    build_id = operation["metadata"]["build"]["id"]

    def finished() -> dict[str, Any] | None:
        state: dict[str, Any] = google.call("GET", f"{builds}/{build_id}")
        return None if state.get("status") in {None, "PENDING", "QUEUED", "WORKING"} else state

    done = wait_for(finished, f"build {build_id}", BUILD_TIMEOUT_SECONDS + 120)
    if done["status"] != "SUCCESS":
        lines = google.last_log_lines(
            props["project"], f'resource.type="build" AND resource.labels.build_id="{build_id}"'
        )
        said = done.get("statusDetail") or done.get("failureInfo", {}).get("detail") or "no detail"
        raise BuildFailed("\n".join([f"build {build_id} ended {done['status']}: {said}", *lines]))
    return str(done["results"]["images"][0]["digest"])


class ImageBuild(Resource, module="validibot", name="ImageBuild"):
    """`image` is a reference by digest; the one thing that may be deployed."""

    digest: pulumi.Output[str]
    image: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        *,
        project: str,
        location: str,
        image_name: pulumi.Input[str],
        dockerfile: str,
        paths: tuple[str, ...],
        content_hash: str,
        source_bucket: pulumi.Input[str],
        service_account: pulumi.Input[str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        inputs = {
            "project": project,
            "location": location,
            "image_name": image_name,
            "dockerfile": dockerfile,
            "paths": list(paths),
            "content_hash": content_hash,
            "source_bucket": source_bucket,
            "service_account": service_account,
            "digest": None,
            "image": None,
        }
        super().__init__(ImageBuildProvider(), name, inputs, opts)
