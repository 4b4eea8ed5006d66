"""What an image is built from: the files, a hash of their content, and an archive that is the same every time."""

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IGNORED_DIRECTORIES = {"__pycache__", "node_modules", "staticfiles", "media"}
IGNORED_SUFFIXES = {".pyc", ".sqlite3"}


@dataclass(frozen=True, kw_only=True)
class BuildContext:
    """`paths` are files and directories, relative to `root`. .dockerignore lists the same for `docker build`."""

    paths: tuple[str, ...]
    root: Path = ROOT

    def files(self) -> Iterator[Path]:
        """Raises:
        FileNotFoundError: one of `paths` is missing: an image without it must not be built.
        """
        for path in self.paths:
            start = self.root / path
            if start.is_file():
                yield start
            elif not start.is_dir():
                raise FileNotFoundError(f"the build context names {path}, which is not in {self.root}")
            else:
                yield from sorted(file for file in start.rglob("*") if file.is_file() and not self.is_ignored(file))

    def is_ignored(self, file: Path) -> bool:
        parts = file.relative_to(self.root).parts
        hidden = any(part.startswith(".") for part in parts)
        return hidden or file.suffix in IGNORED_SUFFIXES or not IGNORED_DIRECTORIES.isdisjoint(parts)

    @property
    def content_hash(self) -> str:
        """Of names, contents and the executable bit; not of times, owners, or who packs it."""
        digest = hashlib.sha256()
        for file in self.files():
            content = hashlib.sha256(file.read_bytes()).hexdigest()
            digest.update(f"{file.relative_to(self.root).as_posix()}\0{is_executable(file):d}\0{content}\n".encode())
        return digest.hexdigest()

    def pack(self) -> bytes:
        """A .tar.gz of the files, byte for byte the same for the same content."""
        buffer = io.BytesIO()
        with (
            gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0, filename="") as compressed,
            tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as tar,
        ):
            for file in self.files():
                content = file.read_bytes()
                member = tarfile.TarInfo(file.relative_to(self.root).as_posix())
                member.size = len(content)
                member.mode = 0o755 if is_executable(file) else 0o644
                tar.addfile(member, io.BytesIO(content))
        return buffer.getvalue()


def is_executable(file: Path) -> bool:
    return bool(file.stat().st_mode & 0o100)
