"""Cross-origin requests on XML paths, by the rules of the bucket. The JSON API is open to every origin instead."""

from collections.abc import Mapping, Sequence
from typing import Any

#: Request headers that need no rule ("CORS-safelisted").
SAFE_HEADERS = frozenset({"accept", "accept-language", "content-language", "range", "origin"})


def headers_for(rules: Sequence[Mapping[str, Any]], origin: str | None, method: str) -> dict[str, str]:
    """Headers of an answer to a plain cross-origin request; empty when no rule allows it."""
    rule = _matching(rules, origin, method)
    if rule is None or origin is None:
        return {}
    found = {"Access-Control-Allow-Origin": "*" if "*" in rule.get("origin", ()) else origin, "Vary": "Origin"}
    exposed = ", ".join(rule.get("responseHeader", ()))
    return found | ({"Access-Control-Expose-Headers": exposed} if exposed else {})


def preflight(
    rules: Sequence[Mapping[str, Any]], origin: str | None, method: str | None, wanted_headers: str
) -> dict[str, str]:
    """Headers of the answer to OPTIONS; empty, so that the browser refuses, when no rule allows the request."""
    rule = _matching(rules, origin, method or "")
    if rule is None or origin is None or method is None:
        return {}
    wanted = [name.strip() for name in wanted_headers.split(",") if name.strip()]
    allowed = {name.lower() for name in rule.get("responseHeader", ())}
    if "*" not in allowed and any(name.lower() not in allowed | SAFE_HEADERS for name in wanted):
        return {}
    return {
        "Access-Control-Allow-Origin": "*" if "*" in rule.get("origin", ()) else origin,
        "Access-Control-Allow-Methods": ",".join(rule.get("method", ())),
        "Access-Control-Max-Age": str(rule.get("maxAgeSeconds", 3600)),
        "Vary": "Origin",
    } | ({"Access-Control-Allow-Headers": ",".join(wanted)} if wanted else {})


def _matching(rules: Sequence[Mapping[str, Any]], origin: str | None, method: str) -> Mapping[str, Any] | None:
    for rule in rules:
        methods = rule.get("method", ())
        if origin is None or not (method in methods or "*" in methods):
            continue
        if any(_origin_matches(allowed, origin) for allowed in rule.get("origin", ())):
            return rule
    return None


def _origin_matches(allowed: str, origin: str) -> bool:
    if "*" not in allowed:
        return allowed.rstrip("/") == origin
    before, _, after = allowed.partition("*")
    return origin.startswith(before) and origin.endswith(after) and len(origin) >= len(before) + len(after)
