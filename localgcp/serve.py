"""The serving process itself."""

import logging
import signal
import socket
import sqlite3
from pathlib import Path

from localgcp import process

log = logging.getLogger(__name__)

# Files that hold secrets and private keys. The data directory itself stays open: Postgres runs as another user in it.
_PRIVATE = ("region.sqlite3", "logs.sqlite3")


def serve_region(data_dir: Path, port: int | None) -> bool:
    """Serve until SIGTERM or SIGINT. False when the region did not start. Raises ProcessError."""
    process.prepare(data_dir)
    with process.lock(data_dir):
        listening = process.bind(data_dir, port)
        try:
            for name in _PRIVATE:
                (data_dir / name).touch(mode=0o600)
                (data_dir / name).chmod(0o600)
            process.record(data_dir, listening.getsockname()[1])
            return _run(data_dir, listening)
        finally:
            process.forget(data_dir)
            listening.close()


def _run(data_dir: Path, listening: socket.socket) -> bool:
    # After the cheap checks: these take most of a second.
    import uvicorn

    from localgcp.region import Region, Settings
    from localgcp.server import Server

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        region = Region(Settings(data_dir=data_dir.absolute(), port=listening.getsockname()[1]))
    except sqlite3.Error as error:
        raise process.ProcessError(
            f"the databases in {data_dir} cannot be opened ({error}): make room if the disk is full, put a copy back,"
            " or begin anew with `python -m localgcp reset`"
        ) from None
    config = uvicorn.Config(
        Server(region),
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        # Longer than Google's clients keep idle connections, so that the client is the one that closes.
        timeout_keep_alive=120,
        # A log follower never ends by itself; what is being answered gets this long.
        timeout_graceful_shutdown=10,
    )
    server = uvicorn.Server(config)

    def end(signal_number: int, _: object) -> None:
        # The server handles signals while it runs and repeats the last one when it has shut down. Only before it runs
        # does one end the process here.
        if not server.should_exit:
            raise SystemExit(128 + signal_number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    log.info("serving %s at %s", data_dir.absolute(), region.settings.api_url)
    server.run(sockets=[listening])
    return server.started
