"""Extensions that users of Cloud SQL may create, of which PostgreSQL says that only superusers may.

From PostgreSQL 18 on, a server looks for extensions in more than one directory. Ours holds copies of those extensions
that say `trusted`, and comes first.
"""

import functools
import os
import re
import shutil
import subprocess
from pathlib import Path

from localgcp.sql.binaries import Binaries, lock
from localgcp.sql.layout import Layout, own_directory
from localgcp.sql.template import SUPERUSER

#: Those of Cloud SQL ("Configure PostgreSQL extensions") that PostgreSQL does not trust by itself.
SUPPORTED = (
    "amcheck",
    "autoinc",
    "bloom",
    "dblink",
    "earthdistance",
    "insert_username",
    "intagg",
    "moddatetime",
    "pageinspect",
    "pg_buffercache",
    "pg_freespacemap",
    "pg_prewarm",
    "pg_stat_statements",
    "pg_visibility",
    "pgrowlocks",
    "pgstattuple",
    "postgres_fdw",
    "refint",
    "vector",
)
#: Whose own script leaves to the superuser what Cloud SQL gives to its administrators.
WRAPPERS = {"dblink": "dblink_fdw", "postgres_fdw": "postgres_fdw"}
PRELOADED = "pg_stat_statements"
FIRST_WITH_SEARCH_PATH = 18
#: Raised whenever a directory made by older code must not be used again.
FORMAT = 1


def extension_settings(binaries: Binaries, layout: Layout) -> dict[str, str]:
    """What postgresql.conf says of extensions. Older versions than 18 trust only what PostgreSQL trusts."""
    settings = {}
    if (directory_of(binaries, "--pkglibdir") / f"{PRELOADED}.so").exists():
        settings["shared_preload_libraries"] = PRELOADED
    if binaries.major >= FIRST_WITH_SEARCH_PATH:
        settings["extension_control_path"] = f"{trusted_extensions(binaries, layout)}:$system"
    return settings


def trusted_extensions(binaries: Binaries, layout: Layout) -> Path:
    """Found in the cache, or made there."""
    directory = own_directory(layout.cache) / f"extensions-{binaries.version}-{FORMAT}"
    with lock(layout.cache / f"{directory.name}.lock"):
        if not directory.exists():
            unfinished = layout.cache / f"{directory.name}.{os.getpid()}.new"
            shutil.rmtree(unfinished, ignore_errors=True)
            (unfinished / "extension").mkdir(parents=True)
            for name in SUPPORTED:
                copy_trusted(name, directory_of(binaries, "--sharedir") / "extension", unfinished / "extension")
            for path in (unfinished, *unfinished.rglob("*")):
                path.chmod(0o755 if path.is_dir() else 0o644)
            unfinished.rename(directory)
    return directory


def copy_trusted(name: str, source: Path, target: Path) -> None:
    """Nothing where this PostgreSQL does not come with the extension."""
    control = source / f"{name}.control"
    if not control.exists():
        return
    (target / control.name).write_text(control.read_text() + "\ntrusted = true\n")
    for script in source.glob(f"{name}--*.sql"):
        shutil.copyfile(script, target / script.name)
        # Scripts of one version, unlike those from one to the next, begin with nothing.
        if name in WRAPPERS and re.fullmatch(rf"{name}--[\d.]+\.sql", script.name):
            with (target / script.name).open("a") as file:
                file.write(f"\nGRANT USAGE ON FOREIGN DATA WRAPPER {WRAPPERS[name]} TO {SUPERUSER};\n")


@functools.cache
def directory_of(binaries: Binaries, option: str) -> Path:
    command = [str(binaries.path("pg_config")), option]
    return Path(subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip())
