"""IAM Service Account Credentials: what one account does in the name of another."""

import base64
import json
import re
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from localgcp.errors import InvalidArgument, NotFound
from localgcp.iam import accounts
from localgcp.iam.principal import Principal
from localgcp.service import Call, Service

#: Longer ones, of up to 12 hours, need an organisation policy that names the account; no project here has one.
MAX_LIFETIME_SECONDS = 3_600
MAX_JWT_SECONDS = 12 * 3600  # discovery document, SignJwtRequest.payload

_NAME = re.compile(r"(?:projects/[^/]+/)?serviceAccounts/(.+)")
_VERBS = ("generateAccessToken", "generateIdToken", "signBlob", "signJwt")

service = Service("iamcredentials:v1")
for _verb in _VERBS:
    # The handlers check: the account may be named by its unique id or below `projects/-`, and delegates need their own.
    service.permissions[f"projects.serviceAccounts.{_verb}"] = None
service.permissions["projects.serviceAccounts.getAllowedLocations"] = None


@service.method("projects.serviceAccounts.generateAccessToken")
def generate_access_token(call: Call) -> dict[str, Any]:
    email = impersonated(call, "iam.serviceAccounts.getAccessToken")
    if not call.body.get("scope"):
        raise InvalidArgument("The request must name at least one scope.")
    text = str(call.body.get("lifetime") or "3600s")
    match = re.fullmatch(r"(\d+)(?:\.\d+)?s", text)
    if match is None or not 0 < int(match[1]) <= MAX_LIFETIME_SECONDS:
        raise InvalidArgument(
            f"lifetime must be 1s to {MAX_LIFETIME_SECONDS}s, got {text}. A longer one needs the organisation policy"
            " constraints/iam.allowServiceAccountCredentialLifetimeExtension."
        )
    lifetime = int(match[1])
    token = call.region.tokens.access_token(email, lifetime)
    expires = datetime.now(UTC) + timedelta(seconds=lifetime)
    # Whole seconds: google-auth reads no fraction here.
    return {"accessToken": token, "expireTime": expires.strftime("%Y-%m-%dT%H:%M:%SZ")}


@service.method("projects.serviceAccounts.generateIdToken")
def generate_id_token(call: Call) -> dict[str, Any]:
    email = impersonated(call, "iam.serviceAccounts.getOpenIdToken")
    audience = call.body.get("audience")
    if not audience:
        raise InvalidArgument("The request must name an audience.")
    include_email = bool(call.body.get("includeEmail"))
    return {"token": call.region.tokens.id_token(email, audience, include_email=include_email)}


@service.method("projects.serviceAccounts.signBlob")
def sign_blob(call: Call) -> dict[str, Any]:
    email = impersonated(call, "iam.serviceAccounts.signBlob")
    payload = base64.b64decode(call.body.get("payload") or "")
    key = call.region.tokens.keys.own(email)
    return {"keyId": key.key_id, "signedBlob": base64.b64encode(key.sign(payload)).decode()}


@service.method("projects.serviceAccounts.signJwt")
def sign_jwt(call: Call) -> dict[str, Any]:
    email = impersonated(call, "iam.serviceAccounts.signJwt")
    payload = str(call.body.get("payload") or "")
    try:
        claims = json.loads(payload)
    except ValueError:
        claims = None
    if not isinstance(claims, dict):
        raise InvalidArgument("payload must be a JSON object: the claims of the token.")
    now = int(time.time())
    expires = claims.get("exp", now)
    if not isinstance(expires, int) or not now <= expires <= now + MAX_JWT_SECONDS:
        raise InvalidArgument(
            "The claim exp must be a whole number of seconds, not in the past and no more than 12 hours in the future."
        )
    key = call.region.tokens.keys.own(email)
    return {"keyId": key.key_id, "signedJwt": call.region.tokens.sign_jwt(key, payload)}


def impersonated(call: Call, permission: str) -> str:
    """The account that the call speaks for, once the caller, through every delegate, may do so.

    Raises:
        PermissionDenied: a link of the chain has no grant on the next.
        NotFound: the account does not exist, and the caller may know.
    """
    target = _email_of(call, call.named)
    chain = [_email_of(call, name) for name in call.body.get("delegates") or []]
    principal = call.principal
    for delegate in chain:
        _check(call, principal, "iam.serviceAccounts.implicitDelegation", delegate)
        principal = Principal(email=delegate)
    _check(call, principal, permission, target)
    if not accounts.exists(call.store, target):
        raise NotFound("Not found; Gaia id not found for email " + target)
    if not accounts.is_usable(call.store, target):
        raise InvalidArgument(f"Service account {target} is disabled.")
    return target


def _check(call: Call, principal: Principal, permission: str, email: str) -> None:
    call.region.iam.check(principal, permission, accounts.key_of(email) or f"iam/{call.named}")


def _email_of(call: Call, name: str) -> str:
    match = _NAME.fullmatch(name)
    if match is None:
        raise InvalidArgument(f"'{name}' is not projects/-/serviceAccounts/<email or unique id>.")
    identifier = match[1]
    if "@" in identifier:
        return identifier.lower()
    account = accounts.find_by_unique_id(call.store, identifier)
    return str(account["email"]) if account else identifier
