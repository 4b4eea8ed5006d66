"""Run a Pulumi program against mocks, to its end, and answer with what it registered."""

import asyncio
import base64
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import pulumi
from pulumi.runtime import MockCallArgs, MockResourceArgs, Mocks
from pulumi.runtime.mocks import MockMonitor


class Recorded(NamedTuple):
    type: str
    name: str
    inputs: dict[str, Any]
    protect: bool = False
    waits_for: frozenset[str] = frozenset()
    """Names of the resources that the engine finishes first."""


# What the provider works out and later resources refer to. Everything else is answered as it was asked for.
DIGEST = "sha256:" + "0" * 64


def computed(args: MockResourceArgs) -> dict[str, Any]:
    inputs = args.inputs
    match args.typ:
        case "gcp:serviceaccount/account:Account":
            email = f"{inputs['accountId']}@{inputs['project']}.iam.gserviceaccount.com"
            return {
                "email": email,
                "member": f"serviceAccount:{email}",
                "name": f"projects/{inputs['project']}/serviceAccounts/{email}",
            }
        case "gcp:sql/databaseInstance:DatabaseInstance":
            return {"connectionName": f"{inputs['project']}:{inputs['region']}:{inputs['name']}"}
        case "gcp:secretmanager/secretVersion:SecretVersion":
            return {"version": "1"}
        case "gcp:cloudrunv2/service:Service":
            return {"uri": f"https://{inputs['name']}-123456789012.{inputs['location']}.run.app"}
        case "gcp:storage/bucket:Bucket":
            return {"projectNumber": 123456789012}
        case "random:index/randomBytes:RandomBytes":
            return {"base64": base64.b64encode(f"value-of-{args.name}".encode()).decode()}
        case "gcp:compute/globalAddress:GlobalAddress":
            return {"address": "203.0.113.20"}
        case "gcp:certificatemanager/dnsAuthorization:DnsAuthorization":
            return {"dnsResourceRecords": [{"name": "_acme", "type": "CNAME", "data": "authorize.example."}]}
        case "random:index/randomPassword:RandomPassword":
            return {"result": f"value-of-{args.name}"}
        case "pulumi-python:dynamic/validibot:ImageBuild":
            return {"digest": DIGEST, "image": f"{inputs['image_name']}@{DIGEST}"}
        case "pulumi-python:dynamic/validibot:JobRun":
            return {"execution": f"{inputs['job']}-1"}
        case _:
            return {}


class RecordingMocks(Mocks):
    def __init__(self) -> None:
        self.recorded: list[Recorded] = []

    def new_resource(self, args: MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        self.recorded.append(Recorded(args.typ, args.name, dict(args.inputs)))
        return resource_id(args), {**args.inputs, **computed(args)}

    def call(self, args: MockCallArgs) -> NoReturn:
        raise NotImplementedError(f"{args.token}: the stack reads no data sources, so a plan needs no cloud")


class RecordingMonitor(MockMonitor):
    """Also keeps what a mock is not told: the options of each registration."""

    def __init__(self, mocks: RecordingMocks) -> None:
        super().__init__(mocks)
        self.options: dict[tuple[str, str], tuple[bool, frozenset[str]]] = {}

    def RegisterResource(self, request: Any) -> Any:
        names = frozenset(urn.rpartition("::")[2] for urn in request.dependencies)
        self.options[request.type, request.name] = (request.protect, names)
        return super().RegisterResource(request)  # type: ignore[no-untyped-call]


def resource_id(args: MockResourceArgs) -> str:
    """Of a network, `projects/p/global/networks/n`: what references to it hold. Of others, a name that says whose."""
    project, name = args.inputs.get("project"), args.inputs.get("name")
    kind = args.typ.rpartition(":")[2]
    collection = kind[0].lower() + kind[1:] + "s"
    return f"projects/{project}/{collection}/{name}" if project and name else f"{args.name}-id"


def record(program: Callable[[], None], stack: str = "test") -> list[Recorded]:
    """Run `program` until every registration has arrived, and only then return them."""
    # The SDK takes the thread's event loop, of which a test that ran another one before may have left none.
    asyncio.set_event_loop(asyncio.new_event_loop())
    mocks = RecordingMocks()
    monitor = RecordingMonitor(mocks)
    pulumi.runtime.set_mocks(mocks, project="validibot", stack=stack, preview=False, monitor=monitor)
    pulumi.runtime.test(program)()
    assert mocks.recorded, "the program registered nothing"
    # The mock monitor accepts two resources of one name; the engine does not.
    twice = [key for key, n in Counter((r.type, r.name) for r in mocks.recorded).items() if n > 1]
    assert not twice, f"registered twice: {twice}"
    return [r._replace(protect=p, waits_for=w) for r in mocks.recorded for p, w in [monitor.options[r.type, r.name]]]
