"""Filters of lists (AIP-160): comparisons of fields with AND, OR, NOT and parentheses."""

from collections.abc import Mapping
from typing import Any

from localgcp.errors import InvalidArgument
from localgcp.logfilter import parse


def matches(expression: str, resource: Mapping[str, Any]) -> bool:
    """Raises InvalidArgument for an expression that is not evaluated here, such as a bare word or a function."""
    try:
        return parse(expression, takes_text=False).matches(resource)
    except InvalidArgument as error:
        raise InvalidArgument(
            f"The filter '{expression}' is beyond what localgcp evaluates: comparisons of fields joined by AND, OR and"
            f" NOT. {error.message}",
            location="filter",
        ) from None
