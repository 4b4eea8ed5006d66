"""What an instance or a task of a job executes: the command, the environment and the directories of one container.

The process runtime has no mount namespace. Where a container would see a volume at its mount path, a process sees a
directory elsewhere, and the mount path inside environment values and arguments is replaced by it; the same holds for
paths of the image. What cannot be had that way is refused with a sentence, never left out in silence.
"""

import base64
import json
import os
import re
import secrets
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localgcp import own_api
from localgcp.build.dockerfile import SYSTEM_PATH
from localgcp.build.images import ImageStore
from localgcp.endpoints import environment as endpoint_environment
from localgcp.errors import NotFound
from localgcp.iam import accounts
from localgcp.iam.principal import Principal
from localgcp.sql.layout import layout_of, own_directory

if TYPE_CHECKING:
    from localgcp.region import Region

#: Marks every process of this region, so that a later localgcp can tell its own orphans from anybody else's.
MARKER = "LOCALGCP_INSTANCE"
CLOUD_SQL_PERMISSIONS = ("cloudsql.instances.connect", "cloudsql.instances.get")


class StartFailed(Exception):
    """The container cannot be started; the message is what Cloud Run says of the revision or task."""

    #: Why, as the conditions of a revision name it.
    reason: Mapping[str, str] = {"revisionReason": "HEALTH_CHECK_CONTAINER_ERROR"}


class SecretUnreadable(StartFailed):
    """A secret that the container is to see cannot be had."""

    reason: Mapping[str, str] = {"reason": "SECRETS_ACCESS_CHECK_FAILED"}


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One container that is to run, and on whose behalf."""

    project: str
    location: str
    service_account: str
    #: `Revision` or `Job`, for messages.
    kind: str
    container: Mapping[str, Any]
    volumes: Sequence[Mapping[str, Any]]
    #: K_SERVICE and the like.
    system_environment: Mapping[str, str]


@dataclass(kw_only=True)
class Program:
    arguments: list[str]
    environment: dict[str, str]
    directory: Path
    #: Everything of this one process; removed with it.
    home: Path
    cloud_sql: Path | None = None
    metadata_host: str = ""
    notes: list[str] = field(default_factory=list)


def prepare(region: "Region", images: ImageStore, workload: Workload, identifier: str, home: Path) -> Program:
    """Resolve everything that a start needs. Blocks: run it in a thread. Raises StartFailed."""
    container = workload.container
    if not accounts.is_usable(region.store, workload.service_account):
        raise StartFailed(f"Service account {workload.service_account} does not exist or is disabled.")
    try:
        _, digest = images.resolve(container["image"])
    except NotFound as error:
        raise StartFailed(error.message) from None
    image = images.config(digest)
    rootfs = images.rootfs(digest)
    for name in ("tmp", "volumes"):
        (home / name).mkdir(parents=True, exist_ok=True)
    program = Program(arguments=[], environment={}, directory=rootfs, home=home)
    places = Places(rootfs, _mounts(region, workload, program, identifier))
    working = container.get("workingDir") or image.get("WorkingDir") or "/"
    program.directory = rootfs / working.lstrip("/")
    program.directory.mkdir(parents=True, exist_ok=True)
    of_image: dict[str, str] = dict(item.split("=", 1) for item in image.get("Env", ()))
    search_path = _search_path(rootfs, of_image.pop("PATH", ""))
    variables = {name: places.translate(value) for name, value in of_image.items()}
    _add_variables(region, workload, places, variables)
    program.metadata_host = region.metadata.register(
        workload.service_account, workload.project, workload.location, identifier
    )
    program.environment = {
        "LANG": "C.UTF-8",
        # There is no network namespace either: what a container would open to its own world is open to this machine's.
        "HOST": "127.0.0.1",
        "HOME": str(home),
        "TMPDIR": str(home / "tmp"),
        **endpoint_environment(region.settings.api_url),
        **variables,
        **workload.system_environment,
        "PATH": ":".join(search_path),
        "GCE_METADATA_HOST": program.metadata_host,
        "GCE_METADATA_IP": program.metadata_host,
        MARKER: f"{region_marker(region)}/{identifier}",
    }
    arguments = _arguments(container, image)
    if not arguments:
        raise StartFailed(f"The image {container['image']} has no command and the container names none.")
    expanded = [places.translate(_expand(argument, program.environment)) for argument in arguments]
    program.arguments = [_executable(expanded[0], program.directory, search_path), *expanded[1:]]
    return program


def _search_path(rootfs: Path, of_image: str) -> list[str]:
    """This interpreter's folder, then those of the image's PATH that were built, then this machine's."""
    folders = (rootfs / folder.lstrip("/") for folder in (of_image or SYSTEM_PATH).split(":") if folder)
    return [
        str(Path(sys.prefix) / "bin"),
        *(str(found) for found in folders if found.is_dir()),
        *SYSTEM_PATH.split(":"),
    ]


def _add_variables(region: "Region", workload: Workload, places: "Places", variables: dict[str, str]) -> None:
    """What the container sets, in its order: a value may refer to what stands before it."""
    for item in workload.container.get("env", ()):
        source = item.get("valueSource", {}).get("secretKeyRef")
        if source is not None:
            payload = _secret(region, workload, source["secret"], source.get("version") or "latest")
            variables[item["name"]] = payload.decode()
        else:
            variables[item["name"]] = places.translate(_expand(item.get("value", ""), variables))


def discard(region: "Region", program: Program) -> None:
    """Forget a program that has ended: its identity and its files."""
    region.metadata.unregister(program.metadata_host)
    if program.cloud_sql is not None:
        shutil.rmtree(program.cloud_sql, ignore_errors=True)
    shutil.rmtree(program.home, ignore_errors=True)


def region_marker(region: "Region") -> str:
    """Different for every data directory, the same after a restart."""
    known = region.store.setting("run.marker")
    if known is None:
        known = secrets.token_hex(12)
        region.store.set_setting("run.marker", known)
    return known


class Places:
    """Where the paths that a container would see are on this machine."""

    def __init__(self, rootfs: Path, mounts: Mapping[str, Path]) -> None:
        self._rootfs = rootfs
        self._mounts = sorted(mounts.items(), key=lambda item: len(item[0]), reverse=True)

    def translate(self, value: str) -> str:
        """Mount paths anywhere in the value; paths of the image where they are a whole item of a `:` list."""
        for path, place in self._mounts:
            # The place is doubled up against `re`, which would read backslashes in it.
            escaped = str(place).replace("\\", r"\\")
            value = re.sub(rf"(?<![\w./-]){re.escape(path)}(?=[/:,;\s\"'&]|$)", escaped, value)
        if "/" not in value:
            return value
        return ":".join(self._in_image(item) for item in value.split(":"))

    def _in_image(self, item: str) -> str:
        if not item.startswith("/") or item == "/" or item.startswith(str(self._rootfs)):
            return item
        inside = self._rootfs / item.lstrip("/")
        return str(inside) if len(item) < 4096 and os.path.lexists(inside) else item


def _mounts(region: "Region", workload: Workload, program: Program, identifier: str) -> dict[str, Path]:
    volumes = {volume["name"]: volume for volume in workload.volumes}
    mounts: dict[str, Path] = {}
    for mount in workload.container.get("volumeMounts", ()):
        volume = volumes.get(mount["name"])
        if volume is None:
            raise StartFailed(f"The volume mount {mount['name']} names no volume.")
        folder = program.home / "volumes" / volume["name"]
        if "cloudSqlInstance" in volume:
            folder = _cloud_sql(region, workload, program, volume["cloudSqlInstance"].get("instances", ()), identifier)
        elif "secret" in volume:
            _secret_files(region, workload, volume["secret"], folder)
        elif "emptyDir" in volume:
            folder.mkdir(exist_ok=True)
        else:
            kind = next((name for name in ("gcs", "nfs") if name in volume), "unknown")
            raise StartFailed(
                f"The process runtime of localgcp cannot mount the {kind} volume {volume['name']!r} at"
                f" {mount['mountPath']}: read and write it through its API, or use another volume."
            )
        mounts[mount["mountPath"].rstrip("/")] = folder
    return mounts


def _cloud_sql(
    region: "Region", workload: Workload, program: Program, instances: Sequence[str], identifier: str
) -> Path:
    """A directory with the sockets of the volume's instances, and of no other. Short: their paths have a limit."""
    layout = layout_of(region.settings.data_dir)
    folder = own_directory(layout.sockets) / f"~{identifier[:8]}"
    folder.mkdir(exist_ok=True)
    program.cloud_sql = folder
    account = Principal(email=workload.service_account)
    for name in instances:
        project, instance = name.partition(":")[0], name.rpartition(":")[2]
        key = f"sqladmin/projects/{project}/instances/{instance}"
        missing = [p for p in CLOUD_SQL_PERMISSIONS if not region.iam.allows(account, p, key)]
        if missing:
            # At Google the container starts, and its connections are refused.
            program.notes.append(
                f"Cloud SQL connection failed. Please see https://cloud.google.com/sql/docs/postgres/connect-run for"
                f" additional details: {workload.service_account} is not authorized to access resource. Possibly"
                f" missing permission {missing[0]} on resource instances/{instance}."
            )
            continue
        link = folder / name
        if not link.is_symlink():
            link.symlink_to(layout.socket_directory(name))
    return folder


def _secret_files(region: "Region", workload: Workload, source: Mapping[str, Any], folder: Path) -> None:
    folder.mkdir(exist_ok=True, mode=0o700)
    default_mode = source.get("defaultMode") or 0o444
    items = source.get("items") or [{"path": source["secret"].rpartition("/")[2], "version": "latest"}]
    for item in items:
        path = (folder / item["path"]).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise StartFailed(f"The path {item['path']!r} of a secret volume leaves the volume.")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_secret(region, workload, source["secret"], item.get("version") or "latest"))
        path.chmod(item.get("mode") or default_mode)


def _secret(region: "Region", workload: Workload, secret: str, version: str) -> bytes:
    """The payload, asked for as the workload's own account through the API, so that its bindings decide."""
    words = secret.split("/")
    project = region.project_id(words[1]) if words[0] == "projects" and len(words) >= 4 else workload.project
    shown = f"projects/{region.project_number(project)}/secrets/{words[-1]}/versions/{version}"
    path = f"/secretmanager/v1/projects/{project}/secrets/{words[-1]}/versions/{version}:access"
    status, body = own_api.get(region, path, workload.service_account)
    if status == 200:
        return base64.b64decode(json.loads(body)["payload"].get("data", ""))
    if status == 403:
        raise SecretUnreadable(
            f"Permission denied on secret: {shown} for {workload.kind} service account {workload.service_account}. The"
            " service account used must be granted the 'Secret Manager Secret Accessor' role"
            " (roles/secretmanager.secretAccessor) at the secret, project or higher level."
        )
    if status == 404:
        raise SecretUnreadable(f"Secret {shown} was not found")
    try:
        message = json.loads(body)["error"]["message"]
    except (ValueError, KeyError):
        message = f"HTTP {status}"
    raise SecretUnreadable(f"Secret {shown} could not be read: {message}")


def _arguments(container: Mapping[str, Any], image: Mapping[str, Any]) -> list[str]:
    """`command` replaces entrypoint and command of the image, `args` its command: Cloud Run, "Containers"."""
    if container.get("command"):
        return [*container["command"], *container.get("args", ())]
    entrypoint = list(image.get("Entrypoint") or ())
    return entrypoint + list(container.get("args") or image.get("Cmd") or ())


def _expand(text: str, variables: Mapping[str, str]) -> str:
    """`$(NAME)` as Kubernetes expands it: unknown names stay, `$$(` is a literal `$(`."""
    return re.sub(r"\$(\$)?\((\w+)\)", lambda m: m[0][1:] if m[1] else variables.get(m[2], m[0]), text)


def _executable(name: str, directory: Path, search_path: Sequence[str]) -> str:
    if "/" in name:
        found = Path(name) if name.startswith("/") else directory / name
        if found.is_file() and os.access(found, os.X_OK):
            return str(found)
    else:
        for folder in search_path:
            found = Path(folder) / name
            if found.is_file() and os.access(found, os.X_OK):
                return str(found)
    raise StartFailed(
        f"Application failed to start: failed to load {name}: no such file or directory. The process runtime looks in"
        " the environment that localgcp runs in, in the image and in the system's directories."
    )
