"""Lay out a PULUMI_HOME in which the real engine finds everything it needs, and never looks for a download.

    <data-dir>/pulumi-home/
        plugins/language-python-v<SDK>/pulumi-language-python
        plugins/resource-pulumi-python-v<SDK>/pulumi-resource-pulumi-python
        plugins/resource-<package>-v<installed SDK package>/pulumi-resource-<package>
        bin/pulumi          the engine, with this region's stack settings (see `localgcp.pulumi.engine`)
        passphrase          encrypts secrets in the state; made here, at random, readable by its owner only
        state/              the backend
        stacks/             stack files with this region's secrets provider

Ours give way to the real ones. A language host on PATH or beside the engine is used before the plug-in folder is looked
at (the engine does that by itself); a real provider of the wanted version, in `~/.pulumi` or put into this home by
`pulumi plugin install`, is linked or left alone. A plug-in that is not executable counts as absent: the engine passes
over it without a word and tries a download.

**Secrets and the stack file.** Every stack has a secrets provider, and the engine keeps its settings in
`Pulumi.<stack>.yaml`: `encryptionsalt` for a passphrase, `secretsprovider` and `encryptedkey` for a cloud's key. That
file is in git and serves Google Cloud, where the operator's stack is encrypted by Cloud KMS, so a local run may neither
use these settings nor write its own. Read in the engine (v3.259.0):

* `GetSecretsManager` (cmd/pulumi/stack/secrets.go) decides by the stack file. Without settings in it, it falls back to
  what the state says if `PULUMI_FALLBACK_TO_STATE_SECRETS_MANAGER` is set, else it makes a new salt; either way the
  settings are then written to the stack file, wherever they came from.
* `stack init` writes them, too, and has no option against it. No variable names another passphrase *file format*, and
  `PULUMI_CLOUD_SECRET_OVERRIDE` replaces the encrypted key, which is written again.
* What is left is another stack file: `--config-file`, which `up`, `preview`, `refresh`, `destroy`, `import`, `watch`
  and `logs` have, and which the variable `PULUMI_OPTION_CONFIG_FILE` sets for all of them
  (`declareFlagsAsEnvironmentVariables`). But one variable cannot name a file per stack.

So `bin/pulumi` comes first on PATH, finds out which stack the command is about, writes the stack's file in `stacks/`
(the repository's file of that moment, with the local salt in place of the three settings), sets the variable and
becomes the real engine. An engine started by its full path works, too, because the fallback is set as well; the price
is a line `encryptionsalt` in the repository's file. A stack file with encrypted values (`secure:`) needs the key that
they were encrypted with, here as anywhere.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from pathlib import Path

from localgcp.pulumi.versions import sdk_version

_MARK = "# Written by localgcp.pulumi.install; replaced by the real thing where that is installed."
# What `import localgcp` needs on the path, whatever folder the engine starts a plug-in in.
_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """One of ours. `package` is the Python distribution whose version the engine asks for."""

    kind: str
    name: str
    package: str
    module: str

    @property
    def command(self) -> str:
        return f"pulumi-{self.kind}-{self.name}"

    @property
    def folder(self) -> str:
        return f"{self.kind}-{self.name}-v{sdk_version(self.package)}"


PLUGINS = (
    Plugin(kind="language", name="python", package="pulumi", module="localgcp.pulumi.language_host"),
    Plugin(kind="resource", name="pulumi-python", package="pulumi", module="localgcp.pulumi.dynamic_host"),
    Plugin(kind="resource", name="gcp", package="pulumi-gcp", module="localgcp.pulumi.gcp.__main__"),
    Plugin(kind="resource", name="random", package="pulumi-random", module="localgcp.pulumi.random_provider"),
)


def home(data_dir: Path) -> Path:
    """The PULUMI_HOME of a region."""
    return data_dir.absolute() / "pulumi-home"


def install(data_dir: Path, *, real_homes: tuple[Path, ...] | None = None) -> Path:
    """Lay out the home, or bring it up to date; returns it. Safe to run again, also while an engine uses it."""
    target = home(data_dir)
    for folder in (target / "plugins", target / "bin", target / "state"):
        folder.mkdir(parents=True, exist_ok=True)
    for plugin in PLUGINS:
        try:
            directory = target / "plugins" / plugin.folder
        except PackageNotFoundError:
            # A region that is used without this package's resources needs no provider for them.
            continue
        _lay(plugin, directory, _real_homes() if real_homes is None else real_homes)
    _write_command(target / "bin" / "pulumi", "localgcp.pulumi.engine")
    _make_passphrase(target / "passphrase")
    return target


def environment(data_dir: Path, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables that make a plain `pulumi` use this home, laid out first. PATH extends that of `environ`."""
    target = install(data_dir)
    given = os.environ if environ is None else environ
    command_folder = str(target / "bin")
    others = [entry for entry in given.get("PATH", os.defpath).split(os.pathsep) if entry != command_folder]
    return {
        "PULUMI_HOME": str(target),
        "PULUMI_BACKEND_URL": (target / "state").as_uri(),
        "PULUMI_CONFIG_PASSPHRASE_FILE": str(target / "passphrase"),
        "PULUMI_FALLBACK_TO_STATE_SECRETS_MANAGER": "true",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
        # Also read by the language host that Pulumi ships, where it is preferred.
        "PULUMI_PYTHON_CMD": sys.executable,
        "PATH": os.pathsep.join([command_folder, *others]),
    }


def is_ours(command: Path) -> bool:
    """Whether an executable is one that `install` wrote."""
    try:
        with command.open("rb") as file:
            return _MARK.encode() in file.read(512)
    except OSError:
        return False


def _real_homes() -> tuple[Path, ...]:
    configured = os.environ.get("PULUMI_HOME")
    return (*([Path(configured)] if configured else []), Path.home() / ".pulumi")


def _is_real(command: Path) -> bool:
    # Asked first, because `is_file` raises below a home that is closed to us.
    return os.access(command, os.X_OK) and command.is_file() and not is_ours(command)


def _lay(plugin: Plugin, directory: Path, real_homes: tuple[Path, ...]) -> None:
    command = directory / plugin.command
    if directory.is_symlink():
        # The engine passes over a folder that is a link, so that only a command can be one.
        directory.unlink()
    if _is_real(command):
        return
    directory.mkdir(parents=True, exist_ok=True)
    for real_home in real_homes:
        real = real_home / "plugins" / plugin.folder / plugin.command
        if _is_real(real):
            temporary = _beside(command)
            temporary.symlink_to(real.resolve())
            temporary.replace(command)
            return
    _write_command(command, plugin.module)


def _write_command(path: Path, module: str) -> None:
    # -P: the engine starts plug-ins in the program's folder, whose modules must not be found in place of ours.
    # -u: the SDK's provider of dynamic resources does not flush the line that the engine waits for, its port.
    code = f"import sys; sys.path.insert(0, {str(_ROOT)!r}); from {module} import main; sys.exit(main())"
    text = f'#!/bin/sh\n{_MARK}\nexec {_quoted(sys.executable)} -u -P -c {_quoted(code)} "$@"\n'
    if path.is_file() and path.read_text(encoding="utf-8", errors="replace") == text and os.access(path, os.X_OK):
        return
    temporary = _beside(path)
    temporary.write_text(text, encoding="utf-8")
    temporary.chmod(0o755)
    temporary.replace(path)


def _beside(path: Path) -> Path:
    """Where to make what then replaces `path`: an engine that reads it at this moment sees the old or the new one."""
    return path.with_name(f".{path.name}.{os.getpid()}")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _make_passphrase(path: Path) -> None:
    if path.exists():
        return
    temporary = _beside(path)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_urlsafe(32))
        file.flush()
        os.fsync(file.fileno())
    try:
        # Not `replace`: whoever else made one at the same moment may have encrypted with it already.
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
