"""Cloud Storage of one region: its library put together, and who may do what in it."""

import threading
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from localgcp.errors import ApiError, NotFound
from localgcp.iam.policies import denied
from localgcp.iam.principal import ANONYMOUS, Principal
from localgcp.storage import contexts, lifecycle, signing
from localgcp.storage.access_controls import AccessControls
from localgcp.storage.buckets import is_uniform, prevents_public_access
from localgcp.storage.files import ContentFiles
from localgcp.storage.hmac_keys import HmacKeys
from localgcp.storage.objects import Allow, Objects, StoredObject
from localgcp.storage.uploads import Uploads
from localgcp.store import Resource

if TYPE_CHECKING:
    from localgcp.region import Region

_of_region: "weakref.WeakKeyDictionary[Region, CloudStorage]" = weakref.WeakKeyDictionary()
_making = threading.Lock()


class CloudStorage:
    def __init__(self, region: "Region") -> None:
        self._region = weakref.ref(region)
        self.api_url = region.settings.api_url
        self.files = ContentFiles(region.settings.data_dir / "storage")
        self.objects = Objects(region.store, self.files, region.clock, api_url=self.api_url)
        self.access_controls = AccessControls(region.store, region.iam)
        self.hmac_keys = HmacKeys(region.store, region.clock)
        self.uploads = Uploads(region.store, self.files, self.objects, region.clock)

    @property
    def region(self) -> "Region":
        region = self._region()
        if region is None:
            raise RuntimeError("the region of this Cloud Storage is gone")
        return region

    def recover(self) -> int:
        """Remove what an earlier process wrote and did not get to name; returns how many files that were."""
        return self.files.sweep(self.objects.referenced_contents() | self.uploads.referenced_contents())

    def apply_lifecycle(self) -> lifecycle.Applied:
        """Apply lifecycle rules and purge what soft delete no longer keeps, as of the region's clock."""
        buckets = self.region.store.list("storage", "b")
        return lifecycle.apply(self.objects, self.uploads, buckets, self.region.clock.now())

    # Permissions

    def check(
        self,
        principal: Principal,
        permission: str,
        bucket: Resource,
        name: str | None = None,
        generation: int | None = None,
    ) -> None:
        """Raises PermissionDenied, or Unauthenticated for nobody in particular, in Google's words."""
        if not self.allows(principal, permission, bucket, name, generation):
            raise self.refusal(principal, permission, bucket, name)

    def allows(
        self,
        principal: Principal,
        permission: str,
        bucket: Resource,
        name: str | None = None,
        generation: int | None = None,
    ) -> bool:
        """Whether IAM grants the permission, or the access control list of the object, live or of a generation."""
        public = not prevents_public_access(bucket)
        if self.region.iam.allows(principal, permission, _key(bucket, name), public=public):
            return True
        if name is None or is_uniform(bucket):
            return False
        found = self.objects.find(bucket["name"], name, generation)
        return found is not None and self.access_controls.allows(principal, permission, bucket, found)

    def refusal(self, principal: Principal, permission: str, bucket: Resource, name: str | None = None) -> ApiError:
        return denied(principal, permission, _key(bucket, name))

    def signer(self, algorithm: str, identity: str, scope: str, message: bytes, signature: bytes) -> str | None:
        """A `signing.Signer`: the account that made a signature, None when none did."""
        if algorithm == signing.HMAC:
            return self.hmac_keys.signer(identity, scope, message, signature)
        return identity if self.region.tokens.verify_signature(identity, message, signature) else None

    def is_public(self, bucket: Resource, name: str) -> bool:
        return self.allows(ANONYMOUS, "storage.objects.get", bucket, name)

    def readable(
        self,
        principal: Principal,
        bucket_name: str,
        name: str,
        generation: int | None = None,
        *,
        soft_deleted: bool = False,
    ) -> tuple[Resource, StoredObject]:
        """An object that the caller may read, and its bucket.

        Who may not list the bucket does not learn that an object does not exist: the refusal is that of the listing.
        """
        bucket = self.objects.bucket(bucket_name)
        if not self.allows(principal, "storage.objects.get", bucket, name, generation):
            if not is_uniform(bucket) and self.allows(principal, "storage.objects.list", bucket):
                # What does not exist has no list that could grant anything.
                self.objects.get(bucket_name, name, generation)
            raise self.refusal(principal, "storage.objects.get", bucket, name)
        try:
            if soft_deleted:
                return bucket, self.objects.get_soft_deleted(bucket_name, name, generation)
            return bucket, self.objects.get(bucket_name, name, generation)
        except NotFound:
            if not self.allows(principal, "storage.objects.list", bucket):
                raise self.refusal(principal, "storage.objects.list", bucket) from None
            raise

    def writing(
        self,
        principal: Principal,
        bucket_name: str,
        name: str,
        properties: Mapping[str, Any],
        predefined_acl: str | None = None,
    ) -> "CallerAllow":
        """Checks that the caller may create the object; asks for more when it turns out to replace another.

        The object's access control list is the predefined one, that of the properties, or the bucket's default.
        """
        bucket = self.objects.bucket(bucket_name)
        self.check(principal, "storage.objects.create", bucket, name)
        if properties.get("retention"):
            self.check(principal, "storage.objects.setRetention", bucket, name)
        for permission in contexts.permissions({}, properties):
            self.check(principal, permission, bucket, name)
        access = self.access_controls.of_new_object(bucket, principal, properties.get("acl"), predefined_acl)
        return CallerAllow(self, principal, bucket, name, access)

    # Answers

    def object_json(self, found: StoredObject, *, full: bool = False, key: str | None = None) -> dict[str, Any]:
        """The resource of an object; `full` adds its access controls."""
        body = self.objects.to_json(found, key=key)
        if full:
            body |= self.access_controls.object_fields(self.objects.bucket(found.bucket), found)
        return body


class CallerAllow(Allow):
    def __init__(
        self,
        storage: CloudStorage,
        principal: Principal,
        bucket: Resource,
        name: str,
        access: Mapping[str, Any],
    ) -> None:
        self._access = access
        self._storage = storage
        self._principal = principal
        self._bucket = bucket
        self._name = name

    def overwrite(self) -> None:
        self._storage.check(self._principal, "storage.objects.delete", self._bucket, self._name)

    def access(self) -> Mapping[str, Any]:
        return self._access


def of(region: "Region") -> CloudStorage:
    """The one Cloud Storage of a region."""
    with _making:
        if region not in _of_region:
            _of_region[region] = CloudStorage(region)
        return _of_region[region]


def _key(bucket: Resource, name: str | None) -> str:
    key = f"storage/b/{bucket['name']}"
    return key if name is None else f"{key}/o/{name}"
