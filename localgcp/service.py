"""What a behaviour module sees: the service it registers its methods with, and the call it answers."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.types import ASGIApp

from localgcp.apis import BY_NAME, Api
from localgcp.discovery import Method
from localgcp.iam.principal import Principal

if TYPE_CHECKING:
    from localgcp.region import Region
    from localgcp.store import Store

Handler = Callable[["Call"], Any]
Hook = Callable[["Region"], Awaitable[None]]


class Service:
    """Behaviour of one API. What it does not register is generic.

    `permissions` says which permission each method needs, by method id without the API's name. A method without an
    entry is denied to everybody; None leaves the check to the handler.
    """

    def __init__(self, name: str) -> None:
        self.api: Api = BY_NAME[name.partition(":")[0]]
        self.handlers: dict[str, Handler] = {}
        self.permissions: dict[str, str | None] = {}
        self.mounts: dict[str, ASGIApp] = {}
        self.starting: list[Hook] = []
        self.stopping: list[Hook] = []
        self.opening: list[Hook] = []
        self.closing: list[Hook] = []

    def method(self, *ids: str) -> Callable[[Handler], Handler]:
        def register(handler: Handler) -> Handler:
            for identifier in ids:
                self.handlers[identifier] = handler
            return handler

        return register

    def allow(self, noun: str, *collections: str, **verbs: str) -> None:
        """Fill `permissions` for the standard methods of `collections`: `<noun>.<verb>`.

        `allow("secretmanager.secrets", "projects.secrets", addVersion="secretmanager.versions.add")`.
        """
        standard = {
            "create": "create",
            "insert": "create",
            "get": "get",
            "list": "list",
            "patch": "update",
            "update": "update",
            "delete": "delete",
            "getIamPolicy": "getIamPolicy",
            "setIamPolicy": "setIamPolicy",
        }
        for collection in collections:
            for verb, action in standard.items():
                self.permissions.setdefault(f"{collection}.{verb}", f"{noun}.{action}")
            # Anybody may ask what they are allowed to do.
            self.permissions.setdefault(f"{collection}.testIamPermissions", None)
            for verb, permission in verbs.items():
                self.permissions[f"{collection}.{verb}"] = permission

    def mount(self, prefix: str, app: ASGIApp) -> None:
        """Serve `app` (ASGI) under a path that is in no discovery document. The longest prefix wins."""
        self.mounts[prefix] = app

    def on_start(self, hook: Hook) -> Hook:
        """Run before the first request is answered: recovery belongs here."""
        self.starting.append(hook)
        return hook

    def on_stop(self, hook: Hook) -> Hook:
        self.stopping.append(hook)
        return hook

    def on_open(self, hook: Hook) -> Hook:
        """Run when every service has started: what lets requests in, or makes some itself, begins here."""
        self.opening.append(hook)
        return hook

    def on_close(self, hook: Hook) -> Hook:
        """Run before any service stops."""
        self.closing.append(hook)
        return hook


@dataclass(kw_only=True)
class Call:
    """One request to one method, already authenticated, authorised and validated."""

    region: "Region"
    service: Service
    method: Method
    params: dict[str, str]
    query: dict[str, Any]
    body: dict[str, Any]
    principal: Principal
    request: Request
    relative_path: str
    generic: Handler = field(repr=False)

    @property
    def store(self) -> "Store":
        return self.region.store

    @cached_property
    def named(self) -> str:
        """The relative name that the path is about: of the resource, or of the parent in create and list."""
        if self.method.takes_full_names:
            return next(iter(self.params.values()))
        if self.method.verb in ("list", "insert", "create", "aggregatedList"):
            return self.relative_path.rpartition("/")[0]
        return self.relative_path

    @cached_property
    def key(self) -> str:
        return f"{self.service.api.name}/{self.named}" if self.named else self.service.api.name

    @cached_property
    def project(self) -> str:
        """The project's id, from the path or from `?project=`; empty when neither names one."""
        words = self.relative_path.split("/")
        if "projects" in words[:-1]:
            return self.region.project_id(words[words.index("projects") + 1].partition(":")[0])
        return self.region.project_id(str(self.query.get("project", "")))

    @cached_property
    def location(self) -> str | None:
        words = self.relative_path.split("/")
        for noun in ("locations", "regions", "zones"):
            if noun in words[:-1]:
                return words[words.index(noun) + 1]
        return "global" if "global" in words else None

    def check(self, permission: str, key: str | None = None) -> None:
        """Raises PermissionDenied when the caller has no `permission` on the resource."""
        self.region.iam.check(self.principal, permission, key or self.permission_key)

    @cached_property
    def permission_key(self) -> str:
        """Where the permission is looked up: the resource, else the project that the query names."""
        if self.project and "projects/" not in self.key:
            return f"cloudresourcemanager/projects/{self.project}"
        return self.key

    def proceed(self) -> Any:
        """What the API does without behaviour of its own: store, read, list, patch, delete."""
        return self.generic(self)

    def operation(
        self,
        work: Callable[[], Mapping[str, Any] | None] | None = None,
        *,
        target: str,
        kind: str = "",
        response: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """A long-running operation in the dialect of the API.

        `work` runs in a thread, and its result is the operation's response; the answer waits for it up to
        `operations.INLINE_SECONDS`, so that quick work comes back done and need not be polled. An ApiError raised by
        `work` becomes the operation's error. Without `work` the operation is done, with `response`.
        """
        return self.region.operations.begin(
            self, work, target=target, kind=kind or self.method.verb, response=response, metadata=metadata
        )
