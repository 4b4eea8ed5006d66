"""What a resource provider is, in plain Python.

A provider implements `ResourceProvider`; `localgcp.pulumi.provider_server` puts it on the wire. Values are what JSON
has, plus the classes below:

* `UNKNOWN` stands for a value that a preview cannot know yet. It can appear anywhere in `check` and `diff`, and in
  `create` and `update` when `preview` is true; never in a real create or update.
* **Inputs never contain `Secret`.** The server takes secrets out before it calls a provider, and whatever the provider
  returns at a place where an input was secret is secret again. A provider wraps in `Secret` only what became secret
  by itself: a generated password, a private key.
* Numbers that are whole arrive as `int`. A null inside an object arrives as `None`.
* `BucketObject.source` and its like arrive as `FileAsset`, `StringAsset`, `FileArchive`, … in `check`, `create` and as
  `news` of `update`; everywhere else (`diff`, `read`, old values) as `ElidedAsset` or `ElidedArchive`: only the hash.
* A resource used as a value arrives as its id.

Property names are Pulumi's (camelCase). A *property path* is written as the engine writes it: `labels.team`,
`settings.ipConfiguration.authorizedNetworks[0].value`, `labels["app.kubernetes.io/name"]` (see `property_path`).

Methods run in worker threads, several at once. They may block; nothing is called twice for one resource at a time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol, Self

Inputs = dict[str, Any]
Outputs = dict[str, Any]


class Unknown:
    """The type of `UNKNOWN`, of which there is one. Compare with `is`."""

    _instance: Self | None = None

    def __new__(cls) -> Self:
        if cls._instance is None:
            cls._instance = super().__new__(cls)
        return cls._instance

    def __repr__(self) -> str:
        return "UNKNOWN"

    def __deepcopy__(self, memo: object) -> Unknown:
        return self

    def __copy__(self) -> Unknown:
        return self

    def __bool__(self) -> bool:
        # `if news.get("name")` would decide on a value nobody has. Better loud than wrong.
        raise TypeError("an unknown value has no truth: test `value is UNKNOWN` first")


UNKNOWN: Final = Unknown()


@dataclass(frozen=True)
class Secret:
    """A value that state files and displays must not show. Only ever returned by a provider, never given to one."""

    value: Any

    def __repr__(self) -> str:
        return "Secret(…)"


@dataclass(frozen=True)
class FileAsset:
    """A file on this machine. `hash` is the SHA-256 of the content in hex, as the engine computed it."""

    path: str
    hash: str = ""


@dataclass(frozen=True)
class StringAsset:
    text: str
    hash: str = ""


@dataclass(frozen=True)
class RemoteAsset:
    uri: str
    hash: str = ""


@dataclass(frozen=True)
class FileArchive:
    """A directory, or a .tar, .tar.gz, .tgz or .zip file, on this machine."""

    path: str
    hash: str = ""


@dataclass(frozen=True)
class AssetArchive:
    assets: Mapping[str, Any]
    hash: str = ""


@dataclass(frozen=True)
class RemoteArchive:
    uri: str
    hash: str = ""


@dataclass(frozen=True)
class ElidedAsset:
    """An asset without its content: what `diff`, `read` and old values hold instead of a file or a text.

    Compare by `hash`. Returned from `read`, the engine puts the content it knows back.
    """

    hash: str


@dataclass(frozen=True)
class ElidedArchive:
    """An archive without its content; see `ElidedAsset`."""

    hash: str


@dataclass(frozen=True)
class CheckFailure:
    """Why an input is refused. An empty `property` means the resource as a whole."""

    property: str
    reason: str


Change = Literal["add", "delete", "update"]


@dataclass(frozen=True)
class Diff:
    """What differs, by property path. Nothing in `changes` means that the resource is left alone.

    A path in `replaces`, or below one, forces a replacement; `replaces` without an entry in `changes` is allowed.
    """

    changes: Mapping[str, Change] = field(default_factory=dict)
    replaces: Sequence[str] = ()
    delete_before_replace: bool = False


class ProviderError(Exception):
    """The operation failed and changed nothing that Pulumi has to remember. The message is shown to the user."""


class PartialFailure(ProviderError):
    """The resource exists, but not as it was asked for: it stays in the state, marked as failed.

    The next `up` updates it instead of creating it a second time.
    """

    def __init__(self, id: str, outputs: Outputs, reasons: Sequence[str], inputs: Inputs | None = None) -> None:
        super().__init__("; ".join(reasons))
        self.id = id
        self.outputs = outputs
        self.reasons = list(reasons)
        self.inputs = inputs


class NotSupported(ProviderError):
    """The provider does not implement this operation."""


@dataclass(frozen=True, kw_only=True)
class ReadResult:
    """A live resource. `id` may differ from the one asked for: an import id in another form."""

    id: str
    inputs: Inputs
    outputs: Outputs


class ResourceProvider(Protocol):
    """A provider of one package. `type` is a full type token, such as `gcp:storage/bucket:Bucket`."""

    @property
    def name(self) -> str:
        """The package: `gcp`."""

    @property
    def version(self) -> str:
        """The plugin's version without a leading v: the one of the installed SDK package."""

    def check_config(self, variables: Inputs) -> list[CheckFailure]:
        """Refuse a provider configuration, before anything else is asked. `variables` as in `configure`."""

    def configure(self, variables: Inputs) -> None:
        """Called once before any resource, with the provider's configuration (may contain `UNKNOWN` in a preview)."""

    def check(
        self, type: str, urn: str, *, olds: Inputs | None, news: Inputs, random_seed: bytes
    ) -> tuple[Inputs, list[CheckFailure]]:
        """Complete the inputs (defaults) and say what is wrong with them. `olds` is None for a new resource."""

    def diff(
        self,
        type: str,
        urn: str,
        id: str,
        *,
        old_inputs: Inputs,
        old_outputs: Outputs,
        news: Inputs,
    ) -> Diff:
        """Compare. At the paths of `ignoreChanges`, the engine has already put the old inputs into `news`."""

    def create(
        self, type: str, urn: str, *, inputs: Inputs, preview: bool, timeout_seconds: float | None
    ) -> tuple[str, Outputs]:
        """Create it. In a preview nothing may be written; the id may be empty then."""

    def read(
        self, type: str, urn: str, id: str, *, inputs: Inputs | None, outputs: Outputs | None
    ) -> ReadResult | None:
        """The live state, for refresh; None when it is gone. For an import, `inputs` and `outputs` are None."""

    def update(
        self,
        type: str,
        urn: str,
        id: str,
        *,
        old_inputs: Inputs,
        old_outputs: Outputs,
        news: Inputs,
        preview: bool,
        timeout_seconds: float | None,
    ) -> Outputs: ...

    def delete(
        self, type: str, urn: str, id: str, *, inputs: Inputs, outputs: Outputs, timeout_seconds: float | None
    ) -> None:
        """Delete it. Deleting what is gone already succeeds."""

    def invoke(self, token: str, arguments: Inputs, *, preview: bool) -> tuple[Outputs, list[CheckFailure]]:
        """Call a function (a data source), such as `gcp:organizations/getProject:getProject`."""

    def schema(self) -> str:
        """The package's schema in Pulumi's JSON: what `pulumi import` writes programs by."""

    def cancel(self) -> None:
        """The user pressed Ctrl-C: make the calls under way return soon."""


class BaseProvider:
    """What most providers answer to the methods they do not care about."""

    name: str
    version: str

    def check_config(self, variables: Inputs) -> list[CheckFailure]:
        return []

    def configure(self, variables: Inputs) -> None:
        return None

    def invoke(self, token: str, arguments: Inputs, *, preview: bool) -> tuple[Outputs, list[CheckFailure]]:
        raise NotSupported(f"{token}: this provider knows no functions")

    def schema(self) -> str:
        raise NotSupported(f"the offline {self.name} provider of localgcp has no schema")

    def cancel(self) -> None:
        return None


_PLAIN_KEY = re.compile(r'^[^.\["\]]+$')


def property_path(*segments: str | int) -> str:
    """Write a property path: `property_path("labels", "a.b", 0)` is `labels["a.b"][0]`."""
    path = ""
    for segment in segments:
        if isinstance(segment, int):
            path += f"[{segment}]"
        elif _PLAIN_KEY.match(segment):
            path += f".{segment}" if path else segment
        else:
            escaped = segment.replace('"', '\\"')
            path += f'["{escaped}"]'
    return path


def contains_unknown(value: Any) -> bool:
    """Whether `UNKNOWN` is anywhere in `value`."""
    if value is UNKNOWN:
        return True
    if isinstance(value, Secret):
        return contains_unknown(value.value)
    if isinstance(value, Mapping):
        return any(contains_unknown(item) for item in value.values())
    if isinstance(value, list | tuple):
        return any(contains_unknown(item) for item in value)
    return False
