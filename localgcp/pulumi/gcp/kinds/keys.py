"""Cloud KMS. Neither a ring nor a key can be deleted; deleting a key destroys its versions."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from localgcp.pulumi.gcp.kind import Kind, Work
from localgcp.pulumi.gcp.mapping import Body, Values


@dataclass(frozen=True, kw_only=True)
class KeyRing(Kind):
    def encode(self, work: Work, *, updating: bool) -> Any:
        return None

    def delete(self, work: Work) -> None:
        return None


KEY_RING = KeyRing(
    type="gcp:kms/keyRing:KeyRing",
    api="cloudkms",
    collection="projects/{project}/locations/{location}/keyRings",
    name_query="keyRingId",
    update_method="",
)


@dataclass(frozen=True, kw_only=True)
class CryptoKey(Kind):
    def encode(self, work: Work, *, updating: bool) -> Body:
        body = super().encode(work, updating=updating)
        if period := body.get("rotationPeriod"):
            after = timedelta(seconds=float(str(period).removesuffix("s")))
            body["nextRotationTime"] = (datetime.now(UTC) + after).isoformat().replace("+00:00", "Z")
        return body

    def create(self, work: Work) -> Body | None:
        path = self.collection_path(work)
        name = self.values(work)["name"]
        body = self.encode(work, updating=False)
        skip = "true" if work.value("skipInitialVersionCreation") else "false"
        # The time of the next rotation differs in each attempt and must not make it another creation.
        stable = {key: value for key, value in body.items() if key != "nextRotationTime"}
        work.call(
            "POST",
            self.api,
            path,
            body=body,
            query={"cryptoKeyId": name, "skipInitialVersionCreation": skip},
            request_id=work.creation_id("POST", f"{path}/{name}", stable),
        )
        work.id = self.identify(work)
        return None

    def update_mask(self, work: Work) -> list[str]:
        mask = super().update_mask(work)
        if "rotationPeriod" in mask:
            mask.insert(mask.index("rotationPeriod") + 1, "nextRotationTime")
        return mask

    def decode(self, work: Work, body: Mapping[str, Any]) -> Values:
        return {**super().decode(work, body), "keyRing": work.value("keyRing")}

    def delete(self, work: Work) -> None:
        path = self.path(work)
        versions = work.call("GET", self.api, f"{path}/cryptoKeyVersions").get("cryptoKeyVersions", [])
        for version in versions:
            if version.get("state") not in ("DESTROYED", "DESTROY_SCHEDULED"):
                work.call("POST", self.api, f"{version['name']}:destroy", body={})
        if work.value("rotationPeriod"):
            query = {"updateMask": "rotationPeriod,nextRotationTime"}
            work.call("PATCH", self.api, path, query=query, body={})


CRYPTO_KEY = CryptoKey(
    type="gcp:kms/cryptoKey:CryptoKey",
    api="cloudkms",
    collection="{keyRing}/cryptoKeys",
    mask=("rotationPeriod", "versionTemplate"),
)

KINDS = (KEY_RING, CRYPTO_KEY)
