"""Networks: VPC, subnets, firewall, addresses, routers and their NAT."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from localgcp.pulumi.gcp.kind import Kind, Work, global_network
from localgcp.pulumi.gcp.mapping import Body, Encoding, Values, expand
from localgcp.pulumi.gcp.rest import RestError
from localgcp.pulumi.gcp.values import is_link, is_zero, same, same_scalar


@dataclass(frozen=True, kw_only=True)
class ComputeKind(Kind):
    api: str = "compute"
    name_in_body: Any = "short"

    def encode(self, work: Work, *, updating: bool) -> Body:
        body = super().encode(work, updating=updating)
        if "network" in body and "network" in self.properties:
            body["network"] = global_network(body["network"], work.project)
        if "region" in self.properties and not updating:
            # Not a path that exists, but what the provider sends and Google takes.
            body["region"] = f"projects/{work.project}/global/regions/{work.location}"
        return body

    def write(self, work: Work, method: str, path: str, body: Body, **arguments: Any) -> None:
        """A write and the wait for its operation."""
        work.finish("compute", work.call(method, "compute", path, body=body, **arguments))

    def set_labels(self, work: Work, path: str) -> None:
        """Labels are set by a call of their own, with the fingerprint of those that are there."""
        live = work.call("GET", "compute", path)
        fingerprint = live.get("labelFingerprint", "")
        self.write(work, "POST", f"{path}/setLabels", {"labelFingerprint": fingerprint, "labels": self.labels(work)})

    def update_labels(self, work: Work) -> None:
        if self.has_changed(work, "labels"):
            fingerprint = work.state.get("labelFingerprint", "")
            body = {"labelFingerprint": fingerprint, "labels": self.labels(work)}
            self.write(work, "POST", f"{self.path(work)}/setLabels", body)


@dataclass(frozen=True, kw_only=True)
class Network(ComputeKind):
    def create(self, work: Work) -> Body | None:
        super().create(work)
        if work.value("deleteDefaultRoutesOnCreate"):
            self._delete_default_routes(work)
        return None

    def _delete_default_routes(self, work: Work) -> None:
        link = f"/{self.path(work)}"
        routes = work.call("GET", "compute", f"projects/{work.project}/global/routes").get("items", [])
        for route in routes:
            if route.get("destRange") == "0.0.0.0/0" and str(route.get("network", "")).endswith(link):
                path = f"projects/{work.project}/global/routes/{route['name']}"
                work.finish("compute", work.call("DELETE", "compute", path))

    def encode(self, work: Work, *, updating: bool) -> Body:
        body = super().encode(work, updating=updating)
        if updating and not self.has_changed(work, "mtu"):
            body.pop("mtu", None)
        return body


NETWORK = Network(
    type="gcp:compute/network:Network",
    collection="projects/{project}/global/networks",
    encoding=Encoding(
        always={"": {"routingConfig.deleteBgpAlwaysCompareMed": False}},
        keep_zero=frozenset({"autoCreateSubnetworks"}),
    ),
)


def _log_config(raw: Mapping[str, Any]) -> Any:
    """A log config that is switched off is none."""
    return None if not raw.get("enable") else raw


@dataclass(frozen=True, kw_only=True)
class LoggedKind(ComputeKind):
    """In Pulumi, logs are on where there is a `logConfig`; in REST, there is always one, with a switch."""

    def encode(self, work: Work, *, updating: bool) -> Body:
        body = super().encode(work, updating=updating)
        given = body.get("logConfig")
        body["logConfig"] = {"enable": True, **given} if given else {"enable": False}
        return body

    def decode(self, work: Work, body: Mapping[str, Any]) -> Values:
        live = super().decode(work, {**body, "logConfig": _log_config(body.get("logConfig") or {})})
        return live


@dataclass(frozen=True, kw_only=True)
class Subnetwork(LoggedKind):
    def update(self, work: Work) -> Body | None:
        path = self.path(work)
        if self.has_changed(work, "ipCidrRange"):
            self.write(work, "POST", f"{path}/expandIpCidrRange", {"ipCidrRange": work.value("ipCidrRange")})
        if self.has_changed(work, "privateIpGoogleAccess"):
            body = {"privateIpGoogleAccess": bool(work.inputs.get("privateIpGoogleAccess"))}
            self.write(work, "POST", f"{path}/setPrivateIpGoogleAccess", body)
        rest = self.changed_fields(work) - {"ipCidrRange", "privateIpGoogleAccess"}
        if rest:
            fingerprint = work.call("GET", "compute", path).get("fingerprint", "")
            wanted = self.encode(work, updating=True)
            changes = {name: wanted.get(name) for name in sorted(rest)}
            self.write(work, "PATCH", path, {"fingerprint": fingerprint, **changes})
        return None


SUBNETWORK = Subnetwork(
    type="gcp:compute/subnetwork:Subnetwork",
    collection="projects/{project}/regions/{location}/subnetworks",
    encoding=Encoding(always={"logConfig": {"metadataFields": []}}),
)

_FIREWALL_LISTS = (
    "allowed",
    "denied",
    "destinationRanges",
    "sourceRanges",
    "sourceServiceAccounts",
    "sourceTags",
    "targetServiceAccounts",
    "targetTags",
)
FIREWALL = LoggedKind(
    type="gcp:compute/firewall:Firewall",
    collection="projects/{project}/global/firewalls",
    encoding=Encoding(keep_zero=frozenset({"priority"})),
    update_encoding=Encoding(
        always={"": {**{name: [] for name in _FIREWALL_LISTS}, "description": "", "disabled": False}},
        keep_zero=frozenset({"priority"}),
    ),
    conflicts=(("allows", "denies"), ("sourceRanges", "destinationRanges")),
)


@dataclass(frozen=True, kw_only=True)
class GlobalAddress(ComputeKind):
    def encode(self, work: Work, *, updating: bool) -> Body:
        body = super().encode(work, updating=updating)
        if body.get("addressType") == "EXTERNAL":
            del body["addressType"]
            body["networkTier"] = "PREMIUM"
        return body

    def create(self, work: Work) -> Body | None:
        super().create(work)
        self.set_labels(work, self.path(work))
        return None

    def update(self, work: Work) -> Body | None:
        self.update_labels(work)
        return None


GLOBAL_ADDRESS = GlobalAddress(
    type="gcp:compute/globalAddress:GlobalAddress", collection="projects/{project}/global/addresses"
)


def _same_port_range(a: Any, b: Any) -> bool:
    """The API answers `443` as `443-443`."""

    def whole(value: Any) -> str:
        text = str(value)
        return text if "-" in text else f"{text}-{text}"

    return a is not None and b is not None and whole(a) == whole(b)


def _same_address(a: Any, b: Any) -> bool:
    """An address given by reference is answered as the address itself, which says nothing about the reference."""
    return isinstance(a, str) and isinstance(b, str) and is_link(a) != is_link(b)


@dataclass(frozen=True, kw_only=True)
class GlobalForwardingRule(ComputeKind):
    attributed: bool = False

    def create(self, work: Work) -> Body | None:
        super().create(work)
        if work.inputs.get("labels"):
            self.set_labels(work, self.path(work))
        return None

    def update(self, work: Work) -> Body | None:
        path = self.path(work)
        self.update_labels(work)
        if self.has_changed(work, "target"):
            self.write(work, "POST", f"{path}/setTarget", {"target": work.value("target")})
        rest = self.changed_fields(work) - {"labels", "target"}
        if rest:
            wanted = self.encode(work, updating=True)
            self.write(work, "PATCH", path, {name: wanted.get(name) for name in sorted(rest)})
        return None


GLOBAL_FORWARDING_RULE = GlobalForwardingRule(
    type="gcp:compute/globalForwardingRule:GlobalForwardingRule",
    collection="projects/{project}/global/forwardingRules",
    alike={"portRange": _same_port_range, "ipAddress": _same_address},
)

ROUTER = ComputeKind(
    type="gcp:compute/router:Router",
    collection="projects/{project}/regions/{location}/routers",
    encoding=Encoding(always={"bgp": {"advertisedGroups": [], "advertisedIpRanges": []}}),
)

_NAT_LISTS = ("drainNatIps", "initialNatIps", "nat64Subnetworks", "natIps", "rules", "subnetworks")


@dataclass(frozen=True, kw_only=True)
class RouterNat(ComputeKind):
    """No resource of its own: an entry of the router's `nats`, changed by reading and patching the router."""

    id_form: str = "{project}/{location}/{router}/{name}"

    def _router(self, work: Work) -> str:
        name = str(work.value("router")).rpartition("/")[2]
        return f"projects/{work.project}/regions/{work.location}/routers/{name}"

    def _nats(self, work: Work) -> list[Body]:
        router = work.call("GET", "compute", self._router(work))
        nats: list[Body] = router.get("nats", [])
        return nats

    def _put(self, work: Work, nats: list[Body]) -> None:
        self.write(work, "PATCH", self._router(work), {"nats": nats})

    def _entry(self, work: Work, *, updating: bool) -> Body:
        values = {name: value for name, value in work.plan.items() if name not in ("name", "region")}
        entry = expand(self.properties, values, self.encoding)
        if updating:
            entry = {
                "enableDynamicPortAllocation": False,
                "enableEndpointIndependentMapping": False,
                "endpointTypes": None,
                **entry,
            }
        return {**entry, "name": self.values(work)["name"]}

    def create(self, work: Work) -> Body | None:
        entry = self._entry(work, updating=False)
        nats = self._nats(work)
        mine = [nat for nat in nats if nat["name"] == entry["name"]]
        if mine and not all(same_scalar(mine[0].get(key), value) for key, value in entry.items() if not is_zero(value)):
            raise RestError(409, f"the router has a NAT named {entry['name']} already", "alreadyExists")
        self._put(work, [nat for nat in nats if nat not in mine] + [entry])
        work.id = self.identify(work)
        return None

    def update(self, work: Work) -> Body | None:
        entry = self._entry(work, updating=True)
        self._put(work, [entry if nat["name"] == entry["name"] else nat for nat in self._nats(work)])
        return None

    def get(self, work: Work) -> Body | None:
        try:
            nats = self._nats(work)
        except RestError as error:
            if error.status == 404:
                return None
            raise
        return next((nat for nat in nats if nat["name"] == self.values(work)["name"]), None)

    def delete(self, work: Work) -> None:
        name = self.values(work)["name"]
        self._put(work, [nat for nat in self._nats(work) if nat["name"] != name])


ROUTER_NAT = RouterNat(
    type="gcp:compute/routerNat:RouterNat",
    collection="projects/{project}/regions/{location}/routers",
    encoding=Encoding(always={"": {name: [] for name in _NAT_LISTS}}, skip=frozenset({"name"})),
)


def _same_domains(a: Any, b: Any) -> bool:
    """Domains with and without the final dot are the same."""
    if not isinstance(a, list) or not isinstance(b, list):
        return False
    return [str(each).rstrip(".") for each in a] == [str(each).rstrip(".") for each in b]


MANAGED_SSL_CERTIFICATE = ComputeKind(
    type="gcp:compute/managedSslCertificate:ManagedSslCertificate",
    collection="projects/{project}/global/sslCertificates",
    update_method="",
    alike={"managed.domains": _same_domains},
)

NETWORK_ENDPOINT_GROUP = ComputeKind(
    type="gcp:compute/regionNetworkEndpointGroup:RegionNetworkEndpointGroup",
    collection="projects/{project}/regions/{location}/networkEndpointGroups",
    update_method="",
    encoding=Encoding(always={"": {"appEngine": None, "serverlessDeployment": None}}),
    conflicts=(("cloudRun", "cloudFunction", "appEngine", "serverlessDeployment"),),
)

SSL_POLICY = ComputeKind(
    type="gcp:compute/sSLPolicy:SSLPolicy",
    collection="projects/{project}/global/sslPolicies",
    update_encoding=Encoding(always={"": {"customFeatures": None}}, sent_outputs=frozenset({"fingerprint"})),
)


@dataclass(frozen=True, kw_only=True)
class SecurityPolicy(ComputeKind):
    """Rules are changed one by one, the policy's own fields by a PATCH of those that changed."""

    def encode(self, work: Work, *, updating: bool) -> Body:
        body = super().encode(work, updating=updating)
        body.pop("labels", None)
        return body

    def create(self, work: Work) -> Body | None:
        super().create(work)
        self.set_labels(work, self.path(work))
        return None

    def update(self, work: Work) -> Body | None:
        path = self.path(work)
        own = self.changed_fields(work) - {"rules", "labels"}
        if own:
            wanted = self.encode(work, updating=True)
            changes = {name: wanted.get(name) for name in sorted(own)}
            self.write(work, "PATCH", path, {**changes, "fingerprint": work.state.get("fingerprint", "")})
        if self.has_changed(work, "rules"):
            self._update_rules(work, path)
        self.update_labels(work)
        return None

    def _update_rules(self, work: Work, path: str) -> None:
        rules = self.properties["rules"]
        olds = {rule["priority"]: rule for rule in work.old_inputs.get("rules") or []}
        news = {rule["priority"]: rule for rule in work.plan.get("rules") or []}
        for priority in sorted(olds.keys() | news.keys(), reverse=True):
            old, new = olds.get(priority), news.get(priority)
            if new is None:
                self.write(work, "POST", f"{path}/removeRule", {}, query={"priority": str(priority)})
                continue
            body = expand(rules.properties, new, self.encoding, "rules")
            if old is None and any(r.get("priority") == priority for r in work.state.get("rules") or []):
                old = {}  # the default rule, which the API makes by itself
            if old is None:
                self.write(work, "POST", f"{path}/addRule", body)
                continue
            wanted = next(r for r in work.inputs["rules"] if r["priority"] == priority)
            changed = [
                name for name, prop in rules.properties.items() if not same(prop, wanted.get(name), old.get(name))
            ]
            if changed:
                query = {"priority": str(priority)}
                if "rateLimitOptions" in changed:
                    query["updateMask"] = "rate_limit_options"
                self.write(work, "POST", f"{path}/patchRule", body, query=query)

    def decode(self, work: Work, body: Mapping[str, Any]) -> Values:
        live = super().decode(work, body)
        wanted = {rule["priority"] for rule in work.inputs.get("rules") or []}
        if work.inputs and "rules" in live:
            live["rules"] = [r for r in live["rules"] if r["priority"] in wanted or r["priority"] != _DEFAULT_PRIORITY]
        return live


_DEFAULT_PRIORITY = 2147483647

SECURITY_POLICY = SecurityPolicy(
    type="gcp:compute/securityPolicy:SecurityPolicy",
    collection="projects/{project}/global/securityPolicies",
    encoding=Encoding(
        always={
            "": {"description": ""},
            "adaptiveProtectionConfig.layer7DdosDefenseConfig": {"ruleVisibility": ""},
            "rules": {"description": "", "preview": False},
            "rules.match": {"versionedExpr": ""},
            "rules.rateLimitOptions": {"enforceOnKeyConfigs": [], "enforceOnKeyName": ""},
        }
    ),
)

KINDS = (
    NETWORK,
    SUBNETWORK,
    FIREWALL,
    GLOBAL_ADDRESS,
    GLOBAL_FORWARDING_RULE,
    ROUTER,
    ROUTER_NAT,
    MANAGED_SSL_CERTIFICATE,
    NETWORK_ENDPOINT_GROUP,
    SSL_POLICY,
    SECURITY_POLICY,
)
