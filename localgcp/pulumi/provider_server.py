"""Put a `ResourceProvider` on the wire: Pulumi's ResourceProvider service over gRPC."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import grpc
from google.protobuf import empty_pb2
from google.rpc import status_pb2  # type: ignore[import-untyped]

from localgcp.pulumi import wire
from localgcp.pulumi.protocol import GRPC_OPTIONS, plugin_pb2, provider_pb2, provider_pb2_grpc
from localgcp.pulumi.provider import Change, CheckFailure, Diff, NotSupported, PartialFailure, ProviderError
from localgcp.pulumi.provider import ResourceProvider as Provider

# The engine runs as many operations at once as `--parallel` says (four per CPU by default); one thread serves each.
_THREADS = 128

_KINDS: dict[tuple[Change, bool], Any] = {
    ("add", False): provider_pb2.PropertyDiff.ADD,
    ("add", True): provider_pb2.PropertyDiff.ADD_REPLACE,
    ("delete", False): provider_pb2.PropertyDiff.DELETE,
    ("delete", True): provider_pb2.PropertyDiff.DELETE_REPLACE,
    ("update", False): provider_pb2.PropertyDiff.UPDATE,
    ("update", True): provider_pb2.PropertyDiff.UPDATE_REPLACE,
}


class ProviderServicer(provider_pb2_grpc.ResourceProviderServicer):  # type: ignore[misc, name-defined]
    """Each method: unpack, call the provider, pack. What a method raises becomes a status with its message."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    # -- the plug-in itself

    def Handshake(self, request: Any, context: grpc.ServicerContext) -> Any:
        return provider_pb2.ProviderHandshakeResponse(accept_secrets=True)

    def GetPluginInfo(self, request: Any, context: grpc.ServicerContext) -> Any:
        return plugin_pb2.PluginInfo(version=self._provider.version)

    def Attach(self, request: Any, context: grpc.ServicerContext) -> Any:
        return empty_pb2.Empty()

    def Cancel(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._provider.cancel()
        return empty_pb2.Empty()

    def GetMapping(self, request: Any, context: grpc.ServicerContext) -> Any:
        return provider_pb2.GetMappingResponse()

    def GetMappings(self, request: Any, context: grpc.ServicerContext) -> Any:
        return provider_pb2.GetMappingsResponse()

    def GetSchema(self, request: Any, context: grpc.ServicerContext) -> Any:
        schema = _guarded(context, self._provider.schema)
        return provider_pb2.GetSchemaResponse(schema=schema)

    def Parameterize(self, request: Any, context: grpc.ServicerContext) -> NoReturn:
        self._unimplemented(context, "takes no parameters")

    def Call(self, request: Any, context: grpc.ServicerContext) -> NoReturn:
        self._unimplemented(context, f"has no method {request.tok}")

    def Construct(self, request: Any, context: grpc.ServicerContext) -> NoReturn:
        self._unimplemented(context, f"has no component {request.type}")

    def _unimplemented(self, context: grpc.ServicerContext, what: str) -> NoReturn:
        abort(context, grpc.StatusCode.UNIMPLEMENTED, f"the offline {self._provider.name} provider of localgcp {what}")

    # -- configuration

    def CheckConfig(self, request: Any, context: grpc.ServicerContext) -> Any:
        news, mask = wire.decode(request.news)
        failures = _guarded(context, lambda: self._provider.check_config(_variables(news)))
        return provider_pb2.CheckResponse(inputs=wire.encode(news, mask), failures=_failures(failures))

    def DiffConfig(self, request: Any, context: grpc.ServicerContext) -> Any:
        old, _ = wire.decode(request.old_inputs)
        new, _ = wire.decode(request.news)
        # Another endpoint or project is the same provider, asked differently: never a reason to replace its resources.
        changed = sorted(key for key in {*old, *new} if key != "version" and old.get(key) != new.get(key))
        return provider_pb2.DiffResponse(
            changes=provider_pb2.DiffResponse.DIFF_SOME if changed else provider_pb2.DiffResponse.DIFF_NONE,
            diffs=changed,
        )

    def Configure(self, request: Any, context: grpc.ServicerContext) -> Any:
        variables, _ = wire.decode(request.args)
        _guarded(context, lambda: self._provider.configure(_variables(variables)))
        return provider_pb2.ConfigureResponse(acceptSecrets=True, supportsPreview=True)

    # -- resources

    def Check(self, request: Any, context: grpc.ServicerContext) -> Any:
        olds, _ = wire.decode(request.olds)
        news, mask = wire.decode(request.news)
        inputs, failures = _guarded(
            context,
            # The engine sends an empty object where there is no old state (provider_plugin.go, Check).
            lambda: self._provider.check(
                _type(request), request.urn, olds=olds or None, news=news, random_seed=request.randomSeed
            ),
        )
        return provider_pb2.CheckResponse(
            inputs=wire.encode(inputs, wire.carry_over(mask, news, inputs)), failures=_failures(failures)
        )

    def Diff(self, request: Any, context: grpc.ServicerContext) -> Any:
        old_inputs, _ = wire.decode(request.old_inputs)
        old_outputs, _ = wire.decode(request.olds)
        news, _ = wire.decode(request.news)
        diff = _guarded(
            context,
            lambda: self._provider.diff(
                _type(request),
                request.urn,
                request.id,
                old_inputs=old_inputs,
                old_outputs=old_outputs,
                news=news,
            ),
        )
        return _diff_response(diff)

    def Create(self, request: Any, context: grpc.ServicerContext) -> Any:
        inputs, mask = wire.decode(request.properties)
        id, outputs = _guarded(
            context,
            lambda: self._provider.create(
                _type(request),
                request.urn,
                inputs=inputs,
                preview=request.preview,
                timeout_seconds=request.timeout or None,
            ),
            inputs=inputs,
            mask=mask,
        )
        return provider_pb2.CreateResponse(
            id=id, properties=wire.encode(outputs, wire.carry_over(mask, inputs, outputs))
        )

    def Read(self, request: Any, context: grpc.ServicerContext) -> Any:
        inputs, input_mask = wire.decode(request.inputs)
        outputs, output_mask = wire.decode(request.properties)
        # An import knows the id and nothing else.
        is_import = not inputs and not outputs
        result = _guarded(
            context,
            lambda: self._provider.read(
                _type(request),
                request.urn,
                request.id,
                inputs=None if is_import else inputs,
                outputs=None if is_import else outputs,
            ),
            inputs=inputs,
            mask=wire.merge(input_mask, output_mask),
        )
        if result is None:
            return provider_pb2.ReadResponse()
        secret = wire.merge(
            wire.carry_over(output_mask, outputs, result.outputs), wire.carry_over(input_mask, inputs, result.outputs)
        )
        return provider_pb2.ReadResponse(
            id=result.id,
            properties=wire.encode(result.outputs, secret),
            inputs=wire.encode(result.inputs, wire.carry_over(input_mask, inputs, result.inputs)),
        )

    def Update(self, request: Any, context: grpc.ServicerContext) -> Any:
        old_inputs, _ = wire.decode(request.old_inputs)
        old_outputs, _ = wire.decode(request.olds)
        news, mask = wire.decode(request.news)
        outputs = _guarded(
            context,
            lambda: self._provider.update(
                _type(request),
                request.urn,
                request.id,
                old_inputs=old_inputs,
                old_outputs=old_outputs,
                news=news,
                preview=request.preview,
                timeout_seconds=request.timeout or None,
            ),
            inputs=news,
            mask=mask,
        )
        return provider_pb2.UpdateResponse(properties=wire.encode(outputs, wire.carry_over(mask, news, outputs)))

    def Delete(self, request: Any, context: grpc.ServicerContext) -> Any:
        inputs, _ = wire.decode(request.old_inputs)
        outputs, mask = wire.decode(request.properties)
        _guarded(
            context,
            lambda: self._provider.delete(
                _type(request),
                request.urn,
                request.id,
                inputs=inputs,
                outputs=outputs,
                timeout_seconds=request.timeout or None,
            ),
            inputs=inputs,
            mask=mask,
        )
        return empty_pb2.Empty()

    def Invoke(self, request: Any, context: grpc.ServicerContext) -> Any:
        arguments, mask = wire.decode(request.args)
        outputs, failures = _guarded(
            context, lambda: self._provider.invoke(request.tok, arguments, preview=request.preview)
        )
        response = provider_pb2.InvokeResponse(failures=_failures(failures))
        # `return` is a keyword of Python.
        getattr(response, "return").CopyFrom(wire.encode(outputs, wire.carry_over(mask, arguments, outputs)))
        return response


def _type(request: Any) -> str:
    if request.type:
        return str(request.type)
    # urn:pulumi:<stack>::<project>::<parent type>$<type>::<name>
    return str(request.urn).split("::")[2].split("$")[-1]


def _variables(properties: dict[str, Any]) -> dict[str, Any]:
    """What the user configured: the version and the download address are the engine's business."""
    return {key: value for key, value in properties.items() if key not in ("version", "pluginDownloadURL")}


def _failures(failures: list[CheckFailure]) -> list[Any]:
    return [provider_pb2.CheckFailure(property=failure.property, reason=failure.reason) for failure in failures]


def _diff_response(diff: Diff) -> Any:
    def is_replaced(path: str) -> bool:
        return any(path == root or path.startswith((f"{root}.", f"{root}[")) for root in diff.replaces)

    changed = bool(diff.changes or diff.replaces)
    # The engine refuses to say why it replaces a resource that has no entry for the property.
    changes: dict[str, Change] = dict(diff.changes)
    for root in diff.replaces:
        if not any(is_replaced(path) for path in changes):
            changes[root] = "update"
    return provider_pb2.DiffResponse(
        changes=provider_pb2.DiffResponse.DIFF_SOME if changed else provider_pb2.DiffResponse.DIFF_NONE,
        diffs=sorted({_top_level(path) for path in changes}),
        replaces=sorted({_top_level(path) for path in diff.replaces}),
        deleteBeforeReplace=diff.delete_before_replace,
        detailedDiff={
            path: provider_pb2.PropertyDiff(kind=_KINDS[kind, is_replaced(path)], inputDiff=True)
            for path, kind in changes.items()
        },
        hasDetailedDiff=True,
    )


def _top_level(path: str) -> str:
    if path.startswith('["'):
        return path[2:].split('"]')[0]
    return path.split(".", 1)[0].split("[", 1)[0]


def _guarded(
    context: grpc.ServicerContext, call: Callable[[], Any], *, inputs: dict[str, Any] | None = None, mask: Any = None
) -> Any:
    try:
        return call()
    except PartialFailure as error:
        known = inputs or {}
        detail = provider_pb2.ErrorResourceInitFailed(
            id=error.id,
            properties=wire.encode(error.outputs, wire.carry_over(mask, known, error.outputs)),
            reasons=error.reasons,
            inputs=wire.encode(error.inputs, wire.carry_over(mask, known, error.inputs))
            if error.inputs is not None
            else wire.encode(known, mask),
        )
        abort(context, grpc.StatusCode.UNKNOWN, str(error), detail)
    except NotSupported as error:
        abort(context, grpc.StatusCode.UNIMPLEMENTED, str(error))
    except ProviderError as error:
        # After UNKNOWN or INTERNAL the engine calls the whole state possibly corrupt (resourceStateAndError).
        abort(context, grpc.StatusCode.FAILED_PRECONDITION, str(error))
    except Exception as error:
        # A mistake in the provider, not in the program: whoever reports it needs the place.
        where = "".join(traceback.format_exception(error))
        abort(context, grpc.StatusCode.UNKNOWN, f"the provider failed: {type(error).__name__}: {error}\n{where}")


def abort(context: grpc.ServicerContext, code: grpc.StatusCode, message: str, detail: Any = None) -> NoReturn:
    """End a call with a status, and with `detail` in the place where gRPC's other implementations look for one."""
    if detail is not None:
        status = status_pb2.Status(code=code.value[0], message=message)
        status.details.add().Pack(detail)
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(code, message)
    raise AssertionError("abort raises")


def start(provider: Provider) -> tuple[grpc.Server, int]:
    """Serve `provider` on a free port of the loopback interface."""
    server = grpc.server(ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="rpc"), options=GRPC_OPTIONS)
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(ProviderServicer(provider), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port


def serve(provider: Provider) -> NoReturn:
    """The main function of a plug-in: print the port, serve until the engine goes away or ends us."""
    server, port = start(provider)
    run_until_the_engine_is_done(server, port)


def run_until_the_engine_is_done(
    server: grpc.Server, port: int, *, before_exit: Callable[[], None] = lambda: None
) -> NoReturn:
    """Tell the engine the port of a started server, and serve until it wants no more."""
    stopped = threading.Event()
    # The engine ends its plug-ins with SIGINT. The user's Ctrl-C does not arrive: each plug-in is a process group.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    exit_with_the_engine(stopped)
    stopped.wait()
    before_exit()
    server.stop(grace=None)
    sys.stdout.flush()
    sys.stderr.flush()
    # Not `sys.exit`: every `pulumi` command waits for its plug-ins to end, and there is nothing left to tidy up.
    os._exit(0)


def exit_with_the_engine(stopped: threading.Event) -> None:
    """Set `stopped` when the engine dies: killed, it takes nobody along, but lets go of our standard input."""

    def watch() -> None:
        # Not `sys.stdin`, whose lock this thread would hold while the interpreter ends.
        with contextlib.suppress(OSError):
            while os.read(0, 4096):
                pass
        stopped.set()

    if not os.isatty(0):
        threading.Thread(target=watch, name="engine", daemon=True).start()
