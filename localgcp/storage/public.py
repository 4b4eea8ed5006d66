"""What a load balancer's backend bucket serves: objects that everybody may read."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from localgcp.errors import NotFound
from localgcp.iam.principal import ANONYMOUS
from localgcp.storage import media
from localgcp.storage.cloud_storage import CloudStorage, of
from localgcp.storage.objects import StoredObject
from localgcp.storage.ranges import Slice
from localgcp.store import Resource

if TYPE_CHECKING:
    from localgcp.region import Region


@dataclass(kw_only=True)
class PublicObject:
    """An answer that is not sent yet. `response` is an ASGI application; otherwise iterate over `body` to its end."""

    status: int
    headers: list[tuple[str, str]]
    body: AsyncIterator[bytes]
    response: media.MediaResponse


def open_public(
    region: "Region", bucket: str, name: str, *, request_headers: Mapping[str, str] | None = None, method: str = "GET"
) -> PublicObject:
    """An object as anybody may read it, ranges and gzip included. Blocks on the disk: call in a thread.

    A bucket with a website serves its main page for a name that ends with "/" and its 404 page for what is missing.
    `request_headers` have lower-case names.

    Raises:
        NotFound: the bucket or object does not exist.
        Unauthenticated: allUsers may not read it, or public access is prevented.
        RangeNotSatisfiable.
    """
    storage = of(region)
    home, found, status = _found(storage, bucket, name)
    headers = dict(request_headers or {})
    etag = media.xml_etag(found)
    if status == 200 and etag in [
        tag.strip().removeprefix("W/") for tag in headers.get("if-none-match", "").split(",")
    ]:
        response = media.MediaResponse(None, Slice(0, 0), status_code=304, headers=[("ETag", etag)])
    else:
        if status != 200:
            headers.pop("range", None)
        response = media.respond(
            storage.files,
            found,
            headers,
            is_public=lambda: storage.is_public(home, found.name),
            etag=etag,
            extra=media.metadata_headers(found),
            is_head=method == "HEAD",
        )
        if status != 200:
            response.status_code = status
    return PublicObject(
        status=response.status_code,
        headers=[(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.raw_headers],
        body=_body(response),
        response=response,
    )


def _found(storage: CloudStorage, bucket: str, name: str) -> tuple[Resource, StoredObject, int]:
    home = storage.objects.bucket(bucket)
    website = home.get("website") or {}
    if (not name or name.endswith("/")) and website.get("mainPageSuffix"):
        name += website["mainPageSuffix"]
    try:
        _, found = storage.readable(ANONYMOUS, bucket, name)
    except NotFound:
        if not website.get("notFoundPage"):
            raise
        _, found = storage.readable(ANONYMOUS, bucket, website["notFoundPage"])
        return home, found, 404
    return home, found, 200


async def _body(response: media.MediaResponse) -> AsyncIterator[bytes]:
    try:
        async for chunk in response.chunks():
            yield chunk
    finally:
        response.close()
