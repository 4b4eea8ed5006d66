"""The image store behind Artifact Registry: an OCI image is a manifest, a configuration and one layer, by content.

Everything is written under its digest, so an image that is pushed twice is stored once, and the same files always have
the same digest. A root file system is unpacked when an instance first needs it.
"""

import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import tempfile
import threading
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from localgcp.build.archives import unpack
from localgcp.build.dockerfile import DIRECTORY, File, Stage, file_at
from localgcp.clock import timestamp
from localgcp.errors import NotFound
from localgcp.store import Store

if TYPE_CHECKING:
    from localgcp.region import Region

SCHEMA = """
CREATE TABLE IF NOT EXISTS docker_images (
    name TEXT NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL,
    build_time TEXT NOT NULL, upload_time TEXT NOT NULL,
    PRIMARY KEY (name, digest)
);
CREATE TABLE IF NOT EXISTS docker_tags (
    name TEXT NOT NULL, tag TEXT NOT NULL, digest TEXT NOT NULL, PRIMARY KEY (name, tag)
);
"""

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
#: A fixed moment instead of the build's: the digest says what is in an image, not when it was made.
EPOCH = "1970-01-01T00:00:00Z"

_stores: "WeakKeyDictionary[Region, ImageStore]" = WeakKeyDictionary()
_stores_lock = threading.Lock()

REFERENCE = re.compile(
    r"(?P<location>[a-z0-9-]+)-docker\.pkg\.dev/(?P<project>[a-z0-9:.-]+)/(?P<repository>[a-z0-9-]+)/(?P<image>[^:@]+)"
    r"(?::(?P<tag>[\w.-]+))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?\Z"
)


@dataclass(frozen=True, kw_only=True)
class Reference:
    """`<location>-docker.pkg.dev/<project>/<repository>/<image>[:tag][@digest]`."""

    location: str
    project: str
    repository: str
    image: str
    tag: str | None
    digest: str | None

    @property
    def name(self) -> str:
        """Without tag and digest."""
        return f"{self.location}-docker.pkg.dev/{self.project}/{self.repository}/{self.image}"

    @property
    def repository_key(self) -> str:
        return f"artifactregistry/projects/{self.project}/locations/{self.location}/repositories/{self.repository}"


def parse_reference(text: str) -> Reference | None:
    """None for an image of another registry."""
    match = REFERENCE.match(text)
    if match is None:
        return None
    return Reference(**match.groupdict())


@dataclass(frozen=True, kw_only=True)
class Image:
    """An image as it was built, before it is pushed: its blobs are stored, its name is not."""

    digest: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """A row of the registry."""

    name: str
    digest: str
    size: int
    tags: tuple[str, ...]
    build_time: str
    upload_time: str


def image_store(region: "Region") -> "ImageStore":
    """The one of the region, whoever asks first."""
    with _stores_lock:
        if region not in _stores:
            _stores[region] = ImageStore(region.settings.data_dir / "images", region.store)
        return _stores[region]


class ImageStore:
    def __init__(self, root: Path, store: Store) -> None:
        self._blobs = root / "blobs" / "sha256"
        self._rootfs = root / "rootfs"
        self._partial = root / "partial"
        for folder in (self._blobs, self._rootfs, self._partial):
            folder.mkdir(parents=True, exist_ok=True)
        self._store = store
        self._unpacking = threading.Lock()
        store.define(SCHEMA)

    def scratch(self) -> "tempfile.TemporaryDirectory[str]":
        """A directory on the same file system, gone when the build is."""
        return tempfile.TemporaryDirectory(dir=self._partial)

    def clean(self) -> None:
        """Remove what a killed process left half made."""
        for folder in self._partial.iterdir():
            if folder.is_dir():
                shutil.rmtree(folder, ignore_errors=True)
            else:
                folder.unlink(missing_ok=True)

    def write(self, stage: Stage) -> Image:
        """Store the blobs of a finished stage."""
        layer_digest, layer_size = self._write_layer(stage.files)
        config = {
            "architecture": "amd64",
            "os": "linux",
            "created": EPOCH,
            "config": stage.config,
            "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
            "history": [{"created": EPOCH, "created_by": line, "empty_layer": True} for line in stage.history]
            + [{"created": EPOCH, "created_by": "localgcp: all files"}],
        }
        config_bytes = _canonical(config)
        config_digest = self._write_blob(config_bytes)
        manifest = _canonical(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST_TYPE,
                "config": {"mediaType": CONFIG_TYPE, "digest": config_digest, "size": len(config_bytes)},
                "layers": [{"mediaType": LAYER_TYPE, "digest": layer_digest, "size": layer_size}],
            }
        )
        return Image(digest=self._write_blob(manifest), size=len(manifest) + len(config_bytes) + layer_size)

    def push(self, reference: Reference, image: Image, now: datetime) -> None:
        """Name an image. Its tag, `latest` without one, moves here from whatever had it."""
        moment = timestamp(now)
        with self._store.transaction() as tx:
            tx.execute(
                "INSERT OR IGNORE INTO docker_images (name, digest, size, build_time, upload_time)"
                " VALUES (?, ?, ?, ?, ?)",
                (reference.name, image.digest, image.size, moment, moment),
            )
            self.tag(reference.name, reference.tag or "latest", image.digest)

    def tag(self, name: str, tag: str, digest: str) -> None:
        with self._store.transaction() as tx:
            tx.execute("INSERT OR REPLACE INTO docker_tags (name, tag, digest) VALUES (?, ?, ?)", (name, tag, digest))

    def resolve(self, text: str) -> tuple[Reference, str]:
        """The reference and the digest it stands for. Raises NotFound."""
        reference = parse_reference(text)
        if reference is None:
            raise NotFound(f"Image '{text}' not found.")
        if reference.digest is not None:
            row = self._store.row(
                "SELECT digest FROM docker_images WHERE name = ? AND digest = ?", (reference.name, reference.digest)
            )
        else:
            row = self._store.row(
                "SELECT digest FROM docker_tags WHERE name = ? AND tag = ?", (reference.name, reference.tag or "latest")
            )
        if row is None:
            raise NotFound(f"Image '{text}' not found.")
        return reference, str(row["digest"])

    def list(self, prefix: str) -> list[Pushed]:
        """The images whose name begins with `<location>-docker.pkg.dev/<project>/<repository>/`, oldest first."""
        tags: dict[tuple[str, str], list[str]] = {}
        bounds = (prefix, prefix + "\U0010ffff")
        for row in self._store.rows("SELECT * FROM docker_tags WHERE name >= ? AND name < ? ORDER BY tag", bounds):
            tags.setdefault((row["name"], row["digest"]), []).append(row["tag"])
        rows = self._store.rows("SELECT * FROM docker_images WHERE name >= ? AND name < ? ORDER BY rowid", bounds)
        return [Pushed(**dict(row), tags=tuple(tags.get((row["name"], row["digest"]), ()))) for row in rows]

    def untag(self, name: str, tag: str) -> None:
        with self._store.transaction() as tx:
            tx.execute("DELETE FROM docker_tags WHERE name = ? AND tag = ?", (name, tag))

    def delete(self, name: str, digest: str) -> None:
        """Forget an image and its tags. Its blobs stay while another name has them."""
        with self._store.transaction() as tx:
            tx.execute("DELETE FROM docker_tags WHERE name = ? AND digest = ?", (name, digest))
            tx.execute("DELETE FROM docker_images WHERE name = ? AND digest = ?", (name, digest))
            others = tx.execute("SELECT digest FROM docker_images").fetchall()
        if any(row["digest"] == digest for row in others):
            return
        shared = {blob for row in others for blob in self._blobs_of(row["digest"])}
        for blob in {digest, *self._blobs_of(digest)} - shared:
            self._path(blob).unlink(missing_ok=True)

    def config(self, digest: str) -> dict[str, Any]:
        """The `config` of an image: Env, Cmd, Entrypoint, WorkingDir, …"""
        config = json.loads(self._path(self.manifest(digest)["config"]["digest"]).read_bytes())
        settings: dict[str, Any] = config.get("config", {})
        return settings

    def manifest(self, digest: str) -> dict[str, Any]:
        manifest: dict[str, Any] = json.loads(self._path(digest).read_bytes())
        return manifest

    def rootfs(self, digest: str) -> Path:
        """The unpacked files of an image, for reading."""
        layer: str = self.manifest(digest)["layers"][0]["digest"]
        folder = self._rootfs / layer.removeprefix("sha256:")
        with self._unpacking:
            if not folder.exists():
                half = Path(tempfile.mkdtemp(dir=self._partial))
                unpack(self._path(layer), half)
                # Whole or not at all: a process that dies while unpacking leaves only what `clean` removes.
                half.rename(folder)
        return folder

    def stage(self, text: str) -> Stage | None:
        """An image of this registry as the base of another; None when it is not one of ours."""
        if parse_reference(text) is None:
            return None
        _, digest = self.resolve(text)
        root = self.rootfs(digest)
        files: dict[str, File] = {"/": DIRECTORY}
        for directory, names, leaves in os.walk(root):
            for name in (*names, *leaves):
                path = Path(directory, name)
                files["/" + path.relative_to(root).as_posix()] = file_at(path)
        return Stage(name=text, files=files, config=self.config(digest), history=[f"FROM {text}"])

    def _blobs_of(self, digest: str) -> set[str]:
        manifest = self.manifest(digest)
        return {digest, manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])}

    def _path(self, digest: str) -> Path:
        return self._blobs / digest.removeprefix("sha256:")

    def _write_blob(self, data: bytes) -> str:
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        with tempfile.NamedTemporaryFile(dir=self._partial, delete=False) as file:
            file.write(data)
        Path(file.name).replace(self._path(digest))
        return digest

    def _write_layer(self, files: dict[str, File]) -> tuple[str, int]:
        with (
            tempfile.NamedTemporaryFile(dir=self._partial, delete=False) as output,
            tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as tar,
        ):
            for path in sorted(files):
                if path != "/":
                    _add(tar, path, files[path])
        with Path(output.name).open("rb") as written:
            digest = "sha256:" + hashlib.file_digest(written, "sha256").hexdigest()
        size = Path(output.name).stat().st_size
        Path(output.name).replace(self._path(digest))
        return digest, size


def _add(tar: tarfile.TarFile, path: str, file: File) -> None:
    member = tarfile.TarInfo(path.lstrip("/"))
    member.mode = file.mode
    if file.target is not None:
        member.type = tarfile.SYMTYPE
        member.linkname = file.target
        tar.addfile(member)
    elif file.content is not None:
        member.size = len(file.content)
        tar.addfile(member, io.BytesIO(file.content))
    elif file.source is not None:
        with file.source.open("rb") as source:
            member.size = os.fstat(source.fileno()).st_size
            tar.addfile(member, source)
    else:
        member.type = tarfile.DIRTYPE
        tar.addfile(member)


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
