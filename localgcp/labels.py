"""Labels, which nearly every API takes by the same rules ("Requirements for labels")."""

import re
from collections.abc import Mapping

from localgcp.errors import InvalidArgument

MAX_LABELS = 64


def check(labels: Mapping[str, str], noun: str) -> None:
    """Raises InvalidArgument. Letters of any language that knows no capitals are lower-case ones here."""
    if len(labels) > MAX_LABELS:
        raise InvalidArgument(f"A {noun} has at most {MAX_LABELS} labels, got {len(labels)}.", reason="invalid")
    for key, value in labels.items():
        if not re.fullmatch(r"[\w-]{1,63}", key) or key != key.lower() or not key[0].isalpha():
            raise InvalidArgument(
                f"Invalid label key '{key}': at most 63 lower-case letters, digits, '_' and '-', first a letter.",
                reason="invalid",
            )
        if not re.fullmatch(r"[\w-]{0,63}", value) or value != value.lower():
            raise InvalidArgument(
                f"Invalid value '{value}' of label '{key}': lower-case letters, digits, '_' and '-', at most 63.",
                reason="invalid",
            )
