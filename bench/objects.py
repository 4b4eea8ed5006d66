"""Objects through Cloud Storage's API, against a copy of a file of the same size on the same disk.

Cloud Storage answers an upload when the object is durable, so the copy to compare with is the one that is synced to the
disk (data and, for the new name, its folder); the plain copy is shown as well. A download is compared with a copy that
is not synced, of a file that was read before. Clients: `google-cloud-storage`, which also checks a checksum, and plain
HTTP, which shows what of the difference is the client's.
"""

import http.client
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, urlsplit

import google.auth.credentials
from google.cloud import storage

from bench.measure import Comparison, say, show
from bench.region import started

BUCKET = "bench-objects"
#: Size of an object -> how many of them make a round.
COUNT_BY_SIZE = {4 * 1024: 200, 1024 * 1024: 40, 64 * 1024 * 1024: 4}


def label(size: int) -> str:
    return f"{size // 1024} KiB" if size < 1024 * 1024 else f"{size // 1024**2} MiB"


class Google:
    """The client library."""

    name = "google-cloud-storage"

    def __init__(self, api: str, token: str) -> None:
        credentials = google.auth.credentials.AnonymousCredentials()
        client = storage.Client(
            project="bench",
            credentials=credentials,
            client_options={"api_endpoint": api},
            use_auth_w_custom_endpoint=False,
        )
        client._http.headers["Authorization"] = f"Bearer {token}"
        self._bucket = client.bucket(BUCKET)
        if not self._bucket.exists():
            self._bucket.create(location="australia-southeast1")

    def upload(self, name: str, source: Path) -> None:
        self._bucket.blob(name).upload_from_filename(str(source))

    def download(self, name: str, target: Path) -> None:
        self._bucket.blob(name).download_to_filename(str(target))


class Plain:
    """One connection, and the two requests that an upload and a download are at least."""

    name = "plain HTTP"

    def __init__(self, api: str, token: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(api).netloc, timeout=60, blocksize=1024 * 1024)
        self._headers = {"Authorization": f"Bearer {token}"}

    def upload(self, name: str, source: Path) -> None:
        headers = {
            **self._headers,
            "Content-Type": "application/octet-stream",
            "Content-Length": str(source.stat().st_size),
        }
        with source.open("rb") as file:
            path = f"/upload/storage/v1/b/{BUCKET}/o?uploadType=media&name={quote(name, safe='')}"
            self._connection.request("POST", path, body=file, headers=headers)
            self._answer().read()

    def download(self, name: str, target: Path) -> None:
        path = f"/storage/v1/b/{BUCKET}/o/{quote(name, safe='')}?alt=media"
        self._connection.request("GET", path, headers=self._headers)
        with target.open("wb") as file:
            shutil.copyfileobj(self._answer(), file, 1024 * 1024)

    def _answer(self) -> http.client.HTTPResponse:
        answer = self._connection.getresponse()
        if answer.status != 200:
            raise RuntimeError(f"{answer.status}: {answer.read(500)!r}")
        return answer


def copy(source: Path, target: Path) -> None:
    """Through the process, as a client does, and not inside of the kernel, where a file system may share blocks."""
    with source.open("rb") as reading, target.open("wb") as writing:
        shutil.copyfileobj(reading, writing, 1024 * 1024)


def durable_copy(source: Path, target: Path) -> None:
    """A copy that is there after a power cut, under its name."""
    copy(source, target)
    for path in (target, target.parent):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def rate(count: int, size: int, act: Callable[[int], None]) -> float:
    """MiB per second of `count` acts on `size` bytes each."""
    began = time.perf_counter()
    for number in range(count):
        act(number)
    return count * size / 1024**2 / (time.perf_counter() - began)


def run(rounds: int, data_dir: Path | None) -> None:
    """Measure and print."""
    comparisons = []
    with started(data_dir) as region:
        api = region.environ["STORAGE_EMULATOR_HOST"]
        token = region.environ["GOOGLE_OAUTH_ACCESS_TOKEN"]
        folder = region.data_dir / "bench-files"  # on the disk of the objects
        folder.mkdir(exist_ok=True)
        try:
            for size, count in COUNT_BY_SIZE.items():
                source = folder / "source"
                source.write_bytes(os.urandom(size))
                for client in (Google(api, token), Plain(api, token)):
                    comparisons += both_ways(client, source, size, count, rounds)
        finally:
            shutil.rmtree(folder)
    show(*comparisons)


def both_ways(client: Google | Plain, source: Path, size: int, count: int, rounds: int) -> list[Comparison]:
    folder = source.parent
    what = f"{label(size)}, {client.name}"

    def upload() -> float:
        return rate(count, size, lambda number: client.upload(f"{label(size)}/{number}", source))

    def download() -> float:
        return rate(count, size, lambda number: client.download(f"{label(size)}/{number}", folder / f"down-{number}"))

    def copied() -> float:
        return rate(count, size, lambda number: copy(source, folder / f"copy-{number}"))

    def durably_copied() -> float:
        return rate(count, size, lambda number: durable_copy(source, folder / f"copy-{number}"))

    faster = "the region is faster than the copy"
    results = []
    for name, ours, baseline in (
        ("upload to fsync'd copy", upload, durably_copied),
        ("upload to plain copy", upload, copied),
        ("download to plain copy", download, copied),
    ):
        comparison = Comparison(name=f"{what}: {name}", unit="MiB/s", above_one=faster)
        ours(), baseline()  # once for connections and caches
        results.append(comparison.measure(rounds, ours, baseline))
    say("")
    return results
