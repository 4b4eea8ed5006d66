"""Moments in addresses: RFC 3339 and nothing else, so that nobody's number is taken for a time."""

import re
from typing import Annotated, Any, Final

from pydantic import AwareDatetime, BeforeValidator

_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")


def _is_rfc3339(value: Any) -> Any:
    if isinstance(value, str) and not _RFC3339.fullmatch(value):
        raise ValueError("must be a time with an offset, as 2026-01-31T09:00:00Z; in an address, + is written %2B")
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(_is_rfc3339)]
