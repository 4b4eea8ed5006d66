"""Headers about ranges, as far as Cloud Storage honours them: Range, Content-Range, X-Goog-Content-Length-Range."""

import re
from dataclasses import dataclass

from localgcp.errors import ApiError, InvalidArgument


class RangeNotSatisfiable(ApiError):
    """The answer 416; `size` goes into its Content-Range header."""

    status, code, default_reason = 416, "OUT_OF_RANGE", "requestedRangeNotSatisfiable"

    def __init__(self, size: int) -> None:
        super().__init__("Request range not satisfiable")
        self.size = size


@dataclass(frozen=True)
class Slice:
    start: int
    end: int  # exclusive

    def __len__(self) -> int:
        return self.end - self.start


def requested(header: str | None, size: int) -> Slice | None:
    """What to send of `size` bytes; None for all. Several ranges, and what is no range, mean all, as at Google.

    Raises RangeNotSatisfiable.
    """
    match = re.fullmatch(r"\s*bytes=(\d*)-(\d*)\s*", header or "")
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        length = int(last)
        if length == 0 or size == 0:
            raise RangeNotSatisfiable(size)
        return Slice(max(0, size - length), size)
    if last and int(last) < int(first):
        return None
    if int(first) >= size:
        raise RangeNotSatisfiable(size)
    return Slice(int(first), min(int(last) + 1, size) if last else size)


@dataclass(frozen=True, kw_only=True)
class ContentRange:
    """What a request of a resumable session carries. `first` is None for a question about the session's state."""

    first: int | None
    last: int | None
    total: int | None


def carried(header: str | None) -> ContentRange | None:
    """`bytes 0-9/20`, `bytes 0-9/*`, `bytes */20`, `bytes */*`; None without the header. Raises InvalidArgument."""
    if header is None:
        return None
    match = re.fullmatch(r"\s*bytes\s+(?:(\d+)-(\d+)|\*)/(\d+|\*)\s*", header)
    if match is None:
        raise InvalidArgument(f"Failed to parse Content-Range header: {header}", reason="badRequest")
    first, last, total = match.groups()
    content_range = ContentRange(
        first=int(first) if first else None,
        last=int(last) if last else None,
        total=int(total) if total != "*" else None,
    )
    is_reversed = (
        content_range.first is not None
        and content_range.last is not None
        and (content_range.last < content_range.first)
    )
    if is_reversed or (content_range.total is not None and (content_range.last or 0) > content_range.total):
        raise InvalidArgument(f"Failed to parse Content-Range header: {header}", reason="badRequest")
    return content_range


@dataclass(frozen=True, kw_only=True)
class SizeRange:
    """How many bytes an upload may have, both ends included."""

    smallest: int
    largest: int

    def check(self, size: int) -> None:
        """Raises InvalidArgument."""
        self.check_so_far(size)
        if size < self.smallest:
            raise InvalidArgument(
                f"The upload has {size} bytes, and at least {self.smallest} are demanded.", reason="EntityTooSmall"
            )

    def check_so_far(self, size: int) -> None:
        """Raises InvalidArgument when more has arrived than there may be."""
        if size > self.largest:
            raise InvalidArgument(
                f"The upload has more than the {self.largest} bytes that are allowed.", reason="EntityTooLarge"
            )

    @classmethod
    def of_header(cls, text: str | None) -> "SizeRange | None":
        """`x-goog-content-length-range: <smallest>,<largest>`. Raises InvalidArgument."""
        if text is None:
            return None
        try:
            smallest, largest = (int(part) for part in text.split(","))
        except ValueError:
            raise InvalidArgument(f"Invalid value for x-goog-content-length-range: '{text}'") from None
        return cls(smallest=smallest, largest=largest)
