"""Buckets: media through django-storages, static files for the CDN."""

import base64
import mimetypes
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import google_crc32c
from django.core.exceptions import ImproperlyConfigured
from django.core.files.base import File
from google.api_core.exceptions import GoogleAPICallError
from google.auth.exceptions import GoogleAuthError
from google.cloud import storage
from requests import RequestException
from storages.backends.gcloud import GoogleCloudStorage

from app.cloud.identity import credentials
from app.settings import env

FAILURES: Final = (GoogleAPICallError, GoogleAuthError, RequestException)
_PERMISSION = re.compile(
    r"\b([a-z]+\.[a-zA-Z]+\.[a-zA-Z]+)\b(?='? (?:access|permission)|'? denied)"
    r"|[Pp]ermission '?([a-z]+\.[a-zA-Z]+\.[a-zA-Z]+)"
)
_TIMEOUT_SECONDS: Final = 20


def missing_permission(error: Exception) -> str:
    """The permission that Google's refusal names, or nothing."""
    found = _PERMISSION.search(str(error))
    return (found[1] or found[2]) if found else ""


def client(project: str) -> storage.Client:
    return storage.Client(project=project, credentials=credentials())


class BucketStorage(GoogleCloudStorage):  # type: ignore[misc]  # django-storages has no types
    """Media. An object is written once: a name that is taken raises instead of replacing what is there."""

    def get_default_settings(self) -> dict[str, Any]:
        # file_overwrite spares the look-up of a free name; the precondition below refuses a taken one.
        defaults: dict[str, Any] = super().get_default_settings()
        return defaults | {"file_overwrite": True}

    @property
    def client(self) -> storage.Client:
        client_: storage.Client | None = self._client  # type: ignore[has-type]
        if client_ is None:
            client_ = self._client = client(env.google_cloud_project)
        return client_

    def _save(self, name: str, content: "File[bytes]") -> str:
        # django-storages reads the object before it writes it: a second request, and a permission that writing does
        # not need.
        blob = self.bucket.blob(self._normalize_name(name))
        blob.upload_from_file(
            content.file,
            rewind=True,
            size=content.size,
            content_type=getattr(content, "content_type", None) or "application/octet-stream",
            if_generation_match=0,
            timeout=_TIMEOUT_SECONDS,
        )
        return name


def publish(bucket_name: str, project: str, files: Iterable[tuple[str, Path]], say: Callable[[str], None]) -> int:
    """Upload `files` (object name, path) that the bucket does not hold with the same content. Returns how many."""
    wanted = {name: path for name, path in files}
    if not wanted:
        raise ImproperlyConfigured("there are no static files to publish: is django.contrib.staticfiles installed?")
    bucket = client(project).bucket(bucket_name)
    prefix = _common_prefix(wanted)
    held = {
        blob.name: blob.crc32c for blob in bucket.list_blobs(prefix=prefix, fields="items(name,crc32c),nextPageToken")
    }
    missing = [name for name, path in wanted.items() if held.get(name) != _crc32c(path)]

    def upload(name: str) -> None:
        blob = bucket.blob(name)
        # The release is part of the name: what is there once never changes.
        blob.cache_control = "public, max-age=31536000, immutable"
        kind, _ = mimetypes.guess_type(name)
        blob.upload_from_filename(str(wanted[name]), content_type=kind or "application/octet-stream")

    with ThreadPoolExecutor(max_workers=8) as workers:
        for done in [workers.submit(upload, name) for name in missing]:
            done.result()
    say(f"static: {len(missing)} of {len(wanted)} files uploaded to gs://{bucket_name}/{prefix}")
    return len(missing)


def _common_prefix(names: Iterable[str]) -> str:
    parts = [name.split("/")[:-1] for name in names]
    shared: list[str] = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    return "".join(f"{part}/" for part in shared)


def _crc32c(path: Path) -> str:
    return base64.b64encode(google_crc32c.value(path.read_bytes()).to_bytes(4, "big")).decode()
