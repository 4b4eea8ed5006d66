"""The load balancer: backends, URL maps and proxies."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from localgcp.pulumi.gcp.kind import Work
from localgcp.pulumi.gcp.kinds.compute import ComputeKind
from localgcp.pulumi.gcp.mapping import Body, Encoding

_CDN_SWITCHES = {"requestCoalescing": False, "serveWhileStale": 0}


@dataclass(frozen=True, kw_only=True)
class Backend(ComputeKind):
    """A backend whose security policies are attached by calls of their own."""

    update_method: Any = "PUT"
    #: (property, verb) of each policy.
    attached: tuple[tuple[str, str], ...] = ()

    def create(self, work: Work) -> Body | None:
        super().create(work)
        for name, verb in self.attached:
            if work.value(name):
                self.write(work, "POST", f"{self.path(work)}/{verb}", {"securityPolicy": work.value(name)})
        return None

    def update(self, work: Work) -> Body | None:
        super().update(work)
        for name, verb in self.attached:
            if self.has_changed(work, name):
                policy = work.inputs.get(name) or ""
                self.write(work, "POST", f"{self.path(work)}/{verb}", {"securityPolicy": policy})
        return None


_BUCKET_ALWAYS = {"cdnPolicy": {**_CDN_SWITCHES, "signedUrlCacheMaxAgeSec": 0}}

BACKEND_BUCKET = Backend(
    type="gcp:compute/backendBucket:BackendBucket",
    collection="projects/{project}/global/backendBuckets",
    attached=(("edgeSecurityPolicy", "setEdgeSecurityPolicy"),),
    encoding=Encoding(always=_BUCKET_ALWAYS),
    update_encoding=Encoding(always={**_BUCKET_ALWAYS, "": {"loadBalancingScheme": "", "enableCdn": False}}),
)

_SERVICE_ALWAYS: Mapping[str, Mapping[str, Any]] = {
    "": {"iap": None},
    "backends": {"maxUtilization": None},
    "cdnPolicy": {**_CDN_SWITCHES, "negativeCaching": False},
    "cdnPolicy.cacheKeyPolicy": {
        "includeHttpHeaders": [],
        "includeNamedCookies": [],
        "queryStringBlacklist": [],
        "queryStringWhitelist": [],
    },
}

BACKEND_SERVICE = Backend(
    type="gcp:compute/backendService:BackendService",
    collection="projects/{project}/global/backendServices",
    attached=(("securityPolicy", "setSecurityPolicy"), ("edgeSecurityPolicy", "setEdgeSecurityPolicy")),
    encoding=Encoding(always=_SERVICE_ALWAYS, keep_zero=frozenset({"logConfig.enable"})),
    update_encoding=Encoding(
        always={**_SERVICE_ALWAYS, "": {"iap": None, "healthChecks": []}},
        keep_zero=frozenset({"logConfig.enable"}),
        sent_outputs=frozenset({"fingerprint"}),
    ),
)

_REFERENCES = frozenset({"defaultService", "service", "backendService", "errorService"})


@dataclass(frozen=True, kw_only=True)
class UrlMap(ComputeKind):
    """References go out as full links: below the compute endpoint when the program gave a relative one."""

    update_method: Any = "PUT"

    def encode(self, work: Work, *, updating: bool) -> Body:
        body = super().encode(work, updating=updating)
        _complete_references(body, work)
        return body


def _complete_references(part: Any, work: Work) -> None:
    if isinstance(part, list):
        for item in part:
            _complete_references(item, work)
    if not isinstance(part, dict):
        return
    for name, value in part.items():
        if name in _REFERENCES and isinstance(value, str):
            part[name] = _full_link(value, work)
        else:
            _complete_references(value, work)


def _full_link(reference: str, work: Work) -> str:
    if reference.startswith("https://"):
        return reference
    base = work.rest.endpoints["compute"]
    if reference.startswith("projects/"):
        return base + reference
    # Anything else is the short name of a backend service.
    return f"{base}projects/{work.project}/global/backendServices/{reference.rpartition('/')[2]}"


URL_MAP = UrlMap(
    type="gcp:compute/uRLMap:URLMap",
    collection="projects/{project}/global/urlMaps",
    update_encoding=Encoding(sent_outputs=frozenset({"fingerprint"})),
    conflicts=(("defaultService", "defaultUrlRedirect"),),
)


@dataclass(frozen=True, kw_only=True)
class Proxy(ComputeKind):
    #: What accompanies every setter.
    extra: Mapping[str, Any] | None = None
    #: (property, verb, whether the path has /global/).
    setters: tuple[tuple[str, str, bool], ...]

    def update(self, work: Work) -> Body | None:
        path = self.path(work)
        for name, verb, is_global in self.setters:
            if self.has_changed(work, name):
                target = path if is_global else path.replace("/global/", "/", 1)
                empty = [] if self.properties[name].form == "list" else ""
                value = work.value(name) if work.inputs.get(name) is not None else empty
                self.write(work, "POST", f"{target}/{verb}", {**(self.extra or {}), name: value})
        return None


HTTP_PROXY = Proxy(
    type="gcp:compute/targetHttpProxy:TargetHttpProxy",
    collection="projects/{project}/global/targetHttpProxies",
    setters=(("urlMap", "setUrlMap", False),),
)
HTTPS_PROXY = Proxy(
    type="gcp:compute/targetHttpsProxy:TargetHttpsProxy",
    collection="projects/{project}/global/targetHttpsProxies",
    encoding=Encoding(always={"": {"serverTlsPolicy": None}}),
    extra={"serverTlsPolicy": None},
    setters=(
        ("quicOverride", "setQuicOverride", True),
        ("urlMap", "setUrlMap", False),
        ("sslCertificates", "setSslCertificates", False),
        ("sslPolicy", "setSslPolicy", True),
        ("certificateMap", "setCertificateMap", True),
    ),
)

KINDS = (BACKEND_BUCKET, BACKEND_SERVICE, URL_MAP, HTTP_PROXY, HTTPS_PROXY)
