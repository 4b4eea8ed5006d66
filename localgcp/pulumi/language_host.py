"""`pulumi-language-python`: the engine's way to run Python programs, where the one that Pulumi ships is not installed.

The engine starts it with its own address, reads a port from standard output, and asks over gRPC. A program is run by
`program`, in a child process of the interpreter that Pulumi.yaml names:

* `runtime.options.virtualenv`: a folder, relative to Pulumi.yaml;
* `runtime.options.toolchain: uv`: `.venv` beside Pulumi.yaml, or what `UV_PROJECT_ENVIRONMENT` says;
* otherwise `PULUMI_PYTHON_CMD`, otherwise the interpreter of this host.

The folder of Pulumi.yaml is on the import path of programs, so that `main: infra` can import its neighbours.

Deliberately absent: installing dependencies, generating packages or projects, debuggers, plug-ins written as Python
source.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

import grpc
from google.protobuf import empty_pb2, json_format

from localgcp.pulumi.imported_program import NotUnderstood, python_program
from localgcp.pulumi.program import EXIT_AFTER_MESSAGE
from localgcp.pulumi.protocol import (
    GRPC_OPTIONS,
    language_pb2,
    language_pb2_grpc,
    plugin_pb2,
)
from localgcp.pulumi.provider_server import abort, run_until_the_engine_is_done
from localgcp.pulumi.versions import sdk_version

# The engine kills its plug-ins after five seconds; a program has to be gone before its host is.
_PATIENCE_SECONDS = 3.0


class InterpreterNotFound(Exception):
    """Pulumi.yaml names an environment that is not there."""


def find_interpreter(root: Path, options: Mapping[str, Any], environ: Mapping[str, str]) -> Path:
    """The Python that runs the program in `root`, the folder of Pulumi.yaml."""
    toolchain = options.get("toolchain") or "pip"
    virtualenv = options.get("virtualenv")
    if toolchain not in ("pip", "uv"):
        raise InterpreterNotFound(
            f"Pulumi.yaml asks for the toolchain {toolchain!r}, which this language host does not know: "
            "use pip or uv, or name the environment's folder as `virtualenv`"
        )
    if not virtualenv and toolchain == "uv":
        virtualenv = environ.get("UV_PROJECT_ENVIRONMENT") or ".venv"
    if virtualenv:
        python = root / str(virtualenv) / "bin" / "python"
        if not python.exists():
            raise InterpreterNotFound(
                f"Pulumi.yaml names the virtual environment {virtualenv!r}, but there is no {python}: create it"
            )
        return python
    command = environ.get("PULUMI_PYTHON_CMD")
    if command:
        found = shutil.which(command, path=environ.get("PATH"))
        if not found:
            raise InterpreterNotFound(f"PULUMI_PYTHON_CMD is {command!r}, but there is no such command on PATH")
        return Path(found)
    return Path(sys.executable)


def child_environment(python: Path, root: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of the program: its virtual environment activated, Pulumi.yaml's folder importable."""
    child = dict(environ)
    if (python.parent.parent / "pyvenv.cfg").exists():
        child["VIRTUAL_ENV"] = str(python.parent.parent)
        child["PATH"] = os.pathsep.join([str(python.parent), *filter(None, [environ.get("PATH")])])
        child.pop("PYTHONHOME", None)
    child["PYTHONPATH"] = os.pathsep.join([str(root), *filter(None, [environ.get("PYTHONPATH")])])
    child["PYTHONUNBUFFERED"] = "1"
    return child


def site_packages(python: Path) -> list[Path]:
    """Where `python` keeps its packages, found without starting it when it is ours or a virtual environment's."""
    if python.parent == Path(sys.executable).parent:
        return [Path(entry) for entry in sys.path if entry.endswith("-packages")]
    return sorted(python.parent.parent.glob("lib/python3*/site-packages"))


def required_packages(directories: list[Path]) -> Iterator[dict[str, str]]:
    """The plug-ins that the installed packages of resources declare in their `pulumi-plugin.json`."""
    for directory in directories:
        for declaration in sorted(directory.glob("*/pulumi-plugin.json")):
            plugin = json.loads(declaration.read_text(encoding="utf-8"))
            if not plugin.get("resource"):
                continue
            name = plugin.get("name") or declaration.parent.name.removeprefix("pulumi_").replace("_", "-")
            yield {
                "name": name,
                "kind": "resource",
                "version": f"v{str(plugin.get('version', '')).removeprefix('v')}" if plugin.get("version") else "",
                "server": plugin.get("server", ""),
            }


class LanguageServicer(language_pb2_grpc.LanguageRuntimeServicer):  # type: ignore[misc, name-defined]
    """One engine's questions about Python programs."""

    def __init__(self, engine_address: str) -> None:
        self._engine_address = engine_address
        self._programs: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()

    def Handshake(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._engine_address = request.engine_address or self._engine_address
        return language_pb2.LanguageHandshakeResponse()

    def GetPluginInfo(self, request: Any, context: grpc.ServicerContext) -> Any:
        return plugin_pb2.PluginInfo(version=sdk_version())

    def GetRequiredPackages(self, request: Any, context: grpc.ServicerContext) -> Any:
        python = self._interpreter(request.info, context)
        return language_pb2.GetRequiredPackagesResponse(
            packages=[plugin_pb2.PackageDependency(**package) for package in required_packages(site_packages(python))]
        )

    def GetRequiredPlugins(self, request: Any, context: grpc.ServicerContext) -> Any:
        python = self._interpreter(request.info, context)
        return language_pb2.GetRequiredPluginsResponse(
            plugins=[plugin_pb2.PluginDependency(**package) for package in required_packages(site_packages(python))]
        )

    def Run(self, request: Any, context: grpc.ServicerContext) -> Any:
        if request.attach_debugger:
            return language_pb2.RunResponse(
                error="--attach-debugger needs the language host that Pulumi ships: install the official release"
            )
        python = self._interpreter(request.info, context)
        root = Path(request.info.root_directory or request.pwd)
        environment = child_environment(python, root, os.environ)
        environment["PULUMI_CONFIG"] = json.dumps(dict(request.config))
        environment["PULUMI_CONFIG_SECRET_KEYS"] = json.dumps(list(request.configSecretKeys))
        command = [
            str(python),
            str(Path(__file__).with_name("program.py")),
            *("--project", request.project),
            *("--stack", request.stack),
            *("--organization", request.organization),
            *("--monitor", request.monitor_address),
            *("--engine", self._engine_address),
            *("--root_directory", str(root)),
            *("--pwd", request.pwd or str(root)),
            *("--dry_run", "true" if request.dryRun else "false"),
            *("--parallel", str(request.parallel)),
            "--",
            request.info.entry_point or request.program or ".",
            *request.args,
        ]
        # The engine shows whatever arrives on our own output as the program's: the child simply inherits it.
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL)
        with self._lock:
            self._programs.add(process)
        try:
            # The engine hangs up when it has enough, after Ctrl-C for instance.
            if not context.add_callback(lambda: _end(process)):
                _end(process)
            return _run_response(process.wait())
        finally:
            with self._lock:
                self._programs.discard(process)

    def Cancel(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.end_programs()
        return empty_pb2.Empty()

    def end_programs(self) -> None:
        """Ask every program to stop; who does not is killed. None runs on when this returns."""
        with self._lock:
            running = list(self._programs)
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(_PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def About(self, request: Any, context: grpc.ServicerContext) -> Any:
        python = self._interpreter(request.info, context)
        version = subprocess.run(
            [str(python), "-c", "import platform; print(platform.python_version())"],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        ).stdout.strip()
        return language_pb2.AboutResponse(
            executable=str(python), version=version, metadata={"language host": "localgcp", "sdk": sdk_version()}
        )

    def GetProgramDependencies(self, request: Any, context: grpc.ServicerContext) -> Any:
        import importlib.metadata

        python = self._interpreter(request.info, context)
        found = importlib.metadata.distributions(path=[str(directory) for directory in site_packages(python)])
        return language_pb2.GetProgramDependenciesResponse(
            dependencies=[
                language_pb2.DependencyInfo(name=distribution.name, version=distribution.version)
                for distribution in sorted(found, key=lambda distribution: distribution.name.lower())
            ]
        )

    def InstallDependencies(self, request: Any, context: grpc.ServicerContext) -> NoReturn:
        _refuse(context, "installs nothing: install the project's requirements with pip or uv")

    def RuntimeOptionsPrompts(self, request: Any, context: grpc.ServicerContext) -> NoReturn:
        _refuse(context, "has no options to ask for")

    def Template(self, request: Any, context: grpc.ServicerContext) -> NoReturn:
        _refuse(context, "prepares no templates")

    def RunPlugin(self, request: Any, context: grpc.ServicerContext) -> NoReturn:
        _refuse(context, "runs no plug-ins from source")

    def GenerateProgram(self, request: Any, context: grpc.ServicerContext) -> Any:
        try:
            program = python_program(dict(request.source))
        except NotUnderstood as error:
            abort(
                context,
                grpc.StatusCode.UNIMPLEMENTED,
                f"the language host of localgcp writes programs for imported resources only, and not {error}: "
                "with --generate-code=false no program is written",
            )
        return language_pb2.GenerateProgramResponse(source={"__main__.py": program.encode()})

    def GenerateProject(self, request: Any, context: grpc.ServicerContext) -> NoReturn:
        _refuse(context, "generates no code")

    def GeneratePackage(self, request: Any, context: grpc.ServicerContext) -> NoReturn:
        _refuse(context, "generates no code")

    def Pack(self, request: Any, context: grpc.ServicerContext) -> NoReturn:
        _refuse(context, "builds no packages")

    def Link(self, request: Any, context: grpc.ServicerContext) -> NoReturn:
        _refuse(context, "links no packages")

    def _interpreter(self, info: Any, context: grpc.ServicerContext) -> Path:
        options = json_format.MessageToDict(info.options)
        try:
            return find_interpreter(Path(info.root_directory or Path.cwd()), options, os.environ)
        except InterpreterNotFound as error:
            abort(context, grpc.StatusCode.FAILED_PRECONDITION, str(error))


def _refuse(context: grpc.ServicerContext, what: str) -> NoReturn:
    abort(context, grpc.StatusCode.UNIMPLEMENTED, f"the language host of localgcp {what}")


def _run_response(code: int) -> Any:
    if code == 0:
        return language_pb2.RunResponse()
    if code == EXIT_AFTER_MESSAGE:
        return language_pb2.RunResponse(bail=True)
    if code < 0:
        return language_pb2.RunResponse(error=f"Program was ended by {signal.Signals(-code).name}")
    return language_pb2.RunResponse(error=f"Program exited with non-zero exit code: {code}")


def _end(process: subprocess.Popen[bytes]) -> None:
    # gRPC's own thread calls this: it may not wait.
    process.terminate()
    killer = threading.Timer(_PATIENCE_SECONDS, process.kill)
    killer.daemon = True
    killer.start()


def main() -> NoReturn:
    """Serve until the engine is done. Its address is the last argument; logging flags may precede it."""
    servicer = LanguageServicer(engine_address=sys.argv[-1] if len(sys.argv) > 1 else "")
    server = grpc.server(ThreadPoolExecutor(max_workers=16, thread_name_prefix="rpc"), options=GRPC_OPTIONS)
    language_pb2_grpc.add_LanguageRuntimeServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    run_until_the_engine_is_done(server, port, before_exit=servicer.end_programs)


if __name__ == "__main__":
    main()
