"""Find Pulumi's engine: on PATH, in our cache, as a release download, or built from its Go module.

Standard library only: bootstrap runs this before anything is installed.
"""

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from scripts.waiting import wait_telling

MINIMUM = (3, 250, 0)
# Equal to scripts/engine/go.mod, which a test checks.
VERSION = "3.259.0"
RELEASES = "https://get.pulumi.com/releases/sdk"
GO_MODULE = Path(__file__).resolve().parent / "engine"
GO_PACKAGE = "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"
# Short: on a machine without the internet the next way is tried after seconds, not after minutes.
CONNECT_SECONDS = 5
BUILD_SECONDS = 1800


class EngineMissing(Exception):
    """No way led to an engine. The message lists each way, why it failed, and what to install."""


class Unavailable(Exception):
    """One way did not lead to an engine; another may."""


@dataclass(frozen=True, kw_only=True)
class EngineSearch:
    """`find` answers with the path of an engine, which it may have had to download or build first."""

    cache: Path
    path: str
    say: Callable[[str], None]
    releases: str = RELEASES
    ours: Path | None = None
    environ: Mapping[str, str]

    @classmethod
    def from_environment(cls, say: Callable[[str], None], ours: Path) -> "EngineSearch":
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        cache = Path(home) / "validibot" / "pulumi"
        return cls(cache=cache, path=os.environ.get("PATH", os.defpath), say=say, ours=ours, environ=os.environ)

    @property
    def cached(self) -> Path:
        return self.cache / VERSION / "pulumi"

    def find(self) -> Path:
        """The first that works of: PATH, cache, download, build.

        Raises:
            EngineMissing: none does.
        """
        reasons = []
        for way in (self.on_path, self.in_cache, self.download, self.build):
            try:
                return way()
            except Unavailable as error:
                reasons.append(str(error))
        listed = "\n".join(f"  - {reason}" for reason in reasons)
        minimum = ".".join(map(str, MINIMUM[:2]))
        raise EngineMissing(
            f"found no Pulumi engine:\n{listed}\n"
            f"Install Pulumi {minimum} or newer (https://www.pulumi.com/docs/install/), or Go 1.25 or newer "
            "(https://go.dev/doc/install) so that it can be built here, and run this again."
        )

    def on_path(self) -> Path:
        """The first engine on PATH that is new enough; what is too old there does not hide another one behind it."""
        reason = "PATH has no pulumi"
        for directory in self.path.split(os.pathsep):
            found = shutil.which("pulumi", path=directory) if directory else None
            if found is None or self.is_ours(Path(found)):
                continue
            version = version_of(Path(found))
            if version is not None and version >= MINIMUM:
                return Path(found)
            has = ".".join(map(str, version)) if version else "of a version it does not tell"
            reason = f"PATH has {found}, {has}; at least {'.'.join(map(str, MINIMUM))} is needed"
        raise Unavailable(reason)

    def is_ours(self, found: Path) -> bool:
        """The link that bootstrap makes, and the command by which a region calls it, lead to the engine we look for."""
        # Compared where links lead: a checkout can be reached by several paths, and its environment be shared.
        if self.ours is not None and found.parent.resolve() == self.ours.parent.resolve():
            return True
        with found.open("rb") as file:
            return b"localgcp" in file.read(512)

    def in_cache(self) -> Path:
        # A directory appears under its final name only when it is complete, so its presence is enough.
        if not os.access(self.cached, os.X_OK):
            raise Unavailable(f"the cache has no {self.cached}")
        return self.cached

    def download(self) -> Path:
        name = f"pulumi-v{VERSION}-{release_platform()}.tar.gz"
        checksums_url = f"{self.releases}/pulumi-{VERSION}-checksums.txt"
        try:
            with urllib.request.urlopen(checksums_url, timeout=CONNECT_SECONDS) as answer:
                expected = checksum_for(name, answer.read().decode())
            self.say(f"pulumi engine: downloading {name} (about 150 MB), once")
            self.make_cache()
            with tempfile.TemporaryDirectory(dir=self.cache) as scratch:
                archive = Path(scratch) / name
                with (
                    urllib.request.urlopen(f"{self.releases}/{name}", timeout=CONNECT_SECONDS) as answer,
                    archive.open("wb") as file,
                ):
                    shutil.copyfileobj(answer, file, 1 << 20)
                actual = sha256_of(archive)
                if actual != expected:
                    raise Unavailable(f"{name} has sha256 {actual}, but the release says {expected}: not used")
                with tarfile.open(archive) as tar:
                    refuse_strange_members(tar)
                    # Before 3.11.4 Python has no filters, and later ones warn where none is chosen.
                    tar.extraction_filter = lambda member, _: member
                    tar.extractall(Path(scratch) / "unpacked")  # noqa: S202 (they are checked)
                return self.install(Path(scratch) / "unpacked" / "pulumi")
        except (OSError, tarfile.TarError, UnicodeDecodeError) as error:
            raise Unavailable(f"{self.releases} cannot be read: {error}") from error

    def build(self) -> Path:
        go = shutil.which("go", path=self.path)
        if go is None:
            raise Unavailable("it cannot be built, because PATH has no go")
        self.make_cache()
        self.say(
            f"pulumi engine: building v{VERSION} from its Go module, because there is none on PATH or in the cache "
            "and no release can be downloaded. Three to six minutes on two cores, once"
        )
        with tempfile.TemporaryDirectory(dir=self.cache) as scratch:
            built = Path(scratch) / "built"
            built.mkdir()
            log = Path(scratch) / "log"
            version = f"-X github.com/pulumi/pulumi/sdk/v3/go/common/version.Version=v{VERSION}"
            command = [
                go,
                "build",
                "-trimpath",
                "-ldflags",
                f"-s -w {version}",
                "-o",
                str(built / "pulumi"),
                GO_PACKAGE,
            ]
            # readonly: go.sum decides what is built, and a build never edits our files.
            environ = {**self.environ, "GOFLAGS": "-mod=readonly", "CGO_ENABLED": "0", "GOWORK": "off"}
            with log.open("wb") as output:
                process = subprocess.Popen(command, cwd=GO_MODULE, env=environ, stdout=output, stderr=output)
                try:
                    returncode = wait_telling(
                        process,
                        lambda seconds: self.say(f"pulumi engine: still building, {seconds:.0f} s"),
                        limit_seconds=BUILD_SECONDS,
                    )
                except subprocess.TimeoutExpired as error:
                    raise Unavailable(f"building it took longer than {BUILD_SECONDS} s") from error
            if returncode != 0:
                tail = " / ".join(log.read_text(errors="replace").splitlines()[-4:])
                raise Unavailable(f"building it with {go} failed: {tail or f'exit code {returncode}'}")
            return self.install(built)

    def make_cache(self) -> None:
        try:
            self.cache.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.cache).close()
        except OSError as error:
            raise Unavailable(
                f"{self.cache}, where an engine would be kept, cannot be written ({error.strerror}): "
                "set XDG_CACHE_HOME to a directory of yours"
            ) from error

    def install(self, directory: Path) -> Path:
        """Move a complete directory to its place in the cache; whoever comes second keeps what is there."""
        if version_of(directory / "pulumi") is None:
            raise Unavailable(f"{directory.name}/pulumi does not run on this machine")
        try:
            directory.rename(self.cache / VERSION)
        except OSError:
            if not os.access(self.cached, os.X_OK):
                raise
        return self.cached


def version_of(engine: Path) -> tuple[int, ...] | None:
    try:
        run = subprocess.run(
            [str(engine), "version"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
            env={**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "true"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.match(r"v?(\d+)\.(\d+)\.(\d+)", run.stdout.strip())
    return tuple(map(int, match.groups())) if match else None


def release_platform() -> str:
    system = {"linux": "linux", "darwin": "darwin"}.get(sys.platform)
    machine = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}.get(platform.machine().lower())
    if system is None or machine is None:
        raise Unavailable(f"there is no release for {sys.platform} on {platform.machine()}")
    return f"{system}-{machine}"


def checksum_for(name: str, checksums: str) -> str:
    for line in checksums.splitlines():
        digest, _, file = line.partition(" ")
        if file.strip().lstrip("*") == name and re.fullmatch(r"[0-9a-f]{64}", digest):
            return digest
    raise Unavailable(f"the release's list of checksums does not name {name}")


def refuse_strange_members(archive: tarfile.TarFile) -> None:
    """Everything in a release is below `pulumi/`. The checksum has said already that Pulumi made it."""
    for member in archive:
        folder, *rest = member.name.split("/")
        if folder != "pulumi" or ".." in rest:
            raise Unavailable(f"the release's archive holds {member.name!r}, which is not below pulumi/: not used")


def sha256_of(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
