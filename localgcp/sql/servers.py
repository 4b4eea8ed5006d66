"""The Postgres servers behind the instances of one region: created, started, adopted, configured, stopped, deleted.

A server outlives localgcp. After a crash the next process finds it by its pid file and takes it over; what only lives
in our process (the RADIUS responder, the ports) is there again at once.
"""

import asyncio
import contextlib
import logging
import secrets
import shutil
import threading
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psycopg

from localgcp.errors import InvalidArgument
from localgcp.sql.addresses import POSTGRES_PORT
from localgcp.sql.admin import scram_verifier, set_password
from localgcp.sql.binaries import find_binaries
from localgcp.sql.certificates import Authority, authority_of
from localgcp.sql.cluster import Cluster, ClusterError
from localgcp.sql.direct import Admission, DirectPort
from localgcp.sql.extensions import extension_settings
from localgcp.sql.flags import IAM_AUTHENTICATION, LOGICAL_DECODING
from localgcp.sql.layout import MAX_SOCKET_PATH_BYTES, SOCKET_NAME, Layout, layout_of, own_directory
from localgcp.sql.listener import Listener
from localgcp.sql.radius import Authenticate, Responder
from localgcp.sql.template import ADMIN, IAM_SERVICE_ACCOUNT, IAM_USER, Setting, template_of
from localgcp.sql.terminator import Terminator

T = TypeVar("T")
#: A command to the thread that serves the network; each is a matter of milliseconds.
NETWORK_TIMEOUT_SECONDS = 30

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class InstanceSpec:
    connection_name: str
    major: int
    address: str
    max_connections: int
    flags: Mapping[str, str] = field(default_factory=dict)
    #: Who is let in at port 5432.
    admission: Admission = "anybody"

    @property
    def iam_authentication(self) -> bool:
        return self.flags.get(IAM_AUTHENTICATION) == "on"


class Servers:
    """Every method blocks until the change is in effect, and may be called from any thread."""

    def __init__(self, data_dir: Path, authenticate: Authenticate) -> None:
        self.layout = layout_of(data_dir)
        self._authenticate = authenticate
        self._specs: dict[str, InstanceSpec] = {}
        self._listeners: dict[str, list[Listener]] = {}
        self._locks: dict[str, threading.RLock] = {}
        self._guard = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cloudsql-network", daemon=True)
        self._radius_port = 0

    def open(self) -> None:
        # No directory and no port before the first instance: most regions in tests never have one.
        self._thread.start()

    def close(self, *, stop_postgres: bool) -> None:
        """Leave the network. With `stop_postgres`, all servers are shut down, cleanly and side by side."""
        for name in list(self._listeners):
            self._stop_listening(name)
        if stop_postgres:
            threads = [threading.Thread(target=self._stop_quietly, args=[spec]) for spec in self._specs.values()]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.layout.remove_sockets()
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(NETWORK_TIMEOUT_SECONDS)

    def known_settings(self, major: int) -> Mapping[str, Setting]:
        """What that version of Postgres knows as flags. InvalidArgument when its binaries are missing."""
        return template_of(find_binaries(major, self.layout), self.layout).settings

    def version(self, major: int) -> str:
        return find_binaries(major, self.layout).version

    def check_name(self, connection_name: str) -> None:
        # As long as it gets: a Cloud SQL volume has a directory of its own, with links to these.
        path = self.layout.sockets / "~01234567" / connection_name / SOCKET_NAME
        excess = len(str(path).encode()) - MAX_SOCKET_PATH_BYTES
        if excess > 0:
            raise InvalidArgument(
                f"Invalid request: the connection name {connection_name} is {excess} bytes too long for localgcp: "
                f"the path of a unix socket has at most {MAX_SOCKET_PATH_BYTES}. Choose a shorter name.",
                reason="invalid",
            )

    def socket_directory(self, connection_name: str) -> Path:
        """What a Cloud SQL volume mounts as /cloudsql/<connection name>."""
        return self.layout.socket_directory(connection_name)

    def provision(self, spec: InstanceSpec, root_verifier: str | None = None) -> None:
        """Create and start. May be repeated after a crash at any point; what is there is kept."""
        with self._lock(spec.connection_name):
            template = template_of(find_binaries(spec.major, self.layout), self.layout)
            own_directory(self.layout.homes)
            home = own_directory(self.layout.home(spec.connection_name))
            (home / "log").mkdir(exist_ok=True, mode=0o755)
            self.layout.give(home / "log")
            if not (home / "data").exists():
                self._write_secret(home / "admin.secret", template.secret)
                unfinished = home / "data.new"
                shutil.rmtree(unfinished, ignore_errors=True)
                shutil.copytree(template.data, unfinished, symlinks=True)
                self.layout.give(unfinished)
                unfinished.rename(home / "data")
            authority_of(home / "tls", spec.connection_name, spec.address)
            self.start(spec)
            self._own_admin(spec.connection_name, template.secret)
            if root_verifier is not None:
                with self.connect(spec.connection_name) as connection:
                    set_password(connection, "postgres", root_verifier)

    def start(self, spec: InstanceSpec) -> None:
        """Start, or take over a server that is running, with the configuration of `spec`."""
        with self._lock(spec.connection_name):
            self._open_radius()
            cluster = self._cluster(spec)
            changed = self._configure(cluster, spec)
            if cluster.pid is None:
                cluster.start()
            elif changed or not (cluster.sockets / SOCKET_NAME).exists():
                # A change was stored and the process died before it was applied. Or somebody cleaned /tmp, and a
                # server whose socket is gone serves nobody.
                cluster.restart()
            else:
                cluster.reload()
            self._specs[spec.connection_name] = spec
            self._listen(spec)

    def apply(self, spec: InstanceSpec, *, restart: bool) -> None:
        """Change the configuration of a running server. A server that refuses it gets the one before back.

        Raises:
            InvalidArgument: a flag has a value that Postgres does not take.
        """
        with self._lock(spec.connection_name):
            before = self._specs.get(spec.connection_name)
            cluster = self._cluster(spec)
            self._configure(cluster, spec)
            try:
                if spec != before:
                    self._check_values(spec)
                if restart:
                    cluster.restart()
                else:
                    cluster.reload()
            except Exception:
                if before is not None:
                    self._configure(cluster, before)
                    cluster.start()
                    cluster.reload()
                raise
            self._specs[spec.connection_name] = spec
            self._listen(spec)

    def _check_values(self, spec: InstanceSpec) -> None:
        """Ask Postgres what it makes of the file. It says nothing good of what needs a restart, which tries those."""
        with self.connect(spec.connection_name) as connection:
            refused = connection.execute(
                """
                SELECT written.name, written.setting FROM pg_file_settings written
                LEFT JOIN pg_settings known ON lower(known.name) = lower(written.name)
                WHERE written.error IS NOT NULL AND known.context IS DISTINCT FROM 'postmaster'
                """
            ).fetchone()
        if refused is not None:
            raise InvalidArgument(
                f"Value requested is not valid: {refused[1]!r} for flag {refused[0]}.", reason="invalidFlagValue"
            )

    def stop(self, spec: InstanceSpec) -> None:
        """Shut down, also a server that another process has started. No error when it is down already."""
        with self._lock(spec.connection_name):
            self._stop_listening(spec.connection_name)
            self._specs.pop(spec.connection_name, None)
            self._cluster(spec).stop()

    def delete(self, spec: InstanceSpec) -> None:
        """Stop and remove everything; what is gone already is no error."""
        with self._lock(spec.connection_name):
            self.stop(spec)
            shutil.rmtree(self.layout.home(spec.connection_name), ignore_errors=True)
            shutil.rmtree(self.socket_directory(spec.connection_name), ignore_errors=True)

    def remove_home(self, home: Path) -> None:
        """Stop and delete what a directory holds, whoever it belonged to."""
        stop_home(self.layout, home)
        shutil.rmtree(home)

    def is_running(self, connection_name: str) -> bool:
        spec = self._specs.get(connection_name)
        return spec is not None and self._cluster(spec).pid is not None

    def revive(self) -> list[str]:
        """Start servers that should run and do not; their connection names. Cloud SQL restarts what crashes, too."""
        revived = []
        for name, spec in list(self._specs.items()):
            with self._lock(name):
                if self._specs.get(name) is not spec or self._cluster(spec).pid is not None:
                    continue
                log.warning("the Postgres server of %s is gone: starting it again", name)
                try:
                    self.start(spec)
                except ClusterError:
                    log.exception("%s did not come back", name)
                else:
                    revived.append(name)
        return revived

    def connect(self, connection_name: str, database: str = "postgres") -> psycopg.Connection:
        """A session of cloudsqladmin, which is a superuser."""
        home = self.layout.home(connection_name)
        socket = self.socket_directory(connection_name)
        target = psycopg.conninfo.make_conninfo(
            host=str(socket), port=5432, user=ADMIN, dbname=database, connect_timeout=10, application_name="localgcp"
        )
        try:
            return psycopg.connect(target, password=(home / "admin.secret").read_text(), autocommit=True)
        except psycopg.OperationalError:
            # The process died between the change of the password and the rename.
            if not (home / "admin.secret.new").exists():
                raise
            connection = psycopg.connect(target, password=(home / "admin.secret.new").read_text(), autocommit=True)
            (home / "admin.secret.new").rename(home / "admin.secret")
            return connection

    def authority(self, spec: InstanceSpec) -> Authority:
        return authority_of(self.layout.home(spec.connection_name) / "tls", spec.connection_name, spec.address)

    def _own_admin(self, connection_name: str, template_secret: str) -> None:
        """Replace the administrator's password that the copy shares with the template."""
        home = self.layout.home(connection_name)
        if (home / "admin.secret").read_text() != template_secret:
            return
        secret = secrets.token_urlsafe(24)
        with self.connect(connection_name) as connection:
            self._write_secret(home / "admin.secret.new", secret)
            set_password(connection, ADMIN, scram_verifier(secret))
        (home / "admin.secret.new").replace(home / "admin.secret")

    def _cluster(self, spec: InstanceSpec) -> Cluster:
        home = self.layout.home(spec.connection_name)
        return Cluster(
            layout=self.layout,
            binaries=find_binaries(spec.major, self.layout),
            data=home / "data",
            log=home / "log" / "postgres.log",
            sockets=self.socket_directory(spec.connection_name),
        )

    def _configure(self, cluster: Cluster, spec: InstanceSpec) -> bool:
        """Write the configuration. Whether its settings, unlike its access rules, differ from those before."""
        own_directory(self.layout.sockets)
        cluster.sockets.mkdir(exist_ok=True, mode=0o755)
        self.layout.give(cluster.sockets)
        settings = configuration(spec, cluster.sockets) | extension_settings(cluster.binaries, self.layout)
        sync_method = self.known_settings(spec.major).get("recovery_init_sync_method")
        if sync_method is not None and "syncfs" in sync_method.choices:
            # After a crash, Postgres syncs thousands of files one by one before it recovers; this is one call.
            settings["recovery_init_sync_method"] = "syncfs"
        rules = access_rules(spec, self._radius_port, self._radius_secret(spec.connection_name))
        return cluster.configure(settings, rules)

    def _radius_secret(self, connection_name: str) -> str:
        path = self.layout.home(connection_name) / "radius.secret"
        if not path.exists():
            self._write_secret(path, secrets.token_hex(16))
        return path.read_text()

    def _radius_secret_of(self, connection_name: str) -> bytes | None:
        # Only instances that we know: the name comes from the network and becomes a path.
        return self._radius_secret(connection_name).encode() if connection_name in self._specs else None

    def _write_secret(self, path: Path, secret: str) -> None:
        unfinished = path.with_name(path.name + ".unfinished")
        unfinished.touch(mode=0o600)
        unfinished.write_text(secret)
        unfinished.replace(path)

    def _listen(self, spec: InstanceSpec) -> None:
        """Open the ports of an instance, or have those that are open go by what the instance is now."""
        name = spec.connection_name
        if name not in self._listeners:
            socket, authority = self.socket_directory(name) / SOCKET_NAME, self.authority(spec)
            direct = DirectPort(address=spec.address, socket=socket, authority=authority, admission=spec.admission)
            terminator = Terminator(address=spec.address, socket=socket, authority=authority)
            self._listeners[name] = [one for one in (direct, terminator) if self._opens(one, name)]
        for listener in self._listeners[name]:
            if isinstance(listener, DirectPort):
                listener.admission = spec.admission

    def _opens(self, listener: Listener, name: str) -> bool:
        try:
            self._run(listener.start())
        except OSError as error:
            # Where all instances share 127.0.0.1 (macOS), the first has the ports and the others have their sockets.
            log.warning("%s is not at port %s: %s", name, listener.port, error)
            return False
        return True

    def _stop_listening(self, connection_name: str) -> None:
        for listener in self._listeners.pop(connection_name, []):
            self._run(listener.stop())

    def _stop_quietly(self, spec: InstanceSpec) -> None:
        try:
            self.stop(spec)
        except Exception:
            log.exception("%s did not stop", spec.connection_name)

    def _lock(self, connection_name: str) -> threading.RLock:
        with self._guard:
            return self._locks.setdefault(connection_name, threading.RLock())

    def _open_radius(self) -> None:
        with self._guard:
            if not self._radius_port:
                self._radius_port = self._run(self._listen_radius())

    async def _listen_radius(self) -> int:
        # The same port as last time: servers that survived us still ask there.
        remembered = self.layout.homes / "radius.port"
        port = int(remembered.read_text()) if remembered.exists() else 0
        for candidate in (port, 0):
            with contextlib.suppress(OSError):
                transport, _ = await self._loop.create_datagram_endpoint(
                    lambda: Responder(self._radius_secret_of, self._authenticate), local_addr=("127.0.0.1", candidate)
                )
                port = int(transport.get_extra_info("sockname")[1])
                remembered.write_text(str(port))
                return port
        raise OSError("no UDP port is free on 127.0.0.1")

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(NETWORK_TIMEOUT_SECONDS)


def configuration(spec: InstanceSpec, sockets: Path) -> dict[str, str]:
    """postgresql.conf: ours, then the flags. Memory follows the machine here, not the tier."""
    settings = {
        # Only the socket: the ports are served by localgcp.
        "listen_addresses": "",
        "port": str(POSTGRES_PORT),
        "unix_socket_directories": str(sockets),
        "unix_socket_permissions": "0777",
        "password_encryption": "scram-sha-256",
        "max_connections": str(spec.max_connections),
        "shared_buffers": "64MB",
        "wal_level": "logical" if spec.flags.get(LOGICAL_DECODING) == "on" else "replica",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_line_prefix": "%m [%p]: [%l-1] db=%d,user=%u ",
        "log_min_error_statement": "error",
    }
    # Last, so that a flag wins over our default; what a flag must not touch was refused when it was set.
    return settings | dict(spec.flags)


def access_rules(spec: InstanceSpec, radius_port: int, radius_secret: str) -> str:
    """pg_hba.conf, for the socket that every way in leads to."""
    radius = (
        f'radius radiusservers="127.0.0.1" radiusports="{radius_port}" radiussecrets="{radius_secret}" '
        f'radiusidentifiers="{spec.connection_name}"'
    )
    iam = radius if spec.iam_authentication else "reject"
    rules = [
        f"local all {ADMIN} scram-sha-256",
        f"local all +{IAM_USER},+{IAM_SERVICE_ACCOUNT} {iam}",
        "local all all scram-sha-256",
    ]
    return "\n".join(rules) + "\n"


def stop_all(data_dir: Path) -> None:
    """Stop every server of a data directory, also those that a killed localgcp left behind. For `down` and `reset`."""
    layout = layout_of(data_dir)
    for home in sorted(layout.homes.glob("*/")):
        stop_home(layout, home)
    layout.remove_sockets()


def stop_home(layout: Layout, home: Path) -> None:
    try:
        major = int((home / "data" / "PG_VERSION").read_text())
    except FileNotFoundError:
        return
    binaries = find_binaries(major, layout)
    log_file = home / "log" / "postgres.log"
    Cluster(layout=layout, binaries=binaries, data=home / "data", log=log_file, sockets=home).stop()


def remove_all(data_dir: Path) -> None:
    """Stop and delete every server of a data directory. For `reset`."""
    stop_all(data_dir)
    layout_of(data_dir).remove()
