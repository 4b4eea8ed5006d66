"""Artifact Registry, and the images in it: built by content, deployed by digest, never by tag."""

from dataclasses import dataclass, field

import pulumi
import pulumi_gcp as gcp

from infra.build_context import BuildContext
from infra.components.component import Component
from infra.image_build import ImageBuild

REPOSITORY = "validibot"
KEPT_VERSIONS = 10
UNTAGGED_DAYS = 7


@dataclass(frozen=True, kw_only=True)
class ImageSpec:
    dockerfile: str
    paths: tuple[str, ...]


IMAGES = {
    # One image in two roles, web and worker, and for the jobs that run its commands.
    "app": ImageSpec(dockerfile="app/Dockerfile", paths=("app", "requirements/app.txt")),
}


@dataclass(frozen=True, kw_only=True)
class ImagesArgs:
    project: str
    location: str
    labels: dict[str, str]
    source_bucket: pulumi.Output[str]
    build_email: pulumi.Output[str]
    build_member: pulumi.Output[str]
    build_grants: list[pulumi.Resource]
    """What a build has to wait for: reading its source, writing its log."""
    images: dict[str, ImageSpec] = field(default_factory=lambda: IMAGES)


class Images(Component):
    image_by_name: dict[str, pulumi.Output[str]]
    digest_by_name: dict[str, pulumi.Output[str]]
    content_hash_by_name: dict[str, str]

    def __init__(self, name: str, args: ImagesArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, opts)
        repository = gcp.artifactregistry.Repository(
            f"{name}-repository",
            project=args.project,
            location=args.location,
            repository_id=REPOSITORY,
            description="Images of this region",
            format="DOCKER",
            labels=args.labels,
            cleanup_policies=[
                {
                    "id": "keep-newest",
                    "action": "KEEP",
                    "most_recent_versions": {"keep_count": KEPT_VERSIONS},
                },
                {
                    "id": "delete-untagged",
                    "action": "DELETE",
                    "condition": {"tag_state": "UNTAGGED", "older_than": f"{UNTAGGED_DAYS * 24 * 60 * 60}s"},
                },
            ],
            opts=self.child,
        )
        writer = gcp.artifactregistry.RepositoryIamMember(
            f"{name}-build-writes",
            project=args.project,
            location=args.location,
            repository=repository.repository_id,
            role="roles/artifactregistry.writer",
            member=args.build_member,
            opts=self.child,
        )
        prefix = pulumi.Output.format(
            "{0}-docker.pkg.dev/{1}/{2}", args.location, args.project, repository.repository_id
        )
        self.image_by_name, self.digest_by_name, self.content_hash_by_name = {}, {}, {}
        for image, spec in args.images.items():
            content_hash = BuildContext(paths=spec.paths).content_hash
            build = ImageBuild(
                f"{name}-{image}",
                project=args.project,
                location=args.location,
                image_name=prefix.apply(lambda text, image=image: f"{text}/{image}"),  # type: ignore[misc]
                dockerfile=spec.dockerfile,
                paths=spec.paths,
                content_hash=content_hash,
                source_bucket=args.source_bucket,
                service_account=args.build_email,
                opts=self.child_with(pulumi.ResourceOptions(depends_on=[writer, *args.build_grants])),
            )
            self.image_by_name[image] = build.image
            self.digest_by_name[image] = build.digest
            self.content_hash_by_name[image] = content_hash
        self.register_outputs({"image_by_name": self.image_by_name})
