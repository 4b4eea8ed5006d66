"""The part of AIP-160 filters that lists of resources are asked for: comparisons of fields, joined by AND."""

import re
from collections.abc import Mapping
from typing import Any

from localgcp.errors import InvalidArgument

COMPARISON = re.compile(r"""([\w.\-]+)\s*(=|!=|:)\s*("(?:[^"\\]|\\.)*"|[^\s()]+)""")


def matches(expression: str, resource: Mapping[str, Any]) -> bool:
    """Raises InvalidArgument for an expression beyond `field=value`, `field!=value`, `field:text` and AND."""
    for term in re.split(r"\s+AND\s+", expression.strip().strip("()")):
        match = COMPARISON.fullmatch(term.strip().strip("()"))
        if match is None:
            raise InvalidArgument(
                f"The filter '{expression}' is beyond what localgcp evaluates:"
                " comparisons with =, != and : joined by AND",
                location="filter",
            )
        field, operator, literal = match.groups()
        value = _field(resource, field)
        wanted = literal.strip('"')
        text = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        if operator == ":":
            found = value is not None and (wanted == "*" or wanted.lower() in text.lower())
        else:
            found = (text == wanted) == (operator == "=")
        if not found:
            return False
    return True


def _field(resource: Mapping[str, Any], path: str) -> Any:
    value: Any = resource
    words = path.split(".")
    while words:
        if not isinstance(value, Mapping):
            return None
        # Labels may have dots in their names.
        rest = ".".join(words)
        if rest in value:
            return value[rest]
        value = value.get(words.pop(0))
    return value
