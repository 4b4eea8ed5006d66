"""Signed policy documents: what a form that a browser posts may upload, and in whose name."""

import base64
import binascii
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from localgcp.storage import times
from localgcp.storage.ranges import SizeRange
from localgcp.storage.signing import SignatureError, Signer, check_algorithm, credential

#: Fields that a policy need not name: they prove it, they are what it is about, or nobody looks at them.
FREE_FIELDS = frozenset({"policy", "x-goog-signature", "file"})
IGNORED_PREFIX = "x-ignore-"


def verify(fields: Mapping[str, str], bucket: str, *, now: datetime, signer: Signer) -> tuple[str, SizeRange | None]:
    """The account that signed the policy which these fields of a form comply with, and how large the file may be.

    Raises SignatureError.
    """
    if "x-goog-algorithm" not in fields:
        raise _invalid("Only V4 policy documents are verified here; sign with generate_signed_post_policy_v4.")
    algorithm = check_algorithm(fields["x-goog-algorithm"])
    absent = [name for name in ("x-goog-credential", "x-goog-date", "x-goog-signature") if not fields.get(name)]
    if absent:
        raise _invalid(f"Missing form fields: {', '.join(absent)}")
    identity, scope = credential(fields["x-goog-credential"])
    try:
        signature = bytes.fromhex(fields["x-goog-signature"])
    except ValueError:
        raise _invalid("x-goog-signature must be hexadecimal.") from None
    email = signer(algorithm, identity, scope, fields["policy"].encode(), signature)
    if email is None:
        raise SignatureError(
            "SignatureDoesNotMatch",
            "Access denied.",
            "The request signature we calculated does not match the signature you provided. Check your Google secret"
            " key and signing method.",
            StringToSign=fields["policy"],
        )
    expiration, conditions = _read(fields["policy"])
    if now >= expiration:
        raise SignatureError(
            "ExpiredToken",
            "The provided token has expired.",
            f"The policy document expired at: {expiration.isoformat()}",
            status=400,
        )
    return email, _complies({**fields, "bucket": bucket}, conditions, posted=set(fields))


def _read(policy: str) -> tuple[datetime, list[Any]]:
    try:
        document = json.loads(base64.b64decode(policy, validate=True))
        expiration, conditions = times.parse(document["expiration"]), document["conditions"]
    except (binascii.Error, ValueError, KeyError, TypeError):
        raise _invalid("The policy document is not the base64 of JSON with an expiration and conditions.") from None
    if not isinstance(conditions, list):
        raise _invalid("The conditions of a policy document are a list.")
    return expiration, conditions


def _complies(fields: Mapping[str, str], conditions: list[Any], *, posted: set[str]) -> SizeRange | None:
    """Raises SignatureError naming the condition that does not hold, or the field that no condition is about."""
    named: set[str] = set()
    sizes: SizeRange | None = None
    for condition in conditions:
        match condition:
            case dict():
                exact = [(str(name).lower(), str(value)) for name, value in condition.items()]
                named |= {name for name, _ in exact}
                holds = all(fields.get(name) == value for name, value in exact)
            case ["content-length-range", int(smallest), int(largest)]:
                sizes = SizeRange(smallest=smallest, largest=largest)
                continue
            case ["eq" | "starts-with" as test, str(field), str(value)] if field.startswith("$"):
                name = field[1:].lower()
                named.add(name)
                given = fields.get(name)
                holds = given is not None and (given == value if test == "eq" else given.startswith(value))
            case _:
                raise _invalid(f"Cannot read the condition: {json.dumps(condition)}")
        if not holds:
            raise _fails(f"Failed condition: {json.dumps(condition)}")
    extra = sorted(name for name in posted - named - FREE_FIELDS if not name.startswith(IGNORED_PREFIX))
    if extra:
        raise _fails(f"Policy did not reference these fields: {', '.join(extra)}")
    return sizes


def _invalid(details: str) -> SignatureError:
    return SignatureError("InvalidArgument", "Invalid argument.", details, status=400)


def _fails(details: str) -> SignatureError:
    return SignatureError(
        "InvalidPolicyDocument",
        "The content of the form does not meet the conditions specified in the policy document.",
        details,
        status=400,
    )
