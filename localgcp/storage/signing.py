"""V4 signed URLs: what was signed is rebuilt from the request, and the signature is verified with the account's keys.

V2 signatures are refused by name: nothing here passes for them.
"""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, unquote

RSA = "GOOG4-RSA-SHA256"
HMAC = "GOOG4-HMAC-SHA256"
MAX_LIFETIME = timedelta(days=7)
MAX_SKEW = timedelta(minutes=15)
UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"


#: `signer(algorithm, identity, scope, message, signature)`: the account that made the signature, None when it is wrong.
#: The identity is an account's email, or the access id of an HMAC key.
Signer = Callable[[str, str, str, bytes, bytes], str | None]


class SignatureError(Exception):
    """A signed URL that grants nothing. `code` is Google's, the text its message."""

    def __init__(self, code: str, message: str, details: str = "", *, status: int = 403, **elements: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details
        self.status = status
        self.elements = elements


@dataclass(frozen=True, kw_only=True)
class SignedRequest:
    """A request as it came over the wire: `path` is still percent-encoded, `query` decoded, header names lower-case."""

    method: str
    path: str
    query: Sequence[tuple[str, str]]
    headers: Mapping[str, str]


def is_signed(query: Mapping[str, str]) -> bool:
    """Whether the URL claims to be signed, in any of the ways that Google knows."""
    names = {name.lower() for name in query}
    return (
        bool({"x-goog-signature", "x-goog-algorithm", "x-amz-signature"} & names) or {"signature", "expires"} <= names
    )


def verify(request: SignedRequest, *, now: datetime, signer: Signer) -> str:
    """The account that signed the request. Raises SignatureError."""
    query = {name.lower(): value for name, value in request.query}
    if "x-goog-algorithm" not in query:
        raise SignatureError(
            "InvalidArgument",
            "Invalid argument.",
            "Only V4 signed URLs are verified here; V2 signed URLs are refused: sign with version='v4'.",
            status=400,
        )
    algorithm = check_algorithm(query["x-goog-algorithm"])
    absent = [
        name
        for name in ("X-Goog-Credential", "X-Goog-Date", "X-Goog-Expires", "X-Goog-SignedHeaders", "X-Goog-Signature")
        if not query.get(name.lower())
    ]
    if absent:
        raise SignatureError(
            "AuthenticationRequired",
            "Authentication required.",
            f"Missing query parameters: {', '.join(absent)}",
            status=401,
        )
    identity, scope = credential(query["x-goog-credential"])
    _check_time(query["x-goog-date"], query["x-goog-expires"], scope, now)
    signed_headers = query["x-goog-signedheaders"].split(";")
    if "host" not in signed_headers:
        raise SignatureError("InvalidArgument", "Invalid argument.", "The header host must be signed.", status=400)
    unsigned = sorted(
        name
        for name in request.headers
        if name.startswith("x-goog-") and name not in signed_headers and name not in UNSIGNED_HEADERS
    )
    if unsigned:
        raise SignatureError(
            "AccessDenied", "Access denied.", f"The request has headers that were not signed: {', '.join(unsigned)}"
        )
    try:
        signature = bytes.fromhex(query["x-goog-signature"])
    except ValueError:
        raise SignatureError(
            "InvalidArgument", "Invalid argument.", "X-Goog-Signature must be hexadecimal.", status=400
        ) from None
    text, canonical = "", ""
    for host in _hosts(request.headers.get("host", "")):
        canonical = canonical_request(request, signed_headers, host)
        text = "\n".join((algorithm, query["x-goog-date"], scope, hashlib.sha256(canonical.encode()).hexdigest()))
        email = signer(algorithm, identity, scope, text.encode(), signature)
        if email is not None:
            return email
    raise SignatureError(
        "SignatureDoesNotMatch",
        "Access denied.",
        "The request signature we calculated does not match the signature you provided. Check your Google secret key"
        " and signing method.",
        StringToSign=text,
        CanonicalRequest=canonical,
    )


#: Sent by Google's clients beside a signed URL, without meaning for what the URL grants.
UNSIGNED_HEADERS = frozenset(
    {"x-goog-api-client", "x-goog-gcs-idempotency-token", "x-goog-request-id", "x-goog-user-project"}
)


def canonical_request(request: SignedRequest, signed_headers: Sequence[str], host: str) -> str:
    query = sorted(
        (quote(name, safe="-_.~"), quote(value, safe="-_.~"))
        for name, value in request.query
        if name.lower() != "x-goog-signature"
    )
    headers = dict(request.headers) | {"host": host}
    folded = {name: re.sub(r"[ \t]+", " ", headers.get(name, "").strip()) for name in signed_headers}
    lines = "".join(f"{name}:{folded[name]}\n" for name in sorted(signed_headers))
    payload = request.headers.get("x-goog-content-sha256") if "x-goog-content-sha256" in signed_headers else None
    return "\n".join(
        (
            request.method,
            quote(unquote(request.path), safe="/-_.~"),
            "&".join(f"{name}={value}" for name, value in query),
            lines,
            ";".join(signed_headers),
            payload or UNSIGNED_PAYLOAD,
        )
    )


def check_algorithm(algorithm: str) -> str:
    """Raises SignatureError."""
    if algorithm not in (RSA, HMAC):
        raise SignatureError(
            "InvalidArgument",
            "Invalid argument.",
            f"The algorithm {algorithm} is not supported here: sign with a service account's key ({RSA}, {HMAC}).",
            status=400,
        )
    return algorithm


def credential(text: str) -> tuple[str, str]:
    """The account or key, and the scope, of an X-Goog-Credential. Raises SignatureError."""
    email, _, scope = text.partition("/")
    if not re.fullmatch(r"\d{8}/[^/]+/storage/goog4_request", scope):
        raise SignatureError(
            "InvalidArgument",
            "Invalid argument.",
            f"The credential scope '{scope}' must be <date>/<location>/storage/goog4_request.",
            status=400,
        )
    return email, scope


def _check_time(date_text: str, expires_text: str, scope: str, now: datetime) -> None:
    try:
        signed_at = datetime.strptime(date_text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        lifetime = timedelta(seconds=int(expires_text))
    except ValueError:
        raise SignatureError(
            "InvalidArgument", "Invalid argument.", "X-Goog-Date or X-Goog-Expires cannot be read.", status=400
        ) from None
    if not timedelta() < lifetime <= MAX_LIFETIME:
        raise SignatureError(
            "InvalidArgument", "Invalid argument.", "X-Goog-Expires must be between 1 and 604800 seconds.", status=400
        )
    if scope[:8] != date_text[:8]:
        raise SignatureError(
            "InvalidArgument",
            "Invalid argument.",
            "The date of X-Goog-Credential is not that of X-Goog-Date.",
            status=400,
        )
    if signed_at - now > MAX_SKEW:
        raise SignatureError(
            "AccessDenied", "Access denied.", "Request signature is not yet valid: X-Goog-Date is in the future."
        )
    if now >= signed_at + lifetime:
        raise SignatureError(
            "ExpiredToken",
            "The provided token has expired.",
            f"Request signature expired at: {(signed_at + lifetime).isoformat()}",
            status=400,
        )


def _hosts(host: str) -> list[str]:
    """The host that was signed: Google's own has no port, and clients differ in whether they sign ours."""
    bare = host.rpartition(":")[0] if re.search(r":\d+$", host) else host
    return list(dict.fromkeys((host, bare)))
