"""Who calls the API: a key, its organisation, its region, its scope, and how often."""

from typing import Any

from django.http import HttpRequest
from ninja.security import HttpBearer

from app.organizations.models import ApiKey, ApiKeyText, RateWindow, Scope
from app.regions import DataRegion
from app.settings import env
from app.web.problems import FieldError, Problem

_REALM = {"WWW-Authenticate": 'Bearer realm="validibot"'}


class ApiKeyAuth(HttpBearer):
    """`Authorization: Bearer vb_<region>_<prefix>_<secret>`, with the scope that the operation needs."""

    def __init__(self, scope: Scope) -> None:
        super().__init__()
        self.scope = scope

    def __call__(self, request: HttpRequest) -> Any:
        scheme, _, text = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not text.strip():
            raise _unauthorized("the request has no API key", "send the header Authorization: Bearer vb_…")
        return self.authenticate(request, text.strip())

    def authenticate(self, request: HttpRequest, token: str) -> ApiKey:
        key_text = ApiKeyText.parse(token)
        # The key says where its organisation's data lives. This region holds nothing about it.
        if key_text is not None and key_text.region is not env.data_region:
            raise _elsewhere(request, key_text.region)
        key = ApiKey.objects.authenticate(token)
        if key is None:
            raise _unauthorized("the API key is unknown or revoked", "use a key that your organisation has not revoked")
        if key.organization.region is not env.data_region:
            raise _elsewhere(request, key.organization.region)
        limit = key.requests_per_hour or env.api_requests_per_hour
        requests, seconds = RateWindow.count(key)
        if requests > limit:
            raise Problem(
                "rate-limited",
                "The key has used its requests of this hour",
                status=429,
                detail=f"the limit is {limit} requests per hour; the next hour starts in {seconds} seconds",
                headers={"Retry-After": str(max(1, seconds))},
            )
        if not key.allows(self.scope):
            raise Problem(
                "missing-scope",
                "The API key may not do this",
                status=403,
                detail=f"the key has not the scope {self.scope.value}",
                errors=[
                    FieldError(
                        field="Authorization",
                        message=f"scopes of the key: {', '.join(key.scopes) or 'none'}",
                        remedy=f"use a key with the scope {self.scope.value}",
                    )
                ],
            )
        key.note_use()
        return key


def _unauthorized(found: str, remedy: str) -> Problem:
    return Problem(
        "unauthenticated",
        "The request is not authenticated",
        status=401,
        detail=found,
        errors=[FieldError(field="Authorization", message=found, remedy=remedy)],
        headers=_REALM,
    )


def _elsewhere(request: HttpRequest, region: DataRegion) -> Problem:
    # 308 keeps the method and the body. A client drops the Authorization header on the way to another host, and has
    # to be told to trust it: the detail says where to go.
    location = f"https://{region.public_host}{request.get_full_path()}"
    return Problem(
        "other-region",
        "The organisation's data is in another region",
        status=308,
        detail=f"this is {env.data_region.value}, the organisation is in {region.value}: ask {region.public_host}",
        headers={"Location": location},
    )
