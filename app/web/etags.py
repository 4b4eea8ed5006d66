"""Conditional requests (RFC 9110, section 13)."""

from django.http import HttpRequest
from django.utils.http import parse_etags


def is_known(request: HttpRequest, tag: str) -> bool:
    """Whether `If-None-Match` names the tag. The comparison is weak: a proxy that compresses makes tags weak."""
    known = parse_etags(request.headers.get("If-None-Match", ""))
    return "*" in known or tag in {candidate.removeprefix("W/") for candidate in known}
