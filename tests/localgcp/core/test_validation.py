"""Requests against Google's own documents: what is refused, and in which words."""

import pytest

from localgcp import discovery
from localgcp.apis import BY_NAME
from localgcp.errors import InvalidArgument
from localgcp.validation import Validator

RUN = discovery.load("run:v2")
SERVICE_CREATE = RUN.methods["projects.locations.services.create"]


@pytest.fixture
def run() -> Validator:
    return Validator(RUN, {}, legacy=False)


def test_an_unknown_field_is_named_with_the_path_to_it(run: Validator) -> None:
    with pytest.raises(InvalidArgument) as refused:
        run.body(SERVICE_CREATE, {"template": {"containers": [{"imag": "x"}]}})

    assert refused.value.message == (
        "Invalid JSON payload received. Unknown name \"imag\" at 'template.containers[0]': Cannot find field."
    )
    assert refused.value.details[0]["fieldViolations"][0]["field"] == "template.containers[0]"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"ingress": "EVERYWHERE"}, "Invalid value at 'ingress' (string), \"EVERYWHERE\""),
        ({"labels": "a"}, "Invalid value at 'labels' (message), \"a\""),
        ({"customAudiences": "a"}, "Invalid value at 'customAudiences' (repeated field), \"a\""),
        ({"invokerIamDisabled": "yes"}, "Invalid value at 'invokerIamDisabled' (TYPE_BOOL), \"yes\""),
        (
            {"template": {"maxInstanceRequestConcurrency": 2**40}},
            "Invalid value at 'template.maxInstanceRequestConcurrency' (TYPE_INT32), 1099511627776",
        ),
        (
            {"template": {"timeout": "five minutes"}},
            "Invalid value at 'template.timeout' (type.googleapis.com/google.protobuf.Duration), \"five minutes\"",
        ),
    ],
)
def test_a_wrong_value_is_refused_in_googles_words(run: Validator, body: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        run.body(SERVICE_CREATE, body)

    assert refused.value.message == message


def test_every_violation_is_reported_at_once(run: Validator) -> None:
    with pytest.raises(InvalidArgument) as refused:
        run.body(SERVICE_CREATE, {"ingress": "X", "labels": 1, "nonsense": 2})

    assert len(refused.value.details[0]["fieldViolations"]) == 3


def test_what_google_accepts_beyond_its_documents_is_accepted(run: Validator) -> None:
    body = {
        "launch_stage": "GA",  # the proto's own name
        "ingress": 1,  # an enum as a number, as google-cloud-* clients send it
        "template": {"timeout": "300s", "vpcAccess": None},  # an explicit null
        "uid": "sent back by a client that read it",  # output only
    }

    assert run.body(SERVICE_CREATE, body) == {
        "launchStage": "GA",
        "ingress": "INGRESS_TRAFFIC_ALL",
        "template": {"timeout": "300s", "vpcAccess": None},
    }


def test_an_int64_may_be_a_number_or_a_text_and_becomes_a_text() -> None:
    compute = Validator(discovery.load("compute:beta"), {}, legacy=True)
    method = discovery.load("compute:beta").methods["backendBuckets.insert"]

    body = compute.body(method, {"cdnPolicy": {"signedUrlCacheMaxAgeSec": 3600}})

    assert body == {"cdnPolicy": {"signedUrlCacheMaxAgeSec": "3600"}}


def test_undocumented_fields_are_tolerated_only_where_the_table_lists_them() -> None:
    api = BY_NAME["compute"]
    document = discovery.load("compute:beta")
    compute = Validator(document, api.undocumented, legacy=True)
    insert = document.methods["networks.insert"]

    accepted = compute.body(insert, {"routingConfig": {"deleteBgpAlwaysCompareMed": True}})

    assert accepted == {"routingConfig": {"deleteBgpAlwaysCompareMed": True}}
    with pytest.raises(InvalidArgument, match='Unknown name "deleteBgpAlwaysCompareMed"'):
        compute.body(insert, {"deleteBgpAlwaysCompareMed": True})


def test_a_secret_payload_never_appears_in_the_message() -> None:
    document = discovery.load("secretmanager:v1")
    validator = Validator(document, {}, legacy=False)
    method = document.methods["projects.secrets.addVersion"]

    for secret in ("correct horse battery staple, but not base64!", "horse2345", "horsé"):
        with pytest.raises(InvalidArgument, match=r"payload\.data.*Base64 decoding failed") as refused:
            validator.body(method, {"payload": {"data": secret}})

        assert "hors" not in refused.value.message


@pytest.mark.parametrize(
    ("sent", "kept"), [("_-8", "/+8="), ("_-8=", "/+8="), ("aGk", "aGk="), ("aGk=", "aGk="), ("", "")]
)
def test_bytes_are_kept_in_the_standard_form_of_base64(sent: str, kept: str) -> None:
    """JSON may have the one for addresses, and leave out the padding."""
    document = discovery.load("cloudtasks:v2")
    method = document.methods["projects.locations.queues.tasks.create"]

    body = Validator(document, {}, legacy=False).body(method, {"task": {"httpRequest": {"body": sent}}})

    assert body["task"]["httpRequest"]["body"] == kept


def test_an_unknown_query_parameter_is_refused_and_the_common_ones_are_not(run: Validator) -> None:
    query = run.query(SERVICE_CREATE, [("serviceId", "web"), ("validateOnly", "true"), ("$alt", "json")])

    assert query == {"serviceId": "web", "validateOnly": True, "$alt": "json"}
    with pytest.raises(InvalidArgument, match='Unknown name "serviceName"'):
        run.query(SERVICE_CREATE, [("serviceName", "web")])


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("2026-12-01T00:00:00Z", True),
        ("2026-12-01t00:00:00.123456789+05:30", True),
        ("2026-12-01T00:00:00", False),
        ("2026-13-01T00:00:00Z", False),
        ("2026-12-01T00:00:00.1234567890Z", False),
        ("20261201T000000Z", False),
        ("0001-01-01T00:00:00+05:30", False),
        ("tomorrow", False),
    ],
)
def test_a_timestamp_is_a_moment_with_an_offset(text: str, is_one: bool) -> None:
    document = discovery.load("cloudtasks:v2")
    validator = Validator(document, {}, legacy=False)
    method = document.methods["projects.locations.queues.tasks.create"]

    if is_one:
        assert validator.body(method, {"task": {"scheduleTime": text}}) == {"task": {"scheduleTime": text}}
        return
    with pytest.raises(InvalidArgument, match=r"task\.scheduleTime.*google\.protobuf\.Timestamp"):
        validator.body(method, {"task": {"scheduleTime": text}})


@pytest.mark.parametrize("text", ["7", "²", "EVERYTHING"])
def test_a_choice_in_the_query_that_is_none_is_refused(text: str) -> None:
    document = discovery.load("cloudtasks:v2")

    with pytest.raises(InvalidArgument, match="responseView"):
        Validator(document, {}, legacy=False).query(
            document.methods["projects.locations.queues.tasks.get"], [("responseView", text)]
        )


def test_snake_case_query_parameters_bind_like_their_json_names() -> None:
    document = discovery.load("artifactregistry:v1")
    validator = Validator(document, {}, legacy=False)
    method = document.methods["projects.locations.repositories.create"]

    assert validator.query(method, [("repository_id", "validibot")]) == {"repositoryId": "validibot"}
