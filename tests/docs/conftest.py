"""An empty region for blocks that need one, started and ended by the documented commands."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.docs.blocks import ROOT, Shell
from tests.localgcp.fixtures import temporary_data_dir

# What a developer's shell may have set must not decide what the documentation means.
FOREIGN = ("GOOGLE_", "PULUMI_", "VALIDIBOT_", "LOCALGCP_", "STORAGE_EMULATOR_HOST")


def clean_environ() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}


@pytest.fixture(scope="session")
def region_environ() -> Iterator[dict[str, str]]:
    """The variables of a region that runs and holds nothing."""

    def localgcp(*arguments: str) -> str:
        command = [sys.executable, "-m", "localgcp", *arguments]
        return subprocess.run(
            command, cwd=ROOT, env=environ, check=True, stdout=subprocess.PIPE, text=True, timeout=120
        ).stdout

    with temporary_data_dir() as directory:
        environ = clean_environ() | {"LOCALGCP_DATA_DIR": str(directory)}
        # Not the default port: another region may come and go on this machine meanwhile.
        with closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        try:
            localgcp("up", "--port", port)
            yield environ | json.loads(localgcp("env", "--format", "json"))
        finally:
            localgcp("reset", "--yes")


@pytest.fixture
def shell() -> Iterator[Shell]:
    shell = Shell(clean_environ())
    yield shell
    shell.close()


@pytest.fixture
def region_shell(region_environ: dict[str, str]) -> Iterator[Shell]:
    shell = Shell(region_environ)
    yield shell
    shell.close()
