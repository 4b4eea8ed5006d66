"""`python -m localgcp`: start, stop, look into and point programs at a region.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 nothing is running where something has to be.
"""

import json
import os
import shlex
import shutil
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

# Imported here is only what every command needs: `env` runs in shells' start-up files.
app = typer.Typer(
    name="localgcp",
    help="A Google Cloud region on this machine: Google's REST APIs on loopback, with real parts behind them.",
    epilog="To begin with: [bold]up[/bold], then [bold]env[/bold]. Exit codes: 0 done, 1 failed, 2 wrong usage, "
    "3 nothing is running where something has to be.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

NOT_RUNNING = 3

DataDir = Annotated[
    Path,
    typer.Option(
        "--data-dir", envvar="LOCALGCP_DATA_DIR", help="Where the region keeps everything.", show_default="./.localgcp"
    ),
]
Port = Annotated[
    int | None,
    typer.Option(
        "--port", min=1, max=65535, help="Port on 127.0.0.1. Default: the one used last, else 9180 or the next free."
    ),
]
DEFAULT_DATA_DIR = Path(".localgcp")


class Format(StrEnum):
    shell = "shell"
    json = "json"


class Severity(StrEnum):
    default = "DEFAULT"
    debug = "DEBUG"
    info = "INFO"
    notice = "NOTICE"
    warning = "WARNING"
    error = "ERROR"
    critical = "CRITICAL"
    alert = "ALERT"
    emergency = "EMERGENCY"


@app.command()
def up(data_dir: DataDir = DEFAULT_DATA_DIR, port: Port = None) -> None:
    """Start the region in the background, and wait until it answers.

    Harmless when it runs already. What was in the region when it stopped, or was killed, is there again.

    \b
    Examples:
      python -m localgcp up
      python -m localgcp up --data-dir /var/tmp/region --port 9200
    """
    from localgcp import process

    with _errors():
        process.prepare(data_dir)
        running = process.find(data_dir)
        with _progress("starting localgcp") as progress:
            if running is None:
                running = process.start(data_dir, port, progress)
                word = "is ready"
            else:
                process.wait_until_ready(running, progress)
                word = "is already running"
        if port is not None and port != running.port:
            _fail(f"localgcp runs at {running.url}, not on port {port}: stop it first with `python -m localgcp down`")
    _say(f"localgcp {word} at {running.url}  (process {running.pid}, data in {data_dir.absolute()})", bold=running.url)
    if process.is_outdated(running):
        _say("Its code has been changed since it started. To run the new code, and keep the data: `down`, then `up`.")
    option = "" if data_dir == DEFAULT_DATA_DIR else f" --data-dir {shlex.quote(str(data_dir))}"
    command = f'eval "$(python -m localgcp env{option})"'
    _say(f"Point programs at it:  {command}", bold=command)


@app.command()
def down(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Stop the region in order: services drain, databases are shut down. Harmless when nothing runs.

    \b
    Example:
      python -m localgcp down
    """
    from localgcp import process

    with _errors():
        running = process.find(data_dir)
        if running is None:
            _stop_leftovers(data_dir)
            _say("localgcp is not running.")
            return
        with _progress("stopping localgcp") as progress:
            process.stop(running, progress)
    _say("localgcp has stopped. Its data is kept: `up` continues where it was.")


@app.command()
def status(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Show what is in the region, and where this machine reaches it.

    \b
    Examples:
      python -m localgcp status
      python -m localgcp status --json | jq -r '.frontDoors[].url'
    """
    from localgcp import operator
    from localgcp.status import PATH

    with _errors():
        running = _running(data_dir)
        found = operator.get(data_dir, running, PATH) | {"pid": running.pid}
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    _print_status(found)


@app.command()
def env(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    form: Annotated[Format, typer.Option("--format", help="Lines for a shell, or JSON for programs.")] = Format.shell,
) -> None:
    """Print the variables that point Google's clients and Pulumi at the region, as its operator.

    They hold an access token of the operator's account, which owns every project: do not put them into a log.

    \b
    Examples:
      eval "$(python -m localgcp env)"
      python -m localgcp env --format json | jq -r .GOOGLE_OAUTH_ACCESS_TOKEN
    """
    with _errors():
        variables = environment(data_dir)
    if form is Format.json:
        typer.echo(json.dumps(variables, indent=2))
        return
    for name, value in variables.items():
        typer.echo(f"export {name}={shlex.quote(value)}")


@app.command()
def logs(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on printing entries as they arrive.")] = False,
    service: Annotated[str | None, typer.Option(help="Only of this Cloud Run service or job.")] = None,
    severity: Annotated[
        Severity | None, typer.Option(case_sensitive=False, help="Only entries at least this severe.")
    ] = None,
    project: Annotated[list[str] | None, typer.Option(help="Only of this project; may be repeated.")] = None,
    expression: Annotated[str, typer.Option("--filter", help="In the query language of Cloud Logging.")] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many past entries to print.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print whole entries, one JSON object a line.")] = False,
    of_localgcp: Annotated[
        bool, typer.Option("--own", help="Print the log of localgcp itself, which is a file, not the workloads'.")
    ] = False,
) -> None:
    """Print what workloads have logged.

    \b
    Examples:
      python -m localgcp logs --follow
      python -m localgcp logs --service validibot-web --severity warning
      python -m localgcp logs --filter 'httpRequest.status>=400' --limit 20
      python -m localgcp logs --own
    """
    from urllib.parse import urlencode

    from localgcp import operator, process

    if of_localgcp:
        path = process.log_path(data_dir)
        if not path.exists():
            _fail(f"{path} does not exist: localgcp has not been started in the background there")
        typer.echo("\n".join(path.read_text(errors="replace").splitlines()[-limit:]))
        return
    terms = [expression] if expression else []
    if service:
        name = json.dumps(service)
        terms.append(f"(resource.labels.service_name={name} OR resource.labels.job_name={name})")
    if severity:
        terms.append(f"severity>={severity.value}")
    query = [("limit", str(limit)), *(("project", name) for name in project or [])]
    query += [("filter", " AND ".join(terms))] if terms else []
    query += [("follow", "1")] if follow else []
    with _errors():
        running = _running(data_dir)
        try:
            with operator.open_(data_dir, running, f"/_localgcp/logs?{urlencode(query)}") as stream:
                for line in stream:
                    if line.strip():
                        typer.echo(line.decode().rstrip("\n") if as_json else _log_line(json.loads(line)))
                        sys.stdout.flush()
        except (KeyboardInterrupt, BrokenPipeError):
            os._exit(0)  # the usual end of --follow; a closed pipe cannot be flushed


@app.command()
def reset(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Stop the region and delete everything in it: databases, objects, secrets, and Pulumi's state of it.

    The port stays the same.

    \b
    Example:
      python -m localgcp reset --yes
    """
    from localgcp import process

    with _errors():
        if not data_dir.exists():
            _say(f"{data_dir} does not exist: there is nothing to delete.")
            return
        if not any((data_dir / name).exists() for name in ("region.sqlite3", "port", "process.json")):
            if not any(data_dir.iterdir()):
                _say(f"{data_dir} is empty: there is nothing to delete.")
                return
            _fail(f"{data_dir} does not look like a region's data directory: nothing was deleted")
        if not yes:
            typer.confirm(f"Delete everything in {data_dir.absolute()}?", abort=True)
        running = process.find(data_dir)
        if running is not None:
            with _progress("stopping localgcp") as progress:
                process.stop(running, progress)
        _stop_leftovers(data_dir)
        _delete(data_dir)
    _say(f"{data_dir} is empty: `up` starts a region with nothing in it.")


@app.command()
def serve(data_dir: DataDir = DEFAULT_DATA_DIR, port: Port = None) -> None:
    """Serve the region in the foreground, until SIGTERM or Ctrl-C.

    \b
    Example:
      python -m localgcp serve --port 9200
    """
    from localgcp.serve import serve_region

    with _errors():
        if not serve_region(data_dir, port):
            raise typer.Exit(1)


def environment(data_dir: Path) -> dict[str, str]:
    """The variables of `env`. Raises ProcessError."""
    from localgcp import endpoints, operator

    running = _running(data_dir)
    variables = {
        "LOCALGCP_DATA_DIR": str(data_dir.absolute()),
        "GOOGLE_OAUTH_ACCESS_TOKEN": operator.access_token(data_dir, running),
        "GOOGLE_APPLICATION_CREDENTIALS": str(operator.credentials_path(data_dir)),
        **endpoints.environment(running.url),
        # Without it every start of the real provider asks the real Compute Engine for its regions.
        "PULUMI_GCP_SKIP_REGION_VALIDATION": "true",
        **endpoints.without_proxy(os.environ),
    }
    from localgcp.pulumi import install

    return variables | install.environment(data_dir)


def _running(data_dir: Path) -> Any:
    from localgcp import process

    running = process.find(data_dir)
    if running is None:
        option = "" if data_dir == DEFAULT_DATA_DIR else f" --data-dir {shlex.quote(str(data_dir))}"
        _fail(
            f"localgcp is not running in {data_dir}: start it with `python -m localgcp up{option}`",
            NOT_RUNNING,
        )
    return running


def _stop_leftovers(data_dir: Path) -> None:
    """Databases whose localgcp was killed go on running; the next start would adopt them."""
    if (data_dir / "region.sqlite3").exists():
        from localgcp.sql import stop_all

        stop_all(data_dir)


def _delete(data_dir: Path) -> None:
    from localgcp.sql import remove_all

    remove_all(data_dir)
    for entry in data_dir.iterdir():
        if entry.name == "port":
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _print_status(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    # Wider than any row: an address that is cut in two can be neither copied nor read by a program.
    console = Console(width=1000)
    console.print(f"[bold]localgcp[/bold] at [bold]{found['api']}[/bold]  process {found['pid']}")
    console.print(f"data    {found['dataDir']}\nclock   {found['time']}", highlight=False, markup=False)
    sections: list[tuple[str, list[str], list[list[str]]]] = [
        ("Projects", ["id", "number"], [[one["id"], one["number"]] for one in found["projects"]]),
        (
            "Front doors",
            ["project", "rule", "address", "here"],
            [[one["project"], one["name"], one["address"], one["url"]] for one in found["frontDoors"]],
        ),
        (
            "Cloud Run services",
            ["project", "location", "service", "ready", "address"],
            [
                [one["project"], one["location"], one["name"], _yes(one), one["uri"] or one["message"]]
                for one in found["services"]
            ],
        ),
        (
            "Cloud Run jobs",
            ["project", "location", "job"],
            [[one["project"], one["location"], one["name"]] for one in found["jobs"]],
        ),
        (
            "Cloud SQL instances",
            ["connection name", "version", "state", "address"],
            [
                [one["connectionName"], one["databaseVersion"], one["state"], ", ".join(one["addresses"])]
                for one in found["instances"]
            ],
        ),
        (
            "Buckets",
            ["project", "bucket", "location"],
            [[one["project"], one["name"], one["location"]] for one in found["buckets"]],
        ),
    ]
    for title, columns, rows in sections:
        if not rows:
            continue
        table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
        for column in columns:
            table.add_column(column, style=None, header_style="dim", overflow="fold")
        for row in rows:
            table.add_row(*row)
        console.print()
        console.print(table)
    if found["services"]:
        console.print(f"\nA service answers at {found['api']} to whoever names its host:", highlight=False)
        console.print(f"  {found['services'][0]['reach']}", highlight=False)
    if found["instances"]:
        console.print("\nAn instance answers at its address, and in the directory of its socket:", highlight=False)
        for one in found["instances"]:
            # Not in the table, which would break it into pieces.
            console.print(f"  psql -U postgres -h {one['socketDirectory']}", highlight=False, soft_wrap=True)


def _yes(service: dict[str, Any]) -> str:
    return "[green]yes[/green]" if service["ready"] else "[yellow]no[/yellow]"


def _log_line(entry: dict[str, Any]) -> str:
    labels = (entry.get("resource") or {}).get("labels") or {}
    source = labels.get("service_name") or labels.get("job_name") or labels.get("database_id") or "-"
    payload = entry.get("textPayload")
    if payload is None:
        structured = entry.get("jsonPayload") or entry.get("protoPayload") or entry.get("httpRequest") or {}
        rest = {name: value for name, value in structured.items() if name != "message"}
        message = str(structured.get("message", ""))
        payload = " ".join(filter(None, [message, json.dumps(rest, ensure_ascii=False) if rest else ""]))
    return f"{entry.get('timestamp', '')[:23]} {entry.get('severity', 'DEFAULT'):8} {source}: {payload}"


class _errors:
    """Turns what the operator can act on into a message and an exit code."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        from localgcp.process import ProcessError

        # OSError: a data directory of another account's, a full disk. Its text has the path and the reason.
        if isinstance(error, ProcessError | OSError):
            _fail(str(error))


class _progress:
    """A spinner on a terminal, a line in a log."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._status: Any = None

    def __enter__(self) -> Any:
        if sys.stderr.isatty():
            from rich.console import Console

            self._status = Console(stderr=True).status(self._title)
            self._status.start()
        return self._update

    def _update(self, what: str) -> None:
        if self._status is not None:
            self._status.update(f"{self._title}: {what}")

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()


def _say(text: str, *, bold: str = "") -> None:
    from rich.console import Console
    from rich.text import Text

    # Not rich's markup: a path may have brackets in it.
    said = Text(text)
    if bold:
        said.highlight_words([bold], style="bold")
    Console(soft_wrap=True, highlight=False).print(said)


def _fail(message: str, code: int = 1) -> NoReturn:
    typer.echo(f"localgcp: {message}", err=True)
    raise typer.Exit(code)
