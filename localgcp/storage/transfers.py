"""The JSON API's paths for contents: `/upload/storage/v1/b/…/o` and `/download/storage/v1/b/…/o/…`."""

import re
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import quote, unquote, urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from localgcp.errors import ApiError, InvalidArgument, NotFound
from localgcp.iam.principal import Principal
from localgcp.partial import select
from localgcp.storage import encryption, media
from localgcp.storage.cloud_storage import CallerAllow, CloudStorage
from localgcp.storage.files import Content, ContentWriter
from localgcp.storage.http import json_body, object_metadata, principal_of, served
from localgcp.storage.multipart import RelatedReader
from localgcp.storage.objects import StoredObject, check_name
from localgcp.storage.preconditions import NotModified, Preconditions, number
from localgcp.storage.ranges import ContentRange, carried
from localgcp.storage.uploads import Upload, UploadCancelled

UPLOAD_PATH = re.compile(r"/(?:resumable/)?upload/storage/v1/b/([^/]+)/o/?")
DOWNLOAD_PATH = re.compile(r"/download/storage/v1/b/([^/]+)/o/([^/]+)/?")
RESUME_INCOMPLETE = 308


async def _upload(request: Request, storage: CloudStorage) -> Response:
    bucket = _matched(UPLOAD_PATH, request)[0]
    query = request.query_params
    if query.get("upload_id"):
        return await _continue(request, storage, query["upload_id"])
    principal = await principal_of(request, storage)
    kind = query.get("uploadType", "media")
    if request.method not in ("POST", "PUT"):
        raise NotFound(f"{request.method} is not served at {request.url.path}")
    match kind:
        case "media":
            return await _simple(request, storage, principal, bucket)
        case "multipart":
            return await _multipart(request, storage, principal, bucket)
        case "resumable":
            return await _start(request, storage, principal, bucket)
    raise InvalidArgument(f"Invalid upload type: {kind}", reason="invalid", location="uploadType")


async def _simple(request: Request, storage: CloudStorage, principal: Principal, bucket: str) -> Response:
    properties = {"contentType": request.headers.get("content-type")} if "content-type" in request.headers else {}
    return await _insert(request, storage, principal, bucket, properties, request.stream())


async def _multipart(request: Request, storage: CloudStorage, principal: Principal, bucket: str) -> Response:
    reader = RelatedReader(request.stream(), request.headers.get("content-type", ""))
    await reader.head()
    metadata = object_metadata(reader.metadata)
    if reader.content_type and not metadata.get("contentType"):
        metadata["contentType"] = reader.content_type
    return await _insert(request, storage, principal, bucket, metadata, reader.media())


async def _insert(
    request: Request,
    storage: CloudStorage,
    principal: Principal,
    bucket: str,
    metadata: Mapping[str, Any],
    stream: AsyncIterator[bytes],
) -> Response:
    query = request.query_params
    region = storage.region
    name, properties, preconditions = _described(request, metadata, bucket)
    allow = await region.run_in_thread(_may_write, storage, principal, bucket, name, properties, query)
    check = media.expected_digests(metadata, request.headers)
    # A precondition that fails already need not wait for the bytes; it is checked again when they are here.
    await region.run_in_thread(lambda: preconditions.check(storage.objects.find(bucket, name)))
    content = await media.store(stream, storage.files)

    def insert() -> StoredObject:
        try:
            check(content)
            return storage.objects.insert(bucket, name, content, properties, preconditions=preconditions, allow=allow)
        except BaseException:
            storage.files.delete([content.id])
            raise

    stored = await region.run_in_thread(insert)
    return await region.run_in_thread(_resource, storage, stored, query, bool(properties.get("acl")))


async def _start(request: Request, storage: CloudStorage, principal: Principal, bucket: str) -> Response:
    metadata = object_metadata(await json_body(request))
    query = request.query_params
    if request.headers.get("x-upload-content-type") and not metadata.get("contentType"):
        metadata["contentType"] = request.headers["x-upload-content-type"]
    name, properties, preconditions = _described(request, metadata, bucket)
    size = number(request.headers, "x-upload-content-length")

    def begin() -> Upload:
        allow = _may_write(storage, principal, bucket, name, properties, query)
        preconditions.check(storage.objects.find(bucket, name))
        return storage.uploads.begin(
            "resumable",
            bucket,
            name,
            principal=principal.email,
            properties=properties_of_session(properties, query.get("predefinedAcl"), allow),
            preconditions=preconditions,
            size=size,
            expected={key: metadata[key] for key in ("crc32c", "md5Hash") if metadata.get(key)},
            query={key: query[key] for key in ("projection", "fields") if key in query},
        )

    upload = await storage.region.run_in_thread(begin)
    location = f"{_base_url(request)}/upload/storage/v1/b/{bucket}/o?" + urlencode(
        {"uploadType": "resumable", "name": name, "upload_id": upload.id}, quote_via=quote
    )
    return Response(status_code=200, headers={"Location": location, "X-GUploader-UploadID": upload.id})


async def _continue(request: Request, storage: CloudStorage, upload_id: str) -> Response:
    """A chunk, a question or a cancellation. The session's id is what authorises it, as at Google."""
    result = await continue_session(request, storage, upload_id)
    if isinstance(result, Response):
        return result
    upload, stored = result
    query = upload.request.get("query", {})
    return await storage.region.run_in_thread(_resource, storage, stored, query, bool(upload.properties.get("acl")))


async def continue_session(
    request: Request, storage: CloudStorage, upload_id: str
) -> Response | tuple[Upload, StoredObject]:
    """One request to a resumable session: an answer, or the finished object."""
    region, uploads = storage.region, storage.uploads
    async with uploads.lock(upload_id):
        upload = await region.run_in_thread(uploads.get, upload_id, "resumable")
        if request.method == "DELETE":
            await region.run_in_thread(uploads.abort, upload_id)
            raise UploadCancelled("Client Closed Request")
        if upload.result is not None:
            # The answer to the last chunk got lost, and the client asks again.
            stored = await region.run_in_thread(storage.objects.find, upload.bucket, upload.name, upload.result)
            if stored is None:
                raise NotFound("The object of this upload session has been deleted.")
            return upload, stored
        content_range = carried(request.headers.get("content-range"))
        writer = await region.run_in_thread(uploads.writer, upload)
        total = upload.size
        if content_range is not None and content_range.total is not None:
            total = content_range.total
        if content_range is None or content_range.first is not None:
            _check_length(request, content_range, upload.size)
            first = 0 if content_range is None or content_range.first is None else content_range.first
            uploads.check_offset(upload, writer, first)
            await media.receive(_from(request.stream(), writer.size - first), writer)
            if content_range is None:
                total = writer.size
            elif content_range.last is not None and writer.size < content_range.last + 1:
                return _incomplete(writer)
        if total is not None and writer.size > total:
            await region.run_in_thread(uploads.abort, upload_id)
            raise InvalidArgument(
                f"Upload of {writer.size} bytes is larger than the declared {total}.", reason="invalid"
            )
        is_question = content_range is not None and content_range.first is None
        if total is None or writer.size < total or (is_question and content_range and content_range.total is None):
            return _incomplete(writer)
        return upload, await region.run_in_thread(_finish, request, storage, upload, writer)


def _check_length(request: Request, content_range: ContentRange | None, declared: int | None) -> None:
    """Raises InvalidArgument for a body that is not as long as its Content-Range, or the session, says."""
    length = number(request.headers, "content-length")
    if content_range is None or content_range.first is None or content_range.last is None:
        expected = declared
    else:
        expected = content_range.last + 1 - content_range.first
    if None not in (length, expected) and length != expected:
        raise InvalidArgument(
            f"Invalid request. The request has {length} bytes and says that it has {expected}.", reason="badRequest"
        )


def _finish(request: Request, storage: CloudStorage, upload: Upload, writer: ContentWriter) -> StoredObject:
    allow = storage.writing(Principal(email=upload.principal), upload.bucket, upload.name, upload.properties)
    of_session = media.expected_digests(upload.request.get("expected", {}), {})
    of_request = media.expected_digests({}, {"x-goog-hash": request.headers.get("x-goog-hash", "")})

    def check(content: Content) -> None:
        if upload.sizes is not None:
            upload.sizes.check(content.size)
        of_session(content)
        of_request(content)

    try:
        return storage.uploads.finish(upload, writer, allow, check)
    except ApiError:
        # Nothing that is sent again could make this session succeed.
        storage.uploads.abort(upload.id)
        raise


def _incomplete(writer: ContentWriter) -> Response:
    headers = {"Content-Length": "0"}
    if writer.size:
        headers["Range"] = f"bytes=0-{writer.size - 1}"
    return Response(status_code=RESUME_INCOMPLETE, headers=headers)


async def _from(stream: AsyncIterator[bytes], skip: int) -> AsyncIterator[bytes]:
    """The stream without the first `skip` bytes, which an earlier attempt has delivered."""
    async for chunk in stream:
        if skip >= len(chunk):
            skip -= len(chunk)
            continue
        yield chunk[skip:]
        skip = 0


async def _download(request: Request, storage: CloudStorage) -> Response:
    bucket, name = _matched(DOWNLOAD_PATH, request)
    if request.method not in ("GET", "HEAD"):
        raise NotFound(f"{request.method} is not served at {request.url.path}")
    principal = await principal_of(request, storage)
    return await storage.region.run_in_thread(
        download, storage, principal, bucket, name, request.query_params, request.headers, request.method == "HEAD"
    )


def download(
    storage: CloudStorage,
    principal: Principal,
    bucket_name: str,
    name: str,
    query: Mapping[str, Any],
    headers: Mapping[str, str],
    is_head: bool = False,
) -> Response:
    """An object's content as the JSON API sends it."""
    bucket, found = storage.readable(
        principal,
        bucket_name,
        name,
        number(query, "generation"),
        soft_deleted=str(query.get("softDeleted", "")).lower() == "true",
    )
    try:
        Preconditions.from_query(query, headers).check(found, reading=True)
    except NotModified:
        return Response(status_code=304, headers={"ETag": found.etag})
    return media.respond(
        storage.files,
        found,
        headers,
        is_public=lambda: storage.is_public(bucket, name),
        etag=found.etag,
        is_head=is_head,
    )


def _described(request: Request, metadata: Mapping[str, Any], bucket: str) -> tuple[str, dict[str, Any], Preconditions]:
    """The name, properties and preconditions of an upload, out of its query, headers and metadata."""
    query = request.query_params
    name = query.get("name") or metadata.get("name") or ""
    check_name(name)
    if metadata.get("bucket") not in (None, "", bucket):
        raise InvalidArgument(
            f"Value '{metadata['bucket']}' in content does not agree with value '{bucket}'. This can happen when a"
            " value set through a parameter is inconsistent with a value set in the request.",
            reason="invalid",
        )
    # Which key encrypts an object is never said in its metadata.
    properties = {key: value for key, value in metadata.items() if key not in ("kmsKeyName", "customerEncryption")}
    if query.get("contentEncoding"):
        properties["contentEncoding"] = query["contentEncoding"]
    properties |= encrypted_with(query.get("kmsKeyName"), request.headers)
    return name, properties, Preconditions.from_query(query)


def encrypted_with(kms_key: str | None, headers: Mapping[str, str]) -> dict[str, Any]:
    """The properties that say which key a request wants a new object to be encrypted with. Raises InvalidArgument."""
    key = encryption.supplied(headers)
    if key is not None and kms_key:
        raise InvalidArgument(
            "A Cloud KMS key and a customer-supplied encryption key cannot be used together.", reason="invalid"
        )
    return {"kmsKeyName": kms_key} if kms_key else dict(encryption.described(key))


def _may_write(
    storage: CloudStorage,
    principal: Principal,
    bucket: str,
    name: str,
    properties: Mapping[str, Any],
    query: Mapping[str, str],
) -> CallerAllow:
    return storage.writing(principal, bucket, name, properties, query.get("predefinedAcl"))


def properties_of_session(
    properties: Mapping[str, Any], predefined_acl: str | None, allow: CallerAllow
) -> dict[str, Any]:
    """What an upload of several requests has to remember: a predefined list as the entries that it stands for."""
    if not predefined_acl:
        return dict(properties)
    entries = [{"entity": entity, "role": role} for entity, role in allow.access()["acl"].items()]
    return {**properties, "acl": entries}


def _resource(storage: CloudStorage, stored: StoredObject, query: Mapping[str, str], has_acl: bool) -> Response:
    """The answer to an upload, with the access controls of an object that was sent with a list of its own."""
    full = query["projection"] == "full" if query.get("projection") else has_acl
    # Whoever wrote the object has its key.
    body = storage.object_json(stored, full=full, key=encryption.key_of(stored))
    fields = query.get("fields")
    return JSONResponse(select(body, fields) if fields else body, headers={"ETag": stored.etag})


def _matched(pattern: re.Pattern[str], request: Request) -> list[str]:
    raw_path = request.scope["raw_path"].decode("ascii").partition("?")[0]
    match = pattern.fullmatch(raw_path)
    if match is None:
        raise NotFound(f"The requested URL {request.url.path} was not found on this server.")
    return [unquote(group) for group in match.groups()]


def _base_url(request: Request) -> str:
    return f"{request.url.scheme}://{request.headers.get('host') or request.url.netloc}"


upload_app = served(_upload)
download_app = served(_download)
