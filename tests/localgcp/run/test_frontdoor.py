"""The load balancer, declared through Compute's API and used like any web site."""

import io
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import httpx
import pytest
from google.cloud import run_v2, storage
from googleapiclient import discovery
from googleapiclient.errors import HttpError

from localgcp import frontdoor
from tests.localgcp.fixtures import Region
from tests.localgcp.run.test_services import deploy, service_of

HOST = "au.example.com"


@dataclass
class Edge:
    """A load balancer before a service, as the platform declares one."""

    region: Region
    project: str

    @cached_property
    def compute(self) -> Any:
        # Unlike the other APIs' documents, Compute's has its version in the base address.
        options = {"api_endpoint": f"{self.region.url}/compute/v1/"}
        return discovery.build(
            "compute", "v1", credentials=self.region.credentials(), client_options=options, static_discovery=True
        )

    def insert(self, collection: str, **body: Any) -> str:
        place = {"region": "australia-southeast1"} if collection == "regionNetworkEndpointGroups" else {}
        resource = getattr(self.compute, collection)()
        operation = resource.insert(project=self.project, body=body, **place).execute()
        assert operation["status"] == "DONE"
        return str(operation["targetLink"])

    def build(self) -> None:
        group = self.insert(
            "regionNetworkEndpointGroups", name="web", networkEndpointType="SERVERLESS", cloudRun={"service": "web"}
        )
        service = self.insert("backendServices", name="web", protocol="HTTPS", backends=[{"group": group}])
        url_map = self.insert(
            "urlMaps",
            name="site",
            defaultService=service,
            hostRules=[{"hosts": [HOST], "pathMatcher": "site"}],
            pathMatchers=[{"name": "site", "defaultService": service}],
        )
        redirect = self.insert(
            "urlMaps",
            name="redirect",
            defaultUrlRedirect={"httpsRedirect": True, "redirectResponseCode": "MOVED_PERMANENTLY_DEFAULT"},
        )
        https = self.insert("targetHttpsProxies", name="site", urlMap=url_map)
        http = self.insert("targetHttpProxies", name="redirect", urlMap=redirect)
        self.insert("globalAddresses", name="site")
        address = self.compute.globalAddresses().get(project=self.project, address="site").execute()["address"]
        self.insert("globalForwardingRules", name="https", IPAddress=address, portRange="443", target=https)
        self.insert("globalForwardingRules", name="http", IPAddress=address, portRange="80", target=http)

    def url(self, rule: str) -> str:
        key = f"compute/projects/{self.project}/global/forwardingRules/{rule}"
        return frontdoor._doors[self.region.core].addresses()[key]


@pytest.fixture
def edge(region: Region, project: str, parent: str, image: str) -> Edge:
    wanted = service_of(image)
    wanted.ingress = run_v2.IngressTraffic(3)  # internal and load balancer
    deploy(region, parent, wanted)
    return Edge(region, project)


def test_a_loopback_client_is_one_of_the_public_host(edge: Edge) -> None:
    edge.build()
    url = edge.url("https")

    seen = httpx.get(f"{url}/hello?x=1", headers={"origin": url, "referer": f"{url}/a"}).json()

    headers = seen["headers"]
    assert seen["path"] == "/hello?x=1"
    assert headers["host"] == HOST
    assert headers["origin"] == f"https://{HOST}"
    assert headers["referer"] == f"https://{HOST}/a"
    assert headers["x-forwarded-proto"] == "https"
    assert headers["x-forwarded-for"].startswith("127.0.0.1, 203.0.113.")
    assert headers["via"] == "1.1 google"


def test_plain_http_is_redirected_to_the_door_of_https(edge: Edge) -> None:
    edge.build()

    there = httpx.get(f"{edge.url('http')}/a?b=c")
    elsewhere = httpx.get(f"{edge.url('http')}/a?b=c", headers={"host": HOST})

    assert (there.status_code, there.headers["location"]) == (301, f"{edge.url('https')}/a?b=c")
    assert elsewhere.headers["location"] == f"https://{HOST}/a?b=c"


def test_route_rules_are_tried_in_their_order_and_a_prefix_is_replaced(edge: Edge, project: str) -> None:
    edge.build()
    maps = edge.compute.urlMaps()
    url_map = maps.get(project=project, urlMap="site").execute()

    def route(priority: int, prefix: str, **redirect: str) -> dict[str, Any]:
        return {"priority": priority, "matchRules": [{"prefixMatch": prefix}], "urlRedirect": redirect}

    url_map["pathMatchers"][0]["routeRules"] = [
        route(3, "/old/shop/sale", pathRedirect="/never"),
        route(1, "/old/about", pathRedirect="/about"),
        route(2, "/old/", prefixRedirect="/new/"),
    ]
    maps.update(project=project, urlMap="site", body=url_map).execute()

    def location(path: str) -> str:
        return httpx.get(edge.url("https") + path).headers["location"].removeprefix(edge.url("https"))

    assert location("/old/shop/sale?page=2") == "/new/shop/sale?page=2"
    assert location("/old/about/us") == "/about"


def test_a_backend_bucket_serves_what_everybody_may_read(edge: Edge, project: str) -> None:
    edge.build()
    client = storage.Client(
        project=project, credentials=edge.region.credentials(), client_options={"api_endpoint": edge.region.url}
    )
    bucket = client.create_bucket(f"{project}-static")
    bucket.blob("static/a.css").upload_from_file(io.BytesIO(b"body{}"), content_type="text/css")
    static = edge.insert(
        "backendBuckets",
        name="static",
        bucketName=bucket.name,
        enableCdn=True,
        cdnPolicy={"clientTtl": 60},
        customResponseHeaders=["X-Content-Type-Options: nosniff"],
    )
    maps = edge.compute.urlMaps()
    url_map = maps.get(project=project, urlMap="site").execute()
    url_map["pathMatchers"][0]["pathRules"] = [{"paths": ["/static/*"], "service": static}]
    maps.update(project=project, urlMap="site", body=url_map).execute()

    private = httpx.get(f"{edge.url('https')}/static/a.css")
    policy = bucket.get_iam_policy(requested_policy_version=3)
    policy.bindings.append({"role": "roles/storage.objectViewer", "members": {"allUsers"}})
    bucket.set_iam_policy(policy)
    public = httpx.get(f"{edge.url('https')}/static/a.css")

    assert private.status_code == 403
    assert (public.status_code, public.text) == (200, "body{}")
    assert public.headers["content-type"] == "text/css"
    assert public.headers["x-content-type-options"] == "nosniff"
    assert httpx.get(f"{edge.url('https')}/static/none").status_code == 404
    assert httpx.get(f"{edge.url('https')}/app").json()["path"] == "/app"


def test_a_security_policy_refuses_what_it_denies(edge: Edge, project: str) -> None:
    policy = edge.insert(
        "securityPolicies",
        name="armor",
        rules=[
            {
                "priority": 10,
                "action": "deny(403)",
                "match": {"expr": {"expression": "request.path.startsWith('/admin')"}},
            },
            {
                "priority": 2147483647,
                "action": "allow",
                "match": {"versionedExpr": "SRC_IPS_V1", "config": {"srcIpRanges": ["*"]}},
            },
        ],
    )
    edge.build()
    edge.compute.backendServices().setSecurityPolicy(
        project=project, backendService="web", body={"securityPolicy": policy}
    ).execute()

    before = [httpx.get(edge.url("https") + path).status_code for path in ("/admin/x", "/")]
    edge.compute.securityPolicies().patchRule(
        project=project, securityPolicy="armor", priority=10, body={"priority": 10, "action": "allow"}
    ).execute()
    after = httpx.get(f"{edge.url('https')}/admin/x").status_code

    assert before == [403, 200]
    assert after == 200


def test_requests_are_logged_where_the_backend_asks_for_it(edge: Edge, project: str) -> None:
    edge.build()
    policy = edge.insert(
        "securityPolicies",
        name="armor",
        rules=[
            {
                "priority": 2147483647,
                "action": "deny(403)",
                "match": {"versionedExpr": "SRC_IPS_V1", "config": {"srcIpRanges": ["*"]}},
            }
        ],
    )
    services = edge.compute.backendServices()
    assert httpx.get(edge.url("https") + "/unlogged").status_code == 200
    services.patch(project=project, backendService="web", body={"logConfig": {"enable": True}}).execute()
    assert httpx.get(edge.url("https") + "/logged").status_code == 200
    services.setSecurityPolicy(project=project, backendService="web", body={"securityPolicy": policy}).execute()
    assert httpx.get(edge.url("https") + "/refused").status_code == 403

    entries = edge.region.api("logging", "v2").entries()
    found = entries.list(
        body={"resourceNames": [f"projects/{project}"], "filter": "resource.type=http_load_balancer"}
    ).execute()["entries"]

    assert [(entry["httpRequest"]["requestUrl"], entry["httpRequest"]["status"]) for entry in found] == [
        (f"https://{HOST}/logged", 200),
        (f"https://{HOST}/refused", 403),
    ]
    assert [entry["jsonPayload"]["statusDetails"] for entry in found] == [
        "response_sent_by_backend",
        "denied_by_security_policy",
    ]
    assert found[1]["jsonPayload"]["enforcedSecurityPolicy"] == {"name": "armor", "outcome": "DENY"}
    assert found[0]["resource"]["labels"] == {
        "project_id": project,
        "forwarding_rule_name": "https",
        "target_proxy_name": "site",
        "url_map_name": "site",
        "backend_service_name": "web",
        "zone": "global",
    }
    assert found[0]["trace"].startswith(f"projects/{project}/traces/")


def test_without_its_service_the_load_balancer_says_404_and_without_a_backend_502(
    edge: Edge, parent: str, region: Region, project: str
) -> None:
    edge.build()
    region.client(run_v2.ServicesClient).delete_service(name=f"{parent}/services/web").result(timeout=30)
    backends = edge.compute.backendServices()
    gone = httpx.get(edge.url("https")).status_code
    backends.patch(project=project, backendService="web", body={"backends": []}).execute()

    assert gone == 404
    assert httpx.get(edge.url("https")).status_code == 502


def test_the_load_balancer_is_no_way_around_the_invoker(edge: Edge, parent: str, region: Region, project: str) -> None:
    edge.build()
    services = region.client(run_v2.ServicesClient)
    service = services.get_service(name=f"{parent}/services/web")
    service.invoker_iam_disabled = False
    services.update_service(service=service).result(timeout=30)
    refused = httpx.get(edge.url("https")).status_code

    region.core.iam.add_binding(f"run/{parent}/services/web", "roles/run.invoker", "allUsers")

    assert refused == 403
    assert httpx.get(edge.url("https")).status_code == 200


def test_a_port_is_closed_with_its_rule(edge: Edge, project: str) -> None:
    edge.build()
    url = edge.url("https")

    edge.compute.globalForwardingRules().delete(project=project, forwardingRule="https").execute()

    with pytest.raises(httpx.ConnectError):
        httpx.get(url)


def test_what_is_in_use_is_not_deleted(edge: Edge, project: str) -> None:
    edge.build()
    maps = edge.compute.urlMaps()

    with pytest.raises(HttpError) as refused:
        maps.delete(project=project, urlMap="site").execute()

    assert refused.value.status_code == 400
    assert refused.value.error_details[0]["reason"] == "resourceInUseByAnotherResource"
    address = edge.compute.globalAddresses().get(project=project, address="site").execute()
    assert address["status"] == "IN_USE"


def test_a_reference_comes_back_as_googles_own_link(edge: Edge, project: str, region: Region) -> None:
    edge.insert("networks", name="net", autoCreateSubnetworks=False)
    link = f"https://www.googleapis.com/compute/v1/projects/{project}/global/networks/net"
    for name, form in (
        ("a", f"projects/{project}/global/networks/net"),
        ("b", f"{region.url}/compute/v1/projects/{project}/global/networks/net"),
        ("c", "global/networks/net"),
    ):
        edge.insert("firewalls", name=name, network=form, allowed=[{"IPProtocol": "tcp"}])
        assert edge.compute.firewalls().get(project=project, firewall=name).execute()["network"] == link

    with pytest.raises(HttpError, match="The referenced network resource cannot be found"):
        edge.insert("firewalls", name="d", network="global/networks/none", allowed=[{"IPProtocol": "tcp"}])


def test_an_update_of_what_somebody_else_changed_is_refused(edge: Edge, project: str) -> None:
    edge.build()
    maps = edge.compute.urlMaps()
    first = maps.get(project=project, urlMap="site").execute()
    maps.update(project=project, urlMap="site", body={**first, "description": "one"}).execute()

    with pytest.raises(HttpError) as refused:
        maps.update(project=project, urlMap="site", body={**first, "description": "two"}).execute()

    assert refused.value.status_code == 412


def test_a_peering_range_is_given_out_once(edge: Edge, project: str) -> None:
    edge.insert("networks", name="net", autoCreateSubnetworks=False)
    for name in ("one", "two"):
        edge.insert(
            "globalAddresses",
            name=name,
            addressType="INTERNAL",
            purpose="VPC_PEERING",
            prefixLength=20,
            network=f"projects/{project}/global/networks/net",
        )

    addresses = edge.compute.globalAddresses().list(project=project).execute()["items"]

    assert [(one["name"], one["address"], one["status"]) for one in addresses] == [
        ("one", "10.96.0.0", "RESERVED"),
        ("two", "10.96.16.0", "RESERVED"),
    ]
