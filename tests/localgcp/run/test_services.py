"""Cloud Run services through Google's own client."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import httpx
import pytest
from google.api_core.exceptions import BadRequest, FailedPrecondition, GoogleAPICallError, NotFound
from google.cloud import run_v2
from google.protobuf import duration_pb2

from localgcp.operations import INLINE_SECONDS
from tests.localgcp.fixtures import Region
from tests.localgcp.run.images import SERVER


def service_of(image: str, **template: Any) -> run_v2.Service:
    container = {"image": image} | template.pop("container", {})
    scaling = {"max_instance_count": 2} | template.pop("scaling", {})
    return run_v2.Service(
        template={"containers": [container], "scaling": scaling, **template}, invoker_iam_disabled=True
    )


def deploy(region: Region, parent: str, service: run_v2.Service, name: str = "web") -> run_v2.Service:
    client = region.client(run_v2.ServicesClient)
    created: run_v2.Service = client.create_service(parent=parent, service=service, service_id=name).result(timeout=60)
    return created


def get(region: Region, service: run_v2.Service, path: str = "/", **options: Any) -> httpx.Response:
    host = service.uri.removeprefix("https://")
    method = options.pop("method", "GET")
    headers = {"host": host, **options.pop("headers", {})}
    return httpx.request(method, region.url + path, headers=headers, timeout=30, **options)


def test_a_service_is_ready_when_its_first_instance_answers(region: Region, parent: str, image: str) -> None:
    service = deploy(region, parent, service_of(image))

    assert service.terminal_condition.state == run_v2.Condition.State.CONDITION_SUCCEEDED
    assert service.name == f"{parent}/services/web"
    assert service.latest_ready_revision == service.latest_created_revision
    assert service.latest_ready_revision.startswith(f"{parent}/services/web/revisions/web-00001-")
    assert service.template.max_instance_request_concurrency == 80
    assert service.template.timeout == timedelta(seconds=300)
    assert service.observed_generation == service.generation == 1
    assert get(region, service, "/hello?x=1").json()["path"] == "/hello?x=1"


def test_a_workload_sees_its_service_and_nothing_of_the_machine(
    region: Region, parent: str, project: str, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_MACHINE", "1")
    container = {"env": [{"name": "COLOUR", "value": "blue"}]}
    service = deploy(region, parent, service_of(image, container=container))

    seen = get(region, service).json()["environment"]

    revision = service.latest_ready_revision.rpartition("/")[2]
    assert seen["K_SERVICE"] == seen["K_CONFIGURATION"] == "web"
    assert (seen["K_REVISION"], seen["COLOUR"]) == (revision, "blue")
    assert "SECRET_OF_THE_MACHINE" not in seen
    host = seen["GCE_METADATA_HOST"]
    email = httpx.get(
        f"http://{host}/computeMetadata/v1/instance/service-accounts/default/email",
        headers={"Metadata-Flavor": "Google"},
    )
    number = region.core.project_number(project)
    assert email.text == f"{number}-compute@developer.gserviceaccount.com"


def test_the_proxy_says_who_asked_and_under_which_trace(region: Region, parent: str, image: str) -> None:
    service = deploy(region, parent, service_of(image))
    parent_span = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    answer = get(region, service, headers={"traceparent": parent_span, "connection": "close, x-private"})

    headers = answer.json()["headers"]
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert headers["x-forwarded-proto"] == "https"
    assert headers["traceparent"] == parent_span
    assert headers["x-cloud-trace-context"] == "0af7651916cd43dd8448eb211c80319c/13235353014750950193;o=1"
    assert headers["host"] == service.uri.removeprefix("https://")
    assert "Google Frontend" in answer.headers["server"]
    assert len(answer.headers.get_list("date")) == 1


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_a_body_arrives_whole_with_or_without_a_length(region: Region, parent: str, image: str, method: str) -> None:
    service = deploy(region, parent, service_of(image))
    body = b"x" * 3_000_000

    assert get(region, service, method=method, content=body).json()["body_bytes"] == len(body)


def test_a_request_that_is_too_large_for_cloud_run_does_not_reach_the_service(
    region: Region, parent: str, image: str
) -> None:
    service = deploy(region, parent, service_of(image))
    limit = 32 * 1024 * 1024

    assert get(region, service, method="POST", content=bytes(limit)).json()["body_bytes"] == limit
    answer = get(region, service, method="POST", content=bytes(limit + 1))

    assert (answer.status_code, "too large" in answer.text) == (413, True)


def test_a_revision_that_does_not_start_leaves_the_traffic_where_it_is(region: Region, parent: str, image: str) -> None:
    first = deploy(region, parent, service_of(image))
    client = region.client(run_v2.ServicesClient)
    broken = service_of(image, container={"command": ["python"], "args": ["-c", "raise SystemExit(3)"]})
    broken.name = first.name

    with pytest.raises(FailedPrecondition, match="failed to start and listen on the port defined provided by the PORT"):
        client.update_service(service=broken).result(timeout=60)

    service = client.get_service(name=first.name)
    assert service.terminal_condition.state == run_v2.Condition.State.CONDITION_FAILED
    assert service.terminal_condition.revision_reason.name == "HEALTH_CHECK_CONTAINER_ERROR"
    assert service.latest_ready_revision == first.latest_ready_revision
    assert service.latest_created_revision != first.latest_ready_revision
    assert get(region, service).json()["environment"]["K_REVISION"] == first.latest_ready_revision.rpartition("/")[2]


def test_an_image_that_is_not_in_the_registry_fails_the_deployment(region: Region, parent: str, project: str) -> None:
    missing = f"australia-southeast1-docker.pkg.dev/{project}/images/none:latest"

    with pytest.raises(NotFound, match=f"Image '{missing}' not found"):
        deploy(region, parent, service_of(missing))
    service = region.client(run_v2.ServicesClient).get_service(name=f"{parent}/services/web")

    assert service.terminal_condition.reason.name == "CONTAINER_MISSING"


def test_a_secret_is_read_as_the_services_own_account(region: Region, parent: str, project: str, image: str) -> None:
    account = region.account(project, "web-account")
    secrets = region.api("secretmanager", "v1").projects().secrets()
    secrets.create(parent=f"projects/{project}", secretId="key", body={"replication": {"automatic": {}}}).execute()
    secrets.addVersion(parent=f"projects/{project}/secrets/key", body={"payload": {"data": "aHVzaA=="}}).execute()
    reference = {"secret_key_ref": {"secret": "key", "version": "1"}}
    container = {"env": [{"name": "KEY", "value_source": reference}]}
    wanted = service_of(image, container=container, service_account=account.email)
    number = region.core.project_number(project)

    with pytest.raises(GoogleAPICallError) as refused:
        deploy(region, parent, wanted)
    failed = region.client(run_v2.ServicesClient).get_service(name=f"{parent}/services/web").terminal_condition
    region.core.iam.add_binding(
        f"secretmanager/projects/{project}/secrets/key", "roles/secretmanager.secretAccessor", account.member
    )
    wanted.name = f"{parent}/services/web"
    service = region.client(run_v2.ServicesClient).update_service(service=wanted).result(timeout=60)

    assert (
        f"Permission denied on secret: projects/{number}/secrets/key/versions/1 for Revision service account"
        f" {account.email}." in str(refused.value)
    )
    assert failed.reason.name == "SECRETS_ACCESS_CHECK_FAILED"
    assert get(region, service).json()["environment"]["KEY"] == "hush"


@pytest.mark.parametrize(
    ("container", "message"),
    [
        ({"resources": {"limits": {"cpu": "banana"}}}, "Invalid value specified for cpu: 'banana'"),
        ({"resources": {"limits": {"memory": "1Xi"}}}, "Invalid value specified for memory: '1Xi'"),
        ({"resources": {"limits": {"cpu": "1.5"}}}, "Invalid value specified for cpu.*a whole number up to 8"),
        (
            {"resources": {"limits": {"cpu": "1", "memory": "5Gi"}}},
            "For 1.0 CPU, memory must be between 128Mi and 4096Mi",
        ),
        ({"resources": {"limits": {"cpu": "4", "memory": "512Mi"}}}, "For 4.0 CPU, memory must be between 2048Mi"),
        ({"resources": {"limits": {"disk": "1Gi"}}}, "'disk' cannot be limited"),
        ({"startup_probe": {"initial_delay_seconds": 241}}, "initialDelaySeconds must be 0 to 240, got 241"),
        ({"liveness_probe": {"period_seconds": 3601}}, "periodSeconds must be 1 to 3600, got 3601"),
        ({"liveness_probe": {"failure_threshold": -1}}, "failureThreshold must be at least 1, got -1"),
    ],
)
def test_a_container_that_cannot_be_is_refused(
    region: Region, parent: str, image: str, container: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadRequest, match=message):
        deploy(region, parent, service_of(image, container=container))

    assert list(region.client(run_v2.ServicesClient).list_services(parent=parent)) == []


def test_a_service_that_starts_slowly_is_answered_before_the_client_gives_up(
    region: Region, parent: str, push: Callable[..., str]
) -> None:
    """google-cloud-run waits 15 seconds for the answer to a create, and as long as it is told for the operation."""
    slow = push(server=f"import time; time.sleep({INLINE_SECONDS + 1})\n{SERVER}")

    operation = region.client(run_v2.ServicesClient).create_service(
        parent=parent, service=service_of(slow), service_id="web", timeout=INLINE_SECONDS + 3
    )

    assert operation.metadata.terminal_condition.state == run_v2.Condition.State.CONDITION_RECONCILING
    assert operation.result(timeout=60).terminal_condition.state == run_v2.Condition.State.CONDITION_SUCCEEDED


def test_traffic_is_split_and_a_tag_has_an_address(region: Region, parent: str, image: str) -> None:
    first = deploy(region, parent, service_of(image))
    client = region.client(run_v2.ServicesClient)
    old = first.latest_ready_revision.rpartition("/")[2]
    wanted = service_of(image, container={"env": [{"name": "V", "value": "2"}]})
    wanted.name = first.name
    revision = run_v2.TrafficTargetAllocationType.TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION
    latest = run_v2.TrafficTargetAllocationType.TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST
    wanted.traffic = [
        run_v2.TrafficTarget(type_=revision, revision=old, percent=100),
        run_v2.TrafficTarget(type_=latest, percent=0, tag="next"),
    ]

    service = client.update_service(service=wanted).result(timeout=60)

    new = service.latest_ready_revision.rpartition("/")[2]
    tagged = {status.tag: status.uri for status in service.traffic_statuses}["next"]
    assert {get(region, service).json()["environment"]["K_REVISION"] for _ in range(5)} == {old}
    answer = httpx.get(region.url, headers={"host": tagged.removeprefix("https://")}, timeout=30)
    assert answer.json()["environment"]["K_REVISION"] == new


def test_a_full_service_queues_grows_and_then_refuses(
    region: Region, parent: str, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("localgcp.run.fleet.QUEUE_SECONDS", 0.3)
    service = deploy(region, parent, service_of(image, max_instance_request_concurrency=1))

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: get(region, service, "/slow?2"), range(4)))

    assert sorted(answer.status_code for answer in answers) == [200, 200, 429, 429]
    assert len({answer.json()["pid"] for answer in answers if answer.status_code == 200}) == 2


def test_a_request_that_takes_too_long_is_answered_504(region: Region, parent: str, image: str) -> None:
    service = deploy(region, parent, service_of(image, timeout=duration_pb2.Duration(seconds=1)))

    answer = get(region, service, "/slow?20")

    assert (answer.status_code, answer.text) == (504, "upstream request timeout")


def test_an_instance_that_dies_is_answered_503_and_replaced(region: Region, parent: str, image: str) -> None:
    service = deploy(region, parent, service_of(image))
    before = get(region, service).json()["pid"]

    died = get(region, service, "/exit?1")
    after = get(region, service)

    assert died.status_code == 503
    assert after.status_code == 200
    assert after.json()["pid"] != before


@pytest.mark.parametrize(
    ("ingress", "status"),
    [
        ("INGRESS_TRAFFIC_ALL", 200),
        ("INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER", 404),
        ("INGRESS_TRAFFIC_INTERNAL_ONLY", 404),
    ],
)
def test_ingress_decides_who_may_ask_from_outside(
    region: Region, parent: str, image: str, ingress: str, status: int
) -> None:
    wanted = service_of(image)
    wanted.ingress = getattr(run_v2.IngressTraffic, ingress)
    service = deploy(region, parent, wanted)

    assert get(region, service).status_code == status


def test_only_an_invoker_with_a_token_for_this_audience_may_ask(
    region: Region, parent: str, project: str, image: str
) -> None:
    wanted = service_of(image)
    wanted.invoker_iam_disabled = False
    wanted.custom_audiences = ["https://audience.example"]
    service = deploy(region, parent, wanted)
    account = region.account(project, "caller")
    stranger = region.account(project, "stranger")
    region.core.iam.add_binding(f"run/{service.name}", "roles/run.invoker", account.member)

    def status(email: str, audience: str) -> int:
        token = region.core.tokens.id_token(email, audience)
        return get(region, service, headers={"authorization": f"Bearer {token}"}).status_code

    assert get(region, service).status_code == 403
    assert status(account.email, service.uri) == 200
    assert status(account.email, service.urls[1]) == 200
    # Cloud Tasks and Scheduler take the whole address that they call for the audience.
    assert status(account.email, f"{service.uri}/internal/run") == 200
    assert status(account.email, f"{service.uri}/internal/run?id=1") == 401
    assert status(account.email, "https://audience.example") == 200
    assert status(account.email, "https://audience.example/internal/run") == 401
    assert status(account.email, "https://elsewhere.example") == 401
    assert status(stranger.email, service.uri) == 403


def test_a_change_of_who_may_invoke_holds_for_the_next_request(region: Region, parent: str, image: str) -> None:
    wanted = service_of(image)
    wanted.invoker_iam_disabled = False
    service = deploy(region, parent, wanted)
    client = region.client(run_v2.ServicesClient)
    everybody = {"role": "roles/run.invoker", "members": ["allUsers"]}

    def status(*bindings: dict[str, Any]) -> int:
        client.set_iam_policy({"resource": service.name, "policy": {"bindings": bindings}})
        return get(region, service).status_code

    assert [status(), status(everybody), status()] == [403, 200, 403]


def test_an_idle_instance_ends_and_the_next_request_starts_another(region: Region, parent: str, image: str) -> None:
    service = deploy(region, parent, service_of(image))
    before = get(region, service).json()["pid"]
    fleet = fleet_of(region, service)
    instance = fleet.instances[0]

    # Time is moved for this instance alone: other tests share the region's clock.
    instance.last_used -= timedelta(minutes=16)
    wait_for(lambda: not fleet.instances)

    assert get(region, service).json()["pid"] != before


def test_lines_become_entries(region: Region, parent: str, project: str, image: str) -> None:
    service = deploy(region, parent, service_of(image))

    get(region, service, "/log")
    wait_for(lambda: len(entries(region, project, "textPayload=plain")) == 1)

    structured = entries(region, project, 'jsonPayload.message="structured"')[0]
    assert structured["severity"] == "WARNING"
    assert structured["jsonPayload"] == {"message": "structured", "code": 7}
    assert structured["logName"] == f"projects/{project}/logs/run.googleapis.com%2Fstdout"
    assert structured["resource"]["labels"]["revision_name"] == service.latest_ready_revision.rpartition("/")[2]
    request = entries(region, project, 'log_id("run.googleapis.com/requests")')[0]
    assert request["httpRequest"]["status"] == 200
    assert request["httpRequest"]["requestUrl"] == f"{service.uri}/log"


def test_a_deleted_service_drains_its_instances(region: Region, parent: str, project: str, image: str) -> None:
    service = deploy(region, parent, service_of(image))
    fleet = fleet_of(region, service)
    client = region.client(run_v2.ServicesClient)

    client.delete_service(name=service.name).result(timeout=60)

    assert fleet.instances == []
    assert get(region, service).status_code == 404
    assert len(entries(region, project, "textPayload=draining")) == 1
    with pytest.raises(NotFound):
        client.get_service(name=service.name)


def test_a_cloud_sql_volume_takes_the_place_of_its_mount_path(
    region: Region, parent: str, project: str, image: str
) -> None:
    name = f"{project}:australia-southeast1:pg"
    account = region.account(project, "web-account", "roles/cloudsql.client")
    container = {
        "env": [{"name": "DATABASE_HOST", "value": f"/cloudsql/{name}"}],
        "volume_mounts": [{"name": "cloudsql", "mount_path": "/cloudsql"}],
    }
    volumes = [{"name": "cloudsql", "cloud_sql_instance": {"instances": [name]}}]
    wanted = service_of(image, container=container, volumes=volumes, service_account=account.email)

    service = deploy(region, parent, wanted)

    host = get(region, service).json()["environment"]["DATABASE_HOST"]
    assert host.endswith(f"/{name}")
    assert not host.startswith("/cloudsql")
    assert len(f"{host}/.s.PGSQL.5432") < 108


def test_a_volume_that_cannot_be_mounted_is_refused_by_name(region: Region, parent: str, image: str) -> None:
    container = {"volume_mounts": [{"name": "media", "mount_path": "/media"}]}
    volumes = [{"name": "media", "gcs": {"bucket": "media"}}]

    with pytest.raises(FailedPrecondition, match="cannot mount the gcs volume 'media' at /media"):
        deploy(region, parent, service_of(image, container=container, volumes=volumes))


def test_a_startup_probe_decides_when_an_instance_is_ready(
    region: Region, parent: str, image: str, push: Callable[..., str]
) -> None:
    probe = {"http_get": {"path": "/broken"}, "period_seconds": 1, "failure_threshold": 1, "timeout_seconds": 1}

    with pytest.raises(FailedPrecondition, match="failed the configured startup probe checks"):
        deploy(region, parent, service_of(image, container={"startup_probe": probe}))


def test_a_job_of_json_that_google_answers_is_kept_as_it_is(region: Region, parent: str, image: str) -> None:
    """What a client reads is what it may send back without a change."""
    first = deploy(region, parent, service_of(image))
    client = region.client(run_v2.ServicesClient)

    again = client.update_service(service=client.get_service(name=first.name)).result(timeout=60)

    assert again.latest_created_revision == first.latest_created_revision
    assert again.generation == 2
    assert (
        json.loads(run_v2.Service.to_json(again))["template"] == json.loads(run_v2.Service.to_json(first))["template"]
    )


def fleet_of(region: Region, service: run_v2.Service) -> Any:
    from localgcp.run.runtime import runtime_of

    fleet = runtime_of(region.core).find_fleet(f"run/{service.latest_ready_revision}")
    assert fleet is not None
    return fleet


def entries(region: Region, project: str, expression: str) -> list[dict[str, Any]]:
    body = {"resourceNames": [f"projects/{project}"], "filter": expression}
    found: list[dict[str, Any]] = region.api("logging", "v2").entries().list(body=body).execute().get("entries", [])
    return found


def wait_for(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Ask again until it is so; the deadline is for the case that it never is."""
    over = threading.Event()
    for _ in range(int(seconds / 0.05)):
        if condition():
            return
        over.wait(0.05)
    raise AssertionError("it did not happen in time")


def test_the_minimum_of_instances_is_kept(region: Region, parent: str, image: str) -> None:
    service = deploy(region, parent, service_of(image, scaling={"min_instance_count": 1}))
    fleet = fleet_of(region, service)
    before = fleet.instances[0].pid

    get(region, service, "/exit?1")
    wait_for(lambda: len(fleet.ready) == 1 and fleet.instances[0].pid != before)

    assert get(region, service).json()["pid"] == fleet.instances[0].pid


def test_an_instance_that_fails_its_liveness_probe_is_replaced(region: Region, parent: str, image: str) -> None:
    probe = {"http_get": {"path": "/broken"}, "period_seconds": 1, "failure_threshold": 1, "timeout_seconds": 1}
    service = deploy(region, parent, service_of(image, container={"liveness_probe": probe}))
    before = fleet_of(region, service).instances[0].pid

    wait_for(lambda: before not in [instance.pid for instance in fleet_of(region, service).instances])

    assert get(region, service).json()["pid"] != before


def test_a_new_revision_takes_over_while_the_old_one_finishes(region: Region, parent: str, image: str) -> None:
    first = deploy(region, parent, service_of(image))
    wanted = service_of(image, container={"env": [{"name": "V", "value": "2"}]})
    wanted.name = first.name
    old = first.latest_ready_revision.rpartition("/")[2]

    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(get, region, first, "/slow?2")
        fleet = fleet_of(region, first)
        wait_for(lambda: any(instance.in_flight for instance in fleet.instances))
        region.client(run_v2.ServicesClient).update_service(service=wanted).result(timeout=60)
        new = get(region, first).json()["environment"]["K_REVISION"]
        finished = slow.result(timeout=30)

    assert new != old
    assert (finished.status_code, finished.json()["environment"]["K_REVISION"]) == (200, old)
