"""A rewrite in several calls: how far it is, and the token that the next call shows.

Content is not moved here, so a rewrite is done at once, unless its client limits the bytes of a call to see how its own
loop does. The token holds what the rewrite is and how far it is: nothing has to be kept, and a restart ends none.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from localgcp.errors import InvalidArgument
from localgcp.storage.objects import StoredObject

MIB = 1024 * 1024


def rewritten_bytes(query: Mapping[str, Any], source: StoredObject, target: str, *, is_far: bool) -> int:
    """How many bytes are rewritten when this call ends. Raises InvalidArgument.

    A limit counts only between places or storage classes (discovery document, `maxBytesRewrittenPerCall`): `is_far`.
    """
    limit = int(query.get("maxBytesRewrittenPerCall") or 0)
    if limit < 0 or limit % MIB:
        raise InvalidArgument(
            f"maxBytesRewrittenPerCall must be a multiple of 1 MiB, got {limit}.",
            reason="invalid",
            location="maxBytesRewrittenPerCall",
        )
    rewrite = [source.path, source.generation, target, limit]
    begun = _position(query.get("rewriteToken"), rewrite)
    return min(begun + limit, source.size) if limit and is_far else source.size


def token(query: Mapping[str, Any], source: StoredObject, target: str, position: int) -> str:
    limit = int(query.get("maxBytesRewrittenPerCall") or 0)
    rewrite = [source.path, source.generation, target, limit]
    return base64.urlsafe_b64encode(json.dumps([*rewrite, position]).encode()).decode()


def _position(given: str | None, rewrite: list[Any]) -> int:
    if not given:
        return 0
    try:
        *shown, position = json.loads(base64.urlsafe_b64decode(given))
    except (binascii.Error, ValueError, TypeError):
        shown, position = [], 0
    if shown != rewrite:
        raise InvalidArgument("The rewrite token is invalid.", reason="invalid", location="rewriteToken")
    return int(position)
