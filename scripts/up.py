"""`make up`: a region on this machine with the Australian stack in it, and one real validation through its front door.

Everything that deploys is the same as on Google Cloud: Pulumi's engine, the program, the stack file. This script starts
the region, takes the environment that it prints, and runs `pulumi up`; then it does what an operator does first, which
is to create an organisation and to try its key.

Exit codes: 0 deployed and validated, 1 failed, 130 interrupted.
"""

import argparse
import hashlib
import json
import os
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import httpx
from rich.console import Console
from rich.table import Table
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
PYTHON = sys.executable
SCHEMA = {
    "type": "object",
    "required": ["building", "floor_area"],
    "properties": {"building": {"type": "string"}, "floor_area": {"type": "number", "exclusiveMinimum": 0}},
}
GOOD = {"building": "Town Hall", "floor_area": 1250.5}
BAD = {"building": "Town Hall", "floor_area": -3}
REQUEST_SECONDS = 120
LITTLE_DISK_MB = 100
#: What is read, not shown.
QUIET = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}

console = Console(stderr=True, highlight=False, soft_wrap=True)


class UpFailed(Exception):
    """What went wrong and what to do about it."""


def say(text: str) -> None:
    console.print("[bold]make up:[/bold]", Text(text))


def fail(text: str) -> NoReturn:
    raise UpFailed(text)


@dataclass(frozen=True, kw_only=True)
class Region:
    """A running region: what to set so that every client of Google's talks to it."""

    environ: dict[str, str]

    @classmethod
    def start(cls) -> "Region":
        run = subprocess.run([PYTHON, "-m", "localgcp", "up"], cwd=ROOT, check=False)
        if run.returncode != 0:
            fail("the region did not start: why is above, and `python -m localgcp logs --own` has its log")
        # The engine that bootstrap found stands before one that the user's PATH may have and that may be too old.
        environ = os.environ | {"PATH": f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
        command = [PYTHON, "-m", "localgcp", "env"]
        printed = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, env=environ).stdout
        # An advertisement of the engine's, beside each failure.
        quiet = {"PULUMI_SUPPRESS_NEO_LINK": "true"}
        return cls(environ=environ | quiet | exports(printed, environ["PATH"]))

    @property
    def data_dir(self) -> Path:
        return data_directory(self.environ)

    def status(self) -> dict[str, Any]:
        printed = subprocess.run(
            [PYTHON, "-m", "localgcp", "status", "--json"],
            cwd=ROOT,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            env=self.environ,
        ).stdout
        answer: dict[str, Any] = json.loads(printed)
        return answer


def data_directory(environ: Mapping[str, str]) -> Path:
    return ROOT / (environ.get("LOCALGCP_DATA_DIR") or ".localgcp")


def exports(printed: str, path: str) -> dict[str, str]:
    """`export NAME=value` lines, as a shell would read them; PATH may refer to itself."""
    found = {}
    for line in printed.splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["export"]:
            for word in words[1:]:
                name, _, value = word.partition("=")
                found[name] = value.replace("${PATH}", path).replace("$PATH", path)
    return found


@dataclass(frozen=True, kw_only=True)
class Pulumi:
    stack: str
    environ: dict[str, str]
    patience_seconds: float = 600

    def __call__(self, *arguments: str, **options: Any) -> "subprocess.CompletedProcess[str]":
        pulumi = shutil.which("pulumi", path=self.environ["PATH"]) or "pulumi"
        command = [pulumi, *arguments, "--non-interactive"]
        with subprocess.Popen(command, cwd=ROOT, env=self.environ, text=True, **options) as process:
            try:
                stdout, stderr = process.communicate()
            except KeyboardInterrupt:
                # The terminal has interrupted the engine, too. It finishes what is under way and writes down what it
                # made; `subprocess.run` would kill it after a quarter of a second. A second Ctrl-C ends the wait.
                process.wait()
                raise
        return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)

    def select(self) -> None:
        if self("stack", "select", self.stack, **QUIET).returncode == 0:
            return
        created = self("stack", "init", self.stack, **QUIET)
        if created.returncode != 0 and "already exists" not in created.stderr:
            fail(f"cannot create stack {self.stack}: {created.stderr.strip()}")
        if self("stack", "select", self.stack, **QUIET).returncode != 0:
            fail(f"cannot select stack {self.stack}")

    def release_stale_lock(self) -> None:
        """Remove the lock of an update whose process is gone; one that goes on is waited for.

        An update whose region was killed goes on when the region is back, and then has the most to tell.
        """
        backend = self.environ.get("PULUMI_BACKEND_URL", "")
        if not backend.startswith("file://"):
            return
        folder = Path(backend.removeprefix("file://"))
        deadline = time.monotonic() + self.patience_seconds
        told = False
        while locks := list(folder.glob(f".pulumi/locks/**/{self.stack}/*.json")):
            holders = [process for lock in locks if (process := holder_of(lock)) is not None and is_alive(process)]
            if not holders:
                say(f"removing the lock of an update of {self.stack} that was interrupted")
                self("cancel", "--yes", "--stack", self.stack, **QUIET)
                return
            if time.monotonic() > deadline:
                fail(f"process {holders[0]} is still updating stack {self.stack}: end it, and run this again")
            if not told:
                say(f"waiting for process {holders[0]}, which is updating stack {self.stack}")
                told = True
            time.sleep(0.5)

    def up(self) -> None:
        self.release_stale_lock()
        self.finish_interrupted()
        quiet = ("--skip-preview", "--suppress-outputs", "--suppress-progress", "--suppress-permalink=true")
        if self("up", "--yes", "--stack", self.stack, *quiet).returncode != 0:
            fail(
                "the update failed; what failed is above. What it had finished stays, and `make up` goes on from there"
            )

    def finish_interrupted(self) -> None:
        """Look at what is there, where the last update ended without having seen it.

        Killed, it leaves operations that Pulumi does not know the end of. Where the region went away between a write
        and the answer to it, resources are left as half made ("initErrors"): every `up` would begin by updating them,
        and the real provider cannot update all types.
        """
        exported = self("stack", "export", "--stack", self.stack, **QUIET)
        if exported.returncode != 0:
            # It does not exist. Asking for that first would start an engine more, at every run but this one.
            self.select()
            return
        deployment = json.loads(exported.stdout).get("deployment") or {}
        half_made = any(resource.get("initErrors") for resource in deployment.get("resources") or ())
        if deployment.get("pending_operations") or half_made:
            say("the last update was interrupted: reading back what it had made")
            self("refresh", "--yes", "--stack", self.stack, "--clear-pending-creates", "--skip-preview")

    def outputs(self) -> dict[str, Any]:
        printed = self("stack", "output", "--json", "--stack", self.stack, stdout=subprocess.PIPE)
        if printed.returncode != 0:
            fail("the stack has no outputs")
        answer: dict[str, Any] = json.loads(printed.stdout)
        return answer


def holder_of(lock: Path) -> int | None:
    """The process that holds a lock of Pulumi's file backend; None for one of another machine, or that is gone."""
    try:
        holder = json.loads(lock.read_text())
    except (OSError, ValueError):
        return None
    process = holder.get("pid")
    return process if holder.get("hostname") == socket.gethostname() and isinstance(process, int) else None


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def demo_key(file: Path, data_region: str) -> str:
    """The demonstration organisation's API key: made once, kept where only its owner reads it."""
    try:
        return file.read_text().strip()
    except FileNotFoundError:
        # 8 characters to find the row by, 32 random bytes to prove the right to it.
        key = f"vb_{data_region.lower()}_{secrets.token_hex(4)}_{secrets.token_urlsafe(32)}"
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(key + "\n")
        return key


def create_organization(region: Region, outputs: dict[str, Any], key: str) -> None:
    """Run the maintenance job with the hash of the key: neither its log nor its overrides ever hold the key itself."""
    environ = region.environ
    run = environ.get("GOOGLE_CLOUD_RUN_V2_CUSTOM_ENDPOINT") or "https://run.googleapis.com/v2/"
    job = f"projects/{outputs['project']}/locations/{outputs['location']}/jobs/{outputs['jobs']['maintenance']}"
    arguments = [
        "create_organization",
        *("--slug", "demo", "--name", "Demo", "--data-region", outputs["data_region"]),
        *("--api-key-prefix", key.split("_")[2], "--api-key-hash", hashlib.sha256(key.encode()).hexdigest()),
    ]
    headers = {"Authorization": f"Bearer {environ['GOOGLE_OAUTH_ACCESS_TOKEN']}"}
    with httpx.Client(headers=headers, timeout=REQUEST_SECONDS, trust_env=False) as google:
        body = {"overrides": {"containerOverrides": [{"args": arguments}]}}
        operation = google.post(f"{run}{job}:run", json=body).raise_for_status().json()
        deadline = time.monotonic() + REQUEST_SECONDS
        while not operation.get("done"):
            if time.monotonic() > deadline:
                fail(f"job {job} did not end within {REQUEST_SECONDS} s")
            time.sleep(0.3)
            operation = google.get(f"{run}{operation['name']}").raise_for_status().json()
    if "error" in operation:
        fail(
            f"creating the demonstration organisation failed: {operation['error'].get('message')}; "
            "`python -m localgcp logs` has the job's log"
        )


def validate(url: str, key: str, document: dict[str, Any]) -> httpx.Response:
    return httpx.post(
        f"{url}/api/validations",
        headers={"Authorization": f"Bearer {key}"},
        json=validation_request(document),
        timeout=REQUEST_SECONDS,
        trust_env=False,
    )


def validation_request(document: dict[str, Any]) -> dict[str, Any]:
    return {"validator": "json-schema", "schema": SCHEMA, "document": document}


def first_validation(region: Region, outputs: dict[str, Any], url: str, key: str) -> dict[str, Any]:
    answer = validate(url, key, GOOD)
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        say("creating the organisation `demo`")
        create_organization(region, outputs, key)
        answer = validate(url, key, GOOD)
    if not answer.is_success:
        fail(f"the front door {url} answered {answer.status_code} to a validation: {answer.text[:500]}")
    body: dict[str, Any] = answer.json()
    return body


def front_door(region: Region, outputs: dict[str, Any]) -> str:
    host = outputs["front_door"]["host"]
    for door in region.status()["frontDoors"]:
        if door["project"] == outputs["project"] and door["address"].endswith(":443") and door["url"]:
            return str(door["url"]).rstrip("/")
    fail(f"the region has no front door for {host}; `python -m localgcp status` lists what it has")


def show(outputs: dict[str, Any], url: str, key: str, validation: dict[str, Any], seconds: float) -> None:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_row("front door", f"{url}   ({outputs['front_door']['host']})")
    table.add_row("organisation", "demo")
    table.add_row("API key", key)
    table.add_row("validation", f"{validation['verdict']}, {len(validation['findings'])} findings ({validation['id']})")
    table.add_row("took", f"{seconds:.0f} s")
    out = Console(highlight=False, soft_wrap=True)
    out.print()
    out.print(table)
    out.print("\nValidate a document that is wrong:\n")
    for line in (
        f"  curl {url}/api/validations -H 'Authorization: Bearer {key}' \\",
        f"    -H 'Content-Type: application/json' -d {shlex.quote(json.dumps(validation_request(BAD)))}",
        "",
        'Talk to the region:  . .venv/bin/activate; eval "$(python -m localgcp env)"; pulumi preview --stack au',
        "Stop it:             make down",
    ):
        out.print(line, markup=False)


def warn_of_full_disk() -> None:
    """What fails on a full disk seldom says so: Postgres, for one, just does not answer."""
    data_dir = data_directory(os.environ)
    free = shutil.disk_usage(data_dir if data_dir.exists() else ROOT).free // 2**20
    if free < LITTLE_DISK_MB:
        say(f"the disk of {data_dir} has {free} MB left, which may be why: a region begins with about 100 MB")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stack", default="au", help="the stack of this repository to deploy; default: au")
    wanted = parser.parse_args()
    started = time.monotonic()
    try:
        region = Region.start()
        pulumi = Pulumi(stack=wanted.stack, environ=region.environ)
        say(f"pulumi up --stack {wanted.stack}")
        pulumi.up()
        outputs = pulumi.outputs()
        key = demo_key(region.data_dir / f"demo-api-key-{wanted.stack}", outputs["data_region"])
        url = front_door(region, outputs)
        validation = first_validation(region, outputs, url, key)
    except UpFailed as error:
        console.print("[bold red]make up:[/bold red]", Text(str(error)))
        warn_of_full_disk()
        return 1
    except (httpx.HTTPError, subprocess.CalledProcessError) as error:
        console.print("[bold red]make up:[/bold red]", Text(f"{error}; `python -m localgcp logs` may say more"))
        return 1
    except KeyboardInterrupt:
        console.print("make up: interrupted; run it again to go on from here")
        return 130
    show(outputs, url, key, validation, time.monotonic() - started)
    return 0


if __name__ == "__main__":
    sys.exit(main())
