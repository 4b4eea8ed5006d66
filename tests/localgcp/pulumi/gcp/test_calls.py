"""What the provider makes of what an API answers: errors, lost answers, races, protection, drift."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext, suppress
from typing import Any

import pytest

from localgcp.pulumi.gcp.endpoints import Endpoints
from localgcp.pulumi.gcp.provider import GcpProvider
from localgcp.pulumi.gcp.rest import Rest
from localgcp.pulumi.provider import Change, Diff, NotSupported, PartialFailure, ProviderError, ReadResult, Secret
from tests.localgcp.pulumi.gcp.replay import Replay, Sent, environment, replaying

QUEUE = "gcp:cloudtasks/queue:Queue"
SERVICE = "gcp:cloudrunv2/service:Service"
BUCKET = "gcp:storage/bucket:Bucket"
MEMBER = "gcp:projects/iAMMember:IAMMember"
USER = "gcp:sql/user:User"
CONNECTION = "gcp:servicenetworking/connection:Connection"

_QUEUES = "/cloudtasks/v2/projects/validibot-au/locations/australia-southeast1/queues"
_SECRETS = "/secretmanager/v1/projects/validibot-au/secrets"
_RING = "projects/validibot-au/locations/australia-southeast1/keyRings/ring"

Answer = tuple[int, Any]


class Scripted(Replay):
    """A server whose answers a test makes up."""

    def __init__(self) -> None:
        super().__init__()
        self.respond: Callable[[Sent], Answer] = lambda sent: (200, {})

    def answer(self, sent: Sent) -> Answer:
        self.sent.append(sent)
        return self.respond(sent)


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripted]:
    monkeypatch.setenv("GOOGLE_OAUTH_ACCESS_TOKEN", "not-a-real-token")
    with replaying(Scripted()) as server:
        assert isinstance(server, Scripted)
        yield server


@pytest.fixture
def provider(google: Scripted) -> Iterator[GcpProvider]:
    variables = environment(google.address)
    rest = Rest(endpoints=Endpoints(variables), attempts_seconds=1.0, poll_seconds=0.01)
    yield GcpProvider(rest=rest, environment=variables)
    rest.close()


def urn(type: str) -> str:
    return f"urn:pulumi:au::validibot::{type}::thing"


def create(provider: GcpProvider, type: str, **news: Any) -> tuple[str, dict[str, Any], dict[str, Any]]:
    inputs, failures = provider.check(type, urn(type), olds=None, news=news, random_seed=b"s")
    assert not failures
    id, outputs = provider.create(type, urn(type), inputs=inputs, preview=False, timeout_seconds=10)
    return id, inputs, outputs


def test_a_refusal_is_shown_in_googles_words_with_the_resource(google: Scripted, provider: GcpProvider) -> None:
    message = 'The principal lacks IAM permission "cloudtasks.queues.create" for the resource'
    google.respond = lambda sent: (
        403,
        {"error": {"code": 403, "message": message, "errors": [{"reason": "forbidden"}]}},
    )
    with pytest.raises(ProviderError) as caught:
        create(provider, QUEUE, name="q", location="australia-southeast1")
    assert str(caught.value) == f"thing: Error creating Queue: googleapi: Error 403: {message}, forbidden"
    assert not isinstance(caught.value, PartialFailure)
    assert len(google.sent) == 1


def test_an_api_that_is_busy_is_asked_again_with_the_same_request_id(google: Scripted, provider: GcpProvider) -> None:
    answers = iter([(503, {}), (429, {}), (200, {}), (200, {"name": "q", "state": "RUNNING"})])
    google.respond = lambda sent: next(answers)
    create(provider, QUEUE, name="q", location="australia-southeast1")
    posts = [sent.headers["x-goog-request-id"] for sent in google.sent if sent.method == "POST"]
    assert len(posts) == 3
    assert len(set(posts)) == 1


def test_an_instance_that_is_busy_with_another_operation_is_asked_again(
    google: Scripted, provider: GcpProvider
) -> None:
    busy = {"error": {"code": 409, "message": "in progress", "errors": [{"reason": "operationInProgress"}]}}
    done = {"kind": "sql#operation", "name": "o", "status": "DONE"}
    answers = iter([(409, busy), (200, done)])
    google.respond = lambda sent: next(answers) if sent.method == "POST" else (200, {"items": [{"name": "web"}]})
    create(provider, "gcp:sql/user:User", name="web", instance="pg", password="a-password-for-a-test")
    assert [sent.method for sent in google.sent][:2] == ["POST", "POST"]


def test_the_same_creation_has_the_same_request_id_in_another_process(google: Scripted, provider: GcpProvider) -> None:
    google.respond = lambda sent: (200, {"name": "q", "state": "RUNNING"})
    create(provider, QUEUE, name="q", location="australia-southeast1")
    create(GcpProvider(environment=environment(google.address)), QUEUE, name="q", location="australia-southeast1")
    create(provider, QUEUE, name="q", location="australia-southeast1", rateLimits={"maxConcurrentDispatches": 1})
    first, second, other = [sent.headers["x-goog-request-id"] for sent in google.sent if sent.method == "POST"]
    assert first == second != other


def test_a_server_that_is_down_is_an_error_that_names_it(
    provider: GcpProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    down = Rest(endpoints=Endpoints(environment("http://127.0.0.1:9")), attempts_seconds=0.3)
    nowhere = GcpProvider(rest=down, environment=environment("http://127.0.0.1:9"))
    with pytest.raises(ProviderError, match=r"thing: Error creating Queue: POST http://127\.0\.0\.1:9/cloudtasks"):
        create(nowhere, QUEUE, name="q", location="australia-southeast1")
    down.close()


def test_an_operation_that_fails_leaves_a_resource_that_is_remembered(google: Scripted, provider: GcpProvider) -> None:
    name = "projects/validibot-au/locations/australia-southeast1/operations/1"

    def respond(sent: Sent) -> Answer:
        if sent.method == "POST":
            return 200, {"name": name}
        return 200, {"name": name, "done": True, "error": {"code": 9, "message": "Revision 'web-1' is not ready."}}

    google.respond = respond
    with pytest.raises(PartialFailure) as caught:
        create(
            provider,
            SERVICE,
            name="web",
            location="australia-southeast1",
            template={"containers": [{"image": "i"}]},
        )
    assert caught.value.id == "projects/validibot-au/locations/australia-southeast1/services/web"
    assert caught.value.reasons == [
        "thing: Error creating Service: Error code 9, message: Revision 'web-1' is not ready."
    ]
    assert google.sent[-1].path == f"/run/v2/{name}"

    # What the state then holds makes the next run set everything once more, in place.
    partial = caught.value.inputs
    assert partial is not None
    again = {"name": "web", "location": "australia-southeast1", "template": {"containers": [{"image": "i"}]}}
    news, _ = provider.check(SERVICE, urn(SERVICE), olds=partial, news=again, random_seed=b"s")
    assert provider.diff(SERVICE, urn(SERVICE), caught.value.id, old_inputs=partial, old_outputs={}, news=news) == Diff(
        changes={"template": "add"}
    )


def test_an_operation_is_polled_until_it_is_done(google: Scripted, provider: GcpProvider) -> None:
    polls: Iterator[dict[str, Any]] = iter([{"name": "op"}, {"name": "op"}, {"name": "op", "done": True}])

    def respond(sent: Sent) -> Answer:
        if "/operations/" in sent.path:
            return 200, {**next(polls), "name": sent.path.removeprefix("/run/v2/")}
        if sent.method == "POST":
            return 200, {"name": "projects/validibot-au/locations/australia-southeast1/operations/7"}
        return 200, {"name": "projects/validibot-au/locations/australia-southeast1/services/web", "uri": "https://web"}

    google.respond = respond
    _, _, outputs = create(
        provider, SERVICE, name="web", location="australia-southeast1", template={"containers": [{"image": "i"}]}
    )
    assert outputs["uri"] == "https://web"
    assert next(polls, None) is None


class Policies:
    """One project's policy, guarded by its etag."""

    def __init__(self) -> None:
        self.policy: dict[str, Any] = {"etag": "0"}
        self.writes = 0
        self.lock = threading.Lock()
        self.interloper = 0

    def respond(self, sent: Sent) -> Answer:
        with self.lock:
            if sent.path.endswith(":getIamPolicy"):
                answer = dict(self.policy)
                if self.interloper:
                    # Somebody else writes between our reading and our writing.
                    self.interloper -= 1
                    bindings = [*self.policy.get("bindings", []), {"role": "roles/theirs", "members": ["user:b@x"]}]
                    self._write({"bindings": bindings})
                return 200, answer
            if sent.body["policy"].get("etag") != self.policy["etag"]:
                message = "There were concurrent policy changes. Please retry."
                return 409, {"error": {"code": 409, "message": message}}
            self._write(sent.body["policy"])
            return 200, self.policy

    def _write(self, policy: dict[str, Any]) -> None:
        self.writes += 1
        self.policy = {**policy, "etag": str(self.writes)}


def test_a_member_survives_others_who_change_the_policy_at_the_same_time(
    google: Scripted, provider: GcpProvider
) -> None:
    policies = Policies()
    policies.interloper = 2
    google.respond = policies.respond
    id, _, _ = create(provider, MEMBER, project="validibot-au", role="roles/ours", member="user:a@x")
    assert id == "validibot-au/roles/ours/user:a@x"
    members = {binding["role"]: binding["members"] for binding in policies.policy["bindings"]}
    assert members["roles/ours"] == ["user:a@x"]
    assert members["roles/theirs"] == ["user:b@x"]


def test_many_members_of_one_policy_can_be_made_at_once(google: Scripted, provider: GcpProvider) -> None:
    policies = Policies()
    google.respond = policies.respond
    people = [f"user:{number}@x" for number in range(12)]
    threads = [
        threading.Thread(
            target=create,
            args=(provider, MEMBER),
            kwargs={"project": "validibot-au", "role": "roles/ours", "member": person},
        )
        for person in people
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(policies.policy["bindings"][0]["members"]) == sorted(people)


def test_deleting_a_member_leaves_the_others(google: Scripted, provider: GcpProvider) -> None:
    policies = Policies()
    google.respond = policies.respond
    ours = create(provider, MEMBER, project="validibot-au", role="roles/r", member="user:a@x")
    theirs = create(provider, MEMBER, project="validibot-au", role="roles/r", member="user:b@x")
    later = GcpProvider(environment=environment(google.address))
    later.delete(MEMBER, urn(MEMBER), ours[0], inputs=ours[1], outputs=ours[2], timeout_seconds=10)
    assert policies.policy["bindings"] == [{"role": "roles/r", "members": ["user:b@x"]}]
    assert provider.read(MEMBER, urn(MEMBER), ours[0], inputs=ours[1], outputs=ours[2]) is None
    assert provider.read(MEMBER, urn(MEMBER), theirs[0], inputs=theirs[1], outputs=theirs[2]) is not None


def test_a_forced_replacement_under_the_same_name_does_not_delete_what_it_has_just_made(
    google: Scripted, provider: GcpProvider
) -> None:
    google.respond = lambda sent: (200, {"name": "q", "state": "RUNNING"})
    id, inputs, outputs = create(provider, QUEUE, name="q", location="australia-southeast1")
    provider.delete(QUEUE, urn(QUEUE), id, inputs=inputs, outputs=outputs, timeout_seconds=10)
    assert "DELETE" not in {sent.method for sent in google.sent}


def test_what_is_protected_is_not_even_asked_for(google: Scripted, provider: GcpProvider) -> None:
    inputs = {"name": "web", "location": "australia-southeast1", "deletionProtection": True}
    with pytest.raises(ProviderError, match="without setting deletionProtection=False"):
        provider.delete(SERVICE, urn(SERVICE), "id", inputs=inputs, outputs={}, timeout_seconds=10)
    abandoned = {"instance": "pg", "name": "u", "deletionPolicy": "ABANDON"}
    provider.delete(USER, urn(USER), "u//pg", inputs=abandoned, outputs={}, timeout_seconds=10)
    assert google.sent == []


def refusing_connections(google: Scripted, words: str) -> None:
    """Service Networking ends every creation and deletion with an error, and all the rest ends well."""
    network = "projects/7/global/networks/main"

    def respond(sent: Sent) -> Answer:
        if sent.path.endswith("/projects/p"):
            return 200, {"projectNumber": "7"}
        if sent.method == "GET":
            return 200, {"connections": [{"network": network, "reservedPeeringRanges": ["services"], "peering": "s"}]}
        if sent.method == "POST" and "servicenetworking" in sent.path:
            return 200, {"name": "operations/o", "done": True, "error": {"code": 9, "message": words}}
        return 200, {"name": "operations/o", "done": True, "status": "DONE"}

    google.respond = respond


@pytest.mark.parametrize(("policy", "is_removed"), [("REMOVE_PEERING", True), ("DELETE", False)])
def test_a_connection_that_google_holds_on_to_leaves_its_network_when_the_program_says_so(
    google: Scripted, provider: GcpProvider, policy: str, is_removed: bool
) -> None:
    refusing_connections(google, "Producer services (e.g. CloudSQL) are still using this connection.")
    state = {"network": "projects/p/global/networks/main", "service": "servicenetworking.googleapis.com"}
    inputs = {**state, "reservedPeeringRanges": ["services"], "deletionPolicy": policy}
    outcome = nullcontext() if is_removed else pytest.raises(ProviderError, match="still using this connection")

    with outcome:
        provider.delete(
            CONNECTION, urn(CONNECTION), "id", inputs=inputs, outputs={**inputs, "peering": "s"}, timeout_seconds=10
        )

    removals = [
        (sent.path.partition("/projects/")[2], sent.body) for sent in google.sent if "removePeering" in sent.path
    ]
    assert removals == ([("p/global/networks/main/removePeering", {"name": "s"})] if is_removed else [])


@pytest.mark.parametrize("is_taken_up", [True, False])
def test_a_connection_that_is_left_from_before_is_taken_up_when_the_program_says_so(
    google: Scripted, provider: GcpProvider, is_taken_up: bool
) -> None:
    refusing_connections(google, "Cannot modify allocated ranges in CreateConnection. Please use UpdateConnection.")
    wanted = {
        "network": "projects/p/global/networks/main",
        "service": "servicenetworking.googleapis.com",
        "reservedPeeringRanges": ["services"],
        "updateOnCreationFail": is_taken_up,
    }
    outcome = nullcontext() if is_taken_up else pytest.raises(ProviderError, match="Cannot modify allocated ranges")

    with outcome:
        create(provider, CONNECTION, **wanted)

    patches = [sent.body["reservedPeeringRanges"] for sent in google.sent if sent.method == "PATCH"]
    assert patches == ([["services"]] if is_taken_up else [])


def test_deleting_what_is_gone_succeeds(google: Scripted, provider: GcpProvider) -> None:
    google.respond = lambda sent: (404, {"error": {"code": 404, "message": "gone"}})
    inputs = {"name": "q", "location": "australia-southeast1"}
    provider.delete(QUEUE, urn(QUEUE), "id", inputs=inputs, outputs={}, timeout_seconds=10)
    assert [sent.method for sent in google.sent] == ["DELETE"]
    assert provider.read(QUEUE, urn(QUEUE), "id", inputs=inputs, outputs={"name": "q"}) is None


def test_a_bucket_with_objects_is_not_deleted_unless_the_program_says_so(
    google: Scripted, provider: GcpProvider
) -> None:
    def respond(sent: Sent) -> Answer:
        if sent.path.endswith("/o"):
            return 200, {"items": [{"name": "a/b", "generation": "7"}]}
        return (200, {}) if sent.method == "GET" else (204, None)

    google.respond = respond
    inputs = {"name": "b", "location": "US"}
    with pytest.raises(ProviderError, match="still holds objects"):
        provider.delete(BUCKET, urn(BUCKET), "b", inputs=inputs, outputs={}, timeout_seconds=10)
    assert all(sent.method == "GET" for sent in google.sent)

    provider.delete(BUCKET, urn(BUCKET), "b", inputs={**inputs, "forceDestroy": True}, outputs={}, timeout_seconds=10)
    deleted = [(sent.path, sent.query) for sent in google.sent if sent.method == "DELETE"]
    assert deleted == [("/storage/v1/b/b/o/a%2Fb", {"generation": "7"}), ("/storage/v1/b/b", {})]


def test_refresh_shows_what_somebody_else_changed_and_only_that(google: Scripted, provider: GcpProvider) -> None:
    live = {
        "name": f"{_QUEUES}/q",
        "state": "PAUSED",
        "rateLimits": {"maxConcurrentDispatches": 5, "maxDispatchesPerSecond": 500, "maxBurstSize": 100},
        "retryConfig": {"minBackoff": "0.100s", "maxAttempts": 100},
    }
    google.respond = lambda sent: (200, live)
    wanted, _ = provider.check(
        QUEUE,
        urn(QUEUE),
        olds=None,
        news={
            "name": "q",
            "location": "australia-southeast1",
            "rateLimits": {"maxConcurrentDispatches": 20},
            "retryConfig": {"minBackoff": "0.1s"},
        },
        random_seed=b"s",
    )
    found = provider.read(QUEUE, urn(QUEUE), "id", inputs=wanted, outputs={"name": "q"})
    assert found is not None
    assert found.inputs == {**wanted, "rateLimits": {"maxConcurrentDispatches": 5}, "desiredState": "PAUSED"}
    drift = provider.diff(QUEUE, urn(QUEUE), "id", old_inputs=found.inputs, old_outputs=found.outputs, news=wanted)
    assert drift.changes == {"rateLimits.maxConcurrentDispatches": "update", "desiredState": "update"}


def test_an_import_fills_in_the_inputs_and_needs_no_change_afterwards(google: Scripted, provider: GcpProvider) -> None:
    id = "projects/validibot-au/locations/australia-southeast1/queues/q"
    limits = {"maxConcurrentDispatches": 5, "maxDispatchesPerSecond": 500}
    google.respond = lambda sent: (200, {"name": id, "state": "RUNNING", "rateLimits": limits})
    found = provider.read(QUEUE, urn(QUEUE), id, inputs=None, outputs=None)
    assert found is not None
    assert found.id == id
    assert found.inputs == {
        "name": "q",
        "project": "validibot-au",
        "location": "australia-southeast1",
        "rateLimits": limits,
        "__defaults": ["location", "name", "project", "rateLimits"],
    }
    assert google.sent[0].path == f"/cloudtasks/v2/{id}"

    # What the program does not mention is what the API has chosen; what it mentions counts.
    program = {"name": "q", "location": "australia-southeast1", "rateLimits": {"maxConcurrentDispatches": 5}}
    assert not _changes_after_import(provider, QUEUE, found, program)
    program["rateLimits"] = {"maxConcurrentDispatches": 6}
    assert _changes_after_import(provider, QUEUE, found, program) == {"rateLimits.maxConcurrentDispatches": "update"}


def _changes_after_import(
    provider: GcpProvider, type: str, found: ReadResult, program: dict[str, Any]
) -> Mapping[str, Change]:
    news, failures = provider.check(type, urn(type), olds=found.inputs, news=program, random_seed=b"s")
    assert not failures
    return provider.diff(
        type, urn(type), found.id, old_inputs=found.inputs, old_outputs=found.outputs, news=news
    ).changes


@pytest.mark.parametrize(
    ("type", "id", "path"),
    [
        (QUEUE, "validibot-au/us-central1/q", _QUEUES.replace("australia-southeast1", "us-central1") + "/q"),
        (QUEUE, "us-central1/q", _QUEUES.replace("australia-southeast1", "us-central1") + "/q"),
        (QUEUE, "q", _QUEUES + "/q"),
        ("gcp:secretmanager/secret:Secret", "key", "/secretmanager/v1/projects/validibot-au/secrets/key"),
        ("gcp:kms/cryptoKey:CryptoKey", f"{_RING}/cryptoKeys/k", f"/cloudkms/v1/{_RING}/cryptoKeys/k"),
        (
            "gcp:sql/database:Database",
            "pg/app",
            "/sqladmin/sql/v1beta4/projects/validibot-au/instances/pg/databases/app",
        ),
        (USER, "validibot-au/pg/app", "/sqladmin/sql/v1beta4/projects/validibot-au/instances/pg/users"),
        ("gcp:storage/bucketObject:BucketObject", "b/a/c.txt", "/storage/v1/b/b/o/a%2Fc.txt"),
        (
            "gcp:kms/cryptoKeyIAMMember:CryptoKeyIAMMember",
            f"{_RING}/cryptoKeys/k roles/viewer user:a@b.c",
            f"/cloudkms/v1/{_RING}/cryptoKeys/k:getIamPolicy",
        ),
        (
            "gcp:storage/bucketIAMMember:BucketIAMMember",
            "files roles/viewer user:a@b.c",
            "/storage/v1/b/files/iam",
        ),
    ],
)
def test_an_import_takes_the_ids_that_the_real_provider_documents(
    google: Scripted, provider: GcpProvider, type: str, id: str, path: str
) -> None:
    provider.configure({"project": "validibot-au", "region": "australia-southeast1"})
    missing = (404, {"error": {"code": 404, "message": "not found"}})
    google.respond = lambda sent: (200, {"state": "RUNNABLE"}) if sent.path.endswith("/instances/pg") else missing
    with suppress(ProviderError):  # whether nothing is there or its parent is missing does not matter here
        assert provider.read(type, urn(type), id, inputs=None, outputs=None) is None
    assert path in [sent.path for sent in google.sent]


@pytest.mark.parametrize(
    ("type", "id"),
    [
        (QUEUE, "a/b/c/d"),
        (USER, "app"),
        (MEMBER, "validibot-au roles/viewer"),
        ("gcp:storage/bucketObject:BucketObject", "b"),
        ("gcp:monitoring/dashboard:Dashboard", "overview"),
        ("gcp:cloudbuild/trigger:Trigger", "build"),
    ],
)
def test_an_import_of_a_wrong_id_says_what_ids_look_like(
    google: Scripted, provider: GcpProvider, type: str, id: str
) -> None:
    with pytest.raises(ProviderError, match=r"is no id of an? \w+: expected .*[{<]"):
        provider.read(type, urn(type), id, inputs=None, outputs=None)
    assert not google.sent


def test_an_import_keeps_what_is_off_where_on_is_the_default_and_blocks_that_are_empty(
    google: Scripted, provider: GcpProvider
) -> None:
    network = "gcp:compute/network:Network"
    google.respond = lambda sent: (200, {"name": "n", "autoCreateSubnetworks": False, "mtu": 1460})
    found = provider.read(network, urn(network), "projects/validibot-au/global/networks/n", inputs=None, outputs=None)
    assert found is not None
    assert found.inputs["autoCreateSubnetworks"] is False
    assert not _changes_after_import(provider, network, found, {"name": "n", "autoCreateSubnetworks": False})

    secret = "gcp:secretmanager/secret:Secret"
    google.respond = lambda sent: (200, {"name": "projects/1/secrets/s", "replication": {"automatic": {}}})
    found = provider.read(secret, urn(secret), "projects/validibot-au/secrets/s", inputs=None, outputs=None)
    assert found is not None
    assert found.inputs["replication"] == {"auto": {}}
    assert not _changes_after_import(provider, secret, found, {"secretId": "s", "replication": {"auto": {}}})


def test_an_import_knows_the_parent_that_only_the_id_names(google: Scripted, provider: GcpProvider) -> None:
    nat = "gcp:compute/routerNat:RouterNat"
    google.respond = lambda sent: (200, {"nats": [{"name": "nat", "sourceSubnetworkIpRangesToNat": "ALL"}]})
    found = provider.read(nat, urn(nat), "validibot-au/us-central1/router/nat", inputs=None, outputs=None)
    assert found is not None
    assert (found.inputs["router"], found.inputs["region"]) == ("router", "us-central1")


def test_an_import_of_a_conditional_member_names_the_condition_by_its_title(
    google: Scripted, provider: GcpProvider
) -> None:
    condition = {"title": "until new year", "expression": "request.time < timestamp('2027-01-01T00:00:00Z')"}
    binding = {"role": "roles/viewer", "members": ["user:a@b.c"], "condition": condition}
    google.respond = lambda sent: (200, {"bindings": [binding], "etag": "e"})
    plain = "validibot-au roles/viewer user:a@b.c"
    assert provider.read(MEMBER, urn(MEMBER), plain, inputs=None, outputs=None) is None
    found = provider.read(MEMBER, urn(MEMBER), f"{plain} until new year", inputs=None, outputs=None)
    assert found is not None
    assert found.inputs["condition"] == condition
    assert found.id.startswith("validibot-au/roles/viewer/user:a@b.c/until new year/")


def test_a_password_stays_in_the_state_as_a_secret(google: Scripted, provider: GcpProvider) -> None:
    def respond(sent: Sent) -> Answer:
        if sent.path.endswith("/users") and sent.method == "GET":
            return 200, {"items": [{"name": "u", "host": "", "instance": "pg"}]}
        return 200, {"kind": "sql#operation", "name": "1", "status": "DONE"}

    google.respond = respond
    id, inputs, outputs = create(provider, USER, instance="pg", name="u", password="hunter2")
    assert id == "u//pg"
    assert outputs["password"] == Secret("hunter2")
    found = provider.read(USER, urn(USER), id, inputs=inputs, outputs={**outputs, "password": "hunter2"})
    assert found is not None
    assert found.inputs == inputs


def test_each_api_is_called_where_its_variable_says_and_at_google_without_one() -> None:
    local = Endpoints(environment("http://127.0.0.1:1"))
    assert local["dns/v1"] == "http://127.0.0.1:1/dns/v1/"
    assert local["serviceusage/v1"] == "http://127.0.0.1:1/serviceusage/v1/"
    assert local["monitoring/v3"] == "http://127.0.0.1:1/monitoring/v3/"
    assert local["upload"] == "http://127.0.0.1:1/upload/storage/v1/"
    google = Endpoints({})
    assert google["run"] == "https://run.googleapis.com/v2/"
    assert google["upload"] == "https://storage.googleapis.com/upload/storage/v1/"
    assert google["monitoring/v1"] == "https://monitoring.googleapis.com/v1/"


def test_a_cancelled_provider_gives_up_waiting(google: Scripted, provider: GcpProvider) -> None:
    polled = threading.Event()

    def respond(sent: Sent) -> Answer:
        if "/operations/" in sent.path:
            polled.set()
        return 200, {"name": "projects/validibot-au/locations/l/operations/1"}

    google.respond = respond
    failed: list[Exception] = []

    def run() -> None:
        try:
            create(provider, SERVICE, name="web", location="l", template={"containers": [{"image": "i"}]})
        except ProviderError as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert polled.wait(10)
    provider.cancel()
    thread.join(10)
    assert len(failed) == 1
    assert isinstance(failed[0], PartialFailure)


def test_default_labels_are_set_changed_and_taken_away_without_touching_other_ones(
    google: Scripted, provider: GcpProvider
) -> None:
    live: dict[str, Any] = {"name": "b", "location": "US", "labels": {}}

    def respond(sent: Sent) -> Answer:
        if sent.method in ("POST", "PATCH"):
            for name, value in sent.body.get("labels", {}).items():
                live["labels"][name] = value
                if value is None:
                    del live["labels"][name]
        return 200, live

    google.respond = respond
    news = {"name": "b", "location": "US", "labels": {"mine": "1"}}
    provider.configure({"project": "p", "defaultLabels": '{"team": "a", "cost": "7"}'})
    _, inputs, outputs = create(provider, BUCKET, **news)
    mark = {"goog-pulumi-provisioned": "true"}
    assert live["labels"] == {"mine": "1", "team": "a", "cost": "7", **mark}
    assert outputs["labels"] == {"mine": "1"}

    live["labels"]["foreign"] = "x"
    provider.configure({"project": "p", "defaultLabels": '{"team": "b"}'})
    found = provider.read(BUCKET, urn(BUCKET), "b", inputs=inputs, outputs=outputs)
    assert found is not None
    assert found.inputs["labels"] == {"mine": "1"}
    outputs = provider.update(
        BUCKET,
        urn(BUCKET),
        "b",
        old_inputs=inputs,
        old_outputs=found.outputs,
        news=inputs,
        preview=False,
        timeout_seconds=10,
    )
    assert live["labels"] == {"mine": "1", "team": "b", "foreign": "x", **mark}
    assert outputs["pulumiLabels"] == {"mine": "1", "team": "b", **mark}


def test_an_explicit_provider_has_its_own_token_and_endpoints(google: Scripted) -> None:
    google.respond = lambda sent: (200, {"name": "b", "location": "US"})
    provider = GcpProvider(environment={})
    provider.configure(
        {"project": "p", "accessToken": "configured", "storageCustomEndpoint": f"{google.address}/storage/v1/"}
    )
    assert provider.read(BUCKET, urn(BUCKET), "b", inputs=None, outputs=None) is not None
    assert google.sent[0].path == "/storage/v1/b/b"
    assert google.sent[0].headers["authorization"] == "Bearer configured"


def test_a_data_source_reads_a_secret_and_keeps_it_one(google: Scripted, provider: GcpProvider) -> None:
    name = "projects/1/secrets/key/versions/3"
    answers = {
        f"{_SECRETS}/key/versions/latest": {"name": name, "state": "ENABLED", "createTime": "2026-01-01T00:00:00Z"},
        f"{_SECRETS}/key/versions/latest:access": {"name": name, "payload": {"data": "aHVudGVyMg=="}},
    }
    google.respond = lambda sent: (200, answers[sent.path])
    token = "gcp:secretmanager/getSecretVersion:getSecretVersion"
    found, failures = provider.invoke(token, {"secret": "key", "project": "validibot-au"}, preview=True)
    assert not failures
    assert found["secretData"] == Secret("hunter2")
    assert (found["version"], found["enabled"]) == ("3", True)


def test_a_data_source_reads_a_project_and_shows_a_refusal(google: Scripted, provider: GcpProvider) -> None:
    token = "gcp:organizations/getProject:getProject"
    google.respond = lambda sent: (200, {"projectId": "p", "projectNumber": "7", "name": "P"})
    assert provider.invoke(token, {"projectId": "p"}, preview=False)[0]["number"] == "7"
    google.respond = lambda sent: (403, {"error": {"code": 403, "message": "no right"}})
    with pytest.raises(ProviderError, match="Error calling getProject: googleapi: Error 403: no right"):
        provider.invoke(token, {"projectId": "p"}, preview=False)


def test_a_data_source_that_is_not_there_says_what_to_do(provider: GcpProvider) -> None:
    with pytest.raises(NotSupported, match=r"has no getZones, only getClientConfig, .* `get` of its class"):
        provider.invoke("gcp:compute/getZones:getZones", {}, preview=False)
