"""The load balancer: every global forwarding rule listens on a loopback port of its own, and remembers it.

A client of this machine is treated as one that has found the rule's public host through DNS and TLS: where it says
`127.0.0.1:<port>`, the application sees the first host of the URL map, and what the application says of that host
comes back as the loopback address. A client that sends the public host itself is left alone.

Not here: TLS, caching, rate limits (every client of this machine has the same address, so a limit for one would stop
all) and preconfigured WAF rules. Security policies decide by address ranges and by simple expressions.
"""

import asyncio
import functools
import ipaddress
import json
import logging
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from json.encoder import encode_basestring_ascii as quoted
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote
from weakref import WeakKeyDictionary

from localgcp import process
from localgcp.errors import ApiError, NotFound
from localgcp.run.http1 import HOP_BY_HOP, REASONS, Headers, Listener, Request, Response
from localgcp.run.router import Origin
from localgcp.storage.public import PublicObject, open_public

if TYPE_CHECKING:
    from localgcp.region import Region

LOOPBACK = ("127.0.0.1", "localhost")
#: Where the ports of rules are looked for first: something that a person recognises.
FIRST_PORTS = {"443": 8443, "80": 8080}
REDIRECTS = {
    "MOVED_PERMANENTLY_DEFAULT": 301,
    "FOUND": 302,
    "SEE_OTHER": 303,
    "TEMPORARY_REDIRECT": 307,
    "PERMANENT_REDIRECT": 308,
}
#: Cloud CDN's default for what carries no Cache-Control (backend buckets, `cdnPolicy.defaultTtl`).
DEFAULT_TTL_SECONDS = 3600

LOG_ENTRY_TYPE = "type.googleapis.com/google.cloud.loadbalancing.type.LoadBalancerLogEntry"
#: What most entries of the log say of an answer: it is the backend's.
BY_BACKEND = "response_sent_by_backend"

log = logging.getLogger(__name__)
_doors: "WeakKeyDictionary[Region, FrontDoor]" = WeakKeyDictionary()


async def open_doors(region: "Region") -> None:
    door = FrontDoor(region)
    _doors[region] = door
    region.edge = door
    await door.reconcile()


async def close_doors(region: "Region") -> None:
    await _doors[region].close()


def changed(region: "Region") -> None:
    """From any thread: the configuration is another; the doors follow before this returns."""
    door = _doors.get(region)
    if door is not None:
        door.follow()


@dataclass(frozen=True, kw_only=True)
class Action:
    """What a URL map decides: a redirect, a backend, or (neither) nothing that exists."""

    redirect: Mapping[str, Any] | None = None
    #: What a redirect to another prefix replaces: as much of the path as led here.
    prefix: str = ""
    service: str | None = None
    policy: "Policy | None" = None
    run_key: str | None = None
    run_tag: str | None = None
    bucket: str | None = None
    cdn: Mapping[str, Any] | None = None
    request_headers: tuple[tuple[bytes, bytes], ...] = ()
    response_headers: tuple[tuple[bytes, bytes], ...] = ()
    #: Which share of the requests is logged.
    log_share: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Matcher:
    default: Action
    #: In the order in which they are tried. A path that ends in `*` is a prefix.
    paths: tuple[tuple[str, Action], ...] = ()

    def action(self, path: str) -> Action:
        for pattern, action in self.paths:
            if path == pattern or (pattern.endswith("*") and path.startswith(pattern[:-1])):
                return action
        return self.default


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A forwarding rule with everything that it leads to."""

    key: str
    project: str
    name: str
    address: str
    port: str
    scheme: str
    public_host: str | None
    hosts: tuple[tuple[str, Matcher], ...]
    default: Matcher
    target_proxy: str
    url_map: str

    def matcher(self, host: str) -> Matcher:
        for pattern, matcher in self.hosts:
            if pattern in ("*", host) or (pattern.startswith("*.") and host.endswith(pattern[1:])):
                return matcher
        return self.default


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A security policy as far as it can be decided here: (matches, action), first match wins."""

    name: str
    rules: tuple[tuple[Callable[[Request], bool], str], ...] = field(default=())

    def refusal(self, request: Request) -> int | None:
        for matches, action in self.rules:
            if matches(request):
                denied = re.fullmatch(r"deny(?:\((\d+)\))?", action)
                return int(denied[1] or 403) if denied else None
        return None


class FrontDoor:
    def __init__(self, region: "Region") -> None:
        self._region = region
        self._loop = asyncio.get_running_loop()
        self._rules: dict[str, Rule] = {}
        self._listeners: dict[str, Listener] = {}
        self._reconciling = asyncio.Lock()

    def addresses(self) -> dict[str, str]:
        """Key of a forwarding rule -> the URL at which this machine reaches it."""
        return {key: f"http://127.0.0.1:{listener.port}" for key, listener in list(self._listeners.items())}

    def follow(self) -> None:
        asyncio.run_coroutine_threadsafe(self.reconcile(), self._loop).result()

    async def reconcile(self) -> None:
        """Open, close and change what listens until it is what the store says."""
        async with self._reconciling:
            rules = await self._region.run_in_thread(self._read_rules)
            self._rules = {rule.key: rule for rule in rules}
            for key in list(self._listeners):
                if key not in self._rules:
                    await self._listeners.pop(key).stop()
            for rule in rules:
                if rule.key not in self._listeners:
                    self._listeners[rule.key] = await self._listen(rule)

    async def close(self) -> None:
        for listener in self._listeners.values():
            await listener.stop()
        self._listeners.clear()

    async def _listen(self, rule: Rule) -> Listener:
        async def handle(request: Request) -> Response:
            return await self._answer(rule.key, request)

        listener = Listener(handle, scheme=rule.scheme)
        setting = f"frontdoor.port.{rule.key}"
        known = self._region.store.setting(setting)
        first = self._first_port(rule)
        taken = {other.port for other in self._listeners.values()}
        candidates = [int(known)] if known else []
        candidates += [port for port in range(first, first + 50) if port not in taken]
        for port in [*candidates, 0]:
            try:
                await listener.start(port)
            except OSError:
                continue
            break
        await self._region.run_in_thread(self._region.store.set_setting, setting, str(listener.port))
        return listener

    def _first_port(self, rule: Rule) -> int:
        own = self._region.settings.port
        if own in process.USUAL_PORTS:
            return FIRST_PORTS.get(rule.port, 8000)
        # Whoever put the region on a port of its own wants it out of another's way.
        return own + 1

    # Requests

    async def _answer(self, key: str, request: Request) -> Response:
        rule = self._rules.get(key)
        if rule is None:
            return _bad_gateway()
        request.scheme = rule.scheme
        began = time.monotonic()
        translation = self._translate(rule, request)
        host = (request.header(b"host") or b"").decode("latin-1").partition(":")[0].lower()
        action = rule.matcher(host).action(request.path)
        # What the load balancer adds: the client, itself, and its name.
        request.headers.append((b"via", b"1.1 google"))
        client = request.client
        response, details = await self._act(rule, action, request)
        response.headers = [(name, value) for name, value in response.headers if name not in HOP_BY_HOP]
        response.headers.append((b"via", b"1.1 google"))
        response.headers += action.response_headers
        if translation is not None:
            self._translate_back(rule, translation, response)
        if action.log_share and random.random() < action.log_share:  # noqa: S311 (a share, not a secret)
            self._note(rule, action, request, response, details, client, began)
        return response

    async def _act(self, rule: Rule, action: Action, request: Request) -> tuple[Response, str]:
        """The answer, and what the log says of how it came about."""
        if action.redirect is not None:
            return self._redirect(rule, action.redirect, action.prefix, request), ""
        if action.policy is not None:
            denied = action.policy.refusal(request)
            if denied is not None:
                return _denied(denied), "denied_by_security_policy"
        request.headers += action.request_headers
        if action.run_key is not None:
            if self._region.run.deployment(action.run_key) is None:
                return _not_found(request), BY_BACKEND
            # Cloud Run sees the client before the load balancer in X-Forwarded-For.
            given = request.header(b"x-forwarded-for")
            chain = given + b"," + request.client.encode() if given else request.client.encode()
            request.headers = [(name, value) for name, value in request.headers if name != b"x-forwarded-for"]
            request.headers.append((b"x-forwarded-for", chain))
            request.client = rule.address
            answer = await self._region.run.handle(request, action.run_key, Origin.LOAD_BALANCER, action.run_tag)
            return answer, BY_BACKEND
        if action.bucket is not None:
            return await self._from_bucket(action, request), BY_BACKEND
        return _bad_gateway(), "failed_to_pick_backend"

    async def _from_bucket(self, action: Action, request: Request) -> Response:
        if request.method not in (b"GET", b"HEAD"):
            return Response.page(405, "Method Not Allowed", (b"allow", b"GET, HEAD"))
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers}
        # A visitor's credentials say nothing to a bucket that everybody may read.
        headers.pop("authorization", None)
        name = unquote(request.path).removeprefix("/")

        def read() -> PublicObject:
            return open_public(
                self._region, action.bucket or "", name, request_headers=headers, method=request.method.decode()
            )

        try:
            found = await self._region.run_in_thread(read)
        except NotFound:
            return _no_such_object()
        except ApiError as error:
            return _access_denied() if error.status in (401, 403) else Response.page(error.status, error.message)
        answer = [(name.lower().encode(), value.encode("latin-1")) for name, value in found.headers]
        if action.cdn is not None and not any(name == b"cache-control" for name, _ in answer):
            seconds = action.cdn.get("clientTtl", action.cdn.get("defaultTtl", DEFAULT_TTL_SECONDS))
            answer.append((b"cache-control", b"public,max-age=%d" % int(seconds)))
        return Response(found.status, answer, _IteratedBody(found))

    def _redirect(self, rule: Rule, redirect: Mapping[str, Any], prefix: str, request: Request) -> Response:
        path, _, query = request.target.decode("latin-1").partition("?")
        host = (request.header(b"host") or b"").decode("latin-1").partition(":")[0]
        scheme = "https" if redirect.get("httpsRedirect") else rule.scheme
        if redirect.get("pathRedirect"):
            path = redirect["pathRedirect"]
        elif redirect.get("prefixRedirect"):
            path = redirect["prefixRedirect"] + path.removeprefix(prefix)
        location = f"{scheme}://{redirect.get('hostRedirect') or host}{path}"
        if query and not redirect.get("stripQuery"):
            location += f"?{query}"
        status = REDIRECTS.get(redirect.get("redirectResponseCode", ""), 301)
        return Response.page(
            status,
            f'<HTML><HEAD><meta http-equiv="content-type" content="text/html;charset=utf-8">\n<TITLE>{status} Moved'
            f"</TITLE></HEAD><BODY>\n<H1>{status} Moved</H1>\nThe document has moved\n<A"
            f' HREF="{location}">here</A>.\n</BODY></HTML>\n',
            (b"location", location.encode("latin-1")),
        )

    # A client of this machine

    def _translate(self, rule: Rule, request: Request) -> tuple[str, str] | None:
        """Make a request to the loopback address one to the public host; both names, when it was one."""
        sent = (request.header(b"host") or b"").decode("latin-1")
        public = rule.public_host or self._public_host_of(rule)
        if sent.partition(":")[0] not in LOOPBACK or public is None:
            return None
        headers: Headers = []
        here, there = f"http://{sent}".encode(), f"{rule.scheme}://{public}".encode()
        for name, value in request.headers:
            if name == b"host":
                value = public.encode()
            elif name in (b"origin", b"referer") and value.startswith(here):
                value = there + value[len(here) :]
            headers.append((name, value))
        request.headers = headers
        return sent, public

    def _translate_back(self, rule: Rule, translation: tuple[str, str], response: Response) -> None:
        sent, public = translation
        headers: Headers = []
        for name, value in response.headers:
            if name in (b"location", b"content-location", b"access-control-allow-origin"):
                value = self._loopback_url(rule, sent, public, value.decode("latin-1")).encode("latin-1")
            elif name == b"set-cookie":
                # A browser drops a Secure cookie that comes over plain HTTP, and this door has no TLS.
                value = re.sub(rb";\s*Secure(?=;|$)", b"", value, flags=re.IGNORECASE)
                value = re.sub(rb";\s*Domain=[^;]*", b"", value, flags=re.IGNORECASE)
            elif name == b"strict-transport-security":
                continue  # it would bind 127.0.0.1, which is many servers' name
            headers.append((name, value))
        response.headers = headers

    def _loopback_url(self, rule: Rule, sent: str, public: str, url: str) -> str:
        for scheme in ("https", "http"):
            prefix = f"{scheme}://{public}"
            if url == prefix or url.startswith((prefix + "/", prefix + "?")):
                return f"http://{self._door_of(rule, scheme, sent)}{url[len(prefix) :]}"
        return url

    def _door_of(self, rule: Rule, scheme: str, sent: str) -> str:
        """Where this machine finds the other scheme of the same address."""
        if scheme == rule.scheme:
            return sent
        for other in self._rules.values():
            if (other.project, other.address, other.scheme) == (rule.project, rule.address, scheme):
                listener = self._listeners.get(other.key)
                if listener is not None:
                    return f"{sent.partition(':')[0]}:{listener.port}"
        return sent

    def _public_host_of(self, rule: Rule) -> str | None:
        """A redirect's URL map names no host: the rule beside it on the same address does."""
        for other in self._rules.values():
            if (other.project, other.address) == (rule.project, rule.address) and other.public_host is not None:
                return other.public_host
        return None

    def _note(
        self,
        rule: Rule,
        action: Action,
        request: Request,
        response: Response,
        details: str,
        client: str,
        began: float,
    ) -> None:
        """An entry in the load balancer's log, written with the next batch. Cloud Run keeps its own beside it."""
        host = (request.header(b"host") or b"").decode("latin-1")
        status = response.status
        severity = "INFO" if status < 400 else "WARNING" if status < 500 else "ERROR"
        url = f"{rule.scheme}://{host}{request.target.decode('latin-1')}"
        backend = str(action.service).rpartition("/")[2] if action.bucket is None else ""
        resource = _resource_json(rule.project, rule.name, rule.target_proxy, rule.url_map, backend)
        policy = ""
        if action.policy is not None:
            outcome = "DENY" if details == "denied_by_security_policy" else "ACCEPT"
            policy = f', "enforcedSecurityPolicy": {{"name": {quoted(action.policy.name)}, "outcome": "{outcome}"}}'
        members = (
            f'"resource": {resource}, "severity": "{severity}", "httpRequest":'
            f' {{"requestMethod": {quoted(request.method.decode("latin-1"))}, "requestUrl": {quoted(url)},'
            f' "status": {status},'
            f' "responseSize": {quoted((response.header(b"content-length") or b"0").decode("latin-1"))},'
            f' "userAgent": {quoted((request.header(b"user-agent") or b"").decode("latin-1"))},'
            f' "remoteIp": {quoted(client)}, "latency": "{time.monotonic() - began:.6f}s"}},'
            f' "jsonPayload": {{"@type": "{LOG_ENTRY_TYPE}", "statusDetails": "{details}"{policy}}}'
        )
        trace = (request.header(b"x-cloud-trace-context") or b"").partition(b"/")[0].decode("latin-1")
        if trace:
            members += f', "trace": {quoted(f"projects/{rule.project}/traces/{trace}")}'
        self._region.logs.write_members(rule.project, "requests", members)

    # Configuration

    def _read_rules(self) -> list[Rule]:
        rules = []
        for resource in self._region.store.scan("compute/projects/"):
            words = resource.key.split("/")
            if words[-2] == "forwardingRules" and words[3] == "global":
                rules.append(self._rule(resource.key, resource))
        return rules

    def _rule(self, key: str, resource: Mapping[str, Any]) -> Rule:
        _, _, project, *_, name = key.split("/")
        target = self._linked(resource.get("target"))
        is_https = "/targetHttpsProxies/" in str(resource.get("target", ""))
        url_map = self._linked(target.get("urlMap"))
        matchers = {
            matcher["name"]: Matcher(default=self._action(matcher), paths=self._paths(matcher))
            for matcher in url_map.get("pathMatchers", ())
        }
        default = Matcher(default=self._action(url_map))
        hosts = [
            (pattern.lower(), matchers.get(rule.get("pathMatcher", ""), default))
            for rule in url_map.get("hostRules", ())
            for pattern in rule.get("hosts", ())
        ]
        # An exact host before a pattern: URL maps, "Host rules".
        hosts.sort(key=lambda item: (item[0].startswith("*"), -len(item[0])))
        public = next((p for r in url_map.get("hostRules", ()) for p in r.get("hosts", ()) if "*" not in p), None)
        return Rule(
            key=key,
            project=project,
            name=name,
            address=resource.get("IPAddress", ""),
            port=str(resource.get("portRange", "")).partition("-")[0],
            scheme="https" if is_https else "http",
            public_host=public,
            hosts=tuple(hosts),
            default=default,
            target_proxy=str(resource.get("target", "")).rpartition("/")[2],
            url_map=str(target.get("urlMap", "")).rpartition("/")[2],
        )

    def _paths(self, matcher: Mapping[str, Any]) -> tuple[tuple[str, Action], ...]:
        """Of path rules, an exact path comes first and then the longest prefix; route rules say their order."""
        paths = [(path, self._action(rule)) for rule in matcher.get("pathRules", ()) for path in rule.get("paths", ())]
        paths.sort(key=lambda item: (item[0].endswith("*"), -len(item[0])))
        for rule in sorted(matcher.get("routeRules", ()), key=lambda rule: rule.get("priority", 0)):
            for match in rule.get("matchRules", ()):
                if "prefixMatch" in match:
                    paths.append((match["prefixMatch"] + "*", self._action(rule)))
                elif "fullPathMatch" in match:
                    paths.append((match["fullPathMatch"], self._action(rule)))
        return tuple((path, replace(action, prefix=path.removesuffix("*"))) for path, action in paths)

    def _action(self, holder: Mapping[str, Any]) -> Action:
        redirect = holder.get("urlRedirect") or holder.get("defaultUrlRedirect")
        if redirect:
            return Action(redirect=redirect)
        link = holder.get("service") or holder.get("defaultService")
        backend = self._linked(link)
        if not backend:
            return Action(service=link)
        answered = _header_pairs(backend.get("customResponseHeaders", ()))
        if "/backendBuckets/" in str(link):
            return Action(
                service=link,
                bucket=backend.get("bucketName"),
                cdn=backend.get("cdnPolicy", {}) if backend.get("enableCdn") else None,
                response_headers=answered,
                policy=self._policy(backend.get("edgeSecurityPolicy")),
                log_share=1.0,
            )
        key, tag = self._run_service(backend)
        logs = backend.get("logConfig") or {}
        return Action(
            service=link,
            run_key=key,
            run_tag=tag,
            policy=self._policy(backend.get("securityPolicy")),
            request_headers=_header_pairs(backend.get("customRequestHeaders", ())),
            response_headers=answered,
            log_share=float(logs.get("sampleRate", 1.0)) if logs.get("enable") else 0.0,
        )

    def _run_service(self, backend: Mapping[str, Any]) -> tuple[str | None, str | None]:
        """The Cloud Run service behind the first serverless endpoint group of a backend service."""
        for one in backend.get("backends", ()):
            group = self._linked(one.get("group"))
            run = group.get("cloudRun") or {}
            if run.get("service"):
                words = group["selfLink"].split("/")
                project, location = words[words.index("projects") + 1], words[words.index("regions") + 1]
                return f"run/projects/{project}/locations/{location}/services/{run['service']}", run.get("tag")
        return None, None

    def _policy(self, link: str | None) -> Policy | None:
        policy = self._linked(link)
        if not policy:
            return None
        rules = []
        for rule in sorted(policy.get("rules", ()), key=lambda rule: rule["priority"]):
            matches = None if rule.get("preview") else _matcher(rule.get("match", {}))
            if matches is not None and rule.get("action") in (
                "allow",
                "deny(403)",
                "deny(404)",
                "deny(429)",
                "deny(502)",
            ):
                rules.append((matches, rule["action"]))
        return Policy(name=str(policy.get("name", "")), rules=tuple(rules))

    def _linked(self, link: str | None) -> Mapping[str, Any]:
        if not link:
            return {}
        relative = link.partition("/compute/v1/")[2] or link
        return self._region.store.find(f"compute/{relative}") or {}


class _IteratedBody:
    """The content of an object, piece by piece."""

    complete = False

    def __init__(self, found: PublicObject) -> None:
        self._pieces = aiter(found.body)

    def take(self) -> bytes:
        return b""

    async def read(self) -> bytes:
        async for piece in self._pieces:
            if piece:
                return bytes(piece)
        return b""


def _matcher(match: Mapping[str, Any]) -> Callable[[Request], bool] | None:
    """The condition of a security rule; None when it cannot be decided here, and then the rule is passed over."""
    ranges: Sequence[str] = match.get("config", {}).get("srcIpRanges", ())
    if ranges:
        if "*" in ranges:
            return lambda request: True
        networks = [ipaddress.ip_network(text, strict=False) for text in ranges]
        return lambda request: any(ipaddress.ip_address(request.client) in network for network in networks)
    expression = match.get("expr", {}).get("expression", "").strip()
    simple = re.fullmatch(
        r"(?P<subject>request\.path|request\.method)(?:\.(?P<verb>startsWith|contains|endsWith|matches)\("
        r"""['"](?P<argument>[^'"]*)['"]\)|\s*==\s*['"](?P<equal>[^'"]*)['"])""",
        expression,
    )
    if simple is None:
        if expression:
            log.info("a security rule is passed over, its expression is not decided here: %s", expression)
        return None
    wanted = simple["equal"] if simple["equal"] is not None else simple["argument"]
    tests: dict[str | None, Callable[[str], bool]] = {
        None: lambda text: text == wanted,
        "startsWith": lambda text: text.startswith(wanted),
        "endsWith": lambda text: text.endswith(wanted),
        "contains": lambda text: wanted in text,
        "matches": lambda text: re.search(wanted, text) is not None,
    }
    test = tests[simple["verb"]]
    if simple["subject"] == "request.path":
        return lambda request: test(request.path)
    return lambda request: test(request.method.decode("latin-1"))


#: What Google's variables stand for on this machine; the others are empty.
VARIABLES = {"cdn_cache_status": "disabled", "client_protocol": "HTTP/1.1", "tls_version": "TLSv1.3"}


def _header_pairs(lines: Sequence[str]) -> tuple[tuple[bytes, bytes], ...]:
    pairs = []
    for line in lines:
        name, _, value = line.partition(":")
        value = re.sub(r"\{(\w+)\}", lambda match: VARIABLES.get(match[1], ""), value.strip())
        pairs.append((name.strip().lower().encode(), value.encode("latin-1")))
    return tuple(pairs)


def _page(status: int, title: str, text: str) -> Response:
    return Response.page(
        status,
        f'\n<html><head>\n<meta http-equiv="content-type" content="text/html;charset=utf-8">\n<title>{status} {title}'
        f"</title>\n</head>\n<body text=#000000 bgcolor=#ffffff>\n<h1>Error: {title}</h1>\n<h2>{text}</h2>\n<h2></h2>\n"
        "</body></html>\n",
    )


@functools.lru_cache(maxsize=256)
def _resource_json(project: str, rule: str, proxy: str, url_map: str, backend: str) -> str:
    labels = {
        "project_id": project,
        "forwarding_rule_name": rule,
        "target_proxy_name": proxy,
        "url_map_name": url_map,
        "backend_service_name": backend,
        "zone": "global",
    }
    return json.dumps({"type": "http_load_balancer", "labels": labels})


def _bad_gateway() -> Response:
    return _page(
        502,
        "Server Error",
        "The server encountered a temporary error and could not complete your request.<p>Please try again in 30"
        " seconds.",
    )


def _not_found(request: Request) -> Response:
    return _page(404, "Page not found", "The requested URL was not found on this server.")


def _denied(status: int) -> Response:
    phrase = REASONS.get(status, b"").decode()
    return Response.page(status, f'<!doctype html><meta charset="utf-8"><title>{status}</title>{status} {phrase}')


def _no_such_object() -> Response:
    return _xml(404, "NoSuchKey", "The specified key does not exist.")


def _access_denied() -> Response:
    return _xml(403, "AccessDenied", "Access denied.")


def _xml(status: int, code: str, message: str) -> Response:
    text = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return Response.page(status, text, content_type=b"application/xml; charset=UTF-8")
