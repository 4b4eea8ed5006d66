"""Google's OAuth 2.0 endpoints: tokens for signed assertions, what a token is, and the keys to check ID tokens with."""

import json
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from localgcp.errors import Unauthenticated
from localgcp.iam import accounts
from localgcp.iam.principal import OPERATOR_EMAIL
from localgcp.iam.tokens import ID_TOKEN_ISSUER, LIFETIME_SECONDS, InvalidToken

if TYPE_CHECKING:
    from localgcp.region import Region

JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"

# `localgcp env` prints a token into a shell, where nothing renews it: the operator's lasts a working day.
OPERATOR_LIFETIME_SECONDS = 12 * 3600

_MAX_FORM_BYTES = 64 * 1024
# Google's certificates may be kept for hours. Here a region can be reset, and its keys with it.
_CACHEABLE = {"Cache-Control": "public, max-age=60, must-revalidate"}


class OAuthError(Exception):
    """A refusal in the form of RFC 6749, section 5.2."""

    def __init__(self, error: str, description: str, status: int = 400) -> None:
        super().__init__(description)
        self.error = error
        self.status = status


async def oauth_app(scope: Scope, receive: Receive, send: Send) -> None:
    """ASGI: every path of `PATHS`."""
    request = Request(scope, receive)
    region: Region = scope["region"]
    form: dict[str, str] = {}
    try:
        if request.method == "POST":
            form = await _form(request)
        parameters = {**dict(request.query_params), **form}
        response = await region.run_in_thread(_answer, region, request, parameters)
    except OAuthError as error:
        response = JSONResponse({"error": error.error, "error_description": str(error)}, status_code=error.status)
    response.headers.setdefault("Cache-Control", "no-store")  # RFC 6749, section 5.1
    await response(scope, receive, send)


def _answer(region: "Region", request: Request, parameters: Mapping[str, str]) -> Response:
    path = request.scope["path"].rstrip("/")
    for prefix, handler in (*PATHS.items(), *ACCOUNT_PATHS.items()):
        if path == prefix or (prefix in ACCOUNT_PATHS and path.startswith(prefix + "/")):
            return handler(region, request, parameters)
    return JSONResponse({"error": "not_found"}, status_code=404)


async def _form(request: Request) -> dict[str, str]:
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > _MAX_FORM_BYTES:
            raise OAuthError("invalid_request", f"The request holds more than {_MAX_FORM_BYTES} bytes.", 413)
    text = content.decode("utf-8", "replace")
    if request.headers.get("content-type", "").startswith("application/json"):
        try:
            body = json.loads(text or "{}")
        except ValueError:
            raise OAuthError("invalid_request", "The body is not JSON.") from None
        return {name: str(value) for name, value in body.items()} if isinstance(body, dict) else {}
    return {name: values[-1] for name, values in parse_qs(text).items()}


def token(region: "Region", request: Request, parameters: Mapping[str, str]) -> Response:
    if request.method != "POST":
        raise OAuthError("invalid_request", "The token endpoint is asked with POST.", 405)
    grant = parameters.get("grant_type", "")
    if grant == "refresh_token":
        raise OAuthError("invalid_grant", "localgcp has no refresh tokens: use a service account, see `localgcp env`.")
    if grant != JWT_BEARER:
        raise OAuthError("unsupported_grant_type", f"Invalid grant_type: {grant}")
    try:
        claims = region.tokens.verify_assertion(parameters.get("assertion", ""))
    except InvalidToken as error:
        raise OAuthError("invalid_grant", f"Invalid JWT: {error}.") from None
    email = str(claims["iss"])
    if not accounts.is_usable(region.store, email):
        raise OAuthError("invalid_grant", "Invalid grant: account not found")
    audience = claims.get("target_audience")
    if audience:
        return JSONResponse({"id_token": region.tokens.id_token(email, str(audience))})
    if not claims.get("scope"):
        raise OAuthError("invalid_scope", "Empty or missing scope not allowed.")
    lifetime = OPERATOR_LIFETIME_SECONDS if email == OPERATOR_EMAIL else LIFETIME_SECONDS
    access_token = region.tokens.access_token(email, lifetime)
    return JSONResponse({"access_token": access_token, "expires_in": lifetime, "token_type": "Bearer"})


def tokeninfo(region: "Region", request: Request, parameters: Mapping[str, str]) -> Response:
    """What a token says, for debugging and for clients that ask Google instead of checking signatures."""
    if id_token := parameters.get("id_token"):
        try:
            claims = region.tokens.read_id_token(id_token)
        except InvalidToken as error:
            raise OAuthError("invalid_token", f"Invalid Value: {error}") from None
        texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in claims.items()}
        return JSONResponse(texts)
    found = region.tokens.lookup(parameters.get("access_token", ""))
    if found is None or not accounts.is_usable(region.store, found[0]):
        raise OAuthError("invalid_token", "Invalid Value")
    email, left = found
    subject = accounts.unique_id(region.store, email)
    return JSONResponse(
        {
            "azp": subject,
            "aud": subject,
            "scope": "https://www.googleapis.com/auth/cloud-platform https://www.googleapis.com/auth/userinfo.email",
            "exp": str(int(time.time() + left)),
            "expires_in": str(int(left)),
            "email": email,
            "email_verified": "true",
            "access_type": "online",
        }
    )


def userinfo(region: "Region", request: Request, parameters: Mapping[str, str]) -> Response:
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    try:
        principal = region.tokens.principal(bearer if scheme.lower() == "bearer" else parameters.get("access_token"))
    except Unauthenticated as error:
        return JSONResponse(error.to_json(), status_code=401)
    if principal.email is None:
        raise OAuthError("invalid_request", "Invalid Credentials", 401)
    subject = accounts.unique_id(region.store, principal.email)
    return JSONResponse({"sub": subject, "email": principal.email, "email_verified": True})


def revoke(region: "Region", request: Request, parameters: Mapping[str, str]) -> Response:
    if not region.tokens.revoke(parameters.get("token", "")):
        raise OAuthError("invalid_token", "Token expired or revoked")
    return JSONResponse({})


def json_web_keys(region: "Region", request: Request, parameters: Mapping[str, str]) -> Response:
    return JSONResponse({"keys": [key.to_jwk() for key in region.tokens.issuer_keys()]}, headers=_CACHEABLE)


def certificates(region: "Region", request: Request, parameters: Mapping[str, str]) -> Response:
    return JSONResponse({key.key_id: key.certificate for key in region.tokens.issuer_keys()}, headers=_CACHEABLE)


def account_certificates(region: "Region", request: Request, parameters: Mapping[str, str]) -> Response:
    keys = region.tokens.keys.list(request.scope["path"].rpartition("/")[2])
    return JSONResponse({key.key_id: key.certificate for key in keys if not key.disabled}, headers=_CACHEABLE)


def account_json_web_keys(region: "Region", request: Request, parameters: Mapping[str, str]) -> Response:
    keys = region.tokens.keys.list(request.scope["path"].rpartition("/")[2])
    return JSONResponse({"keys": [key.to_jwk() for key in keys if not key.disabled]}, headers=_CACHEABLE)


def discovery_document(region: "Region", request: Request, parameters: Mapping[str, str]) -> Response:
    url = region.settings.api_url
    return JSONResponse(
        {
            "issuer": ID_TOKEN_ISSUER,
            "authorization_endpoint": f"{url}/o/oauth2/auth",
            "token_endpoint": f"{url}/token",
            "userinfo_endpoint": f"{url}/v1/userinfo",
            "revocation_endpoint": f"{url}/revoke",
            "jwks_uri": f"{url}/oauth2/v3/certs",
            "response_types_supported": ["code", "token", "id_token", "none"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "scopes_supported": ["openid", "email", "profile"],
            "claims_supported": ["aud", "email", "email_verified", "exp", "iat", "iss", "sub"],
            "grant_types_supported": [JWT_BEARER],
        },
        headers=_CACHEABLE,
    )


Handler = Callable[["Region", Request, Mapping[str, str]], Response]

PATHS: dict[str, Handler] = {
    "/token": token,
    "/oauth2/v4/token": token,
    "/revoke": revoke,
    "/tokeninfo": tokeninfo,
    "/oauth2/v3/tokeninfo": tokeninfo,
    "/userinfo": userinfo,
    "/v1/userinfo": userinfo,
    "/oauth2/v3/userinfo": userinfo,
    "/oauth2/v3/certs": json_web_keys,
    "/oauth2/v1/certs": certificates,
    "/.well-known/openid-configuration": discovery_document,
}

#: Below these, the last word of the path is an account's address.
ACCOUNT_PATHS: dict[str, Handler] = {
    "/robot/v1/metadata/x509": account_certificates,
    "/service_accounts/v1/metadata/x509": account_certificates,
    "/service_accounts/v1/jwk": account_json_web_keys,
}


def mounts() -> dict[str, Any]:
    return dict.fromkeys((*PATHS, *ACCOUNT_PATHS), oauth_app)
