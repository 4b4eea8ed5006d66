"""A provider behind the real service, asked by a real gRPC client."""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.rpc import status_pb2  # type: ignore[import-untyped]

from localgcp.pulumi import wire
from localgcp.pulumi.protocol import provider_pb2, provider_pb2_grpc
from localgcp.pulumi.provider import UNKNOWN, Change, Diff, Secret
from localgcp.pulumi.provider_server import start
from tests.localgcp.pulumi.memory import THING, MemoryProvider

URN = f"urn:pulumi:au::probe::{THING}::thing"


@pytest.fixture
def provider() -> MemoryProvider:
    return MemoryProvider()


@pytest.fixture
def client(provider: MemoryProvider) -> Iterator[Any]:
    server, port = start(provider)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield provider_pb2_grpc.ResourceProviderStub(channel)
    server.stop(grace=None).wait()


def create(client: Any, **inputs: Any) -> Any:
    return client.Create(provider_pb2.CreateRequest(urn=URN, type=THING, properties=wire.encode(inputs)))


def test_the_engine_learns_that_secrets_are_understood(client: Any) -> None:
    handshake = client.Handshake(provider_pb2.ProviderHandshakeRequest(engine_address="127.0.0.1:1"))

    assert handshake == provider_pb2.ProviderHandshakeResponse(accept_secrets=True)


def test_configuration_arrives_without_what_is_the_engines_business(client: Any, provider: MemoryProvider) -> None:
    variables = {"project": "p", "version": "1.2.3", "pluginDownloadURL": "https://example.com"}

    client.Configure(provider_pb2.ConfigureRequest(args=wire.encode(variables)))

    assert provider.variables == {"project": "p"}


def test_a_refused_configuration_names_the_property(client: Any) -> None:
    response = client.CheckConfig(provider_pb2.CheckRequest(news=wire.encode({"colour": "green"})))

    assert [(failure.property, failure.reason) for failure in response.failures] == [("colour", "choose red")]


def test_check_completes_inputs_and_keeps_their_secrets(client: Any) -> None:
    request = provider_pb2.CheckRequest(
        urn=URN, type=THING, news=wire.encode({"name": "a", "password": Secret("hunter2")})
    )

    response = client.Check(request)

    assert wire.decode(response.inputs) == ({"name": "a", "password": "hunter2", "size": 1}, {"password": True})


def test_the_type_is_read_from_the_urn_of_an_engine_that_sends_none(client: Any) -> None:
    urn = f"urn:pulumi:au::probe::validibot:infra:Things${THING}::thing"

    response = client.Check(provider_pb2.CheckRequest(urn=urn, news=wire.encode({"size": -1})))

    assert [(failure.property, failure.reason) for failure in response.failures] == [
        ("size", "size is -1: choose 0 or more")
    ]


def test_a_created_resource_answers_with_its_id_and_marked_outputs(client: Any) -> None:
    response = create(client, name="a", password=Secret("hunter2"))

    assert response.id == "a"
    assert wire.decode(response.properties) == (
        {"name": "a", "password": "hunter2", "greeting": "I am a", "token": "token-of-a"},
        {"password": True, "token": True},
    )


def test_a_preview_hands_unknowns_to_the_provider_and_back(client: Any, provider: MemoryProvider) -> None:
    request = provider_pb2.CreateRequest(
        urn=URN, type=THING, preview=True, properties=wire.encode({"name": UNKNOWN, "size": 2})
    )

    response = client.Create(request)

    assert provider.previewed == [{"name": UNKNOWN, "size": 2}]
    assert wire.decode(response.properties) == (
        {"name": UNKNOWN, "size": 2, "greeting": UNKNOWN, "token": UNKNOWN},
        {"token": True},
    )


def test_a_providers_refusal_arrives_word_for_word_and_leaves_the_state_trusted(client: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        create(client, name="refused-a")

    # The engine doubts its state after UNKNOWN and INTERNAL.
    assert (caught.value.code(), caught.value.details()) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "refused-a: the quota of this project is used up",
    )


def test_a_partial_failure_carries_the_resource_it_left_behind(client: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        create(client, name="limping-a", password=Secret("hunter2"))

    metadata: dict[str, Any] = {item.key: item.value for item in caught.value.trailing_metadata()}
    status = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
    detail = provider_pb2.ErrorResourceInitFailed()
    assert status.details[0].Unpack(detail)
    assert (detail.id, list(detail.reasons)) == ("limping-a", ["limping-a exists, but does not start"])
    assert wire.decode(detail.properties) == (
        {"name": "limping-a", "password": "hunter2", "greeting": "I am limping-a", "token": "token-of-limping-a"},
        {"password": True, "token": True},
    )
    assert wire.decode(detail.inputs) == ({"name": "limping-a", "password": "hunter2"}, {"password": True})


def test_a_mistake_in_a_provider_arrives_with_its_place(client: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        create(client, size=1)

    assert caught.value.code() == grpc.StatusCode.UNKNOWN
    details = caught.value.details() or ""
    assert details.startswith("the provider failed: KeyError: 'name'")
    assert "memory.py" in details


def test_reading_what_is_gone_answers_with_an_empty_id(client: Any) -> None:
    response = client.Read(provider_pb2.ReadRequest(id="a", urn=URN, type=THING, inputs=wire.encode({"name": "a"})))

    assert response == provider_pb2.ReadResponse()


def test_what_was_secret_in_the_state_is_secret_when_it_is_read_again(client: Any) -> None:
    inputs = {"name": "a", "password": Secret("hunter2")}
    create(client, **inputs)

    response = client.Read(
        provider_pb2.ReadRequest(
            id="a", urn=URN, type=THING, inputs=wire.encode(inputs), properties=wire.encode(inputs)
        )
    )

    assert wire.decode(response.inputs) == ({"name": "a", "password": "hunter2"}, {"password": True})
    assert wire.decode(response.properties)[1] == {"password": True, "token": True}


def test_a_function_is_called_by_its_token(client: Any) -> None:
    response = client.Invoke(provider_pb2.InvokeRequest(tok="memory:index:echo", args=wire.encode({"text": "quiet"})))

    assert wire.decode(getattr(response, "return")) == ({"echo": "quiet"}, None)


def test_cancel_reaches_the_provider(client: Any, provider: MemoryProvider) -> None:
    from google.protobuf import empty_pb2

    client.Cancel(empty_pb2.Empty())

    assert provider.cancelled


def test_what_the_provider_has_not_is_called_unimplemented(client: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        client.GetSchema(provider_pb2.GetSchemaRequest())

    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert (caught.value.details() or "").startswith("the offline memory provider of localgcp has no schema")


class Comparing(MemoryProvider):
    """Answers every diff with the one it was given."""

    def __init__(self, diff: Diff) -> None:
        super().__init__()
        self.answer = diff

    def diff(self, *args: Any, **kwargs: Any) -> Diff:
        return self.answer


def diff_response(diff: Diff) -> Any:
    server, port = start(Comparing(diff))
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = provider_pb2_grpc.ResourceProviderStub(channel)
        response = stub.Diff(provider_pb2.DiffRequest(id="a", urn=URN, type=THING))
    server.stop(grace=None).wait()
    return response


def test_no_difference_is_said_outright() -> None:
    response = diff_response(Diff())

    # DIFF_UNKNOWN would make the engine compare inputs by itself.
    assert response == provider_pb2.DiffResponse(changes=provider_pb2.DiffResponse.DIFF_NONE, hasDetailedDiff=True)


def test_a_change_below_a_replacing_property_replaces() -> None:
    changes: dict[str, Change] = {
        "settings.ip.network": "update",
        'labels["a.b"]': "add",
        "rules[0].port": "delete",
        "settingsVersion": "update",
    }

    response = diff_response(Diff(changes=changes, replaces=["settings.ip", "rules"], delete_before_replace=True))

    kinds = {path: provider_pb2.PropertyDiff.Kind.Name(diff.kind) for path, diff in response.detailedDiff.items()}
    assert kinds == {
        "settings.ip.network": "UPDATE_REPLACE",
        'labels["a.b"]': "ADD",
        "rules[0].port": "DELETE_REPLACE",
        "settingsVersion": "UPDATE",
    }
    assert (list(response.replaces), list(response.diffs), response.deleteBeforeReplace, response.changes) == (
        ["rules", "settings"],
        ["labels", "rules", "settings", "settingsVersion"],
        True,
        provider_pb2.DiffResponse.DIFF_SOME,
    )


def test_a_replacement_without_a_named_change_still_replaces() -> None:
    response = diff_response(Diff(replaces=["name"]))

    assert {path: diff.kind for path, diff in response.detailedDiff.items()} == {
        "name": provider_pb2.PropertyDiff.UPDATE_REPLACE
    }
