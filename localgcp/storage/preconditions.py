"""`ifGenerationMatch` and its relatives: what must hold for a request to be carried out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from localgcp.errors import ApiError, InvalidArgument, PreconditionFailed

MESSAGE = "At least one of the pre-conditions you specified did not hold."


class NotModified(ApiError):
    """The answer 304 to a read whose `…NotMatch` does not hold. It has no body."""

    status, code, default_reason = 304, "NOT_MODIFIED", "notModified"


class Versioned(Protocol):
    @property
    def generation(self) -> int: ...
    @property
    def metageneration(self) -> int: ...
    @property
    def etags(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, kw_only=True)
class Preconditions:
    generation_match: int | None = None
    generation_not_match: int | None = None
    metageneration_match: int | None = None
    metageneration_not_match: int | None = None
    etag_match: tuple[str, ...] = ()
    etag_not_match: tuple[str, ...] = ()

    @classmethod
    def from_query(
        cls, query: Mapping[str, Any], headers: Mapping[str, str] | None = None, *, prefix: str = "if"
    ) -> "Preconditions":
        """Out of query parameters (`ifGenerationMatch`, or `ifSource…` by `prefix`) and the headers If-(None-)Match."""
        return cls(
            generation_match=number(query, f"{prefix}GenerationMatch"),
            generation_not_match=number(query, f"{prefix}GenerationNotMatch"),
            metageneration_match=number(query, f"{prefix}MetagenerationMatch"),
            metageneration_not_match=number(query, f"{prefix}MetagenerationNotMatch"),
            etag_match=_etags((headers or {}).get("if-match")),
            etag_not_match=_etags((headers or {}).get("if-none-match")),
        )

    @classmethod
    def from_xml_headers(cls, headers: Mapping[str, str], *, of_source: bool = False) -> "Preconditions":
        prefix = "x-goog-copy-source-if" if of_source else "x-goog-if"
        generation = number(headers, f"{prefix}-generation-match")
        metageneration = number(headers, f"{prefix}-metageneration-match")
        if of_source:
            return cls(generation_match=generation, metageneration_match=metageneration)
        return cls(
            generation_match=generation,
            metageneration_match=metageneration,
            etag_match=_etags(headers.get("if-match")),
            etag_not_match=_etags(headers.get("if-none-match")),
        )

    def check(self, found: Versioned | None, *, reading: bool = False) -> None:
        """`found` is what the request is about, None when it does not exist.

        Raises:
            PreconditionFailed: something must match and does not, or must not and does.
            NotModified: the latter, when `reading`.
        """
        generation = found.generation if found else 0
        metageneration = found.metageneration if found else 0
        etags = {"*", *found.etags} if found else set()
        if self.generation_match not in (None, generation) or self.metageneration_match not in (None, metageneration):
            raise PreconditionFailed(MESSAGE)
        if self.etag_match and etags.isdisjoint(self.etag_match):
            raise PreconditionFailed(MESSAGE)
        is_same = (
            self.generation_not_match == generation
            or (found is not None and self.metageneration_not_match == metageneration)
            or not etags.isdisjoint(self.etag_not_match)
        )
        if is_same:
            raise NotModified("Not Modified") if reading else PreconditionFailed(MESSAGE)

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if value not in (None, ())}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Preconditions":
        given: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return cls(**given)


NONE = Preconditions()


def number(values: Mapping[str, Any], name: str) -> int | None:
    """Raises InvalidArgument naming the parameter."""
    text = values.get(name)
    if text is None or text == "":
        return None
    try:
        value = int(text)
    except ValueError:
        value = None
    if value is None or not -(2**63) <= value < 2**63:
        raise InvalidArgument(f"Invalid long value: '{text}'.", reason="invalid", location=name)
    return value


def _etags(header: str | None) -> tuple[str, ...]:
    if not header:
        return ()
    return tuple(item.strip().removeprefix("W/").strip('"') for item in header.split(",") if item.strip())
