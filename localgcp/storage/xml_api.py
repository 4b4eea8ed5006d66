"""The XML API: `/<bucket>/<object>`, which signed URLs, browsers and Google's transfer manager use.

Objects, multipart uploads and forms are whole; buckets can be listed, and are made and changed through the JSON API.
"""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from localgcp.errors import (
    ApiError,
    Internal,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    PreconditionFailed,
    Unauthenticated,
    Unimplemented,
)
from localgcp.iam import accounts
from localgcp.iam.principal import Principal
from localgcp.storage import cors, encryption, media, policies, signing, times
from localgcp.storage.access_controls import predefined_of_header
from localgcp.storage.checksums import crc32c_text, digest_text
from localgcp.storage.cloud_storage import CallerAllow, CloudStorage, of
from localgcp.storage.http import principal_of
from localgcp.storage.multipart import FormReader
from localgcp.storage.objects import StoredObject, check_name
from localgcp.storage.preconditions import MESSAGE, NotModified, Preconditions, number
from localgcp.storage.ranges import RangeNotSatisfiable, SizeRange
from localgcp.storage.transfers import continue_session, encrypted_with, properties_of_session
from localgcp.storage.uploads import Upload
from localgcp.store import Resource

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
MAX_COMPLETE_BYTES = 2 * 1024 * 1024
log = logging.getLogger(__name__)

#: Query parameters that override headers of the answer, as signed URLs use them.
OVERRIDES = {
    "response-content-disposition": "Content-Disposition",
    "response-content-type": "Content-Type",
    "response-content-encoding": "Content-Encoding",
    "response-content-language": "Content-Language",
    "response-cache-control": "Cache-Control",
}
#: Query parameters of a list of objects; others ask for something else of a bucket.
LISTING = frozenset(
    {"prefix", "delimiter", "marker", "max-keys", "list-type", "start-after", "continuation-token", "fetch-owner"}
    | {"access_token", "userProject"}
)
#: Query parameters that make a request about something else than the content of an object.
ELSEWHERE = frozenset({"acl", "compose", "legal-hold", "restore", "retention", "tagging", "torrent"})
PROPERTY_HEADERS = {
    "cache-control": "cacheControl",
    "content-disposition": "contentDisposition",
    "content-encoding": "contentEncoding",
    "content-language": "contentLanguage",
    "content-type": "contentType",
    "x-goog-custom-time": "customTime",
    "x-goog-storage-class": "storageClass",
}
LOCK_MODES = {"GOVERNANCE": "Unlocked", "COMPLIANCE": "Locked"}


@dataclass(frozen=True, kw_only=True)
class XmlCall:
    request: Request
    storage: CloudStorage
    principal: Principal
    bucket: str
    name: str
    query: Mapping[str, str]


async def xml_app(scope: Scope, receive: Receive, send: Send) -> None:
    request = Request(scope, receive)
    storage = of(scope["region"])
    bucket, name = _target(request)
    try:
        response = await _answer(request, storage, bucket, name)
    except ClientDisconnect:
        return
    except signing.SignatureError as error:
        response = _error(error.status, error.code, error.message, {"Details": error.details, **error.elements})
    except ApiError as error:
        response = _refusal(error)
    except Exception:
        log.exception("%s %s", request.method, request.url.path)
        response = _refusal(Internal("We encountered an internal error. Please try again."))
    origin = request.headers.get("origin")
    if origin is not None and request.method != "OPTIONS":
        rules = await storage.region.run_in_thread(_cors_rules, storage, bucket)
        for key, value in cors.headers_for(rules, origin, request.method).items():
            response.headers[key] = value
    await response(scope, receive, send)


async def _answer(request: Request, storage: CloudStorage, bucket: str, name: str) -> Response:
    region = storage.region
    pairs = parse_qsl(request.url.query, keep_blank_values=True)
    query = {key: value for key, value in pairs}
    if not bucket:
        raise NotFound(f"The requested URL {request.url.path} was not found on this server.", reason="NoSuchBucket")
    if request.method == "OPTIONS":
        rules = await region.run_in_thread(_cors_rules, storage, bucket)
        wanted = request.headers.get("access-control-request-headers", "")
        asked = request.headers.get("access-control-request-method")
        return Response(headers=cors.preflight(rules, request.headers.get("origin"), asked, wanted))
    if query.get("upload_id") and request.method in ("PUT", "DELETE"):
        # A session's id authorises its requests, whoever started it.
        result = await continue_session(request, storage, query["upload_id"])
        return result if isinstance(result, Response) else _stored(result[1])
    principal = (
        await region.run_in_thread(_signer, request, storage, pairs)
        if signing.is_signed(query)
        else (await principal_of(request, storage))
    )
    call = XmlCall(request=request, storage=storage, principal=principal, bucket=bucket, name=name, query=query)
    method = "GET" if request.method == "HEAD" else request.method
    return await (_of_object(call, method) if name else _of_bucket(call, method))


async def _of_bucket(call: XmlCall, method: str) -> Response:
    run_in_thread = call.storage.region.run_in_thread
    if method == "GET" and "uploads" in call.query:
        return await run_in_thread(_list_uploads, call)
    if method == "GET":
        others = sorted(key for key in call.query.keys() - LISTING if not key.lower().startswith("x-goog-"))
        if others:
            raise Unimplemented(f"{', '.join(others)} of a bucket: no behaviour in localgcp's XML API.")
        return await run_in_thread(_list_objects, call)
    if method == "POST" and call.request.headers.get("content-type", "").startswith("multipart/form-data"):
        return await _post_form(call)
    raise Unimplemented("Buckets are made, changed and deleted through the JSON API.")


async def _of_object(call: XmlCall, method: str) -> Response:
    run_in_thread, query = call.storage.region.run_in_thread, call.query
    others = sorted(ELSEWHERE & query.keys())
    if others:
        raise Unimplemented(f"{', '.join(others)} of an object: no behaviour in localgcp's XML API.")
    match method:
        case "GET":
            return await run_in_thread(_list_parts if "uploadId" in query else _get, call)
        case "PUT":
            return await (_put_part(call) if "uploadId" in query else _put(call))
        case "DELETE":
            return await run_in_thread(_abort if "uploadId" in query else _delete, call)
        case "POST" if "uploads" in query:
            return await run_in_thread(_initiate, call)
        case "POST" if "uploadId" in query:
            return await _complete(call)
        case "POST" if call.request.headers.get("x-goog-resumable", "").lower() == "start":
            return await run_in_thread(_start_resumable, call)
    raise Unimplemented(f"{call.request.method} of an object has no behaviour in localgcp.")


def _get(call: XmlCall) -> Response:
    bucket, found = call.storage.readable(call.principal, call.bucket, call.name, number(call.query, "generation"))
    headers = call.request.headers
    etag = media.xml_etag(found)
    try:
        Preconditions.from_xml_headers(headers).check(found, reading=True)
    except NotModified:
        return Response(status_code=304, headers={"ETag": etag})
    updated = times.parse(found.updated).replace(microsecond=0)
    since, until = _moment(headers.get("if-modified-since")), _moment(headers.get("if-unmodified-since"))
    if since is not None and "if-none-match" not in headers and updated <= since:
        return Response(status_code=304, headers={"ETag": etag})
    if until is not None and "if-match" not in headers and updated > until:
        raise PreconditionFailed(MESSAGE)
    overrides = {header: call.query[key] for key, header in OVERRIDES.items() if call.query.get(key)}
    if any(ord(char) < 32 for value in overrides.values() for char in value):
        raise InvalidArgument("A response header cannot hold control characters.")
    return media.respond(
        call.storage.files,
        found,
        headers,
        is_public=lambda: call.storage.is_public(bucket, call.name),
        etag=etag,
        extra=media.metadata_headers(found),
        overrides=overrides,
        is_head=call.request.method == "HEAD",
    )


def _moment(header: str | None) -> datetime | None:
    """None for a header that is absent or no date, which HTTP ignores."""
    try:
        return parsedate_to_datetime(header).astimezone(UTC) if header else None
    except ValueError:
        return None


async def _put(call: XmlCall) -> Response:
    storage, region = call.storage, call.storage.region
    headers = call.request.headers
    if headers.get("x-goog-copy-source"):
        return await region.run_in_thread(_copy, call)
    properties = _properties(headers)
    preconditions = Preconditions.from_xml_headers(headers)
    sizes = SizeRange.of_header(headers.get("x-goog-content-length-range"))

    allow = await region.run_in_thread(_may_write, call, properties)
    check = media.expected_digests({}, headers)
    content = await media.store(call.request.stream(), storage.files, sizes)

    def insert() -> StoredObject:
        try:
            check(content)
            return storage.objects.insert(
                call.bucket, call.name, content, properties, preconditions=preconditions, allow=allow
            )
        except BaseException:
            storage.files.delete([content.id])
            raise

    return _stored(await region.run_in_thread(insert))


def _may_write(call: XmlCall, properties: Mapping[str, Any]) -> CallerAllow:
    check_name(call.name)
    return call.storage.writing(call.principal, call.bucket, call.name, properties, _predefined_acl(call))


def _predefined_acl(call: XmlCall) -> str | None:
    return predefined_of_header(call.request.headers.get("x-goog-acl"))


def _copy(call: XmlCall) -> Response:
    headers = call.request.headers
    source_bucket, _, source_name = unquote(headers["x-goog-copy-source"]).lstrip("/").partition("/")
    generation = number(headers, "x-goog-copy-source-generation")
    _, source = call.storage.readable(call.principal, source_bucket, source_name, generation)
    Preconditions.from_xml_headers(headers, of_source=True).check(source)
    encryption.check(source, encryption.supplied(headers, encryption.SOURCE_HEADERS))
    replaces = headers.get("x-goog-metadata-directive", "COPY").upper() == "REPLACE"
    properties = _properties(headers)
    allow = _may_write(call, properties if replaces else {})
    stored = call.storage.objects.copy(
        source,
        call.bucket,
        call.name,
        properties if replaces else None,
        encrypted=encrypted_with(headers.get("x-goog-encryption-kms-key-name"), headers),
        preconditions=Preconditions.from_xml_headers(headers),
        allow=allow,
    )
    return _xml(
        f"<CopyObjectResult xmlns='{NAMESPACE}'><LastModified>{stored.updated}</LastModified>"
        f"<ETag>{escape(media.xml_etag(stored))}</ETag></CopyObjectResult>"
    )


def _delete(call: XmlCall) -> Response:
    bucket = call.storage.objects.bucket(call.bucket)
    call.storage.check(call.principal, "storage.objects.delete", bucket, call.name)
    call.storage.objects.delete(
        call.bucket,
        call.name,
        generation=number(call.query, "generation"),
        preconditions=Preconditions.from_xml_headers(call.request.headers),
    )
    return Response(status_code=204)


def _start_resumable(call: XmlCall) -> Response:
    properties = _properties(call.request.headers)
    if call.request.headers.get("x-upload-content-type"):
        properties["contentType"] = call.request.headers["x-upload-content-type"]
    allow = _may_write(call, properties)
    upload = call.storage.uploads.begin(
        "resumable",
        call.bucket,
        call.name,
        principal=call.principal.email,
        properties=properties_of_session(properties, _predefined_acl(call), allow),
        preconditions=Preconditions.from_xml_headers(call.request.headers),
        size=number(call.request.headers, "x-upload-content-length"),
        sizes=SizeRange.of_header(call.request.headers.get("x-goog-content-length-range")),
    )
    host = call.request.headers.get("host", "")
    path = f"/{quote(call.bucket)}/{quote(call.name)}"
    location = f"{call.request.url.scheme}://{host}{path}?{urlencode({'upload_id': upload.id})}"
    headers = {"Location": location, "X-GUploader-UploadID": upload.id, "Content-Length": "0"}
    return Response(status_code=201, headers=headers)


def _list_objects(call: XmlCall) -> Response:
    bucket = call.storage.objects.bucket(call.bucket)
    call.storage.check(call.principal, "storage.objects.list", bucket)
    query = call.query
    after = query.get("marker") or query.get("start-after")
    limit = min(number(query, "max-keys") or 1000, 1000)
    if limit < 0:
        raise InvalidArgument(f"Invalid value for max-keys: {limit}")
    page = call.storage.objects.page(
        call.bucket,
        prefix=query.get("prefix", ""),
        delimiter=query.get("delimiter", ""),
        start_offset=f"{after}\0" if after else "",
        max_results=limit,
        page_token=query.get("continuation-token"),
    )
    contents = "".join(
        f"<Contents><Key>{escape(found.name)}</Key><Generation>{found.generation}</Generation>"
        f"<MetaGeneration>{found.metageneration}</MetaGeneration><LastModified>{found.updated}</LastModified>"
        f"<ETag>{escape(media.xml_etag(found))}</ETag><Size>{found.size}</Size></Contents>"
        for found in page.items
    )
    prefixes = "".join(
        f"<CommonPrefixes><Prefix>{escape(prefix)}</Prefix></CommonPrefixes>" for prefix in page.prefixes
    )
    following = ""
    if page.next_token:
        last = max([found.name for found in page.items[-1:]] + page.prefixes[-1:])
        following = (
            f"<NextMarker>{escape(last)}</NextMarker>"
            f"<NextContinuationToken>{escape(page.next_token)}</NextContinuationToken>"
        )
    return _xml(
        f"<ListBucketResult xmlns='{NAMESPACE}'><Name>{escape(call.bucket)}</Name>"
        f"<Prefix>{escape(query.get('prefix', ''))}</Prefix><MaxKeys>{limit}</MaxKeys>"
        f"<IsTruncated>{'true' if page.next_token else 'false'}</IsTruncated>{following}{contents}{prefixes}"
        "</ListBucketResult>"
    )


# Forms


async def _post_form(call: XmlCall) -> Response:
    """What a browser posts: fields, then a file. A signed policy among the fields says who asks, and for what."""
    storage, region = call.storage, call.storage.region
    reader = FormReader(call.request.stream(), call.request.headers.get("content-type", ""))
    fields = await reader.fields()
    if not fields.get("key"):
        raise InvalidArgument("The form has no field named key before its file.", reason="UserKeyMustBeSpecified")
    name = fields["key"].replace("${filename}", reader.filename)
    properties = _properties(fields)

    def may_write() -> tuple[Any, SizeRange | None]:
        principal, sizes = call.principal, None
        if "policy" in fields:
            email, sizes = policies.verify(fields, call.bucket, now=region.clock.now(), signer=storage.signer)
            principal = _usable(storage, email)
        check_name(name)
        predefined = predefined_of_header(fields.get("acl"))
        return storage.writing(principal, call.bucket, name, properties, predefined), sizes

    allow, sizes = await region.run_in_thread(may_write)
    content = await media.store(reader.media(), storage.files, sizes)

    def insert() -> StoredObject:
        try:
            return storage.objects.insert(call.bucket, name, content, properties, allow=allow)
        except BaseException:
            storage.files.delete([content.id])
            raise

    return _posted(call, fields, await region.run_in_thread(insert))


def _posted(call: XmlCall, fields: Mapping[str, str], stored: StoredObject) -> Response:
    etag = media.xml_etag(stored)
    redirect = fields.get("success_action_redirect", "")
    if re.fullmatch(r"https?://[\x21-\x7e]+", redirect):
        told = urlencode({"bucket": stored.bucket, "key": stored.name, "etag": etag})
        return Response(status_code=303, headers={"Location": f"{redirect}{'&' if '?' in redirect else '?'}{told}"})
    location = f"{call.storage.api_url}/{quote(stored.bucket)}/{quote(stored.name)}"
    if fields.get("success_action_status") == "201":
        response = _xml(
            f"<PostResponse><Location>{escape(location)}</Location><Bucket>{escape(stored.bucket)}</Bucket>"
            f"<Key>{escape(stored.name)}</Key><ETag>{escape(etag)}</ETag></PostResponse>"
        )
        response.status_code = 201
    else:
        response = Response(status_code=200 if fields.get("success_action_status") == "200" else 204)
    response.headers["ETag"] = etag
    response.headers["Location"] = location
    return response


# Multipart uploads


def _initiate(call: XmlCall) -> Response:
    properties = _properties(call.request.headers)
    allow = _may_write(call, properties)
    upload = call.storage.uploads.begin(
        "multipart",
        call.bucket,
        call.name,
        principal=call.principal.email,
        properties=properties_of_session(properties, _predefined_acl(call), allow),
        preconditions=Preconditions.from_xml_headers(call.request.headers),
    )
    return _xml(
        f"<InitiateMultipartUploadResult xmlns='{NAMESPACE}'><Bucket>{escape(call.bucket)}</Bucket>"
        f"<Key>{escape(call.name)}</Key><UploadId>{upload.id}</UploadId></InitiateMultipartUploadResult>"
    )


async def _put_part(call: XmlCall) -> Response:
    storage, region = call.storage, call.storage.region
    upload = await region.run_in_thread(_upload_of, call)
    part_number = number(call.query, "partNumber")
    if part_number is None:
        raise InvalidArgument("partNumber is required")
    encryption.check_key(encryption.key_of(upload), encryption.supplied(call.request.headers))
    check = media.expected_digests({}, call.request.headers)
    content = await media.store(call.request.stream(), storage.files)

    def put() -> Response:
        try:
            check(content)
            part = storage.uploads.put_part(upload, part_number, content)
        except BaseException:
            storage.files.delete([content.id])
            raise
        return Response(headers={"ETag": part.etag, "X-Goog-Hash": _part_hash(part.crc32c, part.md5)})

    return await region.run_in_thread(put)


async def _complete(call: XmlCall) -> Response:
    region = call.storage.region
    upload = await region.run_in_thread(_upload_of, call)
    body = bytearray()
    async for chunk in call.request.stream():
        body += chunk
        if len(body) > MAX_COMPLETE_BYTES:
            raise InvalidArgument("The XML you provided is too large.", reason="EntityTooLarge")
    asked = _asked_parts(bytes(body))

    def complete() -> Response:
        allow = call.storage.writing(call.principal, call.bucket, call.name, upload.properties)
        stored = call.storage.uploads.complete(upload, asked, allow)
        location = f"{call.storage.api_url}/{quote(call.bucket)}/{quote(call.name)}"
        response = _xml(
            f"<CompleteMultipartUploadResult xmlns='{NAMESPACE}'><Location>{escape(location)}</Location>"
            f"<Bucket>{escape(call.bucket)}</Bucket><Key>{escape(call.name)}</Key>"
            f"<ETag>{escape(media.xml_etag(stored))}</ETag></CompleteMultipartUploadResult>"
        )
        response.headers["X-Goog-Generation"] = str(stored.generation)
        response.headers["X-Goog-Hash"] = media.goog_hash(stored)
        return response

    return await region.run_in_thread(complete)


def _abort(call: XmlCall) -> Response:
    call.storage.uploads.abort(_upload_of(call).id)
    return Response(status_code=204)


def _list_parts(call: XmlCall) -> Response:
    upload = _upload_of(call)
    parts = "".join(
        f"<Part><PartNumber>{part.number}</PartNumber><LastModified>{part.modified}</LastModified>"
        f"<ETag>{escape(part.etag)}</ETag><Size>{part.size}</Size></Part>"
        for part in call.storage.uploads.parts(upload)
    )
    return _xml(
        f"<ListPartsResult xmlns='{NAMESPACE}'><Bucket>{escape(call.bucket)}</Bucket><Key>{escape(call.name)}</Key>"
        f"<UploadId>{upload.id}</UploadId><IsTruncated>false</IsTruncated>{parts}</ListPartsResult>"
    )


def _list_uploads(call: XmlCall) -> Response:
    bucket = call.storage.objects.bucket(call.bucket)
    call.storage.check(call.principal, "storage.multipartUploads.list", bucket)
    uploads = "".join(
        f"<Upload><Key>{escape(upload.name)}</Key><UploadId>{upload.id}</UploadId>"
        f"<StorageClass>{escape(upload.properties.get('storageClass') or bucket['storageClass'])}</StorageClass>"
        f"<Initiated>{upload.created}</Initiated></Upload>"
        for upload in call.storage.uploads.multipart_in(call.bucket)
    )
    return _xml(
        f"<ListMultipartUploadsResult xmlns='{NAMESPACE}'><Bucket>{escape(call.bucket)}</Bucket>"
        f"<IsTruncated>false</IsTruncated>{uploads}</ListMultipartUploadsResult>"
    )


def _upload_of(call: XmlCall) -> Upload:
    """The multipart upload that the query names, when it is of this object and the caller may write it."""
    bucket = call.storage.objects.bucket(call.bucket)
    call.storage.check(call.principal, "storage.objects.create", bucket, call.name)
    try:
        upload = call.storage.uploads.get(call.query["uploadId"], "multipart")
    except NotFound:
        upload = None
    if upload is None or (upload.bucket, upload.name) != (call.bucket, call.name):
        raise NotFound("The requested upload was not found.", reason="NoSuchUpload")
    return upload


def _asked_parts(body: bytes) -> list[tuple[int, str]]:
    try:
        if b"<!" in body:  # declarations, and so entities, have no place in this document
            raise ElementTree.ParseError
        root = ElementTree.fromstring(body)  # noqa: S314 (without declarations there is nothing to expand)
    except ElementTree.ParseError:
        raise InvalidArgument("The XML you provided was not well-formed.", reason="MalformedXML") from None
    asked = []
    for element in root:
        if element.tag.rpartition("}")[2] != "Part":
            continue
        texts = {child.tag.rpartition("}")[2]: (child.text or "").strip() for child in element}
        try:
            asked.append((int(texts["PartNumber"]), texts["ETag"]))
        except (KeyError, ValueError):
            raise InvalidArgument("The XML you provided was not well-formed.", reason="MalformedXML") from None
    return asked


# Who calls, and answers


def _signer(request: Request, storage: CloudStorage, pairs: list[tuple[str, str]]) -> Principal:
    region = storage.region
    signed = signing.SignedRequest(
        method=request.method,
        path=request.scope["raw_path"].decode("ascii").partition("?")[0],
        query=pairs,
        headers={name: value for name, value in request.headers.items()},
    )
    return _usable(storage, signing.verify(signed, now=region.clock.now(), signer=storage.signer))


def _usable(storage: CloudStorage, email: str) -> Principal:
    if not accounts.is_usable(storage.region.store, email):
        raise signing.SignatureError("AccessDenied", "Access denied.", f"The account {email} is disabled or deleted.")
    return Principal(email=email)


def _properties(headers: Mapping[str, str]) -> dict[str, Any]:
    """Out of the headers of a request, or the fields of a form. Names are in lower case."""
    properties: dict[str, Any] = {field: headers[name] for name, field in PROPERTY_HEADERS.items() if headers.get(name)}
    metadata = {
        unquote(name.removeprefix("x-goog-meta-")): unquote(value)
        for name, value in headers.items()
        if name.startswith("x-goog-meta-")
    }
    properties |= encrypted_with(headers.get("x-goog-encryption-kms-key-name"), headers)
    if "x-goog-object-lock-mode" in headers:
        mode = headers["x-goog-object-lock-mode"]
        until = headers.get("x-goog-object-lock-retain-until-date")
        properties["retention"] = {"mode": LOCK_MODES.get(mode, mode), "retainUntilTime": until}
    return properties | ({"metadata": metadata} if metadata else {})


def _cors_rules(storage: CloudStorage, bucket: str) -> list[Mapping[str, Any]]:
    found: Resource | None = storage.region.store.find(f"storage/b/{bucket}")
    rules: list[Mapping[str, Any]] = (found.get("cors") or []) if found else []
    return rules


def _target(request: Request) -> tuple[str, str]:
    raw_path = request.scope["raw_path"].decode("ascii").partition("?")[0]
    bucket, _, name = raw_path.lstrip("/").partition("/")
    return unquote(bucket), unquote(name)


def _stored(stored: StoredObject) -> Response:
    return Response(
        headers={
            "ETag": media.xml_etag(stored),
            "X-Goog-Generation": str(stored.generation),
            "X-Goog-Metageneration": str(stored.metageneration),
            "X-Goog-Hash": media.goog_hash(stored),
            "X-Goog-Stored-Content-Length": str(stored.size),
            "Content-Length": "0",
            **dict(media.encryption_headers(stored)),
        }
    )


def _part_hash(crc32c: int, md5: bytes) -> str:
    return f"crc32c={crc32c_text(crc32c)},md5={digest_text(md5)}"


def _xml(body: str) -> Response:
    return Response("<?xml version='1.0' encoding='UTF-8'?>" + body, media_type="application/xml; charset=UTF-8")


def _error(status: int, code: str, message: str, details: Mapping[str, str]) -> Response:
    elements = "".join(f"<{name}>{escape(text)}</{name}>" for name, text in details.items() if text)
    response = _xml(f"<Error><Code>{code}</Code><Message>{escape(message)}</Message>{elements}</Error>")
    response.status_code = status
    return response


def _refusal(error: ApiError) -> Response:
    if error.status == 304:
        return Response(status_code=304)
    message, details = error.message, {}
    match error:
        case NotFound() if error.message.startswith("No such object"):
            code, message, details = "NoSuchKey", "The specified key does not exist.", {"Details": error.message}
        case NotFound() if error.reason == "notFound":
            code = "NoSuchBucket"
        case Unauthenticated() if error.reason == "required":
            # Nobody in particular is refused, not asked to log in.
            return _error(403, "AccessDenied", "Access denied.", {"Details": error.message})
        case Unauthenticated():
            code, message, details = "AuthenticationRequired", "Authentication required.", {"Details": error.message}
        case PermissionDenied():
            code, message, details = "AccessDenied", "Access denied.", {"Details": error.message}
        case RangeNotSatisfiable():
            code, message = "InvalidRange", "The requested range cannot be satisfied."
        case media.DigestMismatch():
            code, message = "BadDigest", "The Content-MD5 or checksum you specified did not match what we received."
            details = {"Details": error.message}
        case InvalidArgument():
            if "Encryption" in error.reason:
                code = error.reason[0].upper() + error.reason[1:]
            elif error.reason[:1].isupper():
                code = error.reason
            else:
                code, message, details = "InvalidArgument", "Invalid argument.", {"Details": error.message}
        case _:
            code = {412: "PreconditionFailed", 501: "NotImplemented", 503: "ServiceUnavailable"}.get(
                error.status, error.reason if error.reason[:1].isupper() else "InternalError"
            )
    response = _error(error.status, code, message, details)
    if isinstance(error, RangeNotSatisfiable):
        response.headers["Content-Range"] = f"bytes */{error.size}"
    return response
