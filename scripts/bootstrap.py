"""Make `.venv` and `.venv/bin/pulumi`. Standard library only: nothing is installed when this runs."""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.pulumi_engine import EngineMissing, EngineSearch  # noqa: E402  the line above makes it importable
from scripts.waiting import wait_telling  # noqa: E402

REQUIREMENTS = ROOT / "requirements" / "dev.txt"


def say(text: str) -> None:
    print(f"bootstrap: {text}", file=sys.stderr, flush=True)


def stamp_of(requirements: Path) -> str:
    """What `.venv` was made from. Equal stamps mean there is nothing to do."""
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()
    return f"{digest} python{sys.version_info.major}.{sys.version_info.minor}\n"


def make_environment(venv: Path, requirements: Path) -> None:
    """Install `requirements`, hash-checked, into `venv`. Interrupted at any point, the next run starts over.

    Raises:
        subprocess.CalledProcessError: the installer failed; it has said why.
    """
    stamp = venv / "made-from"
    wanted = stamp_of(requirements)
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    started = time.monotonic()
    uv = shutil.which("uv")
    python = venv / "bin" / "python"
    say(f"installing dependencies into {venv.name} with {'uv' if uv else 'pip'}: about two minutes the first time")
    stamp.unlink(missing_ok=True)
    if not python.exists():
        # Not --clear: a half-made environment is completed, and files of the user's are left alone.
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    if uv:
        install = [
            uv,
            "pip",
            "install",
            "--quiet",
            # As pip does. Instances run with PYTHONDONTWRITEBYTECODE, and would compile Django anew at every start.
            "--compile-bytecode",
            "--python",
            str(python),
            "--require-hashes",
            "-r",
            str(requirements),
        ]
    else:
        # An environment that uv made has no pip.
        subprocess.run([str(python), "-m", "ensurepip"], check=True, stdout=subprocess.DEVNULL)
        install = [
            *(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
            *("--require-hashes", "--no-deps", "--requirement", str(requirements)),
        ]
    run_telling(install, "installing dependencies")
    stamp.write_text(wanted)
    say(f"dependencies installed in {time.monotonic() - started:.0f} s")


def run_telling(command: list[str], what: str, every_seconds: float = 30) -> None:
    """Run it, with a line now and then for whoever wonders whether it hangs. Raises CalledProcessError."""
    process = subprocess.Popen(command)
    returncode = wait_telling(process, lambda seconds: say(f"still {what}, {seconds:.0f} s"), every_seconds)
    if returncode:
        raise subprocess.CalledProcessError(returncode, command)


def link_engine(engine: Path, link: Path) -> None:
    """Point `link` at `engine`, replacing what was there in one step."""
    if link.is_symlink() and link.readlink() == engine:
        return
    beside = link.with_name(f".{link.name}-{os.getpid()}")
    beside.symlink_to(engine)
    beside.replace(link)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-engine", action="store_true", help="only the Python dependencies")
    wanted = parser.parse_args()
    venv = ROOT / ".venv"
    try:
        make_environment(venv, REQUIREMENTS)
        if not wanted.no_engine:
            link = venv / "bin" / "pulumi"
            link_engine(EngineSearch.from_environment(say, ours=link).find(), link)
    except subprocess.CalledProcessError as error:
        say(
            f"'{' '.join(error.cmd[:4])} …' failed with exit code {error.returncode}: its own message is above. "
            "The first run needs a package index that can be reached: a proxy goes into HTTPS_PROXY, another index "
            "into PIP_INDEX_URL (UV_DEFAULT_INDEX for uv). Run this again, and it goes on from there"
        )
        return 1
    except EngineMissing as error:
        say(str(error))
        return 1
    except OSError as error:
        say(f"{error}: the disk may be full, or {ROOT} belong to somebody else")
        return 1
    except KeyboardInterrupt:
        say("interrupted; run it again to go on from here")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
