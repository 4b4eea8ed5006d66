"""Verifiable credentials as signed JWTs: W3C Verifiable Credentials Data Model 1.1, section 6.3.1.

The issuer is `did:web:<public host>`. Its DID document lists every key that was ever used, so that a credential can be
verified after the key was replaced. Revocation is not here: a credential that must end has an `exp`.
"""

import base64
import hashlib
import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Final, Self
from uuid import UUID

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe
from jwt.algorithms import ECAlgorithm, OKPAlgorithm

from app.settings import env
from app.workflows.models import CredentialKey

_CONTEXT: Final = "https://www.w3.org/2018/credentials/v1"


class NoKey(Exception):
    """No credential can be signed. The message says what to set, and never quotes a key."""


@dataclass(frozen=True, kw_only=True)
class Issued:
    id: str
    jwt: str


@dataclass(frozen=True, kw_only=True)
class Issuer:
    did: str
    algorithm: str
    private_key: EllipticCurvePrivateKey | Ed25519PrivateKey
    jwk: dict[str, str]
    key_id: str

    @classmethod
    def of(cls, did: str, pem: bytes) -> Self:
        """Raises: NoKey."""
        try:
            key = load_pem_private_key(pem, password=None)
        except (ValueError, TypeError):
            raise NoKey("VALIDIBOT_CREDENTIAL_KEY is not an unencrypted private key in PEM") from None
        jwk: dict[str, str]
        if isinstance(key, Ed25519PrivateKey):
            algorithm, jwk = "EdDSA", OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)
        elif isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1):
            algorithm, jwk = "ES256", ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
        else:
            raise NoKey("VALIDIBOT_CREDENTIAL_KEY must be an EC P-256 or an Ed25519 key")
        return cls(did=did, algorithm=algorithm, private_key=key, jwk=jwk, key_id=thumbprint(jwk))

    def issue(
        self, *, id_: UUID, kind: str, subject: dict[str, Any], issued_at: datetime, lifetime: timedelta | None = None
    ) -> Issued:
        """The same arguments make the same claims, and with Ed25519 the same text."""
        CredentialKey.objects.get_or_create(key_id=self.key_id, defaults={"jwk": self.jwk})
        credential_id = f"urn:uuid:{id_}"
        claims: dict[str, Any] = {
            "iss": self.did,
            "jti": credential_id,
            "nbf": int(issued_at.timestamp()),
            "vc": {
                "@context": [_CONTEXT],
                "type": ["VerifiableCredential", *([kind] if kind != "VerifiableCredential" else [])],
                "credentialSubject": subject,
            },
        }
        if isinstance(subject.get("id"), str):
            claims["sub"] = subject["id"]
        if lifetime is not None:
            claims["exp"] = int((issued_at + lifetime).timestamp())
        headers = {"typ": "JWT", "kid": f"{self.did}#{self.key_id}"}
        return Issued(id=credential_id, jwt=jwt.encode(claims, self.private_key, self.algorithm, headers=headers))


@cache
def issuer() -> Issuer:
    """Raises: NoKey."""
    if env.credential_key is None:
        raise NoKey("VALIDIBOT_CREDENTIAL_KEY is not set, so no credential can be signed")
    return Issuer.of(f"did:web:{env.public_host}", env.credential_key.get_secret_value().encode())


def thumbprint(jwk: dict[str, str]) -> str:
    """RFC 7638: the required members, in the order of their names."""
    names = ("crv", "kty", "x", "y") if jwk["kty"] == "EC" else ("crv", "kty", "x")
    text = json.dumps({name: jwk[name] for name in names}, separators=(",", ":"))
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")


@csrf_exempt  # it reads and answers alike for everybody: another method is 405, not a forged form
@require_safe
def did_document(request: HttpRequest) -> JsonResponse:
    """`/.well-known/did.json`: where a verifier finds the keys of `did:web:<public host>`."""
    did = f"did:web:{env.public_host}"
    methods = [
        {"id": f"{did}#{key.key_id}", "type": "JsonWebKey2020", "controller": did, "publicKeyJwk": key.jwk}
        for key in CredentialKey.objects.all()
    ]
    document = {
        "@context": ["https://www.w3.org/ns/did/v1", "https://w3id.org/security/suites/jws-2020/v1"],
        "id": did,
        "verificationMethod": methods,
        "assertionMethod": [method["id"] for method in methods],
    }
    return JsonResponse(document, content_type="application/did+json", headers={"Cache-Control": "max-age=300"})
