"""Buckets: media, static, backups, build source. All in the region, versioned, and without object ACLs."""

from dataclasses import dataclass, field
from typing import Any

import pulumi
import pulumi_gcp as gcp

from infra.components.component import Component

DAY_SECONDS = 24 * 60 * 60
SOFT_DELETE_DAYS = 14
NONCURRENT_DAYS = 30
BACKUP_DAYS = 30
BUILD_SOURCE_DAYS = 30

DELETE_NONCURRENT = {
    "action": {"type": "Delete"},
    "condition": {"days_since_noncurrent_time": NONCURRENT_DAYS, "with_state": "ARCHIVED"},
}
ABORT_UPLOADS = {"action": {"type": "AbortIncompleteMultipartUpload"}, "condition": {"age": 7}}


@dataclass(frozen=True, kw_only=True)
class BucketSpec:
    """`kept` buckets hold what cannot be made again."""

    kept: bool
    public: bool = False
    delete_after_days: int | None = None
    uploads_from_browsers: bool = False
    grants: dict[str, str] = field(default_factory=dict)
    """Workload to role."""


BUCKETS = {
    "media": BucketSpec(
        kept=True,
        uploads_from_browsers=True,
        grants={"web": "roles/storage.objectUser", "worker": "roles/storage.objectUser"},
    ),
    # Read by everybody, through the load balancer's cache: style sheets and scripts, which are in the image anyway.
    "static": BucketSpec(kept=False, public=True, grants={"migrate": "roles/storage.objectUser"}),
    "backups": BucketSpec(kept=True, delete_after_days=BACKUP_DAYS, grants={"backup": "roles/storage.objectUser"}),
    "build-source": BucketSpec(
        kept=False, delete_after_days=BUILD_SOURCE_DAYS, grants={"build": "roles/storage.objectViewer"}
    ),
}


@dataclass(frozen=True, kw_only=True)
class StorageArgs:
    project: str
    storage_location: str
    public_host: str
    deletion_protection: bool
    labels: dict[str, str]
    member_by_workload: dict[str, pulumi.Output[str]]
    buckets: dict[str, BucketSpec] = field(default_factory=lambda: BUCKETS)


class Storage(Component):
    bucket_by_purpose: dict[str, pulumi.Output[str]]
    grants: list[pulumi.Resource]
    """What a workload has to wait for before it can use its buckets."""

    project_number: pulumi.Output[int]
    """As Google answers it with a bucket. Asking for it in any other way is a call during the preview."""

    def __init__(self, name: str, args: StorageArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, opts)
        self.bucket_by_purpose = {}
        self.grants = []
        for purpose, spec in args.buckets.items():
            protected = spec.kept and args.deletion_protection
            bucket = gcp.storage.Bucket(
                f"{name}-{purpose}",
                name=f"{args.project}-{purpose}",
                project=args.project,
                location=args.storage_location,
                storage_class="STANDARD",
                labels=args.labels,
                uniform_bucket_level_access=True,
                public_access_prevention="inherited" if spec.public else "enforced",
                versioning={"enabled": True},
                soft_delete_policy={"retention_duration_seconds": SOFT_DELETE_DAYS * DAY_SECONDS},
                lifecycle_rules=lifecycle(spec),
                cors=cors(args.public_host) if spec.uploads_from_browsers else None,
                # Only an empty bucket can be deleted otherwise.
                force_destroy=not protected,
                opts=self.child_with(pulumi.ResourceOptions(protect=protected)),
            )
            self.bucket_by_purpose[purpose] = bucket.name
            self.project_number = bucket.project_number
            for workload, role in spec.grants.items():
                grant = gcp.storage.BucketIAMMember(
                    f"{name}-{purpose}-{workload}",
                    bucket=bucket.name,
                    role=role,
                    member=args.member_by_workload[workload],
                    opts=self.child,
                )
                self.grants.append(grant)
            if spec.public:
                gcp.storage.BucketIAMMember(
                    f"{name}-{purpose}-public",
                    bucket=bucket.name,
                    role="roles/storage.objectViewer",
                    member="allUsers",
                    opts=self.child,
                )
        self.register_outputs({"bucket_by_purpose": self.bucket_by_purpose})


def lifecycle(spec: BucketSpec) -> list[Any]:
    rules: list[Any] = [DELETE_NONCURRENT, ABORT_UPLOADS]
    if spec.delete_after_days is not None:
        rules.append({"action": {"type": "Delete"}, "condition": {"age": spec.delete_after_days, "with_state": "LIVE"}})
    return rules


def cors(public_host: str) -> list[Any]:
    return [
        {
            "origins": [f"https://{public_host}"],
            "methods": ["GET", "PUT"],
            "response_headers": ["Content-Type", "x-goog-resumable"],
            "max_age_seconds": 3600,
        }
    ]
