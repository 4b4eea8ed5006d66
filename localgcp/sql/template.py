"""A data directory as it is right after creation: made once per version of Postgres, then copied for each instance."""

import json
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psycopg

from localgcp.sql.binaries import Binaries, lock
from localgcp.sql.cluster import Cluster, ClusterError, run_unprivileged
from localgcp.sql.layout import Layout, own_directory

ADMIN = "cloudsqladmin"
SUPERUSER = "cloudsqlsuperuser"
IAM_USER = "cloudsqliamuser"
IAM_SERVICE_ACCOUNT = "cloudsqliamserviceaccount"

#: The roles of a Cloud SQL instance. `cloudsqlsuperuser` is no superuser: it creates roles and databases, and owns
#: the databases that the API creates. Only `cloudsqladmin`, which nobody but Cloud SQL logs in as, is one.
BOOTSTRAP = (
    f"CREATE ROLE {SUPERUSER} NOLOGIN CREATEDB CREATEROLE",
    f"CREATE ROLE {IAM_USER} NOLOGIN",
    f"CREATE ROLE {IAM_SERVICE_ACCOUNT} NOLOGIN",
    f"GRANT pg_monitor, pg_signal_backend TO {SUPERUSER} WITH ADMIN OPTION",
    "CREATE ROLE postgres LOGIN CREATEDB CREATEROLE",
    f"GRANT {SUPERUSER} TO postgres WITH ADMIN OPTION",
    f"ALTER DATABASE postgres OWNER TO {SUPERUSER}",
    f"CREATE DATABASE {ADMIN}",
    f"REVOKE ALL ON DATABASE {ADMIN} FROM PUBLIC",
)
#: Raised whenever a template made by older code must not be used again.
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A row of pg_settings: what Postgres knows about one of its flags."""

    name: str
    context: str
    vartype: str
    unit: str | None = None
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    category: str = ""


@dataclass(frozen=True, kw_only=True)
class Template:
    data: Path
    secret: str
    settings: Mapping[str, Setting]


def template_of(binaries: Binaries, layout: Layout) -> Template:
    """Found in the cache, or made there, which takes two or three seconds once per version of Postgres."""
    own_directory(layout.cache)
    directory = layout.cache / f"template-{binaries.version}-{FORMAT}"
    with lock(layout.cache / f"{directory.name}.lock"):
        if not directory.exists():
            unfinished = layout.cache / f"{directory.name}.{os.getpid()}.new"
            unfinished.mkdir(mode=0o755)
            try:
                make_template(unfinished, binaries, layout)
                unfinished.rename(directory)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    rows = json.loads((directory / "settings.json").read_text())
    settings = {row["name"]: Setting(**(row | {"choices": tuple(row["choices"])})) for row in rows}
    return Template(data=directory / "data", secret=(directory / "secret").read_text(), settings=settings)


def make_template(directory: Path, binaries: Binaries, layout: Layout) -> None:
    data = directory / "data"
    data.mkdir(mode=0o700)
    secret = secrets.token_urlsafe(24)
    (directory / "secret").touch(mode=0o600)
    (directory / "secret").write_text(secret)
    # Short, because it holds a socket, and deep inside a home directory the path would be too long for one.
    with tempfile.TemporaryDirectory(prefix="lgcp-", dir="/tmp") as name:
        sockets = Path(name)
        password = sockets / "password"
        password.write_text(secret)
        for path in (sockets, password, data):
            layout.give(path)
        cluster = Cluster(layout=layout, binaries=binaries, data=data, log=sockets / "log" / "log", sockets=sockets)
        command = [str(binaries.path("initdb")), "-D", str(data), "-U", ADMIN, "-E", "UTF8", "--no-sync"]
        command += [f"--pwfile={password}", "--auth=scram-sha-256", *locale_arguments(binaries.major)]
        if run_unprivileged(layout, command) != 0:
            raise ClusterError(f"initdb failed: {' '.join(command)}")
        hba = f"local all {ADMIN} scram-sha-256\n"
        cluster.configure({"listen_addresses": "", "unix_socket_directories": str(sockets), "fsync": "off"}, hba)
        cluster.start()
        try:
            connect = f"host={sockets} user={ADMIN} dbname=postgres"
            with psycopg.connect(connect, password=secret, autocommit=True) as connection:
                for statement in BOOTSTRAP:
                    connection.execute(statement)
                (directory / "settings.json").write_text(json.dumps(known_settings(connection)))
        finally:
            cluster.stop()


def known_settings(connection: psycopg.Connection) -> list[dict[str, object]]:
    query = "SELECT name, context, vartype, unit, min_val, max_val, enumvals, category FROM pg_settings ORDER BY name"
    return [
        {
            "name": name,
            "context": context,
            "vartype": vartype,
            "unit": unit,
            "minimum": None if minimum is None else float(minimum),
            "maximum": None if maximum is None else float(maximum),
            "choices": choices or [],
            "category": category,
        }
        for name, context, vartype, unit, minimum, maximum, choices, category in connection.execute(query)
    ]


def locale_arguments(major: int) -> list[str]:
    """Google's default, en_US.UTF8, where this machine has it; else the same encoding, ordered by code point."""
    locale = system_locale("en_US.UTF8")
    if locale is not None:
        return [f"--locale={locale}"]
    if major >= 17:
        return ["--locale-provider=builtin", "--locale=C.UTF-8"]
    return [f"--locale={system_locale('C.UTF8') or 'C'}"]


def system_locale(name: str) -> str | None:
    """The machine's spelling of a locale (`en_US.utf8`), or None when it is not installed."""
    return system_locales().get(normalised_locale(name))


def normalised_locale(name: str) -> str:
    language, dot, encoding = name.partition(".")
    return language + dot + encoding.lower().replace("-", "")


def system_locales() -> dict[str, str]:
    program = shutil.which("locale")
    if program is None:
        return {"C": "C", "POSIX": "POSIX"}
    names = subprocess.run([program, "-a"], capture_output=True, check=False, timeout=30).stdout.split()
    return {normalised_locale(name): name for name in (raw.decode(errors="replace") for raw in names)}
