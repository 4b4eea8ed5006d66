"""Google's discovery documents: which methods an API has, where they live, what they take and answer."""

import functools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import resources
from typing import Any
from urllib.parse import unquote

# Query parameters that every method takes; documents list them once at the top, and these besides.
COMMON_PARAMETERS = frozenset({"$alt", "$fields", "upload_id", "uploadType", "userProject", "requestId", "request_id"})


@dataclass(frozen=True)
class Method:
    """One method of a document. `id` is without the API's own name: `projects.secrets.addVersion`."""

    id: str
    http_method: str
    path: str
    parameters: dict[str, dict[str, Any]]
    request_schema: str | None
    response_schema: str | None
    document: "Document" = field(repr=False, compare=False)

    @property
    def verb(self) -> str:
        return self.id.rpartition(".")[2]

    @property
    def collection(self) -> str:
        """The last noun of the id: `versions` in `projects.secrets.versions.access`."""
        return self.id.split(".")[-2] if "." in self.id else ""

    @functools.cached_property
    def takes_full_names(self) -> bool:
        """True for `{+name}` paths (a resource is named by one path), False for `{project}/…/{instance}` ones."""
        return "{+" in self.path

    @functools.cached_property
    def pattern(self) -> re.Pattern[str]:
        parts = re.split(r"(\{\+?[^}]+\})", self.path)
        regex = "".join(
            (f"(?P<{part.strip('{+}')}>{'.+' if part.startswith('{+') else '[^/]+'})" if i % 2 else re.escape(part))
            for i, part in enumerate(parts)
        )
        return re.compile(regex)

    def path_parameters(self, raw_path: str) -> dict[str, str]:
        match = self.pattern.fullmatch(raw_path)
        if match is None:
            raise AssertionError(f"{raw_path} was routed to {self.id}, whose path is {self.path}")
        return {name: unquote(value) for name, value in match.groupdict().items()}


class Document:
    """A parsed discovery document, with its routes as a tree of path segments."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.name: str = document["name"]
        self.version: str = document["version"]
        self.service_path: str = document["servicePath"]
        self.schemas: dict[str, dict[str, Any]] = document["schemas"]
        self.common_parameters = COMMON_PARAMETERS | frozenset(document.get("parameters", ()))
        self.methods: dict[str, Method] = {}
        self._routes: dict[Any, Any] = {}
        for spec in _methods(document):
            method = Method(
                id=spec["id"].partition(".")[2],
                http_method=spec["httpMethod"],
                path=spec["path"],
                parameters=spec.get("parameters", {}),
                request_schema=spec.get("request", {}).get("$ref"),
                response_schema=spec.get("response", {}).get("$ref"),
                document=self,
            )
            self.methods[method.id] = method
            self._add_route(method, spec.get("flatPath") or spec["path"])

    def route(self, http_method: str, raw_path: str) -> Method | None:
        """The method at a path (relative to the service path, still percent-encoded), or None."""
        return self._find(self._routes, http_method, raw_path.split("/"), 0)

    def knows_path(self, raw_path: str) -> bool:
        """True when some HTTP method is served at the path."""
        return any(self.route(verb, raw_path) for verb in ("GET", "POST", "PUT", "PATCH", "DELETE"))

    def _add_route(self, method: Method, flat_path: str) -> None:
        node: dict[Any, Any] = self._routes
        for segment in flat_path.split("/"):
            head, colon, verb = segment.rpartition(":")
            name = head if colon else segment
            key = "{}" if name.startswith("{") else name
            node = node.setdefault((key, verb if colon else ""), {})
        node[method.http_method] = method

    def _find(self, node: dict[Any, Any], http_method: str, segments: list[str], depth: int) -> Method | None:
        if depth == len(segments):
            found: Method | None = node.get(http_method)
            return found
        segment = segments[depth]
        head, colon, verb = segment.rpartition(":")
        keys = [(segment, ""), ("{}", "")]
        if colon:
            keys = [(head, verb), ("{}", verb), *keys]
        for key in keys:
            if not segment and key[0] == "{}":
                continue
            child = node.get(key)
            if child is not None:
                found = self._find(child, http_method, segments, depth + 1)
                if found is not None:
                    return found
        return None


@functools.cache
def load(identifier: str) -> Document:
    """The document `name:version`. Raises FileNotFoundError when the installed library does not ship it."""
    name, _, version = identifier.partition(":")
    folder = resources.files("googleapiclient.discovery_cache") / "documents"
    return Document(json.loads((folder / f"{name}.{version}.json").read_text("utf-8")))


def _methods(resource: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from resource.get("methods", {}).values()
    for child in resource.get("resources", {}).values():
        yield from _methods(child)
