"""Compute: the resources of networks and of the load balancer.

The generic store keeps them; here is what they mean: references are stored as Google's full links, addresses are
given out, what is in use is not deleted, and every change reaches the front door. No packet is filtered: a network, a
firewall or a router is a record of what the program declared.
"""

import datetime
import hashlib
import ipaddress
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from localgcp import frontdoor
from localgcp.errors import AlreadyExists, InvalidArgument, NotFound, PreconditionFailed, ResourceExhausted
from localgcp.generic import COMPUTE_ROOT, existing, fingerprint, page
from localgcp.locations import REGIONS
from localgcp.region import Region
from localgcp.service import Call, Service
from localgcp.store import Resource
from localgcp.validation import without_nulls

ADDRESSES = ipaddress.ip_network("203.0.113.0/24")  # TEST-NET-3 (RFC 5737): nobody's, so nobody is reached by mistake
PEERING_RANGES = ipaddress.ip_network("10.96.0.0/11")
DEFAULT_RULE_PRIORITY = 2147483647
MAX_PORT = 65535  # and the last priority of a firewall
#: What a firewall may name (discovery document, Firewall.allowed); any other protocol is a number.
IP_PROTOCOLS = ("tcp", "udp", "icmp", "esp", "ah", "ipip", "sctp", "all")
#: The noun in a permission, where it is not the collection's own name.
PERMISSION_NOUNS = {"regionNetworkEndpointGroups": "networkEndpointGroups"}

#: Fields that name another resource of Compute, wherever they stand in a body.
REFERENCES = frozenset(
    (
        *("network", "subnetwork", "natIps", "urlMap", "target", "defaultService", "service", "backendService"),
        *("group", "healthChecks", "sslPolicy", "sslCertificates", "securityPolicy", "edgeSecurityPolicy"),
    )
)

COLLECTIONS = (
    "networks", "subnetworks", "routers", "routes", "firewalls", "globalAddresses", "addresses",
    "globalForwardingRules", "targetHttpProxies", "targetHttpsProxies", "urlMaps", "backendServices",
    "backendBuckets", "regionNetworkEndpointGroups", "securityPolicies", "sslCertificates", "sslPolicies",
    "healthChecks",
)  # fmt: skip

#: A call of its own that sets one field: method -> (field of the body, field of the resource).
SETTERS = {
    "globalAddresses.setLabels": ("labels", "labels"),
    "globalForwardingRules.setLabels": ("labels", "labels"),
    "securityPolicies.setLabels": ("labels", "labels"),
    "globalForwardingRules.setTarget": ("target", "target"),
    "targetHttpProxies.setUrlMap": ("urlMap", "urlMap"),
    "targetHttpsProxies.setUrlMap": ("urlMap", "urlMap"),
    "targetHttpsProxies.setSslCertificates": ("sslCertificates", "sslCertificates"),
    "targetHttpsProxies.setSslPolicy": ("sslPolicy", "sslPolicy"),
    "targetHttpsProxies.setCertificateMap": ("certificateMap", "certificateMap"),
    "targetHttpsProxies.setQuicOverride": ("quicOverride", "quicOverride"),
    "backendServices.setSecurityPolicy": ("securityPolicy", "securityPolicy"),
    "backendServices.setEdgeSecurityPolicy": ("securityPolicy", "edgeSecurityPolicy"),
    "backendBuckets.setEdgeSecurityPolicy": ("securityPolicy", "edgeSecurityPolicy"),
    "subnetworks.expandIpCidrRange": ("ipCidrRange", "ipCidrRange"),
    "subnetworks.setPrivateIpGoogleAccess": ("privateIpGoogleAccess", "privateIpGoogleAccess"),
}
# Most regions have the zones a, b and c; these have others.
ZONES = {"us-central1": "abcf", "us-east1": "bcd", "europe-west1": "bcd"}

service = Service("compute:v1")
for collection in COLLECTIONS:
    service.allow(f"compute.{PERMISSION_NOUNS.get(collection, collection)}", collection)
for identifier in SETTERS:
    service.permissions[identifier] = f"compute.{identifier}"
service.permissions |= {
    "projects.get": "compute.projects.get",
    "regions.get": "compute.regions.get",
    "regions.list": "compute.regions.list",
    "zones.get": "compute.zones.get",
    "zones.list": "compute.zones.list",
    "globalOperations.get": "compute.globalOperations.get",
    "globalOperations.list": "compute.globalOperations.list",
    "globalOperations.wait": "compute.globalOperations.get",
    "regionOperations.get": "compute.regionOperations.get",
    "regionOperations.list": "compute.regionOperations.list",
    "regionOperations.wait": "compute.regionOperations.get",
    "securityPolicies.addRule": "compute.securityPolicies.update",
    "securityPolicies.patchRule": "compute.securityPolicies.update",
    "securityPolicies.removeRule": "compute.securityPolicies.update",
    "securityPolicies.getRule": "compute.securityPolicies.get",
    "urlMaps.invalidateCache": "compute.urlMaps.invalidateCache",
    "networks.removePeering": "compute.networks.removePeering",
}


@service.on_open
async def open_(region: Region) -> None:
    await frontdoor.open_doors(region)


@service.on_close
async def close(region: Region) -> None:
    await frontdoor.close_doors(region)


# Changes


@service.method(*(f"{collection}.insert" for collection in COLLECTIONS))
def insert(call: Call) -> Any:
    with call.store.transaction():
        call.body = _complete(call, _with_links(call, call.body))
        _check_references(call, call.body)
        result = call.proceed()
    _changed(call)
    return result


@service.method(
    *(f"{collection}.{verb}" for collection in COLLECTIONS for verb in ("patch", "update") if collection != "addresses")
)
def change(call: Call) -> Any:
    with call.store.transaction():
        current = existing(call)
        _check_fingerprint(current.get("fingerprint"), call.body.get("fingerprint"))
        body = _with_links(call, call.body)
        if call.method.verb == "update":
            body = _complete(call, body)
        elif call.method.collection == "subnetworks" and "logConfig" in body:
            body["enableFlowLogs"] = bool(body["logConfig"].get("enable"))
        elif call.method.collection == "securityPolicies" and "rules" in body:
            body["rules"] = [_rule(rule) for rule in body["rules"]]
        call.body = body
        _check_references(call, body)
        result = call.proceed()
    _changed(call)
    return result


@service.method(*(f"{collection}.delete" for collection in COLLECTIONS))
def delete(call: Call) -> Any:
    with call.store.transaction():
        current = existing(call)
        user = _user_of(call, current)
        if user is not None:
            raise InvalidArgument(
                f"The {_singular(current)} resource '{current.relative_name}' is already being used by"
                f" '{user.relative_name}'",
                reason="resourceInUseByAnotherResource",
            )
        result = call.proceed()
    _changed(call)
    return result


@service.method(*SETTERS)
def set_field(call: Call) -> dict[str, Any]:
    given, field = SETTERS[call.method.id]
    key = _target_key(call)
    with call.store.transaction():
        current = call.store.find(key)
        if current is None:
            raise NotFound(f"The resource '{key.partition('/')[2]}' was not found")
        if given == "labels":
            _check_fingerprint(current.get("labelFingerprint"), call.body.get("labelFingerprint"))
        value = _with_links(call, without_nulls(call.body)).get(given)
        _check_references(call, {field: value})
        if field == "ipCidrRange":
            _check_growth(current, str(value))
        if value in (None, "", {}, []):
            current.pop(field, None)
        else:
            current[field] = value
        for name in ("fingerprint", "labelFingerprint"):
            if name in current:
                current[name] = fingerprint(current)
        call.store.put(key, current)
    _changed(call)
    return call.operation(target=key, kind=call.method.verb)


@service.method("securityPolicies.addRule", "securityPolicies.patchRule", "securityPolicies.removeRule")
def change_rules(call: Call) -> dict[str, Any]:
    key = _target_key(call)
    with call.store.transaction():
        policy = call.store.find(key)
        if policy is None:
            raise NotFound(f"The resource '{key.partition('/')[2]}' was not found")
        body = without_nulls(call.body)
        priority = int(call.query.get("priority", body.get("priority", DEFAULT_RULE_PRIORITY)))
        found = next((rule for rule in policy["rules"] if rule["priority"] == priority), None)
        if call.method.verb == "addRule":
            if found is not None:
                raise AlreadyExists(
                    f"Invalid value for field 'priority': a rule with priority {priority} exists already"
                )
            policy["rules"].append(_rule(body))
        elif found is None:
            raise InvalidArgument(f"Invalid value for field 'priority': '{priority}'. No rule has this priority")
        elif call.method.verb == "patchRule":
            policy["rules"][policy["rules"].index(found)] = _rule({**found, **body})
        elif priority == DEFAULT_RULE_PRIORITY:
            raise InvalidArgument("The default rule cannot be removed")
        else:
            policy["rules"].remove(found)
        policy["fingerprint"] = fingerprint(policy)
        call.store.put(key, policy)
    _changed(call)
    return call.operation(target=key, kind=call.method.verb)


@service.method("securityPolicies.getRule")
def get_rule(call: Call) -> dict[str, Any]:
    policy = call.store.get(_target_key(call))
    priority = int(call.query.get("priority", DEFAULT_RULE_PRIORITY))
    for rule in policy["rules"]:
        if rule["priority"] == priority:
            return dict(rule)
    raise InvalidArgument(f"Invalid value for field 'priority': '{priority}'. No rule has this priority")


@service.method("networks.removePeering")
def remove_peering(call: Call) -> dict[str, Any]:
    """The peerings of a network are made by Service Networking, and kept below it."""
    key = _target_key(call)
    peering = f"{key}/connections/{call.body.get('name')}"
    with call.store.transaction():
        if not call.store.exists(peering):
            raise InvalidArgument(f"There is no peering ({call.body.get('name')}) for the network.")
        call.store.delete(peering)
    return call.operation(target=key, kind="removePeering")


@service.method("urlMaps.invalidateCache")
def invalidate_cache(call: Call) -> dict[str, Any]:
    """Nothing is cached here, so everything is invalid already."""
    key = _target_key(call)
    call.store.get(key)
    return call.operation(target=key, kind="invalidateCache")


# Reading


@service.method("globalAddresses.get")
def get_address(call: Call) -> Resource:
    return _with_users(call, existing(call))


@service.method("globalAddresses.list")
def list_addresses(call: Call) -> dict[str, Any]:
    return page(call, [_with_users(call, one) for one in call.store.list(call.key, "addresses")])


@service.method("globalOperations.wait", "regionOperations.wait")
def wait_operation(call: Call) -> Resource:
    return call.store.get(call.key.removesuffix("/wait"))


@service.method("projects.get")
def get_project(call: Call) -> dict[str, Any]:
    number = call.region.project_number(call.project)
    return {
        "kind": "compute#project",
        "id": number,
        "name": call.project,
        "selfLink": f"{COMPUTE_ROOT}/projects/{call.project}",
        "defaultServiceAccount": f"{number}-compute@developer.gserviceaccount.com",
        "defaultNetworkTier": "PREMIUM",
        "commonInstanceMetadata": {"kind": "compute#metadata"},
        "vmDnsSetting": "ZONAL_ONLY",
    }


@service.method("regions.get", "zones.get")
def get_place(call: Call) -> Resource:
    name = call.named.rpartition("/")[2]
    for place in _places(call):
        if place["name"] == name:
            return place
    raise NotFound(f"The resource '{call.named}' was not found")


@service.method("regions.list", "zones.list")
def list_places(call: Call) -> dict[str, Any]:
    return page(call, _places(call))


def _places(call: Call) -> list[Resource]:
    noun = call.method.collection
    root = f"{COMPUTE_ROOT}/projects/{call.project}"

    def place(name: str, links: Mapping[str, Any]) -> Resource:
        number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:2])
        body = {"kind": f"compute#{noun.removesuffix('s')}", "id": str(number), "name": name, "status": "UP"}
        return Resource(
            f"compute/projects/{call.project}/{noun}/{name}", {**body, **links, "selfLink": f"{root}/{noun}/{name}"}
        )

    zones = {region: [f"{region}-{letter}" for letter in ZONES.get(region, "abc")] for region in sorted(REGIONS)}
    if noun == "regions":
        return [
            place(region, {"zones": [f"{root}/zones/{zone}" for zone in inside]}) for region, inside in zones.items()
        ]
    return [place(zone, {"region": f"{root}/regions/{region}"}) for region, inside in zones.items() for zone in inside]


# References


def _with_links(call: Call, body: Mapping[str, Any]) -> dict[str, Any]:
    """Every reference as Google answers it: a full https link, whatever form and host it came in."""
    result: dict[str, Any] = {}
    for name, value in body.items():
        if name == "region" and isinstance(value, str):
            result[name] = f"{COMPUTE_ROOT}/projects/{call.project}/regions/{value.rpartition('/')[2]}"
        elif name in REFERENCES and isinstance(value, str):
            result[name] = full_link(call.region, call.project, value)
        elif name in REFERENCES and isinstance(value, list) and all(isinstance(item, str) for item in value):
            result[name] = [full_link(call.region, call.project, item) for item in value]
        elif isinstance(value, Mapping):
            result[name] = _with_links(call, value)
        elif isinstance(value, list):
            result[name] = [_with_links(call, item) if isinstance(item, Mapping) else item for item in value]
        else:
            result[name] = value
    return result


def full_link(region: Region, project: str, reference: str) -> str:
    relative = re.sub(r"^https?://[^/]+/(?:compute/(?:v1|beta)/)?", "", reference)
    if relative.startswith(("global/", "regions/", "zones/")):
        relative = f"projects/{project}/{relative}"
    if not relative.startswith("projects/"):
        return reference
    return f"{COMPUTE_ROOT}/{region.with_project_ids(relative)}"


def _check_references(call: Call, body: Any, at: str = "resource") -> None:
    """Raises InvalidArgument for a link to what does not exist."""
    if isinstance(body, Mapping):
        for name, value in body.items():
            where = f"{at}.{name}"
            if name in REFERENCES:
                for link in value if isinstance(value, list) else [value]:
                    if isinstance(link, str) and link.startswith(f"{COMPUTE_ROOT}/projects/"):
                        relative = link.removeprefix(f"{COMPUTE_ROOT}/")
                        if not call.store.exists(f"compute/{relative}"):
                            raise InvalidArgument(
                                f"Invalid value for field '{where}': '{link}'. The referenced {name} resource cannot be"
                                " found.",
                                reason="invalid",
                            )
            _check_references(call, value, where)
    elif isinstance(body, list):
        for index, item in enumerate(body):
            _check_references(call, item, f"{at}[{index}]")


def _user_of(call: Call, resource: Resource) -> Resource | None:
    """Another resource that could not do without this one."""
    link = json.dumps(resource["selfLink"])
    address = resource.get("address") if "/addresses/" in resource.key else None
    for other in call.store.scan(f"compute/projects/{call.project}/"):
        if other.key == resource.key or "/operations/" in other.key:
            continue
        if other.key.startswith(f"{resource.key}/"):  # a network's peering
            return other
        if address is not None and other.get("IPAddress") == address:
            return other
        if link in json.dumps({name: value for name, value in other.items() if name != "selfLink"}):
            return other
    return None


def _target_key(call: Call) -> str:
    """The resource that a call of its own is about; some of those paths leave `global` out."""
    relative = call.named.removesuffix(f"/{call.method.verb}")
    words = relative.split("/")
    if len(words) == 4:
        words.insert(2, "global")
    return "compute/" + "/".join(words)


def _singular(resource: Resource) -> str:
    """`urlMap`, from the kind `compute#urlMap`."""
    return str(resource.get("kind", "compute#resource")).partition("#")[2]


def _check_fingerprint(current: Any, given: Any) -> None:
    if given and current and given != current:
        raise PreconditionFailed(
            "Invalid fingerprint: the resource was changed since it was read. Read it again.", reason="conditionNotMet"
        )


def _changed(call: Call) -> None:
    frontdoor.changed(call.region)


# Defaults


def _complete(call: Call, body: dict[str, Any]) -> dict[str, Any]:
    """The body with the values that Google fills in."""
    completed = COMPLETE.get(call.method.collection)
    return completed(call, without_nulls(body)) if completed is not None else body


def _network(call: Call, body: dict[str, Any]) -> dict[str, Any]:
    routing = {"routingMode": "REGIONAL", "bgpBestPathSelectionMode": "LEGACY", **body.get("routingConfig", {})}
    defaults = {"mtu": 1460, "networkFirewallPolicyEnforcementOrder": "AFTER_CLASSIC_FIREWALL"}
    return {**defaults, **body, "routingConfig": routing}


def _subnetwork(call: Call, body: dict[str, Any]) -> dict[str, Any]:
    network = _cidr(body.get("ipCidrRange", ""))
    for other in call.store.list(call.key, "subnetworks"):
        same_network = other.get("network") == body.get("network")
        if same_network and network.overlaps(_cidr(other["ipCidrRange"])) and other["name"] != body.get("name"):
            raise InvalidArgument(
                f"Invalid IPCidrRange: {network} conflicts with existing subnetwork '{other['name']}' in region"
                f" '{call.location}'.",
                reason="invalid",
            )
    defaults: dict[str, Any] = {
        "purpose": "PRIVATE",
        "stackType": "IPV4_ONLY",
        "privateIpv6GoogleAccess": "DISABLE_GOOGLE_ACCESS",
        "privateIpGoogleAccess": False,
        "logConfig": {"enable": False},
    }
    body = {**defaults, **body, "gatewayAddress": str(network[1])}
    return {**body, "enableFlowLogs": bool(body["logConfig"].get("enable"))}


def _firewall(call: Call, body: dict[str, Any]) -> dict[str, Any]:
    defaults: dict[str, Any] = {
        "direction": "INGRESS",
        "priority": 1000,
        "disabled": False,
        "logConfig": {"enable": False},
    }
    body = {**defaults, **body}
    _check_firewall(body)
    if body["direction"] == "INGRESS" and not any(
        body.get(f) for f in ("sourceRanges", "sourceTags", "sourceServiceAccounts")
    ):
        body["sourceRanges"] = ["0.0.0.0/0"]
    return body


def _check_firewall(body: dict[str, Any]) -> None:
    rules = [("allowed", rule) for rule in body.get("allowed") or []]
    rules += [("denied", rule) for rule in body.get("denied") or []]
    if len({kind for kind, _ in rules}) != 1:
        raise InvalidArgument(
            "Invalid value for field 'resource.allowed': a firewall must have rules that allow, or rules that deny,"
            " and not both",
            reason="invalid",
        )
    for kind, rule in rules:
        protocol = str(rule.get("IPProtocol") or "")
        if protocol not in IP_PROTOCOLS and not (protocol.isdigit() and int(protocol) <= 255):
            raise InvalidArgument(
                f"Invalid value for field 'resource.{kind}.IPProtocol': '{protocol}'. It must be a number, or one of"
                f" {', '.join(IP_PROTOCOLS)}",
                reason="invalid",
            )
        for ports in rule.get("ports") or []:
            first, _, last = str(ports).partition("-")
            numbers = [int(number) if number.isdigit() else -1 for number in (first, last or first)]
            if not 0 <= numbers[0] <= numbers[1] <= MAX_PORT:
                raise InvalidArgument(
                    f"Invalid value for field 'resource.{kind}.ports': '{ports}'. It must be a port or a range",
                    reason="invalid",
                )
    for field in ("sourceRanges", "destinationRanges"):
        for cidr in body.get(field) or []:
            try:
                ipaddress.ip_network(cidr, strict=False)
            except ValueError as error:
                raise InvalidArgument(
                    f"Invalid value for field 'resource.{field}': '{cidr}'. {error}", reason="invalid"
                ) from None
    if not 0 <= body["priority"] <= MAX_PORT:
        raise InvalidArgument(
            f"Invalid value for field 'resource.priority': '{body['priority']}'. It must be 0 to {MAX_PORT}",
            reason="invalid",
        )


def _address(call: Call, body: dict[str, Any]) -> dict[str, Any]:
    body = {"addressType": "EXTERNAL", "status": "RESERVED", **body}
    if "address" in body:
        _check_address(body["address"])
    taken = {
        one["address"] for one in call.store.scan("compute/projects/") if "/addresses/" in one.key and "address" in one
    }
    if body["addressType"] == "EXTERNAL":
        body.setdefault("networkTier", "PREMIUM")
        body.setdefault("ipVersion", "IPV4")
        body.setdefault("address", str(next(ip for ip in list(ADDRESSES)[20:] if str(ip) not in taken)))
    else:
        length = body.setdefault("prefixLength", 16) if body.get("purpose") == "VPC_PEERING" else 32
        if "address" not in body:
            body["address"] = _free_range(call, length)
    return body


def _check_address(text: str) -> None:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise InvalidArgument(
            f"Invalid value for field 'resource.address': '{text}'. Must be an IP address.", reason="invalid"
        ) from None


def _free_range(call: Call, length: int) -> str:
    if not PEERING_RANGES.prefixlen < length <= 32:
        raise InvalidArgument(
            f"Invalid value for field 'resource.prefixLength': '{length}'. Without an address, localgcp takes a part of"
            f" {PEERING_RANGES}: choose {PEERING_RANGES.prefixlen + 1} to 32, or name an address.",
            reason="invalid",
        )
    used = [
        _cidr(f"{one['address']}/{one.get('prefixLength', 32)}")
        for one in call.store.list(call.key, "addresses")
        if one.get("addressType") == "INTERNAL" and "." in one["address"]
    ]
    for free in PEERING_RANGES.subnets(new_prefix=length):
        if not any(free.overlaps(each) for each in used):
            return str(free.network_address)
    raise ResourceExhausted(f"No range of /{length} is left in {PEERING_RANGES}.")


def _forwarding_rule(call: Call, body: dict[str, Any]) -> dict[str, Any]:
    defaults = {"IPProtocol": "TCP", "networkTier": "PREMIUM", "loadBalancingScheme": "EXTERNAL"}
    body = {**defaults, **body}
    ports = str(body.get("portRange", ""))
    if ports and "-" not in ports:
        body["portRange"] = f"{ports}-{ports}"
    given = body.get("IPAddress", "")
    if not given:
        body["IPAddress"] = _address(call, {})["address"]
    elif "/" in given:
        link = full_link(call.region, call.project, given)
        reserved = call.store.find(f"compute/{link.removeprefix(COMPUTE_ROOT + '/')}")
        if reserved is None:
            raise InvalidArgument(
                f"Invalid value for field 'resource.IPAddress': '{given}'. The referenced address cannot be found.",
                reason="invalid",
            )
        body["IPAddress"] = reserved["address"]
    for other in call.store.list(call.key, "forwardingRules"):
        if (other["IPAddress"], other.get("portRange")) == (body["IPAddress"], body.get("portRange")):
            raise InvalidArgument(
                f"Invalid value for field 'resource.IPAddress': '{body['IPAddress']}'. Specified IP address is in-use"
                " and would result in a conflict.",
                reason="invalid",
            )
    return body


def _backend_service(call: Call, body: dict[str, Any]) -> dict[str, Any]:
    defaults = {
        "protocol": "HTTP",
        "sessionAffinity": "NONE",
        "affinityCookieTtlSec": 0,
        "port": 80,
        "portName": "http",
        "timeoutSec": 30,
        "loadBalancingScheme": "EXTERNAL",
    }
    return {**defaults, **body}


def _security_policy(call: Call, body: dict[str, Any]) -> dict[str, Any]:
    rules = [_rule(rule) for rule in body.get("rules", ())]
    if not any(rule["priority"] == DEFAULT_RULE_PRIORITY for rule in rules):
        rules.append(
            _rule(
                {
                    "priority": DEFAULT_RULE_PRIORITY,
                    "action": "allow",
                    "preview": False,
                    "description": "Default rule, higher priority overrides it",
                    "match": {"versionedExpr": "SRC_IPS_V1", "config": {"srcIpRanges": ["*"]}},
                }
            )
        )
    return {"type": "CLOUD_ARMOR", **body, "rules": rules}


def _rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    if "priority" not in rule:
        raise InvalidArgument("Invalid value for field 'rule.priority': a rule must have a priority", reason="required")
    return {"preview": False, **rule, "kind": "compute#securityPolicyRule"}


def _certificate(call: Call, body: dict[str, Any]) -> dict[str, Any]:
    """A managed certificate is active at once: nobody's DNS has to answer for a name of this machine."""
    if body.get("type") == "MANAGED" or "managed" in body:
        domains = body.get("managed", {}).get("domains", [])
        expires = call.region.clock.now() + datetime.timedelta(days=90)
        status = {"domains": domains, "status": "ACTIVE", "domainStatus": dict.fromkeys(domains, "ACTIVE")}
        return {**body, "type": "MANAGED", "managed": status, "expireTime": expires.isoformat(timespec="milliseconds")}
    return {"type": "SELF_MANAGED", **body}


def _ssl_policy(call: Call, body: dict[str, Any]) -> dict[str, Any]:
    features = body.get("customFeatures") or ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]
    return {"profile": "COMPATIBLE", "minTlsVersion": "TLS_1_0", **body, "enabledFeatures": features}


def _with_users(call: Call, address: Resource) -> Resource:
    parent = address.key.rpartition("/addresses/")[0]
    users = [
        rule["selfLink"]
        for rule in call.store.list(parent, "forwardingRules")
        if rule.get("IPAddress") == address.get("address")
    ]
    if users:
        address |= {"status": "IN_USE", "users": users}
    return address


def _check_growth(subnetwork: Resource, wanted: str) -> None:
    current, larger = _cidr(subnetwork["ipCidrRange"]), _cidr(wanted)
    if not (larger.prefixlen < current.prefixlen and current.subnet_of(larger)):
        raise InvalidArgument(
            f"Invalid value for field 'resource.ipCidrRange': '{wanted}'. It must contain the current range"
            f" {current} and be larger: a subnetwork cannot shrink.",
            reason="invalid",
        )


def _cidr(text: str) -> ipaddress.IPv4Network:
    try:
        return ipaddress.IPv4Network(text)
    except ValueError as error:
        raise InvalidArgument(
            f"Invalid value for field 'resource.ipCidrRange': '{text}'. {error}", reason="invalid"
        ) from None


Completion = Callable[[Call, dict[str, Any]], dict[str, Any]]
COMPLETE: dict[str, Completion] = {
    "networks": _network,
    "subnetworks": _subnetwork,
    "firewalls": _firewall,
    "globalAddresses": _address,
    "addresses": _address,
    "globalForwardingRules": _forwarding_rule,
    "backendServices": _backend_service,
    "securityPolicies": _security_policy,
    "sslCertificates": _certificate,
    "sslPolicies": _ssl_policy,
    "routers": lambda call, body: {"encryptedInterconnectRouter": False, **body},
    "regionNetworkEndpointGroups": lambda call, body: {"size": 0, **body},
    "targetHttpsProxies": lambda call, body: {"quicOverride": "NONE", **body},
}
