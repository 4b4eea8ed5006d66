"""A build, step by step: fetch the source, carry out `docker build`, push.

Steps other than Docker's own are refused before anything runs. Whatever a step needs is asked for as the build's
service account, through the region's own API where there is one, so that a missing binding fails the build.
"""

import argparse
import json
import shlex
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote

from localgcp import own_api
from localgcp.build.archives import unpack
from localgcp.build.dockerfile import BuildFailed, Context, Interpreter, substitute
from localgcp.build.images import Image, image_store, parse_reference
from localgcp.errors import InvalidArgument, NotFound
from localgcp.iam.principal import Principal

if TYPE_CHECKING:
    from localgcp.region import Region

DOCKER = ("gcr.io/cloud-builders/docker", "docker")
#: What a registry asks of whoever pushes to it.
PUSH = "artifactregistry.repositories.uploadArtifacts"


#: What each phase of a build is called when it fails, in `failureInfo`.
FAILURES = {"FETCHSOURCE": "FETCH_SOURCE_FAILED", "BUILD": "USER_BUILD_STEP", "PUSH": "PUSH_FAILED"}


class Cancelled(Exception):
    """Somebody cancelled the build."""


class TimedOut(Exception):
    """The build took longer than its timeout."""


@dataclass(kw_only=True)
class Build:
    """A running build. `log` gets each line; `is_cancelled` and the time are looked at between instructions."""

    project: str
    account: str
    substitutions: Mapping[str, str]
    log: Callable[[str], None]
    is_cancelled: Callable[[], bool]
    #: The moment, as it is written into the build.
    now: Callable[[], str]
    timeout_seconds: float
    steps: list[dict[str, Any]]
    images: dict[str, Image] = field(default_factory=dict)
    pushed: dict[str, dict[str, Any]] = field(default_factory=dict)
    timing: dict[str, Any] = field(default_factory=dict)
    source: dict[str, Any] = field(default_factory=dict)
    phase: str = "FETCHSOURCE"
    _began: float = field(default_factory=time.monotonic)

    def check(self) -> None:
        """Raises Cancelled, TimedOut."""
        if self.is_cancelled():
            raise Cancelled
        if time.monotonic() - self._began > self.timeout_seconds:
            raise TimedOut

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        self.phase = phase
        with _timing(self, self.timing, phase):
            yield

    @contextmanager
    def step(self, number: int) -> Iterator[None]:
        step = self.steps[number]
        try:
            with _timing(self, step, "timing"):
                yield
        except Cancelled:
            step["status"] = "CANCELLED"
            raise
        except TimedOut:
            step["status"] = "TIMEOUT"
            raise
        except BuildFailed:
            step |= {"status": "FAILURE", "exitCode": 1}
            raise
        step["status"] = "SUCCESS"


@contextmanager
def _timing(build: Build, into: dict[str, Any], name: str) -> Iterator[None]:
    began = build.now()
    try:
        yield
    finally:
        into[name] = {"startTime": began, "endTime": build.now()}


class _Arguments(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InvalidArgument(f"docker build: {message}: the process runtime does not understand this")


def check_steps(body: Mapping[str, Any]) -> None:
    """Raises InvalidArgument naming the step that cannot be carried out here."""
    steps = body.get("steps") or []
    if not steps:
        raise InvalidArgument("build must contain at least one step")
    for number, step in enumerate(steps):
        name = step.get("name", "").partition(":")[0].partition("@")[0]
        verb = (step.get("args") or [""])[0]
        if name not in DOCKER or step.get("entrypoint") or step.get("script"):
            raise InvalidArgument(
                f"build.steps[{number}] ({step.get('name', '')}): localgcp carries out gcr.io/cloud-builders/docker"
                " steps only (build, tag, push); it runs no other container"
            )
        if verb not in ("build", "tag", "push"):
            raise InvalidArgument(f"build.steps[{number}]: docker {verb} is not carried out; use build, tag or push")


def run(region: "Region", body: Mapping[str, Any], build: Build) -> None:
    """Raises BuildFailed, Cancelled, TimedOut."""
    images = image_store(region)
    with images.scratch() as scratch:
        workspace = Path(scratch) / "workspace"
        workspace.mkdir()
        source = body.get("source", {}).get("storageSource")
        if source is not None:
            with build.timed("FETCHSOURCE"):
                _fetch(region, build, source, workspace, Path(scratch) / "source")
        with build.timed("BUILD"):
            for number, step in enumerate(body["steps"]):
                build.check()
                arguments = [substitute(word, build.substitutions) for word in step.get("args", ())]
                build.log(f"Step #{number}: {shlex.join(['docker', *arguments])}")
                with build.step(number):
                    _docker(region, build, arguments, workspace / step.get("dir", ""), Path(scratch))
        if body.get("images"):
            with build.timed("PUSH"):
                for reference in body["images"]:
                    build.check()
                    _push(region, build, substitute(reference, build.substitutions))


def _fetch(region: "Region", build: Build, source: Mapping[str, Any], workspace: Path, archive: Path) -> None:
    bucket, name = source.get("bucket", ""), source.get("object", "")
    build.log(f"Fetching storage object: gs://{bucket}/{name}")
    path = f"/storage/v1/b/{bucket}/o/{quote(name, safe='')}"
    generation = source.get("generation")
    status, content = own_api.get(region, path + (f"?generation={generation}" if generation else ""), build.account)
    if status == 200:
        # One generation: the object may be written again while it is fetched.
        build.source = {"bucket": bucket, "object": name, "generation": json.loads(content)["generation"]}
        status, content = own_api.get(
            region, f"{path}?alt=media&generation={build.source['generation']}", build.account
        )
    if status != 200:
        raise BuildFailed(f"could not resolve source: gs://{bucket}/{name}: {_error_message(status, content)}")
    archive.write_bytes(content)
    try:
        if tarfile.is_tarfile(archive):
            unpack(archive, workspace)
        elif zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as packed:
                packed.extractall(workspace)  # noqa: S202 (zipfile leaves out `..` and roots)
        else:
            raise BuildFailed(f"gs://{bucket}/{name} is neither a tar archive nor a zip archive")
    except (tarfile.TarError, zipfile.BadZipFile, OSError) as error:
        raise BuildFailed(f"gs://{bucket}/{name} could not be unpacked: {error}") from error
    build.log("BUILD")


def _docker(region: "Region", build: Build, arguments: Sequence[str], directory: Path, scratch: Path) -> None:
    verb, *rest = arguments
    if verb == "tag":
        source, target = rest
        build.images[_full(target)] = _known(build, source)
    elif verb == "push":
        for reference in rest:
            _push(region, build, reference)
    else:
        _docker_build(region, build, rest, directory, scratch)


def _docker_build(region: "Region", build: Build, arguments: Sequence[str], directory: Path, scratch: Path) -> None:
    parser = _Arguments(add_help=False, allow_abbrev=False)
    parser.add_argument("-t", "--tag", action="append", default=[])
    parser.add_argument("-f", "--file", default=None)
    parser.add_argument("--build-arg", action="append", default=[])
    parser.add_argument("--target", default=None)
    parser.add_argument("--label", action="append", default=[])
    # About caching, output and platforms: nothing here depends on them.
    for name in ("--no-cache", "--pull", "--rm", "--force-rm", "-q"):
        parser.add_argument(name, action="store_true")
    for name in ("--cache-from", "--network", "--platform", "--progress"):
        parser.add_argument(name, action="append")
    parser.add_argument("context")
    try:
        options = parser.parse_args(arguments)
    except InvalidArgument as error:
        raise BuildFailed(error.message) from None
    root = (directory / options.context).resolve()
    dockerfile = directory / options.file if options.file else root / "Dockerfile"
    if not root.is_relative_to(scratch.resolve()) or not dockerfile.resolve().is_relative_to(scratch.resolve()):
        raise BuildFailed(f"docker build {options.context}: the context and the Dockerfile must be in the workspace")
    if not dockerfile.is_file():
        raise BuildFailed(f"unable to prepare context: {options.file or 'Dockerfile'}: no such file or directory")

    def log(line: str) -> None:
        build.check()
        build.log(line)

    images = image_store(region)
    interpreter = Interpreter(
        Context(root),
        arguments=dict(item.partition("=")[::2] for item in options.build_arg),
        scratch=scratch,
        find_base=images.stage,
        log=log,
    )
    try:
        stage = interpreter.build(dockerfile.read_text(), options.target)
    except NotFound as error:
        raise BuildFailed(error.message) from None
    labels = dict(item.partition("=")[::2] for item in options.label)
    if labels:
        stage.config["Labels"] = stage.config.get("Labels", {}) | labels
    image = images.write(stage)
    build.log(f"Successfully built {image.digest}")
    for tag in options.tag:
        build.images[_full(tag)] = image
        build.log(f"Successfully tagged {_full(tag)}")


def _push(region: "Region", build: Build, text: str) -> None:
    reference = parse_reference(text)
    if reference is None:
        raise BuildFailed(f"pushing {text}: expected <location>-docker.pkg.dev/<project>/<repository>/<image>")
    image = _known(build, text)
    if not region.store.exists(reference.repository_key):
        raise BuildFailed(f'pushing {text}: name unknown: Repository "{reference.repository}" not found')
    if not region.iam.allows(Principal(email=build.account), PUSH, reference.repository_key):
        raise BuildFailed(
            f'pushing {text}: denied: Permission "{PUSH}" denied on resource'
            f' "{reference.repository_key.partition("/")[2]}" (or it may not exist)'
        )
    build.log(f"Pushing {text}")
    pushed: dict[str, Any] = {"name": text, "digest": image.digest}
    with _timing(build, pushed, "pushTiming"):
        image_store(region).push(reference, image, region.clock.now())
    build.pushed[text] = pushed
    build.log(f"{reference.tag or 'latest'}: digest: {image.digest} size: {image.size}")


def _known(build: Build, text: str) -> Image:
    image = build.images.get(_full(text))
    if image is None:
        raise BuildFailed(f"failed to find one or more images after execution of build steps: [{text!r}]")
    return image


def _full(text: str) -> str:
    """With its tag: `latest` when it names none."""
    return text if ":" in text.rpartition("/")[2] else f"{text}:latest"


def _error_message(status: int, content: bytes) -> str:
    try:
        return str(json.loads(content)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {status}"
